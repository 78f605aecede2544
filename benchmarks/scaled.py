"""What scaled decoding changes in a classifier's answers."""

from pathlib import Path

import numpy as np

from gluon_asymmnet.predict import Predictor
from gluon_asymmnet.predict.images import find_pictures, prepared_batches
from tools.markdown import markdown_table

_BATCH = 32


def measure(model, folder, threads: int = 2) -> list[dict]:
    """Compare the answers for the pictures of a folder, decoded as a whole and scaled.

    Args:
        model: as for ``Predictor``; with weights that know the pictures.

    Returns: one row; differences of logits are in their standard deviations.
    """
    predictor, paths = Predictor(model, threads=threads), find_pictures(folder)

    def logits(scaled: bool) -> np.ndarray:
        def prepare(path: Path) -> np.ndarray:
            return predictor.prepare(path, scaled_decoding=scaled)

        batches = prepared_batches(paths, prepare, _BATCH, threads)
        return np.concatenate([predictor.predict(batch) for batch in batches])

    whole, scaled = logits(False), logits(True)
    best = whole.argmax(axis=1)
    ranks = (scaled > scaled[np.arange(len(best)), best][:, None]).sum(axis=1)
    return [{
        "model": str(predictor.weights.name), "pictures": len(paths),
        "scaled": int((whole != scaled).any(axis=1).sum()),
        "same_best": float((ranks == 0).mean()), "best_in_5": float((ranks < 5).mean()),
        "logits": float(np.abs(whole - scaled).mean() / whole.std()),
    }]  # fmt: skip


def table(rows: list[dict]) -> str:
    """Return the rows of ``measure`` as a table."""
    head = ("model", "pictures", "changed", "same best class", "best class among the 5 best",
            "mean difference of logits, standard deviations")  # fmt: skip
    lines = [
        (
            row["model"], row["pictures"], row["scaled"], f"{100 * row['same_best']:.1f} %",
            f"{100 * row['best_in_5']:.1f} %", f"{row['logits']:.3f}",
        )
        for row in rows
    ]  # fmt: skip
    return markdown_table(head, lines)

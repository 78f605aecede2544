"""A table of the runs below a folder."""

import os
from pathlib import Path
from typing import Any

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.report.run_files import Run, read_run

# They name and place a run; the path shows them.
_PLACES = frozenset({"tag_name", "save_dir", "save_prefix", "logging_file", "resume"})


def find_runs(folder) -> list[Run]:
    """Return the runs in and below a folder, by path.

    Raises: InputError if there is no such folder, or no run in it.
    """
    folder, found = Path(folder), []
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one with training runs")
    for path, inner, files in os.walk(folder):
        inner.sort()
        if "config.json" in files:
            found.append(read_run(path))
            inner.clear()  # its checkpoints have copies
    if not found:
        raise InputError(f"{folder}: no run in it or below it (no config.json)")
    return found


def table(runs: list[Run], folder) -> list[dict[str, Any]]:
    """Return a row per run, the best first; JSON values.

    ``run`` (path below ``folder``), ``model``, ``state``, ``epochs`` (done), ``of``, ``metric`` and
    ``best`` (None: nothing validated), ``best_epoch``, and ``settings``: those that differ.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.config))
    differing = [
        name for name in names
        if name not in _PLACES and len({repr(run.config.get(name)) for run in runs}) > 1
    ]  # fmt: skip
    rows = [
        {
            "run": os.path.relpath(run.path, folder),
            "model": run.config.get("model") or run.config.get("network"),
            "state": run.state,
            "epochs": run.metrics[-1]["epoch"] + 1 if run.metrics else 0,
            "of": run.epochs or None,
            "metric": run.score.removeprefix("val_"),
            "best": run.best[run.score] if run.best else None,
            "best_epoch": run.best["epoch"] if run.best else None,
            "settings": {name: run.config.get(name) for name in differing},
        }
        for run in runs
    ]
    return sorted(rows, key=lambda row: -1 if row["best"] is None else row["best"], reverse=True)


def lines(rows: list[dict[str, Any]]) -> str:
    """Write what ``table`` returns for a person."""
    heads = ["run", "state", "epochs", "best", "at", *rows[0]["settings"]]
    cells = [heads]
    for row in rows:
        best = "-" if row["best"] is None else f"{row['metric']} {row['best']:.4f}"
        at = "-" if row["best_epoch"] is None else str(row["best_epoch"])
        epochs = f"{row['epochs']}/{row['of'] or '?'}"
        settings = [_shown(value) for value in row["settings"].values()]
        cells.append([row["run"], row["state"], epochs, best, at, *settings])
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells
    )


def _shown(value) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."

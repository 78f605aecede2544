"""Evaluation from Python: ``gluon_asymmnet.evaluate``."""

from collections.abc import Sequence

from tqdm.auto import tqdm

from gluon_asymmnet.data.datasets import open_dataset
from gluon_asymmnet.data.sources import check_labels, match_source, open_source
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation import classification
from gluon_asymmnet.predict import Predictor
from gluon_asymmnet.utils.bars import shows_bars
from gluon_asymmnet.utils.registry import import_modules


def evaluate(
    path, *, rec_val: str = "", rec_val_idx: str = "", data_dir: str = "", dataset: str = "",
    engine: str = "auto", batch_size: int = 64, num_workers: int = 2, imports: Sequence[str] = (),
) -> classification.Evaluation:  # fmt: skip
    """Evaluate a classifier on every image of a set, once each.

    Args:
        path: as in ``Predictor``: a run, an exported folder or file.
        rec_val, data_dir, dataset: one of them: records, a folder of class folders, or an own data
            set, whose split val is taken.
        num_workers: decoding threads.
        imports: modules that register own parts.

    Raises: InputError, FormatError, FileNotFoundError.
    """
    if sum(map(bool, (rec_val, data_dir, dataset))) != 1:
        raise InputError("give rec_val, data_dir or dataset, one of them")
    import_modules(imports)
    model = Predictor(path, engine)
    if dataset:
        source = open_dataset(dataset, "val")
    else:
        source = open_source(rec=rec_val, idx=rec_val_idx, folder=data_dir)
    if source is None:
        raise InputError(f"data set {dataset} has no split val")
    card = model.card
    source = match_source(source, card.class_names, card.classes, "the model")
    check_labels(source, card.classes)
    with tqdm(total=len(source), unit="image", disable=not shows_bars(), leave=False) as bar:
        return classification.evaluate(
            model.predict, source, classes=card.classes, preprocessing=card.preprocessing,
            batch_size=batch_size, threads=num_workers,
            progress=lambda done, _: bar.update(done - bar.n),
        )  # fmt: skip

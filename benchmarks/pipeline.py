"""Candidates from picture files to classes: large pictures, and folders.

``case.folder`` is an exported folder; beside it are ``large.jpg`` and the folder ``pictures``.
"""

from pathlib import Path

from benchmarks.candidates import Call, Case

FOLDER_IMAGES = 2000


def _beside(case: Case, name: str) -> Path:
    return Path(case.folder).parent / name


def _predictor(case: Case, engine: str = "onnxruntime"):
    from gluon_asymmnet import Predictor

    return Predictor(case.folder, engine, threads=case.threads)


def _without_simplejpeg() -> None:
    from gluon_asymmnet.data import images

    images.simplejpeg = None


def prepare_opencv(case: Case) -> Call:
    """Preprocessing of ``picture.jpg`` without simplejpeg."""
    _without_simplejpeg()
    predictor, path = _predictor(case), _beside(case, "picture.jpg")
    return lambda: predictor.prepare(path)


def prepare_large(case: Case) -> Call:
    """Preprocessing of 12 megapixels."""
    predictor, path = _predictor(case), _beside(case, "large.jpg")
    return lambda: predictor.prepare(path)


def prepare_large_opencv(case: Case) -> Call:
    """The same without simplejpeg."""
    _without_simplejpeg()
    return prepare_large(case)


def prepare_large_scaled(case: Case) -> Call:
    """Preprocessing of 12 megapixels, decoded at 1/8 of their size."""
    predictor, path = _predictor(case), _beside(case, "large.jpg")
    return lambda: predictor.prepare(path, scaled_decoding=True)


def prepare_large_scaled_opencv(case: Case) -> Call:
    """The same without simplejpeg."""
    _without_simplejpeg()
    return prepare_large_scaled(case)


def _paths(case: Case) -> list[Path]:
    return sorted(_beside(case, "pictures").iterdir())


def folder_prepared(case: Case) -> Call:
    """A folder's pictures read and preprocessed on threads, without a net."""
    from gluon_asymmnet.predict.images import prepared_batches

    prepare, paths = _predictor(case).prepare, _paths(case)
    return lambda: sum(map(len, prepared_batches(paths, prepare, case.batch, case.threads)))


def folder_inferred(case: Case) -> Call:
    """As many pictures through the net, without reading them."""
    import numpy as np

    predictor, paths = _predictor(case), _paths(case)
    batch = np.stack([predictor.prepare(path) for path in paths[: case.batch]])
    return lambda: [predictor.rank(batch) for _ in range(len(paths) // case.batch)]


def folder_in_turn(case: Case) -> Call:
    """As 0.1.0: one thread reads a batch without simplejpeg, then the net computes it."""
    import numpy as np

    _without_simplejpeg()
    predictor, paths = _predictor(case), _paths(case)

    def call():
        for first in range(0, len(paths), case.batch):
            part = paths[first : first + case.batch]
            predictor.rank(np.stack([predictor.prepare(path) for path in part]))

    return call


def folder_classified(case: Case) -> Call:
    """``Predictor.classify`` of a folder's pictures."""
    predictor, paths = _predictor(case), _paths(case)
    return lambda: predictor.classify(paths, batch_size=case.batch)


def folder_classified_opencv(case: Case) -> Call:
    """The same without simplejpeg."""
    _without_simplejpeg()
    return folder_classified(case)


LARGE = (prepare_large_opencv, prepare_large, prepare_large_scaled_opencv, prepare_large_scaled)
FOLDER = (
    folder_in_turn, folder_prepared, folder_inferred, folder_classified_opencv, folder_classified
)  # fmt: skip
CANDIDATES = {function.__name__: function for function in (prepare_opencv, *LARGE, *FOLDER)}

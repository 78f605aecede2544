"""Candidates that read files: int8 engines, and classification of a JPEG file.

``case.folder`` is an exported folder; ``picture.jpg`` and ``int8-<engine>/`` are beside it.
"""

from pathlib import Path

from benchmarks.candidates import Call, Case, _images


def _predictor(case: Case, engine: str, folder=None):
    from gluon_asymmnet import Predictor

    return Predictor(folder or case.folder, engine, threads=case.threads)


def _int8(case: Case, engine: str) -> Call:
    predictor = _predictor(case, engine, Path(case.folder).parent / f"int8-{engine}")
    images = _images(case)
    return lambda: predictor.predict(images)


def onnxruntime_int8(case: Case) -> Call:
    """ONNX Runtime with everything in 8 bits."""
    return _int8(case, "onnxruntime")


def openvino_int8(case: Case) -> Call:
    """OpenVINO with everything but the squeeze-and-excites in 8 bits."""
    return _int8(case, "openvino")


def onnxruntime_spinning(case: Case) -> Call:
    """ONNX Runtime with its defaults: threads spin while they wait, which we turn off."""
    import onnxruntime as library

    options = library.SessionOptions()
    options.intra_op_num_threads = case.threads
    (path,) = Path(case.folder).glob("*.onnx")
    session = library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {"data": _images(case)}
    return lambda: session.run(None, feed)


def prepare(case: Case) -> Call:
    """Preprocessing alone: read a JPEG file, decode, resize, crop, normalise."""
    from gluon_asymmnet.card import CARD_FILE, read_card
    from gluon_asymmnet.predict.images import read_image
    from gluon_asymmnet.utils.memory import keep_freed_memory

    keep_freed_memory()  # as a predictor does
    preprocessing = read_card(Path(case.folder) / CARD_FILE).preprocessing
    path = _picture(case)
    return lambda: preprocessing(read_image(path))


def _classify(case: Case, engine: str) -> Call:
    predictor, path = _predictor(case, engine), _picture(case)
    return lambda: predictor.classify([path] * case.batch)


def _picture(case: Case) -> Path:
    return Path(case.folder).parent / "picture.jpg"


def classify_mxnet(case: Case) -> Call:
    """Classify a JPEG file with MXNet."""
    return _classify(case, "mxnet")


def classify_onnxruntime(case: Case) -> Call:
    """Classify a JPEG file with ONNX Runtime."""
    return _classify(case, "onnxruntime")


def classify_openvino(case: Case) -> Call:
    """Classify a JPEG file with OpenVINO."""
    return _classify(case, "openvino")


INFER = (onnxruntime_spinning, onnxruntime_int8, openvino_int8)
PICTURES = (prepare, classify_mxnet, classify_onnxruntime, classify_openvino)
CANDIDATES = {function.__name__: function for function in (*INFER, *PICTURES)}

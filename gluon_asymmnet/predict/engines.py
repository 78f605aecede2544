"""What runs an exported model: one small class per library, all with the same surface.

An engine has ``predict``, ``classes`` (values per image), ``size`` (side of its input in pixels;
None: any) and ``card``, the one inside the file or None.  A file that its library cannot read is
a FormatError in one line.
"""

from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet.card import Card, parse_card
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.extras import load_extra, require
from gluon_asymmnet.threads import available, set_threads

PRECISIONS = ("f32", "bf16")
RT_INFO = ("gluon_asymmnet", "card")  # where the card stands in the IR
_RT_INFO_OF_ONNX = ("framework", "card")  # where OpenVINO puts the metadata of an ONNX file
_HEAD = 1024  # bytes in which an IR says that it is one
_REASON = 300  # characters of a library's message that are passed on


class OnnxRuntime:
    """ONNX Runtime on the CPU."""

    def __init__(self, path: Path, threads: int = 0, precision: str = "f32"):
        _only_f32("onnxruntime", precision)
        library = load_extra("onnxruntime")
        options = library.SessionOptions()
        # Always a number: left at 0, it takes a thread per physical core and pins them, and in a
        # container that may not use all processors it prints an error for each.
        options.intra_op_num_threads = threads or available()
        options.inter_op_num_threads = 1
        # Threads that spin while they wait take the processors from whoever has work: beside other
        # programs a call took eight times as long as without.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = library.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors share no base class
            raise _unreadable(path, "onnxruntime", error) from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        _check_ports(path, len(inputs), len(outputs))
        self._input = inputs[0].name
        self.size = _size(path, inputs[0].shape)
        self.classes = _classes(path, outputs[0].shape)
        text = self._session.get_modelmeta().custom_metadata_map.get("card")
        self.card = parse_card(text, path) if text else None

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Map ``(n, 3, H, W)`` float32 to ``(n, classes)`` logits."""
        return self._session.run(None, {self._input: images})[0]


class OpenVino:
    """OpenVINO on the CPU, from an IR or an ONNX file."""

    def __init__(self, path: Path, threads: int = 0, precision: str = "f32"):
        library = load_extra("openvino")
        # Said in either case: left alone, OpenVINO takes bfloat16 where the processor has it.
        settings = {"INFERENCE_PRECISION_HINT": precision}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            model = _read_openvino(library, Path(path))
        except Exception as error:  # its errors share no base class
            raise _unreadable(path, "openvino", error) from None
        _check_ports(path, len(model.inputs), len(model.outputs))
        self._compiled = library.Core().compile_model(model, "CPU", settings)
        self.size = _size(path, _dimensions(model.inputs[0]))
        self.classes = _classes(path, _dimensions(model.outputs[0]))
        self.card = _card_in(model, path)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Map ``(n, 3, H, W)`` float32 to ``(n, classes)`` logits."""
        return self._compiled(images)[0]


class MXNet:
    """MXNet on the CPU, from an exported symbol, a run directory or a parameter file."""

    def __init__(self, path: Path, threads: int = 0, precision: str = "f32"):
        _only_f32("mxnet", precision)
        require("mxnet")
        set_threads(threads)
        from gluon_asymmnet.saved import open_model

        self._model = open_model(path)
        self.card, self.size = self._model.card, None
        side = self.card.input_size
        self.classes = self.predict(np.zeros((1, 3, side, side), np.float32)).shape[1]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Map ``(n, 3, H, W)`` float32 to ``(n, classes)`` logits."""
        return self._model.predict(images)


ENGINES = {"mxnet": MXNet, "onnxruntime": OnnxRuntime, "openvino": OpenVino}


def _only_f32(engine: str, precision: str) -> None:
    if precision != "f32":
        raise InputError(f"precision {precision} is for openvino; {engine} computes in f32")


def _read_openvino(library, path: Path):
    """Read an IR or ONNX file; some exception if it is none.

    Core.read_model offers what it cannot read to its TensorFlow reader, which prints to stderr.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if path.suffix == ".onnx":
        reader = library.frontend.FrontEndManager().load_by_framework("onnx")
        return reader.convert(reader.load(str(path)))
    if b"<net " not in head:
        raise ValueError("it is not the XML of a network")
    return library.Core().read_model(str(path))


def _dimensions(port) -> list:
    return [d.get_length() if d.is_static else None for d in port.get_partial_shape()]


def _card_in(model, path: Path) -> Optional[Card]:
    for place in (RT_INFO, _RT_INFO_OF_ONNX):
        if model.has_rt_info(list(place)):
            return parse_card(model.get_rt_info(list(place)).astype(str), path)
    return None


def _check_ports(path: Path, inputs: int, outputs: int) -> None:
    if (inputs, outputs) != (1, 1):
        raise FormatError(
            f"{path} has {inputs} inputs and {outputs} outputs; a classifier has one of each"
        )


def _size(path: Path, shape: list) -> Optional[int]:
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
        raise FormatError(f"{path} takes {shape}; a classifier takes (batch, 3, size, size)")
    return shape[2] if isinstance(shape[2], int) else None


def _classes(path: Path, shape: list) -> int:
    if len(shape) != 2 or not isinstance(shape[1], int):
        raise FormatError(f"{path} gives {shape}; a classifier gives (batch, classes)")
    return shape[1]


def _unreadable(path: Path, engine: str, error: Exception) -> FormatError:
    reason = " ".join(str(error).split())
    return FormatError(f"{path}: {engine} cannot read it: {reason[:_REASON]}")

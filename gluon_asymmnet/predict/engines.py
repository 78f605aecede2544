"""The engines that run exported models: one class per library, all with the same interface.

An engine has ``run``, which maps ``(n, 3, H, W)`` float32 to the model's outputs; ``inputs`` and
``outputs``, their shapes, where a dimension that is not a whole number is free; and
``card_text``, the card inside the file or None.  A file that the library cannot read raises a
one-line FormatError.  Any number of threads may call ``run`` at the same time.
"""

import threading
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from gluon_asymmnet.card import CARD_FILE, read_card
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.predict.onnx_header import read_onnx_header
from gluon_asymmnet.utils.extras import load_extra, require
from gluon_asymmnet.utils.opencv import set_log_level
from gluon_asymmnet.utils.threads import available, set_threads

F32, BF16, INT8 = "f32", "bf16", "int8"
RT_INFO = ("gluon_asymmnet", "card")  # path of the card in the IR
_RT_INFO_OF_ONNX = ("framework", "card")  # where OpenVINO puts the metadata of an ONNX file
NCNN, NCNN_HALF = ".ncnn.param", ".ncnn-fp16.param"  # ends of names; the weights are in .bin
_NCNN_MAGIC = b"7767517\n"
_HEAD = 1024  # bytes; an IR's <net> element starts within them
_REASON = 300  # characters of a library's message that are shown


class OnnxRuntime:
    """ONNX Runtime on the CPU."""

    def __init__(self, path: Path, threads: int = 0, precision: str = "f32"):
        _only_f32("onnxruntime", precision)
        library = load_extra("onnxruntime")
        options = library.SessionOptions()
        # Never 0: that pins one thread to each physical core, which prints an error for each core
        # that a container may not use.
        options.intra_op_num_threads = threads or available()
        options.inter_op_num_threads = 1
        # Spinning threads take the processors from other programs: beside some, a call took eight
        # times as long.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Without VNNI its 8-bit products of unsigned and signed numbers overflow, in pairs, and are
        # cut off at 16 bits.  This makes the weights unsigned there.
        options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self._session = library.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors share no base class
            raise _unreadable(path, "onnxruntime", error) from None
        ports = self._session.get_inputs()
        self.inputs = [port.shape for port in ports]
        self.outputs = [port.shape for port in self._session.get_outputs()]
        self._name = ports[0].name if ports else ""
        self.card_text = self._session.get_modelmeta().custom_metadata_map.get("card")

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for a batch."""
        return self._session.run(None, {self._name: images})


class OpenVino:
    """OpenVINO on the CPU, from an IR or an ONNX file."""

    _loading = threading.Lock()

    def __init__(self, path: Path, threads: int = 0, precision: str = "f32"):
        library = load_extra("openvino")
        # pybind11 loads NumPy's interface when a tensor first becomes an array.  Two threads that
        # do so at the same time hold its guard and Python's lock, and wait for each other for ever.
        with self._loading:
            _ = library.Tensor(np.zeros(1, np.float32)).data
        # Always set: by default OpenVINO uses bfloat16 where the processor supports it.
        settings = {"INFERENCE_PRECISION_HINT": precision}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            model = _read_openvino(library, Path(path))
        except Exception as error:  # its errors share no base class
            raise _unreadable(path, "openvino", error) from None
        self.inputs = [_dimensions(port) for port in model.inputs]
        self.outputs = [_dimensions(port) for port in model.outputs]
        self.card_text = _card_in(model)
        if self.inputs and self.outputs:  # OpenVINO cannot compile an empty model
            self._compiled = library.Core().compile_model(model, "CPU", settings)
        # A request holds the input and the outputs of one call.  As many are made as calls overlap;
        # append and pop of a list are atomic.
        self._free_requests = []

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for a batch."""
        try:
            request = self._free_requests.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            found = request.infer([images])  # copies of the outputs
        finally:
            self._free_requests.append(request)
        return [found[i] for i in range(len(self.outputs))]


class OpenCv:
    """OpenCV's module dnn on the CPU, from an ONNX file."""

    _settings = threading.Lock()  # the log level and the number of threads are OpenCV's own

    def __init__(self, path: Path, threads: int = 0, precision: str = "f32"):
        _only_f32("opencv", precision)
        data = path.read_bytes()
        try:
            header = read_onnx_header(data)
            with self._settings:
                level = set_log_level(0)  # it prints what it also raises
                try:
                    self._net = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
                finally:
                    set_log_level(level)
        except (ValueError, cv2.error) as error:
            raise _unreadable(path, "opencv", error) from None
        self.inputs, self.outputs = header.inputs, [*header.outputs.values()]
        self.card_text = header.card_text
        self._path, self._names, self._threads = path, [*header.outputs], threads or available()
        self._lock = threading.Lock()

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for a batch."""
        with self._lock:
            cv2.setNumThreads(self._threads)  # the loaders set it to none
            self._net.setInput(images)
            try:
                outputs = self._net.forward(self._names)
            except cv2.error as error:
                raise RunError(f"{self._path}: opencv cannot run it: {_reason(error)}") from None
            return [output.copy() for output in outputs]  # the next call writes over them


class MXNet:
    """MXNet on the CPU, from an exported symbol, a run directory or a parameter file."""

    _lock = threading.RLock()  # of all nets: MXNet's Python side is for one thread at a time

    def __init__(self, path: Path, threads: int = 0, precision: str = "f32"):
        _only_f32("mxnet", precision)
        require("mxnet")
        set_threads(threads)
        from gluon_asymmnet._mxnet import mx
        from gluon_asymmnet.saved import open_saved, optimized

        self._model = open_saved(path)
        self._run = optimized(self._model).outputs
        side = self._model.card.input_size
        try:
            found = self.run(np.zeros((1, 3, side, side), np.float32))
        except (mx.base.MXNetError, ValueError) as error:  # a symbol with the card of another
            raise _unreadable(path, "mxnet", str(error).strip().splitlines()[-1]) from None
        self.inputs = [[None, 3, None, None]]
        self.outputs = [[None, *array.shape[1:]] for array in found]
        self.card_text = None  # the card is beside the file

    @property
    def net(self):
        """The network as it was opened."""
        return self._model.net

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for a batch."""
        with self._lock:
            return list(self._run(images))


class Ncnn:
    """ncnn on the CPU, in single precision; the card beside the file has its input's side."""

    _SWITCHES = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage",
                 "use_vulkan_compute")  # fmt: skip

    def __init__(
        self, path: Path, threads: int = 0, precision: str = "f32", *, side: Optional[int] = None
    ):
        _only_f32("ncnn", precision)
        library = load_extra("ncnn")
        side = side or read_card(path.parent / CARD_FILE).input_size
        weights = path.with_suffix(".bin")
        # Before ncnn, which prints what is wrong and returns a bare -1.
        if not weights.is_file():
            raise FileNotFoundError(f"{weights}: no such file; expected the weights of {path.name}")
        with path.open("rb") as file:
            if file.read(len(_NCNN_MAGIC)) != _NCNN_MAGIC:
                raise _unreadable(path, "ncnn", "it does not start with 7767517")
        self._library, self._path, self._net = library, path, library.Net()
        for switch in self._SWITCHES:
            setattr(self._net.opt, switch, False)
        self._net.opt.num_threads = threads or available()
        if self._net.load_param(str(path)) or self._net.load_model(str(weights)):
            raise _unreadable(path, "ncnn", "the file or its .bin is damaged")
        self.card_text = None
        self.inputs = [[None, 3, side, side]]
        zeros = np.zeros((1, 3, side, side), np.float32)
        self.outputs = [[None, *array.shape[1:]] for array in self.run(zeros)]

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for a batch, computed image by image."""
        results = [self._run_one(image) for image in images]
        return [np.stack(arrays) for arrays in zip(*results)]

    def _run_one(self, image: np.ndarray) -> list[np.ndarray]:
        extractor = self._net.create_extractor()
        extractor.input(self._net.input_names()[0], self._library.Mat(image))
        found = [extractor.extract(name) for name in self._net.output_names()]
        if not found or any(status for status, _ in found):
            raise RunError(f"{self._path}: ncnn cannot run it")
        return [np.array(output) for _, output in found]


ENGINES = {
    "mxnet": MXNet, "onnxruntime": OnnxRuntime, "openvino": OpenVino, "opencv": OpenCv,
    "ncnn": Ncnn,
}  # fmt: skip


def computes_bf16() -> bool:
    """Return whether OpenVINO computes in bfloat16 on this processor; elsewhere it takes f32."""
    core = load_extra("openvino").Core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _only_f32(engine: str, precision: str) -> None:
    if precision != "f32":
        raise InputError(f"precision {precision} is for openvino; {engine} computes in f32")


def _read_openvino(library, path: Path):
    """Read an IR or ONNX file; any exception if it is neither.

    Not by Core.read_model alone: it passes unknown files to its TensorFlow reader, which prints to
    stderr.
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


def _card_in(model) -> Optional[str]:
    for place in (RT_INFO, _RT_INFO_OF_ONNX):
        if model.has_rt_info(list(place)):
            return model.get_rt_info(list(place)).astype(str)
    return None


def _unreadable(path: Path, engine: str, error) -> FormatError:
    return FormatError(f"{path}: {engine} cannot read it: {_reason(error)}")


def _reason(error) -> str:
    return " ".join(str(error).split())[:_REASON]

"""PyTorch's ``.pt`` files of a state_dict.

Writing needs no PyTorch: the file is a zip archive of the raw values and a short pickle that
describes the tensors.  PyTorch reads the files: its ``weights_only`` reader refuses everything but
tensors and knows all older versions of the format.

Source: pytorch/pytorch, ``torch/serialization.py``, ``_save``; ``torch/_utils.py``.
"""

import pickle
import re
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from gluon_asymmnet.errors import FormatError, InputError

_STORAGES = {
    "float16": "HalfStorage",
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
}


def read_state_dict(path) -> dict[str, np.ndarray]:
    """Read the tensors of a state_dict as arrays; nothing in the file is executed.

    Raises:
        InputError: if PyTorch is not installed.
        FormatError: if the file is damaged, or contains anything but named dense tensors.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise InputError(
            f"{path} is a PyTorch file and needs PyTorch: pip install 'gluon_asymmnet[torch]'"
        ) from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises any exception
        raise FormatError(
            f"{path}: not a valid file of plain tensors, and nothing else is loaded: "
            f"{_reason(error)}"
        ) from None
    if not isinstance(state, dict):
        raise FormatError(f"{path}: holds a {type(state).__name__}, expected a state_dict")
    return {name: _array(path, name, tensor) for name, tensor in state.items()}


def write_state_dict(path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write ``{name: tensor}`` for ``torch.load``, also with ``weights_only=True``.

    Raises: InputError for a dtype other than float16, float32, float64 and int64.
    """
    index = _pickled(arrays)
    with open(path, "wb") as file, zipfile.ZipFile(file, "w") as archive:

        def add(name: str, data: bytes) -> None:
            # a new ZipInfo has a fixed date, so equal weights make equal files
            member = zipfile.ZipInfo(f"archive/{name}")
            header = 30 + len(member.filename) + 4  # bytes, the last four of the padding itself
            padding = -(file.tell() + header) % 64  # as in PyTorch, for torch.load(mmap=True)
            member.extra = struct.pack("<2sH", b"FB", padding) + bytes(padding)
            archive.writestr(member, data)

        add("data.pkl", index)
        add("byteorder", b"little")
        for key, array in enumerate(arrays.values()):
            values = array.astype(array.dtype.newbyteorder("<"), copy=False)
            add(f"data/{key}", values.tobytes())
        add("version", b"3\n")


def _reason(error: Exception) -> str:
    """Return PyTorch's reason without its advice to load the file in an unsafe way."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named:
        return f"it names {named[1]}"
    sentence = re.split(r"\. |\n", str(error))[0]
    return f"{type(error).__name__}: {sentence[:200]}"


def _array(path, name, tensor) -> np.ndarray:
    if not isinstance(name, str) or not hasattr(tensor, "detach"):
        raise FormatError(
            f"{path}: {name!r} is a {type(tensor).__name__}, expected a tensor; save a state_dict "
            f"alone, as torch.save(net.state_dict(), ...) does"
        )
    try:
        return tensor.detach().numpy()
    except (TypeError, RuntimeError):
        raise FormatError(
            f"{path}: {name!r} is a tensor of {tensor.dtype}, {tensor.layout}, which NumPy does "
            f"not have; save it as a dense float32 one"
        ) from None


# ------------------------------------------------------------------------------ the pickle

_NEW_DICT, _MARK, _TUPLE, _REDUCE, _PERSISTENT, _FALSE = b"}", b"(", b"t", b"R", b"Q", b"\x89"


def _pickled(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the pickle of ``{name: tensor}`` as ``torch.save`` makes it, without a memo."""
    items = b"".join(
        _text(name) + _tensor(key, name, array) for key, (name, array) in enumerate(arrays.items())
    )
    return pickle.PROTO + b"\x02" + _NEW_DICT + _MARK + items + pickle.SETITEMS + pickle.STOP


def _tensor(key: int, name: str, array: np.ndarray) -> bytes:
    """``_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks)``."""
    if array.dtype.name not in _STORAGES:
        raise InputError(f"{name!r} is {array.dtype}, expected one of {', '.join(_STORAGES)}")
    storage = _tuple(
        _text("storage"),
        _global("torch", _STORAGES[array.dtype.name]),
        _text(str(key)),
        _text("cpu"),
        _number(array.size),
    )
    stride = [int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim)]
    arguments = _tuple(
        storage + _PERSISTENT,
        _number(0),
        _tuple(*map(_number, array.shape)),
        _tuple(*map(_number, stride)),
        _FALSE,
        _global("collections", "OrderedDict") + _tuple() + _REDUCE,
    )
    return _global("torch._utils", "_rebuild_tensor_v2") + arguments + _REDUCE


def _text(text: str) -> bytes:
    raw = text.encode("utf-8")
    return pickle.BINUNICODE + len(raw).to_bytes(4, "little") + raw


def _number(number: int) -> bytes:
    raw = pickle.encode_long(number)
    return pickle.LONG1 + bytes([len(raw)]) + raw


def _tuple(*items: bytes) -> bytes:
    return _MARK + b"".join(items) + _TUPLE


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()

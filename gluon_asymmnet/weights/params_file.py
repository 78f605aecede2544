"""MXNet's ``.params`` files, read and written without MXNet.

The format is what ``mx.nd.save`` and ``Block.save_parameters`` write; all integers are
little-endian:

    file   u64 0x112, u64 0, u64 number of arrays, the arrays,
           u64 number of names, then per name: u64 length in bytes, UTF-8
    array  u32 version, i32 storage (0 is dense), i32 ndim, ndim x i64,
           i32 device type, i32 device id, i32 dtype flag, the values in C order

Two older versions of the array have no storage field; the oldest has no version either: its first
word is ndim, and its dimensions are u32.  MXNet 1.9.1 reads all four, as this module does.  Unlike
MXNet, it refuses trailing bytes, repeated names and truncated values.

Each number is compared with the size of the file before it is used, so a damaged file needs no more
memory than a valid one of its size.

Source: apache/mxnet 1.9.1, src/ndarray/ndarray.cc, ``NDArray::Save`` and ``Load``; the tests
compare with files that MXNet writes.
"""

import os
import reprlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.atomic import new_file

_LIST_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA  # V3: saved under NumPy shape semantics
_DENSE = 0
_STORAGE = {-1: "undefined", 1: "row_sparse", 2: "csr"}
_CPU = 1
_DEVICES = (_CPU, 2, 3, 5)  # cpu, gpu, cpu_pinned, cpu_shared
_BFLOAT16 = 12
_DTYPES = {
    flag: np.dtype(name).newbyteorder("<")
    for flag, name in enumerate(
        ("float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool")
    )
}
_FLAGS = {dtype.name: flag for flag, dtype in _DTYPES.items()}
_MAX_NDIM = 32  # the limit of NumPy 1.x
_MAX_BYTES = 2**63 - 1  # NumPy's limit, also for an empty array without its sizes of 0
_SMALLEST_ARRAY = 20  # bytes: the oldest version with one dimension of size 0


class ArrayInfo(NamedTuple):
    """Name, shape and dtype of an array in a file."""

    name: str
    shape: tuple
    dtype: np.dtype


class _Extent(NamedTuple):
    """Shape, dtype and position of an array in a file."""

    shape: tuple
    dtype: np.dtype
    offset: int  # bytes from the start of the file


def read_params(path) -> dict:
    """Read the arrays of a ``.params`` file.

    Returns: ``{name: np.ndarray}`` in the file's order, with the file's names: those of ``export``
        start with ``arg:`` or ``aux:`` (see ``strip_prefixes``).

    Raises:
        FormatError: if the file is damaged, of another kind, has sparse or bfloat16 arrays, or is a
            list without names; the message has the position of the error.
        InputError: if ``path`` is not a regular file.
        FileNotFoundError: if there is no such file.
    """
    with _open(path) as file:
        cursor = _Cursor(file, path)
        return {name: cursor.values(extent) for name, extent in _read_index(cursor).items()}


def read_header(path) -> list:
    """Return an ``ArrayInfo`` for each array of a ``.params`` file, without reading the values.

    The whole structure is checked; errors as ``read_params``.
    """
    with _open(path) as file:
        index = _read_index(_Cursor(file, path))
    return [ArrayInfo(name, extent.shape, extent.dtype) for name, extent in index.items()]


def strip_prefixes(params: Mapping) -> dict:
    """Remove the ``arg:`` or ``aux:`` that ``HybridBlock.export`` puts before each name.

    Raises: InputError if two names become one.
    """
    stripped = {}
    for name, value in params.items():
        bare = name[4:] if name.startswith(("arg:", "aux:")) else name
        if bare in stripped:
            raise InputError(f"two arrays are named {bare!r} once arg: and aux: are dropped")
        stripped[bare] = value
    return stripped


def write_params(path, arrays: Mapping, *, np_shape: bool = False) -> None:
    """Write ``{name: np.ndarray}`` as ``mx.nd.save`` does, byte for byte, all or nothing.

    Args:
        arrays: dtypes float16/32/64, uint8, int8/32/64 and bool, of any memory layout.
        np_shape: write the version of ``mx.util.np_shape``, which MXNet reads only under it;
            needed for 0-dimensional arrays.

    Raises:
        InputError: for a name, shape or dtype that MXNet cannot read, or if ``path`` is a
            directory; nothing is written then.
        FileNotFoundError: if the folder does not exist.
        OSError: if the disk is full or not writable; an existing file stays unchanged.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a directory; a file name is needed")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: no such folder")
    headers = [_array_header(name, array, np_shape) for name, array in arrays.items()]
    names = [_encode_name(name) for name in arrays]
    with new_file(path) as scratch, scratch.open("wb") as file:
        file.write(struct.pack("<QQQ", _LIST_MAGIC, 0, len(headers)))
        for header, array in zip(headers, arrays.values()):
            file.write(header)
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        file.write(struct.pack("<Q", len(names)))
        for name in names:
            file.write(struct.pack("<Q", len(name)) + name)


# ------------------------------------------------------------------------------ reading


def _open(path):
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a directory; a .params file is needed")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; a .params file is needed")
    return path.open("rb")


class _Cursor:
    """Read a file forward; errors have the position."""

    def __init__(self, file, path):
        self.file = file
        self.path = path
        self.size = os.fstat(file.fileno()).st_size
        self.offset = 0
        self.last = 0  # start of the field that was read last, for error messages

    @property
    def left(self) -> int:
        return self.size - self.offset

    def error(self, problem: str) -> FormatError:
        return FormatError(f"{self.path}: {problem} (at byte {self.last} of {self.size})")

    def advance(self, count: int, what: str) -> None:
        """Move ``count`` bytes forward; FormatError if the file is too short."""
        self.last = self.offset
        if count > self.left:
            raise self.error(f"truncated: {what} needs {count} bytes, {self.left} are left")
        self.offset += count

    def skip(self, count: int, what: str) -> None:
        self.advance(count, what)
        self.file.seek(self.offset)

    def take(self, count: int, what: str) -> bytes:
        self.advance(count, what)
        data = self.file.read(count)
        if len(data) < count:
            raise self.error(f"became shorter while {what} was read")
        return data

    def numbers(self, layout: str, what: str) -> tuple:
        layout = f"<{layout}"
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))

    def values(self, extent: _Extent) -> np.ndarray:
        array = np.empty(extent.shape, extent.dtype)
        self.file.seek(extent.offset)
        if self.file.readinto(array.reshape(-1).view(np.uint8)) < array.nbytes:
            self.last = extent.offset
            raise self.error("became shorter while it was read")
        return array


def _read_index(cursor: _Cursor) -> dict:
    """Check the whole structure and return ``{name: _Extent}``, without reading the values."""
    count = _read_list_header(cursor)
    extents = [_read_array(cursor, f"array {i}") for i in range(count)]
    names = _read_names(cursor, count)
    cursor.last = cursor.offset
    if cursor.left:
        raise cursor.error(f"{cursor.left} bytes follow the last name")
    return dict(zip(names, extents))


def _read_list_header(cursor: _Cursor) -> int:
    head = cursor.file.read(512)
    cursor.file.seek(0)
    kind = kind_of(head)
    if kind is not None:
        raise cursor.error(f"not an MXNet .params file but {kind}")
    (magic,) = cursor.numbers("Q", "the magic number")
    if magic != _LIST_MAGIC:
        raise cursor.error(
            f"not an MXNet .params file: magic number {magic:#x}, expected {_LIST_MAGIC:#x}"
        )
    (reserved,) = cursor.numbers("Q", "the reserved word")
    if reserved:
        raise cursor.error(f"the reserved word is {reserved:#x}, expected 0")
    (count,) = cursor.numbers("Q", "the number of arrays")
    if count * _SMALLEST_ARRAY > cursor.left:
        raise cursor.error(f"says it holds {count} arrays, but {cursor.left} bytes follow")
    return count


def _read_array(cursor: _Cursor, what: str) -> _Extent:
    """Read the fields of one array and skip its values."""
    shape = _read_shape(cursor, what)
    device, number = cursor.numbers("ii", f"the device of {what}")
    if device not in _DEVICES or number < 0:
        raise cursor.error(f"{what} is on device type {device}, number {number}: no such device")
    (flag,) = cursor.numbers("i", f"the dtype of {what}")
    if flag == _BFLOAT16:
        raise cursor.error(f"{what} is bfloat16, which NumPy does not have; save it as float32")
    if flag not in _DTYPES:
        raise cursor.error(f"{what} has dtype flag {flag}, expected 0 to {max(_DTYPES)}")
    dtype = _DTYPES[flag]
    if _bytes_spanned(shape, dtype) > _MAX_BYTES:
        raise cursor.error(f"{what} has shape {shape}, too large for any machine")
    extent = _Extent(shape, dtype, cursor.offset)
    nbytes = 0 if 0 in shape else _bytes_spanned(shape, dtype)
    cursor.skip(nbytes, f"{what}, {dtype.name} of shape {shape},")
    return extent


def _read_shape(cursor: _Cursor, what: str) -> tuple:
    (version,) = cursor.numbers("I", f"the version of {what}")
    if version in (_V2, _V3):
        _read_storage(cursor, what)
    elif version != _V1 and version > _MAX_NDIM:
        raise cursor.error(f"{what} starts with {version:#x}, which is not an array version")
    if version in (_V1, _V2, _V3):
        (ndim,) = cursor.numbers("i", f"the number of dimensions of {what}")
        size_type = "q"
    else:
        ndim, size_type = version, "I"
    # MXNet writes this number of dimensions, and nothing after it, for an array without a shape.
    if ndim == (-1 if version == _V3 else 0):
        raise cursor.error(f"{what} was saved before it had a shape or values")
    if not 0 <= ndim <= _MAX_NDIM:
        raise cursor.error(f"{what} has {ndim} dimensions, expected at most {_MAX_NDIM}")
    shape = cursor.numbers(size_type * ndim, f"the shape of {what}")
    if any(size < 0 for size in shape):
        raise cursor.error(f"{what} has shape {shape}, expected sizes of 0 or more")
    return shape


def _read_storage(cursor: _Cursor, what: str) -> None:
    (storage,) = cursor.numbers("i", f"the storage type of {what}")
    if storage != _DENSE:
        name = _STORAGE.get(storage, "unknown")
        raise cursor.error(f"{what} has storage type {storage} ({name}), only dense is read")


def _bytes_spanned(shape: tuple, dtype: np.dtype) -> int:
    """Return the bytes of an array, exactly, where dimensions of size 0 count as 1."""
    spanned = dtype.itemsize
    for size in shape:
        spanned *= max(size, 1)
    return spanned


def _read_names(cursor: _Cursor, count: int) -> list:
    (named,) = cursor.numbers("Q", "the number of names")
    if named == 0 < count:
        raise cursor.error(f"a list of {count} arrays without names; save a dict, name to array")
    if named != count:
        raise cursor.error(f"{named} names for {count} arrays")
    names = {}  # a dict keeps the order and finds repetitions
    for i in range(count):
        name = _read_name(cursor, f"name {i}")
        if name in names:
            raise cursor.error(f"name {i} repeats {reprlib.repr(name)}")
        names[name] = i
    return list(names)


def _read_name(cursor: _Cursor, what: str) -> str:
    (length,) = cursor.numbers("Q", f"the length of {what}")
    raw = cursor.take(length, what)
    if b"\0" in raw:  # names are C strings in MXNet
        raise cursor.error(f"{what} contains NUL: {reprlib.repr(raw)}")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise cursor.error(f"{what} is not UTF-8: {reprlib.repr(raw)}") from None


_PICKLE = "a Python pickle (.states files are pickles)"
_TEXT = "text, perhaps JSON"
_KINDS = {  # by their first bytes; the first match counts
    b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19": "a PyTorch file (before 1.6)",
    b"\x80\x02": _PICKLE,
    b"\x80\x03": _PICKLE,
    b"\x80\x04": _PICKLE,
    b"\x80\x05": _PICKLE,
    b"\x93NUMPY": "a NumPy .npy array",
    b"\x89HDF\r\n": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file it stands for",
    b"{": _TEXT,
    b"[": _TEXT,
    b"<": "HTML or XML text, such as a server's error page",
}


def kind_of(head: bytes):
    """Return the kind of a file by its first bytes, of which 512 are enough; None if unknown."""
    if not head:
        return "an empty file"
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(head)
    first = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and first < 100_000_000 and first != _LIST_MAGIC:
        return "a safetensors file"  # u64 length of the JSON that follows, at most 100 MB
    start = head.lstrip(b" \t\r\n")
    return next((kind for mark, kind in _KINDS.items() if start.startswith(mark)), None)


def _kind_of_zip(head: bytes) -> str:
    """Return the kind of a zip file by the name of its first member.

    The header at the start has the length of that name at byte 26 and the name at byte 30.
    """
    first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if first.endswith(b".npy"):
        return "a NumPy .npz archive"
    if first.endswith(b"/data.pkl"):
        return "a PyTorch file"
    return "a zip archive"


# ------------------------------------------------------------------------------ writing


def _array_header(name: str, array: np.ndarray, np_shape: bool) -> bytes:
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name!r} is a {type(array).__name__}, expected a NumPy array")
    if array.dtype.name not in _FLAGS:
        raise InputError(
            f"{name!r} is {array.dtype}, which MXNet cannot read; "
            f"expected one of {', '.join(_FLAGS)}"
        )
    if array.ndim == 0 and not np_shape:
        raise InputError(f"{name!r} is 0-dimensional; MXNet reads that only with np_shape=True")
    version = _V3 if np_shape else _V2
    head = struct.pack(f"<Iii{array.ndim}q", version, _DENSE, array.ndim, *array.shape)
    return head + struct.pack("<iii", _CPU, 0, _FLAGS[array.dtype.name])


def _encode_name(name: str) -> bytes:
    if not isinstance(name, str):
        raise InputError(f"an array is named {name!r}, expected a str")
    try:
        raw = name.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"the name {name!r} cannot be written as UTF-8") from None
    if b"\0" in raw:
        raise InputError(f"the name {name!r} contains NUL, which ends a name in MXNet")
    return raw

"""Safetensors files, read and written without their library.

The format: u64 little-endian length of a JSON header, the header, the values.  The header maps
each name to its dtype, shape and ``data_offsets`` (begin and end in the values); every byte of the
values belongs to exactly one array.  ``__metadata__`` may hold texts; they are not used here.

No number in a file is trusted before it is compared with the size of the file.

Source: huggingface/safetensors, README, "Format"; the tests compare with the library.
"""

import json
import os
import reprlib
import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.errors import FormatError, InputError

_MAX_HEADER = 100_000_000  # bytes, the library's own limit
_MAX_BYTES = 2**100  # of an array; beyond it the product is not even computed
_DTYPES = {
    tag: np.dtype(name)
    for tag, name in {
        "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
        "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
    }.items()
}  # fmt: skip
_TAGS = {dtype: tag for tag, dtype in _DTYPES.items()}


class _Extent(NamedTuple):
    """Where the values of an array lie, in bytes from the end of the header."""

    begin: int
    end: int
    shape: tuple
    dtype: np.dtype


def read_safetensors(path) -> dict[str, np.ndarray]:
    """Read ``{name: array}`` in the order of the values.

    Raises:
        FormatError: the file is damaged, truncated, or holds a dtype that NumPy has not.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        try:
            extents = _read_header(file)
            return {name: _read_values(file, extent) for name, extent in extents.items()}
        except _DamageError as damage:
            raise FormatError(f"{path}: not a sound safetensors file: {damage}") from None


def write_safetensors(path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays in their order.  Raises: InputError for a dtype that the format has not."""
    header, offset = {}, 0
    for name, array in arrays.items():
        tag = _TAGS.get(array.dtype.newbyteorder("<"))
        if tag is None:
            raise InputError(f"{name!r} is {array.dtype}, expected one of {', '.join(_DTYPES)}")
        end = offset + array.nbytes
        header[name] = {"dtype": tag, "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the values are aligned
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())


class _DamageError(Exception):
    """What is wrong with the file, without its name."""


def _read_header(file) -> dict[str, _Extent]:
    """Check the whole header; leave the file at the first of the values."""
    size = os.fstat(file.fileno()).st_size
    if size < 8:
        raise _DamageError(f"it has {size} bytes, the length of the header alone takes 8")
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(size - 8, _MAX_HEADER):
        raise _DamageError(f"its header would take {length} bytes, {size - 8} are left")
    try:
        header = json.loads(
            file.read(length).decode("utf-8"), object_pairs_hook=_unique, parse_int=_integer
        )
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise _DamageError(f"its header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise _DamageError(f"its header is a {type(header).__name__}, expected an object")
    header.pop("__metadata__", None)
    extents = {name: _extent(name, fields) for name, fields in header.items()}
    extents = dict(sorted(extents.items(), key=lambda item: item[1][:2]))
    _check_cover(extents, size - 8 - length)
    return extents


def _unique(pairs: list) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _DamageError("its header repeats a name")
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20:  # Python before 3.11 takes minutes over millions of digits
        raise _DamageError("its header holds a number of more than 20 digits")
    return int(digits)


def _extent(name: str, fields) -> _Extent:
    """Read the fields of one array, and check what can be checked of it alone."""
    shown = reprlib.repr(name)
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise _DamageError(f"{shown} does not have the fields dtype, shape and data_offsets")
    tag, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(tag, str) or tag not in _DTYPES:
        raise _DamageError(
            f"{shown} has dtype {reprlib.repr(tag)}, expected one of {', '.join(_DTYPES)}"
        )
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise _DamageError(
            f"{shown} has shape {reprlib.repr(shape)} and data_offsets {reprlib.repr(offsets)}"
        )
    nbytes = _DTYPES[tag].itemsize
    for length in shape:
        nbytes *= length
        if nbytes > _MAX_BYTES:
            raise _DamageError(f"{shown} has shape {reprlib.repr(shape)}, too large for any file")
    if offsets[0] + nbytes != offsets[1]:
        raise _DamageError(f"{shown} takes {nbytes} bytes, data_offsets say {offsets}")
    return _Extent(*offsets, tuple(shape), _DTYPES[tag])


def _are_sizes(value) -> bool:
    return isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)


def _check_cover(extents: dict[str, _Extent], size: int) -> None:
    """Check that the arrays, sorted, follow each other without gap and fill the file."""
    offset = 0
    for name, extent in extents.items():
        if extent.begin != offset:
            raise _DamageError(
                f"{reprlib.repr(name)} begins at byte {extent.begin} of the values, "
                f"expected {offset}"
            )
        offset = extent.end
    if offset != size:
        raise _DamageError(f"the arrays take {offset} bytes, the file has {size} for them")


def _read_values(file, extent: _Extent) -> np.ndarray:
    data = file.read(extent.end - extent.begin)
    try:
        return np.frombuffer(data, extent.dtype).reshape(extent.shape)
    except ValueError as error:  # an empty array wider than NumPy can address, or a file cut now
        raise _DamageError(f"shape {extent.shape}: {error}") from None

"""Read inputs, outputs and card of an ONNX file without the library onnx.

Source: onnx.proto of ONNX 1.16, for the numbers of the fields, and the encoding of protocol buffers
(https://protobuf.dev/programming-guides/encoding).
"""

from collections.abc import Iterator
from typing import NamedTuple, Optional, Union

_GRAPH, _METADATA = 7, 14  # of ModelProto
_INPUT, _OUTPUT = 11, 12  # of GraphProto
_BYTES, _BY_SIZE = 2, {1: 8, 5: 4}  # wire types with a length, and of a fixed size


class OnnxHeader(NamedTuple):
    """What an ONNX file says of itself; in shapes, None is free."""

    inputs: list[list[Optional[int]]]
    outputs: dict[str, list[Optional[int]]]
    card_text: Optional[str]


def read_onnx_header(data: bytes) -> OnnxHeader:
    """Return the header of an ONNX file; ValueError if the file is damaged."""
    model = list(_fields(memoryview(data)))
    graph = [field for number, part in model if number == _GRAPH for field in _fields(part)]
    metadata = [dict(_fields(part)) for number, part in model if number == _METADATA]
    cards = [_text(entry, 2) for entry in metadata if _text(entry, 1) == "card"]
    return OnnxHeader(
        [_port(part)[1] for number, part in graph if number == _INPUT],
        dict(_port(part) for number, part in graph if number == _OUTPUT),
        cards[0] if cards else None,
    )


def _port(part: memoryview) -> tuple[str, list[Optional[int]]]:
    """Return name and shape of a ValueInfoProto: type.tensor_type.shape.dim[].dim_value."""
    found = dict(_fields(part))
    tensor = dict(_fields(dict(_fields(found.get(2, b""))).get(1, b"")))
    dims = [dict(_fields(dim)) for number, dim in _fields(tensor.get(2, b"")) if number == 1]
    shape = [dim.get(1) for dim in dims]
    if any(isinstance(side, memoryview) for side in shape):
        raise ValueError("it is not an ONNX file, or damaged: a dimension is not a number")
    return _text(found, 1), shape


def _text(message: dict, number: int) -> str:
    value = message.get(number, b"")
    if isinstance(value, int):
        raise ValueError(f"it is not an ONNX file, or damaged: field {number} is not text")
    return bytes(value).decode()


def _fields(data: Union[int, memoryview]) -> Iterator[tuple[int, Union[int, memoryview]]]:
    """Yield number and value of each field of a message; those of fixed size are skipped."""
    if isinstance(data, int):
        raise ValueError("it is not an ONNX file, or damaged: a number in place of a message")
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        size = _BY_SIZE.get(wire)
        if wire == _BYTES:
            size, at = _varint(data, at)
        if size is None or at + size > len(data):
            raise ValueError(f"it is not an ONNX file, or damaged at byte {at} of {len(data)}")
        if wire == _BYTES:
            yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return a number and the position behind it."""
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError(f"it is not an ONNX file, or damaged at byte {at} of {len(data)}")

"""Safetensors and .pt files against the libraries they come from, and against damage."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy
import torch

from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.weights.safetensors_file import read_safetensors, write_safetensors
from gluon_asymmnet.weights.state_dict_file import read_state_dict, write_state_dict

pytestmark = pytest.mark.thorough

ARRAYS = {
    "two": np.arange(6, dtype=np.float32).reshape(2, 3),
    "none": np.array(7, np.int64),
    "four": np.linspace(0, 1, 6).reshape(1, 2, 3, 1),
    "half": np.ones(3, np.float16),
    "empty": np.zeros((0, 3), np.float32),
    "big-endian, transposed": np.arange(6, dtype=">f4").reshape(2, 3).T,
    "é": np.zeros(1, np.float32),
}


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found[name], array)


def test_state_dict_file_both_ways_with_torch(tmp_path):
    path = tmp_path / "net.pt"
    write_state_dict(path, ARRAYS)
    state = torch.load(path, weights_only=True)
    assert list(state) == list(ARRAYS)
    assert_same({name: tensor.numpy() for name, tensor in state.items()}, ARRAYS)
    assert all(tensor.is_contiguous() for tensor in state.values())
    torch.save({"t": state["two"].t(), "view": state["two"][1:]}, path)
    assert_same(read_state_dict(path), {"t": ARRAYS["two"].T, "view": ARRAYS["two"][1:]})


def test_safetensors_file_both_ways_with_its_library(tmp_path):
    path = tmp_path / "net.safetensors"
    write_safetensors(path, ARRAYS)
    assert_same(safetensors.numpy.load_file(path), ARRAYS)
    assert list(read_safetensors(path)) == sorted(ARRAYS)
    assert all(array.shape == ARRAYS[name].shape for name, array in read_safetensors(path).items())
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
    native = {n: np.ascontiguousarray(a, a.dtype.newbyteorder("=")) for n, a in ARRAYS.items()}
    native.update(bool=np.array([True, False]), byte=np.array([255], np.uint8))
    safetensors.numpy.save_file(native, path, metadata={"made": "by the library"})
    assert_same(read_safetensors(path), native)


def test_what_the_formats_do_not_have(tmp_path):
    odd = {"a": np.zeros(1, np.complex64)}
    for write in (write_safetensors, write_state_dict):
        with pytest.raises(InputError, match=r"'a' is complex64, expected one of \w+"):
            write(tmp_path / "net", odd)


# ------------------------------------------------------------------- damaged safetensors


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def safetensors_bytes(header, values=bytes(8)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


@pytest.mark.parametrize(("data", "message"), [
    (b"1234567", "header too small"),
    (struct.pack("<Q", 2**63) + b"{}", "header too large"),
    (safetensors_bytes(b"{"), "invalid JSON in header"),
    (safetensors_bytes(b'{"\xff": 1}'), "invalid UTF-8 in header"),
    (safetensors_bytes(b"[" * 100_000), "invalid JSON in header"),
    (safetensors_bytes([]), "invalid type: sequence"),
    (safetensors_bytes(b'{"a": 1, "a": 2}'), "invalid type: integer `1`"),
    (safetensors_bytes(b'{"a": ' + b"9" * 5000 + b"}"), "number out of range"),
    (safetensors_bytes({"a": {"dtype": "F32"}}), "missing field `shape`"),
    (safetensors_bytes({"a": 1}), "invalid type: integer `1`"),
    (safetensors_bytes({"a": entry("BF16", (4,))}), "NumPy has no dtype 'BF16'"),
    (safetensors_bytes({"a": entry(["F32"])}), "invalid type: sequence"),
    (safetensors_bytes({"a": entry(shape=(-2,))}), "invalid value: integer `-2`"),
    (safetensors_bytes({"a": entry(shape=(2.0,))}), "invalid type: floating point `2.0`"),
    (safetensors_bytes({"a": entry(offsets=(0, 8, 8))}), "invalid length 3, expected 2"),
    (safetensors_bytes({"a": entry(shape=(2**40, 2**40))}), "overflow computing buffer size"),
    (safetensors_bytes({"a": entry(shape=(0, 2**60, 2**60), offsets=(0, 0))}, b""), "too big"),
    (safetensors_bytes({"a": entry(offsets=(4, 12))}), "invalid offset for tensor `a`"),
    (safetensors_bytes({"a": entry(), "b": entry(offsets=(4, 12))}), "invalid offset for .* `b`"),
    (safetensors_bytes({"a": entry()}, bytes(9)), "file not fully covered"),
    (safetensors_bytes({"a": entry()}, bytes(7)), "file not fully covered"),
])  # fmt: skip
def test_damaged_safetensors(tmp_path, data, message):
    path = tmp_path / "net.safetensors"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=rf"net\.safetensors: not a valid .* file: .*{message}"):
        read_safetensors(path)

"""The .params format against MXNet, against bytes written out by hand, and against damage."""

import gzip
import json
import os
import pickle
import random
import resource
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.weights.params_file import (
    ArrayInfo,
    read_header,
    read_params,
    strip_prefixes,
    write_params,
)
from tests import fuzz_params_file as fuzz

DTYPES = ("float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool")
LAYOUT = Path(__file__).parent / "data" / "published_checkpoint_layout.json"

# nd.save("x.params", {"a": nd.array([1, 2])}) as MXNet 1.9.1 wrote it, field by field.
SMALLEST = bytes.fromhex(
    "1201000000000000"  # list magic 0x112
    "0000000000000000"  # reserved
    "0100000000000000"  # one array
    "c9fa93f9"  # version 2
    "00000000"  # dense
    "01000000"  # one dimension
    "0200000000000000"  # of 2
    "0100000000000000"  # cpu, number 0
    "00000000"  # float32
    "0000803f00000040"  # 1.0, 2.0
    "0100000000000000"  # one name
    "0100000000000000"  # of one byte
    "61"  # a
)


@pytest.fixture(scope="module")
def mx():
    return pytest.importorskip("gluon_asymmnet._mxnet").mx


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.params"


def assert_same(got, expected):
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, name
        assert got[name].shape == array.shape, name
        assert got[name].tobytes() == array.tobytes(), name


def published_arrays():
    """Arrays with the names, order and shapes of the authors' checkpoint; values are made up."""
    rng = np.random.default_rng(0)
    layout = json.loads(LAYOUT.read_text())
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in layout}


# ------------------------------------------------------------------- by hand


def test_smallest_file_by_hand(path):
    path.write_bytes(SMALLEST)
    assert_same(read_params(path), {"a": np.array([1, 2], np.float32)})
    assert read_header(path) == [ArrayInfo("a", (2,), np.dtype("float32"))]
    write_params(path, {"a": np.array([1, 2], np.float32)})
    assert path.read_bytes() == SMALLEST


def test_empty_dict(path):
    write_params(path, {})
    assert path.read_bytes() == struct.pack("<QQQQ", 0x112, 0, 0, 0)
    assert read_params(path) == {}


def test_arrays_come_back_writable_and_native(path):
    write_params(path, {"a": np.arange(3, dtype=">i4")})
    (array,) = read_params(path).values()
    array += 1
    assert array.tolist() == [1, 2, 3]
    assert array.dtype.isnative


def test_strip_prefixes():
    arrays = {"arg:w": 1, "aux:m": 2, "b": 3, "target:x": 4}
    assert strip_prefixes(arrays) == {"w": 1, "m": 2, "b": 3, "target:x": 4}
    with pytest.raises(InputError, match="two arrays are named 'w' once arg: and aux:"):
        strip_prefixes({"arg:w": 1, "aux:w": 2})


# ------------------------------------------------------------------- against MXNet


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2,), (3, 1, 2), (0, 3), (1,) * 8])
def test_both_ways_with_mxnet(mx, path, dtype, shape):
    values = np.random.default_rng(1).integers(0, 2, shape).astype(dtype)
    mx.nd.save(str(path), {"w": mx.nd.array(values, dtype=dtype), "élan": mx.nd.ones((1,))})
    by_mxnet = path.read_bytes()
    assert_same(read_params(path), {"w": values, "élan": np.ones(1, np.float32)})

    write_params(path, read_params(path))
    assert path.read_bytes() == by_mxnet
    assert_same({"w": mx.nd.load(str(path))["w"].asnumpy()}, {"w": values})


@pytest.mark.parametrize("values", [np.array(3, np.float32), np.zeros((0, 2), np.float32)])
def test_numpy_shape_semantics_both_ways(mx, path, values):
    with mx.util.np_shape(True):
        mx.nd.save(str(path), {"w": mx.np.array(values).as_nd_ndarray()})
        by_mxnet = path.read_bytes()
        assert_same(read_params(path), {"w": values})
        write_params(path, {"w": values}, np_shape=True)
        assert path.read_bytes() == by_mxnet
        assert_same({"w": mx.nd.load(str(path))["w"].asnumpy()}, {"w": values})


@pytest.mark.parametrize("array", [fuzz.ARRAY_V1, fuzz.ARRAY_OLDEST, fuzz.ARRAY_V2])
def test_older_versions_read_as_mxnet_reads_them(mx, path, array):
    path.write_bytes(fuzz.params_bytes(array))
    expected = mx.nd.load(str(path))["a"].asnumpy()
    assert expected.tolist() == [1.5, -2.5]
    assert_same(read_params(path), {"a": expected})


def test_memory_layout_and_byte_order_do_not_matter(mx, path):
    values = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    layouts = {
        "fortran": np.asfortranarray(values),
        "transposed": values.T,
        "strided": values[:, ::2, ::-1],
        "big": values.astype(">f8"),
    }
    write_params(path, layouts)
    loaded = mx.nd.load(str(path))
    for name, array in layouts.items():
        np.testing.assert_array_equal(loaded[name].asnumpy(), array)


def test_published_layout_is_byte_identical(mx, path, tmp_path):
    arrays = published_arrays()
    ours = tmp_path / "ours.params"
    mx.nd.save(str(path), {name: mx.nd.array(array) for name, array in arrays.items()})
    write_params(ours, arrays)
    assert ours.stat().st_size == 24_423_607
    assert ours.read_bytes() == path.read_bytes()
    assert_same(read_params(path), arrays)
    assert [[name, list(shape)] for name, shape, _ in read_header(path)] == json.loads(
        LAYOUT.read_text()
    )


def test_exported_block_has_prefixes(mx, tmp_path):
    net = mx.gluon.nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(mx.gluon.nn.Dense(2, in_units=3), mx.gluon.nn.BatchNorm(in_channels=2))
    net.initialize()
    net.hybridize()
    net(mx.nd.ones((1, 3)))
    net.export(str(tmp_path / "net"))
    params = read_params(tmp_path / "net-0000.params")
    assert {name[:4] for name in params} == {"arg:", "aux:"}
    expected = {name: p.data().asnumpy() for name, p in net.collect_params().items()}
    stripped = strip_prefixes(params)
    assert set(stripped) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(stripped[name], array)


def test_list_without_names(mx, path):
    mx.nd.save(str(path), [mx.nd.ones((1,)), mx.nd.ones((2,))])
    with pytest.raises(FormatError, match="a list of 2 arrays without names; save a dict"):
        read_params(path)


@pytest.mark.parametrize("storage, number", [("row_sparse", 1), ("csr", 2)])
def test_sparse_arrays(mx, path, storage, number):
    mx.nd.save(str(path), {"a": mx.nd.ones((2, 2)).tostype(storage)})
    expected = rf"array 0 has storage type {number} \({storage}\), only dense is read"
    with pytest.raises(FormatError, match=expected):
        read_params(path)


# ------------------------------------------------------------------- damage


def patched(at, new):
    return SMALLEST[:at] + new + SMALLEST[at + len(new) :]


u32, u64, i32, i64 = (struct.Struct(f"<{code}").pack for code in "IQiq")
DAMAGED = {
    "magic": (patched(0, u64(0x113)), r"magic number 0x113, expected 0x112 \(at byte 0 of 81\)"),
    "reserved": (patched(8, u64(5)), r"reserved word is 0x5, expected 0 \(at byte 8 of 81\)"),
    "count": (patched(16, u64(2**60)), r"says it holds 1152921504606846976 arrays, but 57 bytes"),
    "one more array": (patched(16, u64(2)), r"array 1 .*\(at byte \d+ of 81\)"),
    "version": (patched(24, u32(0xF993FACB)), r"array 0 starts with 0xf993facb, which is no"),
    "storage": (patched(28, i32(7)), r"storage type 7 \(unknown\).*at byte 28"),
    "ndim": (patched(32, i32(33)), r"has 33 dimensions, expected at most 32 \(at byte 32"),
    "negative ndim": (patched(32, i32(-2)), r"has -2 dimensions"),
    "no shape": (patched(32, i32(0)), r"was saved before it had a shape"),
    "size": (patched(36, i64(3)), r"4294967296 names for 1 arrays"),
    "absurd size": (patched(36, i64(2**40)), r"needs 4398046511104 bytes, 25 are left"),
    "overflowing size": (patched(36, i64(2**62)), r"too large for any machine"),
    "negative size": (patched(36, i64(-1)), r"has shape \(-1,\), expected sizes of 0 or more"),
    "device": (patched(44, i32(9)), r"on device type 9, number 0: no such device \(at byte 44"),
    "device number": (patched(48, i32(-1)), r"on device type 1, number -1: no such device"),
    "bfloat16": (patched(52, i32(12)), r"is bfloat16, which NumPy does not have; save it as"),
    "dtype": (patched(52, i32(8)), r"dtype flag 8, expected 0 to 7 \(at byte 52 of 81\)"),
    "names": (patched(64, u64(3)), r"3 names for 1 arrays \(at byte 64 of 81\)"),
    "name length": (patched(72, u64(2**63)), r"name 0 needs 9223372036854775808 bytes, 1 are"),
    "name not UTF-8": (patched(80, b"\xff"), r"name 0 is not UTF-8: b'\\xff'"),
    "name with NUL": (patched(80, b"\0"), r"name 0 contains NUL: b'\\x00'"),
    "trailing": (SMALLEST + b"xy", r"2 bytes follow the last name \(at byte 81 of 83\)"),
    "repeated name": (
        fuzz.params_bytes(fuzz.ARRAY_V2, fuzz.ARRAY_V2, names=("a", "a")),
        r"name 1 repeats 'a'",
    ),
    "empty, yet too wide": (
        fuzz.params_bytes(
            struct.pack("<Iiiqqq", fuzz.V2, 0, 3, 0, 2**40, 2**40) + fuzz.CPU_FLOAT32
        ),
        r"shape \(0, 1099511627776, 1099511627776\), too large",
    ),
}  # fmt: skip


@pytest.mark.parametrize("data, message", DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize("read", [read_params, read_header])
def test_damage_is_named(path, read, data, message):
    path.write_bytes(data)
    with pytest.raises(FormatError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(len(fuzz.seeds())))
def test_every_truncation_is_refused(path, seed):
    whole = fuzz.seeds()[seed]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=r"truncated|empty file|arrays, but|sparse|before it"):
            read_params(path)


def test_damage_costs_no_memory(path):
    """A terabyte is promised; a few kilobytes are spent."""
    big = struct.pack("<Iiiq", fuzz.V2, 0, 1, 2**38) + fuzz.CPU_FLOAT32
    path.write_bytes(fuzz.params_bytes(big))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="needs 1099511627776 bytes"):
            read_params(path)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_header_does_not_read_the_values(path):
    write_params(path, {"a": np.zeros(1_000_000)})
    tracemalloc.start()
    try:
        read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def write_npz(path):
    with path.open("wb") as file:
        np.savez(file, a=np.ones(2))


def write_npy(path):
    with path.open("wb") as file:
        np.save(file, np.ones(2))


def write_torch(path):
    """The outside of what torch.save has written since 1.6: a zip whose first entry is this."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", b"hello")


def write_safetensors(path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(u64(len(header)) + header + bytes(4))


@pytest.mark.parametrize(
    "write, kind",
    [
        (lambda path: path.write_bytes(b""), "an empty file"),
        (write_npz, "a NumPy .npz archive"),
        (write_npy, "a NumPy .npy array"),
        (write_torch, "a PyTorch file"),
        (write_zip, "a zip archive"),
        (write_safetensors, "a safetensors file"),
        (lambda path: path.write_bytes(pickle.dumps({1: 2}, 2)), "a Python pickle"),
        (lambda path: path.write_bytes(pickle.dumps({1: 2}, 5)), "a Python pickle"),
        (lambda path: path.write_bytes(gzip.compress(SMALLEST)), "a gzip archive"),
        (lambda path: path.write_text('{"nodes": []}'), "text, perhaps JSON"),
        (lambda path: path.write_text("\n\n<!DOCTYPE html>"), "HTML or XML text"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), "Git LFS"),
    ],
)
def test_other_kinds_of_file_are_recognised(path, write, kind):
    write(path)
    with pytest.raises(FormatError, match=f"not an MXNet .params file but .*{kind}"):
        read_params(path)


@pytest.mark.parametrize("read", [read_params, read_header])
def test_not_a_file(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=r"absent\.params: no such file$"):
        read(tmp_path / "absent.params")
    with pytest.raises(InputError, match="is a directory"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is not a regular file"):
        read(tmp_path / "pipe")


# ------------------------------------------------------------------- writing


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"a": np.ones(2, np.uint16)}, "'a' is uint16, which MXNet cannot read; .*float32.*bool"),
        ({"a": np.ones(2, complex)}, "complex128"),
        ({"a": np.array([None])}, "object"),
        ({"a": np.ones(2, [("x", "f4")])}, "which MXNet cannot read"),
        ({"a": np.array(1.0)}, "'a' is 0-dimensional; .*np_shape=True"),
        ({"a": [1.0]}, "'a' is a list, expected a NumPy array"),
        ({1: np.ones(2)}, "an array is named 1, expected a str"),
        ({"a\0b": np.ones(2)}, "contains NUL"),
        ({"\ud800": np.ones(2)}, "cannot be written as UTF-8"),
    ],
)
def test_what_mxnet_would_not_read_is_not_written(path, arrays, message):
    path.write_bytes(b"before")
    with pytest.raises(InputError, match=message):
        write_params(path, {"fine": np.ones(2), **arrays})
    assert path.read_bytes() == b"before"
    assert os.listdir(path.parent) == [path.name]


def test_full_disk_leaves_the_old_file_and_nothing_else(path):
    path.write_bytes(b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_params(path, {"a": np.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"before"
    assert os.listdir(path.parent) == [path.name]


def test_write_to_nowhere(tmp_path):
    with pytest.raises(InputError, match="is a directory; a file name is needed"):
        write_params(tmp_path, {})
    with pytest.raises(FileNotFoundError, match="no such folder"):
        write_params(tmp_path / "absent" / "net.params", {})


def test_written_file_has_ordinary_permissions(path, tmp_path):
    write_params(path, {})
    (tmp_path / "ordinary").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


# ------------------------------------------------------------------- at random

NAMES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]))
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, min_side=0, max_side=4))
)


@given(arrays=st.dictionaries(NAMES, ARRAYS, max_size=5), np_shape=st.booleans())
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read(tmp_path_factory, arrays, np_shape):
    path = tmp_path_factory.mktemp("random") / "net.params"
    write_params(path, arrays, np_shape=np_shape)
    assert_same(read_params(path), arrays)
    assert read_header(path) == [ArrayInfo(n, a.shape, a.dtype) for n, a in arrays.items()]


def test_mxnet_and_we_agree_on_damaged_values(mx, path):
    """Where a byte of the values changed, both read the same other values."""
    whole = fuzz.params_bytes(fuzz.ARRAY_V2)
    start = whole.index(fuzz.VALUES)
    for at in range(start, start + len(fuzz.VALUES)):
        path.write_bytes(whole[:at] + b"\x42" + whole[at + 1 :])
        assert_same(read_params(path), {"a": mx.nd.load(str(path))["a"].asnumpy()})


@pytest.mark.thorough
def test_fuzz_runner(capsys):
    assert fuzz.main(["--inputs", "2000", "--seed", "1"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["crashes"] == 0
    assert report["accepted"] + report["refused"] == report["inputs"] == 2000
    assert min(report["accepted"], report["refused"]) > 0


def test_fuzz_input_is_reproducible():
    seed = fuzz.seeds()[0]
    assert fuzz.mutate(random.Random(7), seed) == fuzz.mutate(random.Random(7), seed)

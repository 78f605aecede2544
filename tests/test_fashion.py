"""Fashion-MNIST's IDX files, made here in the real layout and few, read and packed."""

import gzip
import hashlib
import struct
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from gluon_asymmnet.cli import main
from gluon_asymmnet.data import fashion
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.data.records.recordio import RecordFile
from gluon_asymmnet.errors import FormatError, InputError

COUNTS = {"train": 200, "t10k": 30}


def idx(array, code=8) -> bytes:
    """The format's definition: two zeros, type, dimensions, sizes and values, all big-endian."""
    head = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(fashion, "IMAGES", COUNTS)


@pytest.fixture
def source(tmp_path, few):
    rng, folder = np.random.default_rng(0), tmp_path / "idx"
    folder.mkdir()
    for part, count in COUNTS.items():
        arrays = {
            "images-idx3": rng.integers(0, 256, (count, 28, 28), np.uint8),
            "labels-idx1": (np.arange(count) * 7 % 10).astype(np.uint8),
        }
        for kind, array in arrays.items():
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    return folder


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")]
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_idx_files_of_every_type(tmp_path, code, dtype, compress):
    array = np.array([[1, 2, 3], [4, 5, 100]], dtype)
    (tmp_path / "a").write_bytes(compress(idx(array, code)))
    found = fashion.read_idx(tmp_path / "a")
    assert found.dtype == array.dtype.newbyteorder(">")
    np.testing.assert_array_equal(found, array)


def test_an_idx_file_by_hand(tmp_path):
    (tmp_path / "a").write_bytes(bytes.fromhex("00000b01 00000002 0001 fffe".replace(" ", "")))
    assert fashion.read_idx(tmp_path / "a").tolist() == [1, -2]


GOOD = idx(np.zeros((3, 2), np.uint8))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an IDX file: it starts with $"),
        (b"\x89PNG", "not an IDX file: it starts with 89504e47"),
        (b"\0\0\7\2" + GOOD[4:], "not an IDX file: it starts with 00000702"),
        (b"\0\0\10\0", "0 dimensions, expected 1 to 4"),
        (GOOD[:-1], r"\[3, 2\] values take 6 bytes, it holds 5"),
        (GOOD + b"\0", r"\[3, 2\] values take 6 bytes, it holds more"),
        (b"\0\0\10\1\xff\xff\xff\xff", r"\[4294967295\] values take more than"),
        (gzip.compress(GOOD)[:-9], "damaged gzip: "),
        (gzip.compress(GOOD)[:12] + bytes(9), "damaged gzip: "),
    ],
    ids=range(9),
)
def test_a_damaged_idx_file_is_one_line(tmp_path, data, message):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(FormatError, match=rf"a: [^\n]*{message}"):
        fashion.read_idx(tmp_path / "a")


def test_records_hold_the_pixels_with_a_border(source, tmp_path, capsys):
    assert main(["records", "fashion", str(tmp_path / "out"), "--from", str(source),
                 "--held-out", "20"]) == 0  # fmt: skip
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/out/train.rec: 180 records", f"{tmp_path}/out/val.rec: 20 records",
        f"{tmp_path}/out/test.rec: 30 records",
    ]  # fmt: skip
    images = {part: fashion.read_fashion(source, part) for part in COUNTS}
    keys = {}
    for name, part in (("train", "train"), ("val", "train"), ("test", "t10k")):
        with RecordFile(tmp_path / f"out/{name}.rec") as file:
            keys[name] = [file.read(i).key for i in range(len(file))]
            for i, key in enumerate(keys[name]):
                pixels = decode(file.read(i).image)
                assert file.label(i) == images[part][1][key]
                assert pixels.shape == (32, 32, 3)
                for channel in range(3):
                    np.testing.assert_array_equal(pixels[2:30, 2:30, channel], images[part][0][key])
                assert pixels.sum() == 3 * images[part][0][key].sum(dtype=int)  # a black border
            assert file.path.with_suffix(".classes.txt").read_text().splitlines()[9] == "Ankle boot"
    assert sorted(keys["train"] + keys["val"]) == list(range(200))
    assert keys["train"] != sorted(keys["train"])
    assert keys["test"] == list(range(30))
    assert np.bincount(images["train"][1][keys["val"]]).tolist() == [2] * 10


def test_equal_seeds_give_equal_bytes(source, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        fashion.write_fashion(tmp_path / name, source=source, held_out=20, seed=seed)
    a, b, c = ((tmp_path / name / "train.rec").read_bytes() for name in "abc")
    assert a == b != c


def test_files_come_from_a_server_and_are_checked(source, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sums = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in source.iterdir()}
    assert fashion._FILES.keys() == sums.keys()
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(source))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirror = f"http://127.0.0.1:{server.server_port}/"
        with pytest.raises(
            FormatError, match=r"images-idx3-ubyte\.gz has MD5 .*, expected 8d4fb7e6"
        ):
            fashion.write_fashion(tmp_path / "out", mirror=mirror, held_out=20)
        assert not (tmp_path / "out").exists()
        monkeypatch.setattr(fashion, "_FILES", sums)
        counts = fashion.write_fashion(tmp_path / "out", mirror=mirror, held_out=20)
        server.shutdown()
    assert counts == {"train": 180, "val": 20, "test": 30}


def test_what_does_not_fit_says_why(source, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte\.gz: no such file"):
        fashion.write_fashion(tmp_path / "out", source=tmp_path, held_out=20)
    with pytest.raises(InputError, match="held_out must be 10 to 50000 images, got 0"):
        fashion.write_fashion(tmp_path / "out", source=source, held_out=0)
    labels = np.full(200, 11, np.uint8)
    (source / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    with pytest.raises(FormatError, match="train has the label 11, expected 0 to 9"):
        fashion.write_fashion(tmp_path / "out", source=source, held_out=20)
    (source / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels[:-1])))
    with pytest.raises(FormatError, match=r"train holds \(199,\) uint8, expected \(200,\) uint8"):
        fashion.write_fashion(tmp_path / "out", source=source, held_out=20)
    assert [path.name for path in tmp_path.iterdir()] == ["idx"]

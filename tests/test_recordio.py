"""Record files against MXNet's own reader and writer, bytes written by hand, and damage."""

import errno
import os
import pickle
import resource
import struct
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gluon_asymmnet.data.images import decode
from gluon_asymmnet.data.records import verify
from gluon_asymmnet.data.records.recordio import MAGIC, MAX_PAYLOAD, RecordFile, pack, unpack
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.errors import FormatError, InputError
from tests.record_files import edit, jpeg

QUICK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PAYLOADS = st.lists(
    st.lists(st.sampled_from([MAGIC, b"\n", b"\x00", b"abc", b"wxyz"]), max_size=12).map(b"".join),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def mx():
    from gluon_asymmnet._mxnet import mx

    return mx


# --- The format ------------------------------------------------------------------------------


def test_bytes_by_hand(tmp_path):
    with RecordWriter(tmp_path / "a.rec") as writer:
        writer.write(7, 2.0, b"image")
        writer.write(8, [1.0, 3.0], b"")
    header = struct.pack("<I", 0) + struct.pack("<f", 2) + struct.pack("<Q", 7) + bytes(8)
    vector = struct.pack("<I", 2) + bytes(4) + struct.pack("<Q", 8) + bytes(8)
    expected = (
        bytes.fromhex("0a23d7ce") + struct.pack("<I", 29) + header + b"image" + bytes(3)
        + bytes.fromhex("0a23d7ce") + struct.pack("<I", 32) + vector + struct.pack("<2f", 1, 3)
    )  # fmt: skip
    assert (tmp_path / "a.rec").read_bytes() == expected
    assert (tmp_path / "a.idx").read_bytes() == b"7\t0\n8\t40\n"
    with RecordFile(tmp_path / "a.rec") as file:
        assert file.read(0) == (7, 2.0, b"image")
        assert file.read(1).label.tolist() == [1.0, 3.0]
        assert file.label(0) == 2.0
        assert file.label(1).tolist() == [1.0, 3.0]


def test_magic_is_cut_out_by_hand(tmp_path):
    with RecordWriter(tmp_path / "a.rec") as writer:
        writer.write_payload(0, b"abcd" + MAGIC + MAGIC + b"xy" + MAGIC)  # the last is not aligned

    def piece(flag, body):
        return MAGIC + struct.pack("<I", flag << 29 | len(body)) + body

    expected = piece(1, b"abcd") + piece(2, b"") + piece(3, b"xy" + MAGIC) + bytes(2)
    assert (tmp_path / "a.rec").read_bytes() == expected


@QUICK
@given(payloads=PAYLOADS)
@example(payloads=[MAGIC])
@example(payloads=[b"", MAGIC * 3, b"a" + MAGIC])
def test_same_bytes_as_mxnet_and_back(mx, tmp_path, payloads):
    ours, theirs = tmp_path / "ours.rec", tmp_path / "theirs.rec"
    with RecordWriter(ours, overwrite=True) as writer:
        for key, payload in enumerate(payloads):
            writer.write_payload(key, payload)
    reference = mx.recordio.MXIndexedRecordIO(str(theirs.with_suffix(".idx")), str(theirs), "w")
    for key, payload in enumerate(payloads):
        reference.write_idx(key, payload)
    reference.close()
    assert ours.read_bytes() == theirs.read_bytes()
    assert ours.with_suffix(".idx").read_bytes() == theirs.with_suffix(".idx").read_bytes()
    for path in (ours, theirs):
        with RecordFile(path) as file:
            assert [file.payload(i) for i in range(len(file))] == payloads
    reader = mx.recordio.MXIndexedRecordIO(str(ours.with_suffix(".idx")), str(ours), "r")
    assert [reader.read_idx(key) for key in reader.keys] == payloads
    reader.close()


@pytest.mark.parametrize("label", [3.0, [4.0, 5.0], [0.0]])
def test_headers_as_mxnet_packs_them(mx, label):
    packed = mx.recordio.pack(mx.recordio.IRHeader(0, label, 9, 0), b"image")
    assert pack(9, label, b"image") == packed
    found, image = unpack(packed)
    np.testing.assert_array_equal(found, label)
    assert np.ndim(found) == np.ndim(label)
    assert image == b"image"


def test_mxnet_reads_what_we_wrote(mx, rec):
    reader = mx.recordio.MXIndexedRecordIO(str(rec.with_suffix(".idx")), str(rec), "r")
    assert reader.keys == [10, 11, 12, 13, 14, 15]
    header, image = mx.recordio.unpack(reader.read_idx(14))
    reader.close()
    assert (header.flag, header.label, header.id, header.id2) == (0, 1.0, 14, 0)
    assert image == jpeg(4)
    batches = mx.io.ImageRecordIter(
        path_imgrec=str(rec), path_imgidx=str(rec.with_suffix(".idx")), data_shape=(3, 24, 32),
        batch_size=6, preprocess_threads=1,
    )  # fmt: skip
    batch = next(batches)
    assert batch.label[0].asnumpy().tolist() == [0, 1, 2, 0, 1, 2]
    pixels = batch.data[0].asnumpy().transpose(0, 2, 3, 1)
    expected = np.stack([decode(jpeg(i)) for i in range(6)])
    assert np.abs(pixels - expected).max() <= 3  # two JPEG libraries


@pytest.mark.thorough
def test_reads_im2rec(mx, tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "tree" / name / f"{i}.jpg").write_bytes(jpeg(i))
    for options in (["--list", "--recursive"], ["--pass-through"]):
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c",
             "import runpy, gluon_asymmnet._mxnet\n"
             "runpy.run_module('mxnet.tools.im2rec', run_name='__main__')",
             str(tmp_path / "im2rec"), str(tmp_path / "tree"), *options],
            check=True, capture_output=True, cwd=os.getcwd(),
        )  # fmt: skip
    lines = [line.split("\t") for line in (tmp_path / "im2rec.lst").read_text().splitlines()]
    with RecordFile(tmp_path / "im2rec.rec") as file:
        found = [file.read(i) for i in range(len(file))]
    assert [record.key for record in found] == [int(line[0]) for line in lines]
    assert [record.label for record in found] == [float(line[1]) for line in lines]
    assert [record.image for record in found] == [
        (tmp_path / "tree" / line[2]).read_bytes() for line in lines
    ]


# --- Opening and reading ---------------------------------------------------------------------


def test_without_an_index_the_file_is_walked(rec):
    with_index = [r[1:] for r in map(RecordFile(rec).read, range(6))]
    rec.with_suffix(".idx").unlink()
    with RecordFile(rec) as file:
        assert file.keys.tolist() == [0, 1, 2, 3, 4, 5]
        assert [file.read(i)[1:] for i in range(6)] == with_index


def test_index_order_is_kept(rec):
    idx = rec.with_suffix(".idx")
    idx.write_text("".join(reversed(idx.read_text().splitlines(keepends=True))))
    with RecordFile(rec) as file:
        assert file.keys.tolist() == [15, 14, 13, 12, 11, 10]
        assert [file.read(i).image for i in range(6)] == [jpeg(i) for i in reversed(range(6))]


def test_threads_and_pickle(rec):
    with RecordFile(rec) as file:
        copy = pickle.loads(pickle.dumps(file))
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda i: file.read(i % 6).image, range(600)))
    assert found == [jpeg(i % 6) for i in range(600)]
    with copy:
        assert copy.read(5) == (15, 2.0, jpeg(5))
    with pytest.raises(ValueError, match="is closed"):
        file.read(0)


def test_pickle_notices_a_changed_file(rec):
    with RecordFile(rec) as file:
        pickled = pickle.dumps(file)
    with open(rec, "ab") as more:
        more.write(bytes(4))
    with pytest.raises(FormatError, match="was changed after it was opened"):
        pickle.loads(pickled)


def test_position_out_of_range(rec):
    with RecordFile(rec) as file:
        for i in (6, -1):
            with pytest.raises(IndexError, match=rf"six.rec: no record {i}; there are 6"):
                file.read(i)


def test_missing_and_wrong_files(tmp_path, rec):
    with pytest.raises(FileNotFoundError, match=r"no\.rec: no such record file"):
        RecordFile(tmp_path / "no.rec")
    with pytest.raises(FileNotFoundError, match=r"no\.idx: no such index file"):
        RecordFile(rec, tmp_path / "no.idx")
    with pytest.raises(FormatError, match="expected a record file, found a folder"):
        RecordFile(tmp_path)
    (tmp_path / "empty.rec").touch()
    with pytest.raises(FormatError, match=r"empty\.rec: the file is empty"):
        RecordFile(tmp_path / "empty.rec")
    (tmp_path / "photo.rec").write_bytes(jpeg())
    with pytest.raises(
        FormatError, match="record 0 at byte 0: no record starts at byte 0: found ffd8ffe0, exp"
    ):
        RecordFile(tmp_path / "photo.rec")


@pytest.mark.parametrize(
    "index, message",
    [
        ("", "the index lists no record"),
        ("garbage\n", r"six.idx: line 1 is b'garbage\\n'; expected 'key<tab>byte offset'"),
        ("10 0\n", "line 1 is"),
        ("10\t-4\n", "line 1 is"),
        ("9" * 70, "line 1 is"),
        ("10\t0\n" * 2000, "more than .* lines"),
        ("10\t0\n11\t99999996\n", r"record 1 \(key 11\) at byte 99999996; expected .* below the"),
        ("10\t0\n11\t2\n", r"record 1 \(key 11\) at byte 2; expected a multiple of 4"),
        ("10\t0\n11\t0\n", "the index lists the record at byte 0 twice"),
        ("10\t0\n10\t4\n", "the index lists a key twice"),
        ("10\t4\n", "the index starts at byte 4, expected 0"),
        ("10\t0\n11\t40\n", r"record 0 \(key 10\) at byte 0: the piece at byte 0 claims"),
        ("10\t0\n", r"the record ends at byte \d+, expected \d+, where the next one or the end of"),
    ],
)
def test_index_that_does_not_fit(rec, index, message):
    rec.with_suffix(".idx").write_text(index)
    with pytest.raises(FormatError, match=message) as error:
        RecordFile(rec)
    assert "\n" not in str(error.value)
    assert verify.verify(rec).bad[0].position is None


@pytest.mark.parametrize("drop", [0, 2, 5])
def test_index_with_a_line_missing(rec, drop):
    idx = rec.with_suffix(".idx")
    lines = idx.read_text().splitlines(keepends=True)
    idx.write_text("".join(lines[:drop] + lines[drop + 1 :]))
    with pytest.raises(FormatError, match=r"starts at byte|belongs to another one"):
        RecordFile(rec)


def test_damage_found_when_read(rec):
    """What the look at a sample on opening misses, the read finds."""
    with RecordFile(rec) as file:
        second = int(file._offsets[1])
        edit(rec, **{f"at{second}": b"XXXX"})
        with pytest.raises(
            FormatError,
            match=rf"six.rec: record 1 \(key 11\) at byte {second}: no record starts at byte "
            rf"{second}: found 58585858, expected 0a23d7ce",
        ):
            file.read(1)
        os.truncate(rec, second + 50)
        with pytest.raises(FormatError, match="the record is cut off: 8 bytes are expected"):
            file.read(5)


def test_truncated_file(rec):
    size = rec.stat().st_size
    os.truncate(rec, size - 8)
    with pytest.raises(FormatError, match=r"record 5 \(key 15\) .* claims \d+ bytes, but only"):
        RecordFile(rec)
    rec.with_suffix(".idx").unlink()
    with pytest.raises(FormatError, match=r"six.rec: record 5 at byte \d+: the piece at byte"):
        RecordFile(rec)
    report = verify.verify(rec)
    assert report.records == 5
    assert [bad.position for bad in report.bad] == [None]


def test_absurd_lengths_cost_no_memory(rec):
    edit(rec, at4=struct.pack("<I", MAX_PAYLOAD))
    tracemalloc.start()
    with RecordFile(rec, check=False) as file:
        with pytest.raises(FormatError, match="claims 536870911 bytes, but only"):
            file.read(0)
        edit(rec, at4=struct.pack("<I", 24 + len(jpeg(0))), at8=struct.pack("<I", 2**32 - 1))
        for read in (file.read, file.label):
            with pytest.raises(FormatError, match="header announces 4294967295 labels, but the"):
                read(0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_short_payload(tmp_path):
    with RecordWriter(tmp_path / "a.rec") as writer:
        writer.write_payload(0, b"short")
    with RecordFile(tmp_path / "a.rec") as file:
        for read in (file.read, file.label):
            with pytest.raises(FormatError, match="holds 5 bytes, fewer than the 24 of an image"):
                read(0)


@pytest.mark.thorough
@QUICK
@given(data=st.data())
def test_random_damage_is_reported_and_nothing_else(tmp_path, data):
    rec = tmp_path / "m.rec"
    with RecordWriter(rec, overwrite=True) as writer:
        for i in range(3):
            writer.write(i, i, jpeg(i, height=8, width=8))
    for path in (rec, rec.with_suffix(".idx")):
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(0, 3))):
            # half of the hits go to the first frame and header, which are small
            end = data.draw(st.sampled_from([32, len(content)]))
            content[data.draw(st.integers(0, min(end, len(content)) - 1))] = data.draw(
                st.integers(0, 255)
            )
        path.write_bytes(bytes(content[: data.draw(st.sampled_from([None, len(content) // 2]))]))
    tracemalloc.start()
    try:
        with RecordFile(rec) as file:
            for i in range(len(file)):
                file.read(i)
                file.label(i)
    except FormatError as error:
        assert "\n" not in str(error)
    verify.verify(rec, threads=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


# --- Writing ---------------------------------------------------------------------------------


def test_nothing_is_left_after_an_exception(tmp_path):
    with pytest.raises(KeyboardInterrupt), RecordWriter(tmp_path / "a.rec") as writer:
        writer.write(0, 0, b"x")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_nothing_appears_before_the_end(tmp_path):
    with RecordWriter(tmp_path / "a.rec") as writer:
        writer.write(0, 0, b"x")
        assert not (tmp_path / "a.rec").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.idx", "a.rec"]


def test_full_disk(tmp_path):
    """The limit on a file's size is the full disk that a test can have without being root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with (
            pytest.raises(OSError, match=r"a\.rec") as error,
            RecordWriter(tmp_path / "a.rec") as writer,
        ):
            for i in range(100):
                writer.write(i, 0, bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_failing_rename_takes_the_others_back(tmp_path, monkeypatch):
    replace = os.replace

    def fail_for_index(source, target):
        if str(target).endswith(".idx"):
            raise OSError(errno.ENOSPC, "no space left", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_for_index)
    with pytest.raises(OSError, match="no space left"), RecordWriter(tmp_path / "a.rec") as writer:
        writer.write(0, 0, b"x")
    assert list(tmp_path.iterdir()) == []


def test_existing_files_are_kept(tmp_path):
    (tmp_path / "a.idx").write_text("precious")
    with pytest.raises(InputError, match=r"a\.idx exists and is not overwritten"):
        RecordWriter(tmp_path / "a.rec")
    assert [p.name for p in tmp_path.iterdir()] == ["a.idx"]
    with RecordWriter(tmp_path / "a.rec", overwrite=True) as writer:
        writer.write(0, 0, b"x")
    assert (tmp_path / "a.idx").read_text() == "0\t0\n"


def test_file_that_appears_meanwhile_is_kept(tmp_path):
    with (
        pytest.raises(InputError, match=r"a\.rec exists"),
        RecordWriter(tmp_path / "a.rec") as writer,
    ):
        writer.write(0, 0, b"x")
        (tmp_path / "a.rec").write_text("precious")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["precious"]


def test_what_cannot_be_written(tmp_path):
    with RecordWriter(tmp_path / "a.rec") as writer:
        writer.write(0, 0, b"x")
        with pytest.raises(InputError, match="key 0 was written before"):
            writer.write(0, 0, b"x")
        with pytest.raises(InputError, match=r"a key must be 0 to 9+, got -1"):
            writer.write_payload(-1, b"")
        with pytest.raises(InputError, match=r"a key must be 0 to 9+, got -2"):
            writer.write(-2, 0, b"x")
    with pytest.raises(InputError, match=r"b\.idx would be written twice; name different files"):
        RecordWriter(tmp_path / "b.idx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.idx", "a.rec"]
    with pytest.raises(InputError, match=r"a\.rec is a file; expected a folder to write to"):
        RecordWriter(tmp_path / "a.rec" / "a.rec")
    with RecordWriter(tmp_path / "none" / "a.rec") as writer:
        writer.write(0, 0, b"x")
    assert (tmp_path / "none" / "a.rec").exists()

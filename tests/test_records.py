"""Record files against MXNet's own reader and writer, bytes written by hand, and damage."""

import errno
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gluon_asymmnet.data.class_names import class_names_path, read_class_names
from gluon_asymmnet.data.image_headers import PNG_START, image_info
from gluon_asymmnet.data.images import decode, encode
from gluon_asymmnet.data.records import build, stats, verify
from gluon_asymmnet.data.records.recordio import MAGIC, MAX_PAYLOAD, RecordFile, pack, unpack
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.data.sources import RecordSource, count_rotated
from gluon_asymmnet.errors import FormatError, InputError

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


def noise(height=24, width=32, seed=0):
    """Smooth noise, so that JPEG keeps it to within a few levels."""
    small = np.random.RandomState(seed).randint(0, 256, (3, 4, 3)).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def jpeg(seed=0, **size):
    return encode(noise(seed=seed, **size))


def png(array):
    return cv2.imencode(".png", array)[1].tobytes()


@pytest.fixture
def rec(tmp_path):
    """Six JPEGs, keys 10 to 15, labels 0 1 2 0 1 2."""
    with RecordWriter(tmp_path / "six.rec") as writer:
        for i in range(6):
            writer.write(10 + i, i % 3, jpeg(i))
    return tmp_path / "six.rec"


def edit(path, **at):
    """Overwrite bytes: ``edit(path, at8=b"..")`` at byte 8."""
    data = bytearray(path.read_bytes())
    for key, value in at.items():
        start = int(key[2:])
        data[start : start + len(value)] = value
    path.write_bytes(bytes(data))


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


# --- Images ----------------------------------------------------------------------------------


def test_decode_is_rgb():
    red = np.zeros((16, 24, 3), np.uint8)
    red[..., 0] = 255
    for image in (encode(red, ".jpg"), encode(red, ".png")):
        found = decode(image)
        assert found.shape == (16, 24, 3)
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - red).max() <= 2
    assert image_info(encode(red)) == ("jpeg", 24, 16, 3, 1)
    assert image_info(encode(red, ".png")) == ("png", 24, 16, 3, 1)


def test_decode_other_kinds_of_png():
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    np.testing.assert_array_equal(decode(png(grey)), np.stack([grey] * 3, -1))
    assert image_info(png(grey)).channels == 1
    deep = grey.astype(np.uint16) * 256 + 255  # upper byte as in grey
    np.testing.assert_array_equal(decode(png(deep)), np.stack([grey] * 3, -1))
    bgra = np.dstack([grey, grey + 1, grey + 2, grey * 5])
    np.testing.assert_array_equal(decode(png(bgra)), np.dstack([grey + 2, grey + 1, grey]))
    assert image_info(png(bgra)).channels == 4


def test_grey_jpeg():
    image = cv2.imencode(".jpg", np.full((8, 8), 77, np.uint8))[1].tobytes()
    assert image_info(image) == ("jpeg", 8, 8, 1, 1)
    assert (decode(image) == 77).all()


def with_exif(image, body):
    return image[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + image[2:]


QUARTER_TURN = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + bytes(4)


def test_exif_orientation_is_applied_as_opencv_does():
    image = with_exif(jpeg(), QUARTER_TURN)
    turned = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    assert turned.shape == (32, 24, 3)  # so the tag is one that OpenCV understands
    np.testing.assert_array_equal(decode(image), cv2.cvtColor(turned, cv2.COLOR_BGR2RGB))
    assert image_info(image) == ("jpeg", 24, 32, 3, 6)
    assert image_info(image).stored_size == (32, 24)


def test_truncated_jpeg_that_opencv_would_half_decode():
    image = jpeg()
    for cut in (2, 60, 200):
        with pytest.raises(FormatError, match="truncated"):
            decode(image[:-cut])
    preview = with_exif(image, b"Exif\0\0" + jpeg(1, height=8, width=8))  # it has an end marker
    decode(preview)
    with pytest.raises(FormatError, match="truncated JPEG: its end marker is missing"):
        decode(preview[:-20])
    decode(image + bytes(100))  # cameras and download tools pad


def test_damaged_png():
    image = bytearray(encode(noise(), ".png"))
    with pytest.raises(FormatError, match="truncated PNG"):
        decode(bytes(image[:-5]))
    image[len(image) // 2] ^= 1
    with pytest.raises(FormatError, match="damaged PNG: the checksum of chunk b'IDAT'"):
        decode(bytes(image))


def bomb(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"IEND"
    return PNG_START + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, end)
    )


def test_dimension_bombs():
    image = bytearray(jpeg())
    at = image.index(b"\xff\xc0") + 5
    image[at : at + 4] = b"\xff\xff\xff\xff"
    for bytes_, message in (
        (bytes(image), f"65535 x 65535 pixels; expected 1 to {512 * len(image)} from"),
        (bytes(image) + bytes(10**6), "65535 x 65535 pixels; expected 1 to 178956970 from"),
        (bomb(2**31, 2**31), "2147483648 x 2147483648 pixels; expected 1 to 371520 from 45 bytes"),
        (bomb(0, 5), "0 x 5 pixels"),
    ):
        with pytest.raises(FormatError, match=f"the header claims {message}"):
            decode(bytes_)


def test_the_flattest_images_are_no_bombs():
    """As few bytes per pixel as the encoders can make them."""
    flat = np.zeros((2000, 3000), np.uint8)
    options = [cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    options += [cv2.IMWRITE_JPEG_QUALITY, 1]
    assert decode(cv2.imencode(".jpg", flat, options)[1].tobytes()).max() <= 1
    options = [cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 9]
    assert decode(cv2.imencode(".png", flat, options)[1].tobytes()).max() == 0


@pytest.mark.parametrize(
    "image, message",
    [
        (b"", "no image: 0 bytes"),
        (b"GIF89a..", "a GIF, which is not supported; convert it"),
        (b"\xff\xd8\xff\xd9", "no segment gives its size|truncated"),
        (b"\xff\xd8\xff\xe0\x00\x01", "truncated or damaged JPEG: segment e0"),
        (PNG_START, "truncated PNG"),
        (bomb(5, 5), "does not decode"),
    ],
)
def test_what_is_no_image(image, message):
    with pytest.raises(FormatError, match=message):
        decode(image)


@QUICK
@given(
    at=st.integers(0, 1000), value=st.binary(max_size=6), encoding=st.sampled_from([".jpg", ".png"])
)
def test_damaged_images_never_raise_anything_else(at, value, encoding):
    image = bytearray(encode(noise(8, 8), encoding))
    at %= len(image)
    image[at : at + len(value)] = value
    try:
        assert decode(bytes(image)).dtype == np.uint8
    except FormatError as error:
        assert "\n" not in str(error)


# --- From folders to records -----------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    """Classes ant (2 JPEG), bee (1 JPEG, 1 PNG), cat (1 JPEG), all 32 x 24."""
    root = tmp_path / "tree"
    for path, image in {
        "bee/1.JPEG": jpeg(2), "bee/2.Png": encode(noise(seed=3), ".png"),
        "ant/1.jpg": jpeg(0), "ant/2.jpg": jpeg(1), "cat/x.jpg": jpeg(4),
        "cat/notes.txt": b"hello", "cat/.hidden.jpg": b"",
    }.items():  # fmt: skip
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(image)
    return root


def read_all(prefix):
    with RecordFile(f"{prefix}.rec") as file:
        return [file.read(i) for i in range(len(file))]


def test_build(tree, tmp_path):
    seen = []
    report = build.build(tree, tmp_path / "t", progress=lambda *done: seen.append(done))
    remarks = ["ignored 1 hidden files or folders: 'cat/.hidden.jpg'",
               "ignored 1 files that are no pictures: 'cat/notes.txt'"]  # fmt: skip
    assert report == (5, ["ant", "bee", "cat"], [], remarks)
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    found = read_all(tmp_path / "t")
    assert [(r.key, r.label) for r in found] == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)]
    assert [r.image for r in found[:3]] == [jpeg(0), jpeg(1), jpeg(2)]  # stored as they are
    assert image_info(found[3].image).format == "jpeg"
    error = np.abs(decode(found[3].image).astype(int) - noise(seed=3))
    assert error.mean() < 4  # of 255; colour is stored at half the resolution
    assert (tmp_path / "t.lst").read_text() == (
        "0\t0.000000\tant/1.jpg\n1\t0.000000\tant/2.jpg\n2\t1.000000\tbee/1.JPEG\n"
        "3\t1.000000\tbee/2.Png\n4\t2.000000\tcat/x.jpg\n"
    )
    assert read_class_names(tmp_path / "t.rec") == ["ant", "bee", "cat"]
    assert verify.verify(tmp_path / "t.rec") == (5, [], 0)


def test_build_png_is_exact(tree, tmp_path):
    build.build(tree, tmp_path / "t", encoding=".png")
    found = read_all(tmp_path / "t")
    assert {image_info(r.image).format for r in found} == {"png"}
    np.testing.assert_array_equal(decode(found[0].image), decode(jpeg(0)))
    assert found[3].image == (tree / "bee/2.Png").read_bytes()


@pytest.mark.parametrize("resize, expected", [(12, (16, 12)), (48, (64, 48))])
def test_build_resizes_the_shorter_side(tree, tmp_path, resize, expected):
    build.build(tree, tmp_path / "t", resize=resize)
    assert {image_info(r.image)[1:3] for r in read_all(tmp_path / "t")} == {expected}


def test_build_keeps_bytes_of_images_that_fit_already(tree, tmp_path):
    build.build(tree, tmp_path / "t", resize=24)
    assert read_all(tmp_path / "t")[0].image == jpeg(0)


def test_build_does_not_depend_on_threads(tree, tmp_path):
    for i in range(40):
        (tree / "ant" / f"more{i}.jpg").write_bytes(jpeg(i, height=8 + 8 * (i % 5)))
    for threads in (1, 7):
        build.build(tree, tmp_path / f"t{threads}", resize=9, shuffle_seed=3, threads=threads)
    for suffix in ("rec", "idx", "lst", "classes.txt"):
        one, seven = (tmp_path / f"t{threads}.{suffix}" for threads in (1, 7))
        assert one.read_bytes() == seven.read_bytes()
    labels = [r.label for r in read_all(tmp_path / "t1")]
    assert labels != sorted(labels)


def test_build_with_classes_given(tree, tmp_path):
    shutil.rmtree(tree / "ant")
    report = build.build(tree, tmp_path / "val", classes=["ant", "bee", "cat", "dog"])
    assert [r.label for r in read_all(tmp_path / "val")] == [1, 1, 2]
    assert report.classes == ["ant", "bee", "cat", "dog"]
    assert "no folder for 2 of 4 classes: 'ant', 'dog'" in report.remarks
    with pytest.raises(InputError, match=r"only in the folders of .*tree: 'bee'; only in"):
        build.build(tree, tmp_path / "other", classes=["cat"])


def test_build_names_a_bad_image(tree, tmp_path):
    (tree / "bee" / "1.JPEG").write_bytes(jpeg(2)[:-9])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FormatError, match=r"bee/1\.JPEG: truncated JPEG: its end marker is miss"):
        build.build(tree, tmp_path / "t")
    assert sorted(tmp_path.iterdir()) == before
    report = build.build(tree, tmp_path / "t", skip_bad=True)
    assert report.skipped == [("bee/1.JPEG", "truncated JPEG: its end marker is missing")]
    assert [(r.key, r.label) for r in read_all(tmp_path / "t")] == [(0, 0), (1, 0), (2, 1), (3, 2)]


def test_build_leaves_out_every_kind_of_fault(tree, tmp_path):
    (tree / "bee" / "0.jpg").symlink_to(tmp_path / "gone.jpg")
    (tree / "bee" / "3.gif").write_bytes(b"GIF89a" + bytes(20))
    (tree / "bee" / "4.png").write_bytes(encode(np.zeros((4, 20_000, 3), np.uint8), ".png"))
    with pytest.raises(FormatError, match=r"bee/0\.jpg: no such file .*; .* add --skip-bad"):
        build.build(tree, tmp_path / "t", resize=16)
    report = build.build(tree, tmp_path / "t", resize=16, skip_bad=True)
    assert [(path, reason.split(",")[0].split(":")[0]) for path, reason in report.skipped] == [
        ("bee/0.jpg", "no such file or directory"),
        ("bee/3.gif", "a GIF"),
        ("bee/4.png", "the picture is too narrow"),
    ]
    assert len(read_all(tmp_path / "t")) == 5


def test_build_all_bad(tmp_path):
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "1.jpg").write_bytes(b"no")
    with pytest.raises(InputError, match="none of the 1 images is readable"):
        build.build(tmp_path / "tree", tmp_path / "t", skip_bad=True)
    assert [p.name for p in tmp_path.iterdir()] == ["tree"]


def test_build_wrong_trees(tree, tmp_path):
    expected = "expected one folder per class"
    with pytest.raises(FileNotFoundError, match=f"none: no such folder; {expected}"):
        build.build(tmp_path / "none", tmp_path / "t")
    with pytest.raises(InputError, match=f"x.jpg: is a file; {expected}"):
        build.build(tree / "cat" / "x.jpg", tmp_path / "t")
    with pytest.raises(InputError, match=f"1 images in no class folder, e.g. x.jpg; {expected}"):
        build.build(tree / "cat", tmp_path / "t")
    with pytest.raises(InputError, match=f"holds the folder 'ant'; {expected}"):
        build.build(tmp_path, tmp_path / "t")
    (tmp_path / "hollow").mkdir()
    with pytest.raises(InputError, match=f"hollow: no class folders; {expected}"):
        build.build(tmp_path / "hollow", tmp_path / "t")
    (tmp_path / "hollow" / "a").mkdir()
    with pytest.raises(InputError, match="hollow: no picture in the class folders 'a'; add some"):
        build.build(tmp_path / "hollow", tmp_path / "t")
    (tmp_path / "hollow" / "a" / "tab\t.jpg").touch()
    with pytest.raises(InputError, match="holds a tab or a line break; rename it"):
        build.build(tmp_path / "hollow", tmp_path / "t")


@pytest.mark.parametrize(
    "option, message",
    [
        ({"resize": -1}, "resize must be 0 .* got -1"),
        ({"quality": 0}, "quality must be 1 to 100, got 0"),
        ({"encoding": ".gif"}, "encoding must be '.jpg' or '.png', got '.gif'"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"classes": ["ant", "bee", "cat", ""]}, "one line each and not empty"),
    ],
)
def test_build_wrong_options(tree, tmp_path, option, message):
    with pytest.raises(InputError, match=message):
        build.build(tree, tmp_path / "t", **option)
    assert [p.name for p in tmp_path.iterdir()] == ["tree"]


def test_build_never_overwrites(tree, tmp_path):
    (tmp_path / "t.lst").write_text("precious")
    with pytest.raises(InputError, match=r"t\.lst exists"):
        build.build(tree, tmp_path / "t")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.lst", "tree"]


# --- Looking at records ----------------------------------------------------------------------


def test_verify_lists_every_kind_of_bad_record(tmp_path):
    rec = tmp_path / "a.rec"
    with RecordWriter(rec) as writer:
        writer.write(0, 1, jpeg())
        writer.write(1, 2, jpeg()[:-5])
        writer.write(2, float("nan"), jpeg())
        writer.write(3, 0.5, jpeg())
        writer.write(4, 3, jpeg())
        writer.write(5, -1, jpeg())
        writer.write(6, [0.25, 0.75], jpeg())
        writer.write(7, [0.25, np.inf], jpeg())
        writer.write(8, 0, bomb(60_000, 60_000))
        writer.write_payload(9, b"tiny")
        writer.write(10, 0, jpeg())
    seen = []
    report = verify.verify(rec, classes=3, progress=lambda *done: seen.append(done))
    assert report.records == 11
    assert seen[-1] == (11, 11)
    assert [(bad.position, bad.key) for bad in report.bad] == [
        (i, i) for i in (1, 2, 3, 4, 5, 7, 8, 9)
    ]
    reasons = {bad.key: bad.reason for bad in report.bad}
    assert reasons[1] == "truncated JPEG: its end marker is missing"
    assert reasons[2] == "the label is nan, expected a finite number"
    assert reasons[3] == "the label is 0.5, expected a whole number from 0 below 3"
    assert reasons[4] == "the label is 3, expected a whole number from 0 below 3"
    assert reasons[8].startswith("the header claims 60000 x 60000 pixels")
    assert reasons[9].startswith("the record holds 4 bytes")
    assert [bad.key for bad in verify.verify(rec).bad] == [1, 2, 3, 5, 7, 8, 9]  # no bound
    with pytest.raises(InputError, match="classes must be at least 1, got 0"):
        verify.verify(rec, classes=0)


def test_verify_takes_the_number_of_classes_from_the_names(rec):
    class_names_path(rec).write_text("a\nb\n")
    assert [bad.key for bad in verify.verify(rec).bad] == [12, 15]
    class_names_path(rec).write_bytes(b"\xff\xf0")
    assert "is not UTF-8 text" in verify.verify(rec).bad[0].reason


def test_rotated_images_are_counted_and_turned(tmp_path):
    turned = with_exif(jpeg(), QUARTER_TURN)
    with RecordWriter(tmp_path / "a.rec") as writer:
        for key, image in enumerate((jpeg(), turned, turned)):
            writer.write(key, 0, image)
    assert verify.verify(tmp_path / "a.rec") == (3, [], 2)
    with RecordSource(tmp_path / "a.rec") as source:
        assert count_rotated(source) == 2
        assert decode(source.read(1).image).shape == (32, 24, 3)


def test_verify_damage_inside(rec):
    with RecordFile(rec) as file:
        third = int(file._offsets[2])
    edit(rec, **{f"at{third}": b"XXXX"})
    report = verify.verify(rec)
    assert report.records == 6
    assert [bad.position for bad in report.bad] == [None, 2]


def test_stats(tmp_path):
    with RecordWriter(tmp_path / "a.rec") as writer:
        writer.write(0, 2, jpeg(height=10, width=20))
        writer.write(1, 0, jpeg(height=30, width=20))
        writer.write(2, 2, png(np.zeros((50, 40), np.uint8)))
        writer.write(3, [1, 2], jpeg(height=30, width=20))
    class_names_path(tmp_path / "a.rec").write_text("ant\nbee\n")
    assert stats.stats(tmp_path / "a.rec") == stats.Stats(
        records=4,
        bytes=(tmp_path / "a.rec").stat().st_size,
        classes=[(0, "ant", 1), (1, "bee", 0), (2, None, 2)],
        several_labels=1,
        width=(20, 20, 40),
        height=(10, 30, 50),
        channels={1: 1, 3: 3},
        formats={"jpeg": 3, "png": 1},
    )


def test_stats_names_a_damaged_record(tmp_path):
    with RecordWriter(tmp_path / "a.rec") as writer:
        writer.write(5, 0, b"GIF89a..")
    with pytest.raises(FormatError, match=r"record 0 \(key 5\) at byte 0: a GIF, which is not"):
        stats.stats(tmp_path / "a.rec")


def test_class_names(tmp_path):
    rec = tmp_path / "a.rec"
    assert read_class_names(rec) is None
    names = tmp_path / "a.classes.txt"
    names.write_bytes("Bär\r\nhen of the woods\r\n".encode())
    assert read_class_names(rec) == ["Bär", "hen of the woods"]
    names.write_text("a\n\nb\n")
    with pytest.raises(FormatError, match=r"a\.classes\.txt: line 2 is empty; expected a class"):
        read_class_names(rec)


# --- Splitting -------------------------------------------------------------------------------


@pytest.mark.thorough
@QUICK
@given(
    counts=st.lists(st.integers(1, 9), min_size=5, max_size=30),
    fraction=st.sampled_from([0.1, 0.25, 0.5]),
)
def test_allocate_keeps_the_fractions(counts, fraction):
    labels = np.repeat(np.arange(len(counts)), counts)
    if len(labels) * fraction < 1:
        return
    train, val = stats.allocate(labels, [1 - fraction, fraction])
    assert sorted([*train, *val]) == list(range(len(labels)))
    assert abs(len(val) - fraction * len(labels)) <= 1
    for label, count in enumerate(counts):
        assert abs((labels[val] == label).sum() - fraction * count) <= 1


@pytest.mark.parametrize(
    "fractions, message",
    [
        ([], r"add up to 1, got \[\]"),
        ([0.5, 0.6], r"positive and add up to 1, got \[0.5, 0.6\]"),
        ([1.5, -0.5], "positive and add up to 1"),
        ([float("nan"), 1.0], "positive and add up to 1"),
        ([0.99, 0.01], "6 records are too few"),
    ],
)
def test_allocate_wrong_fractions(fractions, message):
    with pytest.raises(InputError, match=message):
        stats.allocate([0] * 6, fractions)


def test_split(rec, tmp_path):
    class_names_path(rec).write_text("a\nb\nc\n")
    source = {r.key: r for r in read_all(rec.with_suffix(""))}
    parts = {tmp_path / "x": 0.5, tmp_path / "y": 0.5}
    assert list(stats.split(rec, parts, seed=1).values()) == [3, 3]
    x, y = read_all(tmp_path / "x"), read_all(tmp_path / "y")
    assert sorted(r.label for r in x) == sorted(r.label for r in y) == [0, 1, 2]
    assert {r.key: r for r in [*x, *y]} == source
    assert [r.key for r in x] == sorted(r.key for r in x)
    assert read_class_names(tmp_path / "y.rec") == ["a", "b", "c"]
    with pytest.raises(InputError, match=r"x\.rec exists"):
        stats.split(rec, parts)


def test_split_is_all_or_nothing(rec, tmp_path):
    (tmp_path / "y.rec").write_text("precious")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"y\.rec exists"):
        stats.split(rec, {tmp_path / "x": 0.5, tmp_path / "y": 0.5})
    assert sorted(tmp_path.iterdir()) == before


def test_split_several_labels(tmp_path):
    with RecordWriter(tmp_path / "a.rec") as writer:
        for i in range(4):
            writer.write(i, [i, i], jpeg())
    parts = {tmp_path / "x": 0.75, tmp_path / "y": 0.25}
    with pytest.raises(InputError, match=r"has several labels, .* split without stratifying"):
        stats.split(tmp_path / "a.rec", parts)
    assert list(stats.split(tmp_path / "a.rec", parts, stratified=False).values()) == [3, 1]

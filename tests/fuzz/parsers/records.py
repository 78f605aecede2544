"""Record files, their index, and pictures."""

import functools

import cv2
import numpy as np

from gluon_asymmnet.data.image_headers import image_info
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.data.records import verify
from gluon_asymmnet.data.records.recordio import MAGIC, RecordFile, frame, pack
from gluon_asymmnet.data.records.repair import repair
from gluon_asymmnet.errors import InputError
from tests.fuzz import mutations as damage
from tests.fuzz.parsers.base import Target, picture


def record_seeds():
    labels = (0.0, 2.0, [1.0, 2.5], 1.0)
    plain = b"".join(
        frame(pack(i, label, picture(40 * i, encoding=(".jpg", ".png")[i % 2])))
        for i, label in enumerate(labels)
    )
    split = frame(pack(0, 1, picture() + MAGIC * 2)) + frame(pack(1, 0, picture()))
    return [plain, split]


def damaged_records(rng, seed):
    """At the frames and headers, or anywhere."""
    if rng.random() < 0.4:
        return damage.damaged_bytes(rng, seed)
    starts = [at for at in range(0, len(seed), 4) if seed[at : at + 4] == MAGIC]
    fields = [at + offset for at in starts for offset in (0, 4, 4, 8, 12, 16, 24, 32)]
    return damage.damaged_fields(rng, seed, [at for at in fields if at + 4 <= len(seed)])


def write_records(folder, data, index=b"", name="a"):
    path = folder / f"{name}.rec"
    path.write_bytes(data)
    if index:
        path.with_suffix(".idx").write_bytes(index)
    return path


def read_records(folder, data):
    with RecordFile(write_records(folder, data)) as file:
        for i in range(len(file)):
            file.label(i)
            decode(file.read(i).image)


def read_and_repair(folder, data):
    """``verify`` and ``repair`` cope with any content, and what is repaired is sound."""
    rec = write_records(folder, data)
    report = verify.verify(rec, threads=1)
    try:
        kept = repair(rec, folder / "b.rec", threads=1)
    except InputError:
        assert report.bad, "a sound file was refused"
        raise
    assert report.bad or not kept.dropped  # where padding alone is cut off, nothing is lost
    assert verify.verify(folder / "b.rec", threads=1)[:2] == (kept.records, [])


INDEX = b"7\t0\n3\t%d\n5\t%d\n9\t%d\n"


@functools.cache
def indexed():
    """A record file and its index."""
    data = record_seeds()[0]
    starts = [at for at in range(4, len(data), 4) if data[at : at + 4] == MAGIC]
    return data, INDEX % tuple(starts)


def read_index(folder, data):
    with RecordFile(write_records(folder, indexed()[0], data)) as file:
        assert len(file) <= len(indexed()[0]) // 8
        for i in range(len(file)):
            file.read(i)


def damaged_index(rng, seed):
    return damage.damaged_lines(rng, seed) or b"\n"


# ------------------------------------------------------------------------------ images


def image_seeds():
    grey = cv2.imencode(".png", np.arange(48, dtype=np.uint8).reshape(6, 8))[1].tobytes()
    deep = cv2.imencode(".png", np.ones((5, 7, 3), np.uint16))[1].tobytes()
    clear = cv2.imencode(".png", np.ones((5, 7, 4), np.uint8))[1].tobytes()
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 1]
    stepped = cv2.imencode(".jpg", np.ones((20, 30, 3), np.uint8), options)[1].tobytes()
    return [picture(), picture(encoding=".png"), grey, deep, clear, stepped]


def read_image(folder, data):
    rgb, info = decode(data), image_info(data)
    assert rgb.shape == (info.height, info.width, 3)
    assert rgb.dtype == np.uint8


TARGETS = {
    "recordio": Target("`RecordFile`", record_seeds, damaged_records, read_records, 20_000),
    "repair": Target(
        "`verify.verify`, `repair`", record_seeds, damaged_records, read_and_repair, 20_000
    ),
    "idx": Target("the index of `RecordFile`", lambda: [indexed()[1]], damaged_index, read_index),
    "image": Target(
        "`images.decode`, `image_info`", image_seeds, damage.damaged_image, read_image,
        6 * 1032 * 8,  # two copies of the pixels that a byte of PNG can hold
    ),
}  # fmt: skip

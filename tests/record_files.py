"""Small pictures and record files, and damage to them, that several test modules share."""

import struct
import zlib

import cv2
import numpy as np

from gluon_asymmnet.data.image_headers import PNG_START
from gluon_asymmnet.data.images import encode


def noise(height=24, width=32, seed=0):
    """Smooth noise, so that JPEG keeps it to within a few levels."""
    small = np.random.RandomState(seed).randint(0, 256, (3, 4, 3)).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def jpeg(seed=0, **size):
    return encode(noise(seed=seed, **size))


def grey(level, size=(12, 16)):
    """A PNG of one level."""
    return encode(np.full((*size, 3), level, np.uint8), ".png")


def png(array):
    return cv2.imencode(".png", array)[1].tobytes()


def with_exif(image, body):
    return image[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + image[2:]


QUARTER_TURN = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + bytes(4)


def bomb(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"IEND"
    return PNG_START + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, end)
    )


def overwrite(path, start, data):
    """Overwrite bytes from ``start`` on."""
    content = bytearray(path.read_bytes())
    content[start : start + len(data)] = data
    path.write_bytes(bytes(content))


def edit(path, **at):
    """Overwrite bytes in several places: ``edit(path, at8=b"..")`` at byte 8."""
    for key, data in at.items():
        overwrite(path, int(key[2:]), data)


def offsets(rec):
    """The bytes at which the records start, by the index."""
    lines = rec.with_suffix(".idx").read_text().splitlines()
    return [int(line.split("\t")[1]) for line in lines]

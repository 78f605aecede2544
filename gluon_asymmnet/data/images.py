"""Decode, encode and inspect JPEG and PNG images in memory; damaged data raise FormatError."""

from __future__ import annotations

import re
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from gluon_asymmnet.errors import FormatError

# Limit of decoded pixels against decompression bombs: a header of 30 bytes can claim 12 GB.
# Pillow has the same limit (twice its MAX_IMAGE_PIXELS).
MAX_PIXELS = 178_956_970

# Largest number of pixels per byte of the file, so that a small file cannot claim much memory.
# JPEG: a block of 8 x 8 pixels takes at least one bit (its Huffman code).  PNG: deflate compresses
# up to 1,032 bytes into one (zlib's technical notes), and a byte holds up to 8 pixels.
_PIXELS_PER_BYTE = {"jpeg": 8 * 64, "png": 1032 * 8}


class ImageInfo(NamedTuple):
    """Format, size and channels of an encoded image, from its header."""

    format: str  # "jpeg" or "png"
    width: int  # pixels
    height: int
    channels: int  # colour channels as stored; a palette counts as 3


_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
# A marker is FF and a byte.  FF00 and FF01 are data, FFD0-FFD7 restarts, FFD8 the start, FFFF fill.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
_JPEG_END = 0xD9
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield ``(marker, body)`` up to the end marker; FormatError if there is none.

    The end marker of an embedded preview image does not count: it is inside a segment's body.
    Source: ITU-T T.81, annex B.
    """
    at = 2
    while True:
        found = _JPEG_MARKER.search(data, at)
        if not found:
            raise FormatError("truncated JPEG: its end marker is missing")
        marker, at = found[1][0], found.end()
        if marker == _JPEG_END:
            return
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            raise FormatError(f"truncated or damaged JPEG: segment {marker:02x} at byte {at}")
        yield marker, data[at + 2 : at + length]
        at += length


def _jpeg_info(data: bytes) -> ImageInfo:
    for marker, body in _jpeg_segments(data):
        if marker in _JPEG_FRAMES and len(body) >= 6:
            _, height, width, channels = struct.unpack_from(">BHHB", body)
            return ImageInfo("jpeg", width, height, channels)
    raise FormatError("damaged JPEG: no segment gives its size")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield ``(type, body)`` up to IEND; FormatError if a checksum is wrong."""
    view, at = memoryview(data), len(_PNG)
    while True:
        if at + 12 > len(data):
            raise FormatError("truncated PNG: its end chunk is missing")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise FormatError(f"truncated PNG: chunk {kind!r} at byte {at} claims {length} bytes")
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise FormatError(f"damaged PNG: the checksum of chunk {kind!r} at byte {at} is wrong")
        if kind == b"IEND":
            return
        yield kind, view[at + 8 : end]
        at = end + 4


def _png_info(data: bytes) -> ImageInfo:
    kind, body = next(_png_chunks(data), (b"", b""))
    if kind != b"IHDR" or len(body) != 13:
        raise FormatError("damaged PNG: it does not start with its header")
    width, height, _, colour = struct.unpack_from(">IIBB", body)
    if colour not in _PNG_CHANNELS:
        raise FormatError(f"damaged PNG: colour type {colour}")
    return ImageInfo("png", width, height, _PNG_CHANNELS[colour])


def image_info(image: bytes) -> ImageInfo:
    """Return format, size and channels of an encoded image without decoding it.

    Raises: FormatError if it is neither JPEG nor PNG, or its header is damaged.
    """
    if image.startswith(_JPEG):
        return _jpeg_info(image)
    if image.startswith(_PNG):
        return _png_info(image)
    raise FormatError(
        f"neither JPEG nor PNG: it starts with {image[:8].hex()}" if image else "no image: 0 bytes"
    )


def decode(image: bytes) -> np.ndarray:
    """Decode a JPEG or PNG.

    Returns: ``(height, width, 3)`` uint8, RGB.  Grey is repeated, transparency is dropped, 16 bits
        are reduced to the upper 8.  The EXIF orientation is *not* applied: MXNet's record reader
        does not apply it either, and a file must give the same pixels in every engine.

    Raises: FormatError with the reason if the image is damaged, truncated (OpenCV would fill the
        rest with grey), of another format, or claims more pixels than its bytes can hold or
        ``MAX_PIXELS`` allows.  Damage inside the compressed data of a JPEG is not detected: JPEG
        has no checksum.
    """
    info = image_info(image)
    most = min(MAX_PIXELS, len(image) * _PIXELS_PER_BYTE[info.format])
    if not 0 < info.width * info.height <= most:
        raise FormatError(
            f"the header claims {info.width} x {info.height} pixels; "
            f"expected 1 to {most} from {len(image)} bytes"
        )
    deque(_jpeg_segments(image) if info.format == "jpeg" else _png_chunks(image), maxlen=0)
    try:
        bgr = cv2.imdecode(
            np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except (cv2.error, MemoryError) as error:
        reason = getattr(error, "err", "out of memory")  # the text of cv2.error has several lines
        raise FormatError(f"the {info.format} does not decode: {reason}") from None
    if bgr is None or bgr.shape[:2] != (info.height, info.width):
        raise FormatError(f"damaged {info.format}: it does not decode")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def encode(rgb: np.ndarray, encoding: str = ".jpg", quality: int = 95) -> bytes:
    """Encode ``(height, width, 3)`` uint8 RGB as ``.jpg`` of ``quality`` (1 to 100) or ``.png``."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if encoding == ".jpg" else []
    _, data = cv2.imencode(encoding, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    return data.tobytes()


def resize_shorter_side(rgb: np.ndarray, shorter: int) -> np.ndarray:
    """Resize the shorter side to ``shorter`` pixels; return ``rgb`` itself if it has that size."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    if side == shorter:
        return rgb
    size = (max(1, round(width * shorter / side)), max(1, round(height * shorter / side)))
    # Bilinear, im2rec's choice, skips pixels from a factor of 2 on; area averages all of them.
    return cv2.resize(
        rgb, size, interpolation=cv2.INTER_AREA if shorter < side else cv2.INTER_CUBIC
    )


def fit_image(image: bytes, shorter: int, encoding: str, quality: int) -> bytes:
    """Resize and encode an encoded image; ``shorter`` is its shorter side in pixels, 0: unchanged.

    An image that already has this size and encoding is returned byte for byte.  It is still decoded
    to find damage, which would end the process of MXNet's reader.

    Raises: FormatError.
    """
    rgb = decode(image)
    fitted = resize_shorter_side(rgb, shorter) if shorter else rgb
    if fitted is rgb and image_info(image).format == {".jpg": "jpeg", ".png": "png"}[encoding]:
        return image
    return encode(fitted, encoding, quality)

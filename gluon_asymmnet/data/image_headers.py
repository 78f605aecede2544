"""Size, format and EXIF rotation of encoded images, from their headers.

JPEG and PNG are checked up to their end marker; the other formats have none.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from gluon_asymmnet.errors import FormatError


class ImageInfo(NamedTuple):
    """Format, size and channels of an encoded image, from its header."""

    format: str  # "jpeg", "png", "bmp", "webp", "tiff", "jp2", "pnm" or "ras"
    width: int  # pixels, of the picture as people see it: after the EXIF rotation
    height: int
    channels: int  # colour channels as stored; a palette counts as 3
    orientation: int = 1  # EXIF's tag 0x0112, 1 to 8; 1: stored as it is seen

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height of the stored pixels, before the EXIF rotation."""
        size = self.width, self.height
        return size if self.orientation < 5 else size[::-1]


JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
# A marker is FF and a byte.  FF00 and FF01 are data, FFD0-FFD7 restarts, FFD8 the start, FFFF fill.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
_JPEG_END = 0xD9
_JPEG_APP1 = 0xE1
_EXIF = b"Exif\0\0"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
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
    orientation = 1
    for marker, body in jpeg_segments(data):
        if marker == _JPEG_APP1 and body.startswith(_EXIF) and orientation == 1:
            orientation = _orientation(body[len(_EXIF) :])
        if marker in _JPEG_FRAMES and len(body) >= 6:
            _, height, width, channels = struct.unpack_from(">BHHB", body)
            return _upright("jpeg", width, height, channels, orientation)
    raise FormatError("damaged JPEG: no segment gives its size")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield ``(type, body)`` up to IEND; FormatError if a checksum is wrong."""
    view, at = memoryview(data), len(PNG_START)
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
    chunks = png_chunks(data)
    kind, body = next(chunks, (b"", b""))
    if kind != b"IHDR" or len(body) != 13:
        raise FormatError("damaged PNG: it does not start with its header")
    width, height, _, colour = struct.unpack_from(">IIBB", body)
    if colour not in _PNG_CHANNELS:
        raise FormatError(f"damaged PNG: colour type {colour}")
    exif = b""
    if b"eXIf" in data:
        exif = next((bytes(body) for kind, body in chunks if kind == b"eXIf"), b"")
    return _upright("png", width, height, _PNG_CHANNELS[colour], _orientation(exif))


# TIFF tags (TIFF 6.0, section 8); EXIF is a TIFF directory, too.
_WIDTH, _HEIGHT, _BITS, _ORIENTATION, _SAMPLES, _SAMPLE_FORMAT = 256, 257, 258, 274, 277, 339
_TIFF = (b"II*\0", b"MM\0*")


def _tiff_tags(data: bytes) -> dict[int, int]:
    """Return the whole numbers in a TIFF's first directory; the first one of an array.

    Raises: FormatError if the directory is cut off.
    """
    order = "<" if data.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        tags = {}
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, n = struct.unpack_from(order + "HHI", data, at)
            if kind in (3, 4):  # 16 or 32 bits; what does not fit four bytes lies elsewhere
                code, size = ("H", 2) if kind == 3 else ("I", 4)
                place = (
                    at + 8 if n * size <= 4 else struct.unpack_from(order + "I", data, at + 8)[0]
                )
                (tags[tag],) = struct.unpack_from(order + code, data, place)
    except struct.error:
        raise FormatError("damaged TIFF directory: it is cut off") from None
    return tags


def _orientation(exif: bytes) -> int:
    """Return the orientation in an EXIF block; 1 if it has none or is damaged."""
    if not exif.startswith(_TIFF):
        return 1
    try:
        value = _tiff_tags(exif).get(_ORIENTATION, 1)
    except FormatError:
        return 1
    return value if 1 <= value <= 8 else 1


def _upright(form: str, width: int, height: int, channels: int, orientation: int = 1) -> ImageInfo:
    if orientation >= 5:
        width, height = height, width
    return ImageInfo(form, width, height, channels, orientation)


def _tiff_info(data: bytes) -> ImageInfo:
    tags = _tiff_tags(data)
    if _WIDTH not in tags or _HEIGHT not in tags:
        raise FormatError("damaged TIFF: its directory gives no size")
    if tags.get(_BITS, 1) > 16 or tags.get(_SAMPLE_FORMAT, 1) != 1:
        raise FormatError("a TIFF of floating or 32-bit numbers; convert it to 8 bits")
    orientation = tags.get(_ORIENTATION, 1)
    return _upright(
        "tiff", tags[_WIDTH], tags[_HEIGHT], tags.get(_SAMPLES, 1),
        orientation if 1 <= orientation <= 8 else 1,
    )  # fmt: skip


def _webp_info(data: bytes) -> ImageInfo:
    """Source: RFC 9649, sections 2.3 to 2.7."""
    at, size, exif = 12, None, b""
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + length]
        if len(body) < length:
            raise FormatError(f"truncated WebP: chunk {kind!r} at byte {at} claims {length} bytes")
        if kind == b"VP8X" and length >= 10:
            if body[0] & 2:
                raise FormatError("an animated WebP; expected one picture")
            size = tuple(int.from_bytes(body[k : k + 3], "little") + 1 for k in (4, 7))
        elif kind == b"VP8 " and length >= 10:
            size = size or tuple(value & 0x3FFF for value in struct.unpack_from("<HH", body, 6))
        elif kind == b"VP8L" and length >= 5:
            bits = int.from_bytes(body[1:5], "little")
            size = size or ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        elif kind == b"EXIF":
            exif = body.removeprefix(_EXIF)
        at += 8 + length + length % 2
    if size is None:
        raise FormatError("damaged WebP: no chunk gives its size")
    return _upright("webp", *size, 3, _orientation(exif))


def _bmp_info(data: bytes) -> ImageInfo:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return ImageInfo("bmp", width, abs(height), 3)


def _jp2_info(data: bytes) -> ImageInfo:
    height, width, channels = struct.unpack_from(">IIH", data, data.index(b"ihdr") + 4)
    return ImageInfo("jp2", width, height, channels)


def _pnm_info(data: bytes) -> ImageInfo:
    found = re.match(rb"P([1-6])(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s", data)
    return ImageInfo("pnm", int(found[2]), int(found[3]), 3 if found[1] in b"36" else 1)


def _ras_info(data: bytes) -> ImageInfo:
    width, height = struct.unpack_from(">II", data, 4)
    return ImageInfo("ras", width, height, 3)


_PARSERS = {  # the start of a file -> its parser
    rb"\xff\xd8\xff": _jpeg_info,
    rb"\x89PNG\r\n\x1a\n": _png_info,
    rb"BM": _bmp_info,
    rb"RIFF....WEBP": _webp_info,
    rb"II\*\0|MM\0\*": _tiff_info,
    rb"\0\0\0\x0cjP  ": _jp2_info,
    rb"P[1-6]\s": _pnm_info,
    rb"\x59\xa6\x6a\x95": _ras_info,
}
_STARTS = [(re.compile(start, re.DOTALL), parse) for start, parse in _PARSERS.items()]
_REFUSED = {  # formats that OpenCV does not decode, or not to 8 bits
    rb"GIF8": "a GIF",
    rb"....ftyp(avif|avis)": "an AVIF",
    rb"....ftyp(hei|hev|mif1|msf1)": "an HEIC",
    rb"P[7Ff]\s|#\?R|\x76\x2f\x31\x01": "a PAM or a picture of floating numbers",
}


def starts_like_a_picture(head: bytes) -> bool:
    """Whether the first bytes of a file, 16 or more, are a picture's, also a refused one's."""
    return any(re.match(start, head, re.DOTALL) for start in (*_PARSERS, *_REFUSED))


def image_info(image: bytes) -> ImageInfo:
    """Return format, size and rotation of an encoded image without decoding it.

    Raises: FormatError if it has another format, or its header is damaged.
    """
    for start, parse in _STARTS:
        if start.match(image):
            try:
                return parse(image)
            except (struct.error, ValueError, TypeError) as error:
                if isinstance(error, FormatError):
                    raise
                raise FormatError("damaged image: its header is cut off") from None
    for start, name in _REFUSED.items():
        if re.match(start, image, re.DOTALL):
            raise FormatError(f"{name}, which is not supported; convert it to JPEG or PNG")
    raise FormatError(
        f"not a picture: it starts with {image[:8].hex()}; expected JPEG, PNG, BMP, WebP, TIFF, "
        f"JPEG 2000, PNM or Sun raster"
        if image
        else "an empty file: 0 bytes"
    )

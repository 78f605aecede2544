"""Picture files of all kinds, to compare two readers: formats, colours, EXIF, shapes, sizes."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image, ImageCms

SIZES = ((1, 1), (3, 2), (17, 33), (48, 48), (55, 61), (110, 110), (96, 200), (333, 77), (20, 411),
         (640, 480), (165, 220))  # fmt: skip
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2))  # fmt: skip


def photograph(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Return ``(height, width, 3)`` uint8 RGB: smooth colours, edges, and noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    noisy = smooth + rng.normal(0, 12, smooth.shape)
    noisy[height // 3 : height // 2, width // 4 : width // 2] = (250, 20, 130)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def odd_pictures() -> dict[str, bytes]:
    """Return picture files by a name that says what is odd; all but ``cmyk`` are exact."""
    rgb = photograph(131, 97)
    picture = Image.fromarray(rgb)
    mask = Image.fromarray(photograph(131, 97, 1)[:, :, 0])
    clear = picture.copy()
    clear.putalpha(mask)
    found = {f"jpeg-{w}x{h}.jpg": _saved(Image.fromarray(photograph(w, h, w)), "JPEG")
             for w, h in SIZES}  # fmt: skip
    found |= {f"png-{w}x{h}.png": _saved(Image.fromarray(photograph(w, h, w)), "PNG")
              for w, h in SIZES}  # fmt: skip
    for turn in range(1, 9):
        found[f"jpeg-exif-{turn}.jpg"] = _saved(picture, "JPEG", exif=_exif(turn))
    for turn in (3, 6):
        found[f"png-exif-{turn}.png"] = _saved(picture, "PNG", exif=_exif(turn))
        found[f"webp-exif-{turn}.webp"] = _saved(picture, "WEBP", exif=_exif(turn))
    for sampling, name in enumerate(("444", "422", "420")):
        found[f"jpeg-{name}.jpg"] = _saved(picture, "JPEG", subsampling=sampling, quality=90)
        found[f"jpeg-{name}-poor.jpg"] = _saved(picture, "JPEG", subsampling=sampling, quality=20)
    profile = _wide_profile()
    found |= {
        "jpeg-progressive.jpg": _saved(picture, "JPEG", progressive=True),
        "jpeg-restarts.jpg": _saved(picture, "JPEG", restart_marker_blocks=3),
        "jpeg-grey.jpg": _saved(picture.convert("L"), "JPEG"),
        "jpeg-grey-exif-8.jpg": _saved(picture.convert("L"), "JPEG", exif=_exif(8)),
        "jpeg-profile.jpg": _saved(picture, "JPEG", icc_profile=profile),
        "jpeg-damaged-exif.jpg": _saved(picture, "JPEG", exif=_exif(6)[:20]),
        "jpeg-comment.jpg": _saved(picture, "JPEG", comment=b"\xff\xd9 not the end"),
        "jpeg-and-more.jpg": _saved(picture, "JPEG") + b"\xff\xd8\xff\xe0 a second picture",
        "cmyk.jpg": _saved(picture.convert("CMYK"), "JPEG"),
        "png-1-bit.png": _saved(picture.convert("1"), "PNG"),
        "png-grey.png": _saved(picture.convert("L"), "PNG"),
        "png-grey-alpha.png": _saved(clear.convert("LA"), "PNG"),
        "png-palette.png": _saved(picture.quantize(200), "PNG"),
        "png-palette-4.png": _saved(picture.quantize(13), "PNG", bits=4),
        "png-palette-2.png": _saved(picture.quantize(4), "PNG", bits=2),
        "png-palette-clear.png": _saved(picture.quantize(50), "PNG", transparency=3),
        "png-colour-clear.png": _saved(picture, "PNG", transparency=tuple(map(int, rgb[0, 0]))),
        "png-alpha.png": _saved(clear, "PNG"),
        "png-alpha-exif-5.png": _saved(clear, "PNG", exif=_exif(5)),
        "png-profile.png": _saved(picture, "PNG", icc_profile=profile),
        "png-gamma.png": _with_chunk(_saved(picture, "PNG"), b"gAMA", struct.pack(">I", 20_000)),
        "png-16-bits.png": _png_16(np.dstack([rgb] * 1).astype(np.uint16) * 251 + 77),
        "png-16-bits-grey.png": _png_16(rgb[:, :, 0].astype(np.uint16) * 251 + 77),
        "png-interlaced.png": interlaced(rgb),
        "png-interlaced-3x2.png": interlaced(rgb[:2, :3]),
        "webp-lossy.webp": _saved(picture, "WEBP", quality=70),
        "webp-lossless.webp": _saved(picture, "WEBP", lossless=True),
        "webp-alpha.webp": _saved(clear, "WEBP", quality=80),
        "webp-lossless-alpha.webp": _saved(clear, "WEBP", lossless=True, exact=True),
        "webp-profile.webp": _saved(picture, "WEBP", icc_profile=profile),
        "bmp.bmp": _saved(picture, "BMP"),
        "bmp-palette.bmp": _saved(picture.quantize(60), "BMP"),
    }  # fmt: skip
    for w, h in ((55, 61), (333, 77), (640, 480)):
        found[f"webp-{w}x{h}.webp"] = _saved(Image.fromarray(photograph(w, h, w)), "WEBP")
    return found


def interlaced(rgb: np.ndarray) -> bytes:
    """Return an interlaced PNG (Adam7), which Pillow and OpenCV do not write."""
    height, width = rgb.shape[:2]
    rows = b"".join(
        b"\0" + row.tobytes()
        for left, top, across, down in _ADAM7
        for row in rgb[top::down, left::across]
        if len(row)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _saved(picture: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def _exif(turn: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    return exif.tobytes()


def _wide_profile() -> bytes:
    """Return an ICC profile with exchanged red and green, so that applying it shows."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(data[at : at + 4]): at for at in range(132, 132 + 12 * data[131], 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = (
        data[green + 4 : green + 12], data[red + 4 : red + 12],
    )  # fmt: skip
    return bytes(data)


def _png_16(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """Return the PNG with a further chunk behind its header."""
    return png[:33] + _chunk(kind, body) + png[33:]

"""Decode, turn, resize and encode images in memory; damaged data raise FormatError."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

from gluon_asymmnet.data.image_headers import ImageInfo, image_info, jpeg_segments, png_chunks
from gluon_asymmnet.errors import FormatError

try:
    import simplejpeg  # optional: the same libjpeg-turbo, with less around it than in OpenCV
except ImportError:
    simplejpeg = None

# Limit of decoded pixels against decompression bombs: a header of 30 bytes can claim 12 GB.
# Pillow has the same limit (twice its MAX_IMAGE_PIXELS).
MAX_PIXELS = 178_956_970

# Largest number of pixels per byte of the file, so that a small file cannot claim much memory.
# JPEG: a block of 8 x 8 pixels takes at least one bit (its Huffman code).  PNG: deflate compresses
# up to 1,032 bytes into one (zlib's technical notes), and a byte holds up to 8 pixels.
_PIXELS_PER_BYTE = {"jpeg": 8 * 64, "png": 1032 * 8}
_PARTS = {"jpeg": jpeg_segments, "png": png_chunks}  # reading all of them finds a truncated end

# Of each EXIF orientation: transposed first, then mirrored left to right, top to bottom.
TURNS = {
    1: (False, False, False), 2: (False, True, False), 3: (False, True, True),
    4: (False, False, True), 5: (True, False, False), 6: (True, True, False),
    7: (True, True, True), 8: (True, False, True),
}  # fmt: skip
_LONGEST_SIDE = 32_767  # pixels; OpenCV's limit for the side of a picture that it resizes


def checked_info(image: bytes) -> ImageInfo:
    """Return format, size and rotation of an image; check it as far as possible without decoding.

    Raises: FormatError as ``decode``, except for damage inside the compressed data.
    """
    info = image_info(image)
    most = min(MAX_PIXELS, len(image) * _PIXELS_PER_BYTE.get(info.format, MAX_PIXELS))
    if not 0 < info.width * info.height <= most:
        raise FormatError(
            f"the header claims {info.width} x {info.height} pixels; "
            f"expected 1 to {most} from {len(image)} bytes"
        )
    if info.format in _PARTS:
        deque(_PARTS[info.format](image), maxlen=0)
    return info


def decode(image: bytes | np.ndarray, shorter: int = 0) -> np.ndarray:
    """Decode an encoded image, turned as its EXIF rotation says.  An RGB array is returned as is.

    This is the package's one rule, for records, folders, VOC, COCO and ``predict``.  MXNet's own
    reader ImageRecordIter does not turn pictures.

    Args:
        shorter: decode a JPEG at 1/8, 1/4 or 1/2 of its size if its shorter side keeps at least
            this many pixels; 0: at its size.

    Returns: ``(height, width, 3)`` uint8, RGB.  Grey is repeated, transparency is dropped, 16 bits
        are reduced to the upper 8.

    Raises: FormatError with the reason if the image is damaged, truncated (OpenCV would fill the
        rest with grey), of another format, or claims more pixels than its bytes can hold or
        ``MAX_PIXELS`` allows.  Damage inside the compressed data of a JPEG is not detected: JPEG
        has no checksum.
    """
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise FormatError(f"an array {image.shape} {image.dtype}, expected (H, W, 3) uint8")
        return image
    info = checked_info(image)
    if info.format == "tiff":  # OpenCV always turns it; of the other formats, only some versions do
        return _decode_opencv(image, info, (info.width, info.height), cv2.IMREAD_COLOR)
    divisor = _divisor(info, shorter)
    size = tuple(-(-side // divisor) for side in info.stored_size)
    rgb = _decode_simplejpeg(image, info, size)
    if rgb is None:
        flags = _DIVISORS[divisor] | cv2.IMREAD_IGNORE_ORIENTATION
        rgb = _decode_opencv(image, info, size, flags)
    return turn(rgb, info.orientation)


# libjpeg decodes at these fractions from fewer coefficients.  Others, such as 3/8, save no time.
_DIVISORS = {
    8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}  # fmt: skip


def _divisor(info: ImageInfo, shorter: int) -> int:
    if not shorter or info.format != "jpeg":
        return 1
    return next((d for d in _DIVISORS if -(-min(info.stored_size) // d) >= shorter), 1)


def _decode_simplejpeg(image: bytes, info: ImageInfo, size: tuple[int, int]) -> np.ndarray | None:
    """Return OpenCV's pixels in half of its time; None if simplejpeg does not give them.

    It refuses damage that OpenCV decodes, and converts CMYK otherwise.
    """
    if simplejpeg is None or info.format != "jpeg" or info.channels not in (1, 3):
        return None
    try:
        rgb = simplejpeg.decode_jpeg(image, "RGB", min_width=size[0], min_height=size[1])
    except (ValueError, MemoryError):
        return None
    return rgb if rgb.shape[1::-1] == size else None


def _decode_opencv(image: bytes, info: ImageInfo, size: tuple[int, int], flags: int) -> np.ndarray:
    try:
        bgr = cv2.imdecode(np.frombuffer(image, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        reason = getattr(error, "err", "out of memory")  # the text of cv2.error has several lines
        raise FormatError(f"the {info.format} does not decode: {reason}") from None
    if bgr is None or bgr.shape[1::-1] != size:
        raise FormatError(f"damaged {info.format}: it does not decode")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def turn(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Return stored pixels ``(height, width, 3)`` as people see them.

    Args:
        orientation: EXIF's tag 0x0112, 1 to 8.  Source: EXIF 2.3 (JEITA CP-3451C).
    """
    if orientation == 1:
        return stored
    transpose, flip_x, flip_y = TURNS[orientation]
    array = stored.swapaxes(0, 1) if transpose else stored
    array = array[:, ::-1] if flip_x else array
    return np.ascontiguousarray(array[::-1] if flip_y else array)


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
    require_sides(width, height, size)
    # Bilinear, im2rec's choice, skips pixels from a factor of 2 on; area averages all of them.
    return cv2.resize(
        rgb, size, interpolation=cv2.INTER_AREA if shorter < side else cv2.INTER_CUBIC
    )


def require_sides(width: int, height: int, resized: tuple[int, int]) -> None:
    """Raise FormatError if resizing a picture makes a side that is too long to be meant."""
    if max(resized) > _LONGEST_SIDE:
        raise FormatError(
            f"the picture is too narrow: {width} x {height} pixels become {resized[0]} x "
            f"{resized[1]}; expected at most {_LONGEST_SIDE} a side"
        )


def fit_image(image: bytes, shorter: int, encoding: str, quality: int) -> bytes:
    """Resize and encode an encoded image; ``shorter`` is its shorter side in pixels, 0: unchanged.

    An image that already has this size and encoding, and no EXIF rotation, is returned byte for
    byte.  It is still decoded to find damage, which would end the process of MXNet's reader.  A
    rotated one is turned, and its tag is gone.

    Raises: FormatError.
    """
    rgb = decode(image)
    fitted = resize_shorter_side(rgb, shorter) if shorter else rgb
    info, wanted = image_info(image), {".jpg": "jpeg", ".png": "png"}[encoding]
    if fitted is rgb and info.format == wanted and info.orientation == 1:
        return image
    return encode(fitted, encoding, quality)

"""Read and find the images to predict: files, bytes, Pillow's images and arrays."""

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import BinaryIO, Union

import numpy as np

from gluon_asymmnet.data.image_files import IMAGE_SUFFIXES, is_image_file, list_images_below
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.parallel import map_in_order

Image = Union[str, Path, bytes, BinaryIO, "PIL.Image.Image", np.ndarray]  # noqa: F821
_IMAGES = (
    "a path, the bytes of a picture file, a binary file object, a PIL.Image or an array (H, W, 3) "
    "uint8 RGB"
)
_BYTES = (bytes, bytearray, memoryview)


def image_batches(images: Union[Image, Iterable[Image]], batch_size: int) -> Iterator[list[Image]]:
    """Yield lists of at most ``batch_size`` images, of one image or of any iterable of images.

    An array with 1 or 4 axes is a sequence of images, another array is one image.

    Raises: InputError if it is neither.
    """
    return in_batches(_each(images), batch_size)


def prepared_batches(
    images: Union[Image, Iterable[Image]], prepare: Callable, batch_size: int, threads: int
) -> Iterator[np.ndarray]:
    """Yield ``prepare(image)`` of each image, stacked, at most ``batch_size`` of them.

    While the caller uses a batch, threads prepare the next one, or two images each if that is more;
    no more images are taken from ``images``.

    Raises: as ``image_batches`` and ``prepare``, in the images' order.
    """
    rest, ahead = _each(images), max(batch_size, 2 * threads)
    alone = _is_image(images) or (isinstance(images, Sized) and len(images) == 1)
    ready = map(prepare, rest) if alone else map_in_order(prepare, rest, threads, ahead=ahead)
    return map(np.stack, in_batches(ready, batch_size))


def _each(images) -> Iterator[Image]:
    if _is_image(images):
        return iter([images])
    if isinstance(images, Iterable):
        return iter(images)
    raise InputError(f"images must be {_IMAGES}, or several, got {_type_name(images)}")


def in_batches(items: Iterator, size: int) -> Iterator[list]:
    """Yield lists of ``size`` items; the last one may be shorter."""
    return iter(lambda: list(itertools.islice(items, size)), [])


def read_image(image: Image, shorter: int = 0) -> np.ndarray:
    """Return an image in the orientation that people see.

    Args:
        shorter: pixels of the shorter side that are enough: JPEG files may be decoded at 1/2, 1/4
            or 1/8 of their size, see ``data.images.decode``; 0: at their size.
        image: a picture file (grey is repeated, CMYK converted, transparency dropped): its path,
            its bytes, or a file object opened with "rb", read from its position on; a
            ``PIL.Image`` of 8 bits; or an array ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or
            ``(H, W, 4)`` uint8, RGB or RGBA.

    Returns: ``(H, W, 3)`` uint8 RGB, turned as its EXIF rotation says, as everywhere.

    Raises:
        FormatError: the file is damaged or of another format; the message names it.
        FileNotFoundError: there is no such file.
        InputError: another type, or an array of another shape or dtype.
    """
    if isinstance(image, np.ndarray):
        return _rgb(image)
    if not _is_image(image):
        raise InputError(f"an image must be {_IMAGES}, got {_type_name(image)}")
    if _is_pillow(image):
        return _from_pillow(image)
    if isinstance(image, _BYTES):
        return decode(bytes(image), shorter)
    if isinstance(image, (str, os.PathLike)):
        return _decode(_read_file(Path(image)), image, shorter)
    data = image.read()
    name = getattr(image, "name", "the file object")
    if not isinstance(data, bytes):
        raise InputError(f'{name} is read as text; expected a file opened with "rb"')
    return _decode(data, name, shorter)


def _is_image(value) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim not in (1, 4)
    return (
        isinstance(value, (str, os.PathLike, *_BYTES)) or hasattr(value, "read")
        or _is_pillow(value)
    )  # fmt: skip


def _is_pillow(value) -> bool:
    pillow = sys.modules.get("PIL.Image")  # None: then nobody has made such an image
    return pillow is not None and isinstance(value, pillow.Image)


def _type_name(value) -> str:
    return "None" if value is None else type(value).__name__


def _read_file(path: Path) -> bytes:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected a picture")
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected a picture")
    return path.read_bytes()


def _decode(data: bytes, name, shorter: int) -> np.ndarray:
    try:
        return decode(data, shorter)
    except FormatError as error:
        raise FormatError(f"{name}: {error}") from None


def _from_pillow(image) -> np.ndarray:
    from PIL import ImageOps

    if image.mode[0] in "IF":  # 16 or 32 bits, which Pillow would cut at 255
        raise InputError(
            f"a PIL.Image must have 8 bits per channel, got the mode {image.mode}; scale it and "
            f"convert it to RGB or L"
        )
    try:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError) as error:  # its file is read only now
        raise FormatError(f"the PIL.Image cannot be read: {error}") from None


def _rgb(array: np.ndarray) -> np.ndarray:
    shape = array.shape if array.ndim == 3 else (*array.shape, 1)
    if array.dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3, 4) or not array.size:
        raise InputError(
            f"an image must be (H, W), (H, W, 3) or (H, W, 4) uint8, got {array.shape} "
            f"{array.dtype}"
        )
    array = array.reshape(shape)
    return np.repeat(array, 3, axis=2) if shape[2] == 1 else array[:, :, :3]


def find_pictures(
    folder: Union[str, Path], accept: Callable[[str], bool] = is_image_file
) -> list[Path]:
    """List the picture files in a folder and below it, sorted by path.

    Args:
        accept: decides by a file's name.

    Raises: FileNotFoundError for a missing folder, InputError for one without pictures.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    found = list_images_below(folder, accept)
    if not found:
        raise InputError(f"{folder} holds no {', '.join(IMAGE_SUFFIXES)} file")
    return found

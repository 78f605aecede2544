"""Read and find the images to predict: files, folders and arrays."""

from collections.abc import Iterable
from pathlib import Path
from typing import Union

import numpy as np

from gluon_asymmnet.data.image_files import IMAGE_SUFFIXES, list_images_below
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.errors import FormatError, InputError

Image = Union[str, Path, np.ndarray]


def read_image(image: Image) -> np.ndarray:
    """Return an image in the orientation that people see.

    Args:
        image: a picture file (grey is repeated, CMYK converted, transparency dropped), or an
            array ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)`` uint8, RGB or RGBA.

    Returns: ``(H, W, 3)`` uint8 RGB, turned as its EXIF rotation says, as everywhere.

    Raises:
        FormatError: the file is damaged or of another format; the message names it.
        FileNotFoundError: there is no such file.
        InputError: an array has another shape or type.
    """
    if isinstance(image, np.ndarray):
        return _rgb(image)
    path = Path(image)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected a picture")
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected a picture")
    try:
        return decode(path.read_bytes())
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None


def _rgb(array: np.ndarray) -> np.ndarray:
    shape = array.shape if array.ndim == 3 else (*array.shape, 1)
    if array.dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3, 4) or not array.size:
        raise InputError(
            f"an image must be (H, W), (H, W, 3) or (H, W, 4) uint8, got {array.shape} "
            f"{array.dtype}"
        )
    array = array.reshape(shape)
    return np.repeat(array, 3, axis=2) if shape[2] == 1 else array[:, :, :3]


def find_image_files(paths: Iterable[Union[str, Path]]) -> list[tuple[Path, Path]]:
    """List image files in the order of ``paths``; those inside a folder sorted by path.

    Returns: ``(file, relative path)`` pairs.  The relative path is the file's name, for a file of a
        folder preceded by the folder's name: ``photos/a/1.jpg`` for ``holiday/photos/a/1.jpg`` of
        ``holiday/photos``.

    Raises: FileNotFoundError for a missing path, InputError for a folder without images.
    """
    found = []
    for given in map(Path, paths):
        if not given.exists():
            raise FileNotFoundError(f"{given}: no such file or folder")
        if not given.is_dir():
            found.append((given, Path(given.name)))
            continue
        inside = list_images_below(given)
        if not inside:
            raise InputError(f"{given} holds no {', '.join(IMAGE_SUFFIXES)} file")
        root = given.resolve().name
        found += [(path, Path(root) / path.relative_to(given)) for path in inside]
    return found

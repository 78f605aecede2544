"""Pictures of users, as opposed to records: files, folders and arrays."""

from collections.abc import Iterable
from pathlib import Path
from typing import Union

import cv2
import numpy as np

from gluon_asymmnet.data.images import decode
from gluon_asymmnet.errors import FormatError, InputError

Picture = Union[str, Path, np.ndarray]
EXTENSIONS = (".jpg", ".jpeg", ".png")
_EXIF = (b"Exif\0\0", b"eXIf")  # in JPEG and in PNG


def read_picture(picture: Picture) -> np.ndarray:
    """Return a picture as people see it.

    Args:
        picture: a JPEG or PNG file, of which grey is repeated, CMYK converted and transparency
            dropped; or an array ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)`` uint8,
            RGB or RGBA.

    Returns: ``(H, W, 3)`` uint8 RGB, turned as the camera noted (EXIF).  Records are not turned,
        see ``data.images.decode``; people's photographs are upright to them.

    Raises:
        FormatError: if the file is damaged or of another format; it is named.
        FileNotFoundError: if there is none.
        InputError: for an array of another shape or type.
    """
    if isinstance(picture, np.ndarray):
        return _rgb(picture)
    path = Path(picture)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected a JPEG or PNG")
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected a JPEG or PNG")
    data = path.read_bytes()
    try:
        rgb = decode(data)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None
    if any(mark in data for mark in _EXIF):  # a second time: now OpenCV turns it
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return rgb


def _rgb(array: np.ndarray) -> np.ndarray:
    shape = array.shape if array.ndim == 3 else (*array.shape, 1)
    if array.dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3, 4) or not array.size:
        raise InputError(
            f"a picture must be (H, W), (H, W, 3) or (H, W, 4) uint8, got {array.shape} "
            f"{array.dtype}"
        )
    array = array.reshape(shape)
    return np.repeat(array, 3, axis=2) if shape[2] == 1 else array[:, :, :3]


def find_pictures(paths: Iterable[Union[str, Path]]) -> list[tuple[Path, Path]]:
    """List pictures in the order given; those of a folder, and of folders in it, by name.

    Returns: ``(file, where it stands)``; the second is its name, below the folder's if it came
        with one: ``photos/a/1.jpg`` for ``holiday/photos/a/1.jpg`` of ``holiday/photos``.

    Raises: FileNotFoundError for a missing path, InputError for a folder without pictures.
    """
    found = []
    for given in map(Path, paths):
        if not given.exists():
            raise FileNotFoundError(f"{given}: no such file or folder")
        if not given.is_dir():
            found.append((given, Path(given.name)))
            continue
        inside = sorted(p for p in given.rglob("*") if p.suffix.lower() in EXTENSIONS)
        if not inside:
            raise InputError(f"{given} holds no {', '.join(EXTENSIONS)} file")
        root = given.resolve().name
        found += [(path, Path(root) / path.relative_to(given)) for path in inside]
    return found


def annotated(rgb: np.ndarray, text: str) -> np.ndarray:
    """Return a copy of ``(H, W, 3)`` uint8 RGB with a line of text in a band at its top.

    OpenCV's fonts have ASCII only: another letter becomes a question mark.
    """
    text = text.encode("ascii", "replace").decode()
    height, width = rgb.shape[:2]
    (plain, tall), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1, 1)
    # a twentieth of the height for the letters, but the whole line has to fit into the width
    scale = min(height / 20 / tall, width * 0.96 / max(plain, 1))
    band = max(1, round((tall + below) * scale * 1.3))
    drawn = np.ascontiguousarray(rgb).copy()
    drawn[:band] //= 4
    cv2.putText(
        drawn, text, (round(width * 0.02), round(tall * scale * 1.25)), cv2.FONT_HERSHEY_SIMPLEX,
        scale, (255, 255, 255), max(1, round(scale)), cv2.LINE_AA,
    )  # fmt: skip
    return drawn

"""Fashion-MNIST, 70,000 grey pictures of clothes, 28 x 28 pixels, from its IDX files to records."""

from __future__ import annotations

import gzip
import itertools
import math
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gluon_asymmnet.data.class_names import name_lines
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.data.records.recordio import PathLike
from gluon_asymmnet.data.records.stats import allocate, permutation
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.atomic import new_folder
from gluon_asymmnet.utils.cache import cache_folder
from gluon_asymmnet.utils.download import download, md5
from gluon_asymmnet.utils.parallel import silent

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip
IMAGES = {"train": 60_000, "t10k": 10_000}
SIDE = 28  # pixels
HELD_OUT = 6_000  # of the training images, by default

_HOME = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
# MD5 from the README of github.com/zalandoresearch/fashion-mnist.
_FILES = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}

_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_MAX_BYTES = 1 << 30  # of an IDX file's values
_CHUNK = 1 << 16  # bytes


def read_idx(path: PathLike) -> np.ndarray:
    """Return the array of an IDX file, plain or compressed by gzip.

    Raises:
        FileNotFoundError: there is no such file.
        FormatError: it is not an IDX file, damaged, or has other than 1 to 4 dimensions.

    Source: http://yann.lecun.com/exdb/mnist, "the IDX file format".
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected an IDX file")
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    try:
        with (gzip.open if compressed else open)(path, "rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
                raise FormatError(f"{path}: not an IDX file: it starts with {magic.hex()}")
            dtype, axes = np.dtype(_DTYPES[magic[2]]), magic[3]
            if not 1 <= axes <= 4:
                raise FormatError(f"{path}: an IDX file of {axes} dimensions, expected 1 to 4")
            shape = [int.from_bytes(file.read(4), "big") for _ in range(axes)]
            size = math.prod(shape) * dtype.itemsize
            if math.prod(max(side, 1) for side in shape) * dtype.itemsize > _MAX_BYTES:
                raise FormatError(f"{path}: {shape} values take more than {_MAX_BYTES} bytes")
            # In parts: one read of a size that a damaged header gives would reserve it.
            parts = iter(lambda: file.read(_CHUNK), b"")
            data = b"".join(itertools.islice(parts, size // _CHUNK + 2))
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise
        raise FormatError(f"{path}: damaged gzip: {error}") from None
    if len(data) != size:
        more = "more" if len(data) > size else len(data)
        raise FormatError(f"{path}: {shape} values take {size} bytes, it holds {more}")
    return np.frombuffer(data, dtype).reshape(shape)


def read_fashion(folder: PathLike, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images ``(n, 28, 28)`` uint8 and labels ``(n,)`` uint8 of a part of ``IMAGES``.

    Args:
        folder: with the four IDX files under their names, ``.gz`` or plain, as the Debian package
            ``dataset-fashion-mnist`` has them in ``/usr/share/datasets/fashion-mnist``.

    Raises: FileNotFoundError; FormatError for damaged files, or another number of images or labels.
    """
    images, labels = (
        read_idx(_find(Path(folder), f"{part}-{kind}-ubyte"))
        for kind in ("images-idx3", "labels-idx1")
    )
    count = IMAGES[part]
    for array, shape in ((images, (count, SIDE, SIDE)), (labels, (count,))):
        if array.shape != shape or array.dtype != np.uint8:
            raise FormatError(
                f"{folder}: {part} holds {array.shape} {array.dtype}, expected {shape} uint8"
            )
    if labels.max() >= len(CLASSES):
        raise FormatError(f"{folder}: {part} has the label {labels.max()}, expected 0 to 9")
    return images, labels


def _find(folder: Path, name: str) -> Path:
    compressed = folder / f"{name}.gz"
    return compressed if compressed.exists() or not (folder / name).exists() else folder / name


def write_fashion(
    out: PathLike,
    *,
    source: PathLike | None = None,
    mirror: str | None = None,
    held_out: int = HELD_OUT,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Write ``train``, ``val`` and ``test`` records to the folder ``out``, all or nothing.

    ``val`` holds ``held_out`` of the 60,000 training images, as many of each class; ``test`` the
    10,000 test images in their order.  The images are PNGs of 32 x 32 pixels, RGB: the 28 x 28
    ones with two black pixels on each side.  Keys are the positions in the IDX files.

    Args:
        source: a folder with the four files; default: they are downloaded, once, to the cache.
        mirror: URL of a folder with the same files, in place of their home page.
        held_out: 10 to 50,000; a multiple of 10 gives classes of equal size.
        seed: of the split, and of the order of ``train.rec``; equal seeds give equal bytes.
        progress: called with (done, total) images.

    Returns: number of records by file.
    Raises: InputError; as ``read_fashion`` and ``utils.download.download``.

    Source: Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747; licence MIT.
    """
    if not 10 <= held_out <= 50_000:
        raise InputError(f"held_out must be 10 to 50000 images, got {held_out}")
    progress = progress or silent
    folder = Path(source) if source is not None else _download(mirror)
    parts = {part: read_fashion(folder, part) for part in IMAGES}
    labels = parts["train"][1]
    share = held_out / len(labels)
    training, validation = allocate(labels, [1 - share, share], seed=seed)
    training = training[permutation(len(training), seed)]
    chosen = {
        "train": (*parts["train"], training), "val": (*parts["train"], validation),
        "test": (*parts["t10k"], np.arange(IMAGES["t10k"])),
    }  # fmt: skip
    done, total = 0, sum(IMAGES.values())
    with new_folder(Path(out)) as scratch:
        for name, (images, labels, positions) in chosen.items():
            with RecordWriter(scratch / f"{name}.rec") as writer:
                writer.add_file(scratch / f"{name}.classes.txt").write(name_lines(CLASSES))
                for i in positions:
                    writer.write(int(i), int(labels[i]), encode(_rgb(images[i]), ".png"))
                    done += 1
                    progress(done, total)
    return {name: len(positions) for name, (_, _, positions) in chosen.items()}


def _rgb(grey: np.ndarray) -> np.ndarray:
    """Return ``(32, 32, 3)`` uint8 of ``(28, 28)``."""
    return np.repeat(np.pad(grey, 2)[:, :, None], 3, axis=2)


def _download(mirror: str | None) -> Path:
    folder = cache_folder() / "fashion-mnist"
    for name, checksum in _FILES.items():
        url = f"{(mirror or _HOME).rstrip('/')}/{name}"
        download(
            url, folder / name, md5(checksum), max_bytes=1 << 26, what=name,
            resume="the same command",
        )  # fmt: skip
    return folder

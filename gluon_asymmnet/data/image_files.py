"""Tell which files of a folder are pictures: one rule for class folders, VOC and ``predict``.

Videos are told apart here, too; only ``predict`` and ``detect`` read them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from gluon_asymmnet.data.records.recordio import PathLike

# Formats that OpenCV decodes to 8 bits per channel.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".jp2",
    ".ppm", ".pgm", ".pbm", ".pnm", ".ras",
)  # fmt: skip

# Pictures that cannot be decoded here.  They count as pictures, so that none is missing without a
# word: reading one raises FormatError, which names the format.
REFUSED_SUFFIXES = (".gif", ".heic", ".heif", ".avif", ".hdr", ".exr", ".pfm", ".pam")

# Containers that FFmpeg reads.  Without .ts, which is more often TypeScript.
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp",
    ".mts", ".m2ts", ".ogv", ".mjpg", ".mjpeg",
)  # fmt: skip

# Files and folders that systems add by themselves.  Names are compared in lower case.
_SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"})


def is_hidden(name: str) -> bool:
    """Whether a file or folder is left out without a word: ``.DS_Store``, ``__MACOSX``."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def is_image_file(name: str) -> bool:
    """Whether the file name ends like a picture; also ``.gif`` and others that are refused."""
    return name.lower().endswith((*IMAGE_SUFFIXES, *REFUSED_SUFFIXES))


def is_video_file(name: str) -> bool:
    """Whether the file name ends like a video."""
    return name.lower().endswith(VIDEO_SUFFIXES)


def list_folder(folder: PathLike) -> tuple[list[str], list[str]]:
    """Return the sorted names of folders and files in a folder, without hidden ones.

    A link counts as what it points to; a broken link is a file, which cannot be read.
    """
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_hidden(entry.name):
                (folders if entry.is_dir() else files).append(entry.name)
    return sorted(folders), sorted(files)


def list_images_below(
    folder: PathLike, accept: Callable[[str], bool] = is_image_file
) -> list[Path]:
    """Return the picture files in a folder and its subfolders, sorted by path.

    ``accept`` decides by a file's name.  Linked folders are followed, but none twice, so that a
    link upward does no harm.
    """
    found, left, seen = [], [Path(folder)], set()
    while left:
        at = left.pop()
        if at.resolve() in seen:
            continue
        seen.add(at.resolve())
        folders, files = list_folder(at)
        left += [at / name for name in folders]
        found += [at / name for name in files if accept(name)]
    return sorted(found)

"""List the images of a folder with one subfolder per class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gluon_asymmnet.data.image_files import is_image_file, list_folder
from gluon_asymmnet.data.records.recordio import PathLike
from gluon_asymmnet.errors import InputError

_TREE = "expected one folder per class: <folder>/<class>/<image>.jpg"


def list_class_folders(
    root: PathLike, classes: Sequence[str] | None = None
) -> tuple[list[str], list[tuple[int, str]], int]:
    """List the images of a folder of class folders, without hidden files.

    Returns: class names, ``(label, path relative to root)`` of every image, number of other files.

    Args:
        root: a folder of ``<class>/<image>.jpg`` or ``.png``.
        classes: class names in label order; default: the folders in alphabetical order.

    Raises: FileNotFoundError; InputError for another structure, or a folder not in ``classes``.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such folder; {_TREE}")
    if not root.is_dir():
        raise InputError(f"{root}: is a file; {_TREE}")
    folders, loose = _listing(root)
    stray = [name for name in loose if is_image_file(name)]
    if stray:
        raise InputError(
            f"{root}: {len(stray)} images in no class folder, e.g. {stray[0]}; {_TREE}"
        )
    if not folders:
        raise InputError(f"{root}: no class folders; {_TREE}")
    names = list(classes) if classes is not None else folders
    unknown = [name for name in folders if name not in names]
    if unknown:
        raise InputError(
            f"{root}: folder {unknown[0]!r} is none of the {len(names)} classes given; "
            f"rename or remove it"
        )
    images, ignored = [], len(loose)
    for name in folders:
        nested, files = _listing(root / name)
        if nested:
            raise InputError(f"{root / name}: holds the folder {nested[0]!r}; {_TREE}")
        found = [file for file in files if is_image_file(file)]
        label = names.index(name)
        images += [(label, f"{name}/{file}") for file in found]
        ignored += len(files) - len(found)
    if not images:
        raise InputError(f"{root}: no picture in its {len(folders)} class folders; {_TREE}")
    return names, images, ignored


def _listing(folder: Path) -> tuple[list[str], list[str]]:
    """Return the sorted names of folders and files, without hidden ones."""
    folders, files = list_folder(folder)
    for name in (*folders, *files):
        if re.search(r"[\t\r\n]", name):
            raise InputError(f"{folder}: {name!r} holds a tab or a line break; rename it")
    return folders, files

"""List the images of a folder with one subfolder per class."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gluon_asymmnet.data.class_names import match_classes, quote_names
from gluon_asymmnet.data.image_files import is_hidden, is_image_file, list_folder
from gluon_asymmnet.data.records.recordio import PathLike
from gluon_asymmnet.errors import InputError

_TREE = "expected one folder per class: <folder>/<class>/<image>.jpg"


class ClassFolders(NamedTuple):
    """The images of a folder of class folders."""

    class_names: list[str]
    images: list[tuple[int, str]]  # label and path relative to the folder
    remarks: list[str]  # ignored files and missing folders, with counts


def list_class_folders(root: PathLike, classes: Sequence[str] | None = None) -> ClassFolders:
    """List the images of a folder of class folders.

    Hidden files, those of operating systems, and files that are not pictures are ignored, and named
    in the remarks.

    Args:
        root: a folder of ``<class>/<image>``; see ``is_image_file``.
        classes: class names in label order; default: the folders in alphabetical order.

    Raises: FileNotFoundError; InputError for another structure, an empty folder, or a folder not in
        ``classes``.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such folder; {_TREE}")
    if not root.is_dir():
        raise InputError(f"{root}: is a file; {_TREE}")
    folders, loose, hidden = _listing(root)
    stray = [name for name in loose if is_image_file(name)]
    if stray:
        raise InputError(
            f"{root}: {len(stray)} images in no class folder, e.g. {stray[0]}; {_TREE}"
        )
    if not folders:
        raise InputError(f"{root}: no class folders; {_TREE}")
    names = list(classes) if classes is not None else folders
    labels = match_classes(folders, names, f"the folders of {root}", "the classes given")
    images, others, empty = [], loose, []
    for name, label in zip(folders, labels):
        nested, files, inside = _listing(root / name)
        if nested:
            raise InputError(f"{root / name}: holds the folder {nested[0]!r}; {_TREE}")
        pictures = [file for file in files if is_image_file(file)]
        images += [(label, f"{name}/{file}") for file in pictures]
        others += [f"{name}/{file}" for file in files if not is_image_file(file)]
        hidden += [f"{name}/{file}" for file in inside]
        if not pictures:
            empty.append(name)
    if empty:
        raise InputError(
            f"{root}: no picture in the class folders {quote_names(empty)}; add some, or remove "
            f"the folders"
        )
    missing = [name for label, name in enumerate(names) if label not in labels]
    remarks = [
        f"{text}: {quote_names(found)}"
        for text, found in (
            (f"ignored {len(hidden)} hidden files or folders", hidden),
            (f"ignored {len(others)} files that are not pictures", others),
            (f"no folder for {len(missing)} of {len(names)} classes", missing),
        )
        if found
    ]
    return ClassFolders(names, images, remarks)


def _listing(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Return the sorted names of folders, files, and hidden entries of both kinds."""
    folders, files = list_folder(folder)
    for name in (*folders, *files):
        if re.search(r"[\t\r\n]", name):
            raise InputError(f"{folder}: {name!r} holds a tab or a line break; rename it")
    return folders, files, sorted(filter(is_hidden, os.listdir(folder)))

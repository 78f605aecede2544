"""Read and write class-name files such as ``train.classes.txt``: line k is the name of label k."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gluon_asymmnet.data.records.recordio import PathLike
from gluon_asymmnet.data.text_files import read_lines
from gluon_asymmnet.errors import FormatError, InputError


def class_names_path(rec: PathLike) -> Path:
    """Return the class-name file of a record file: ``train.rec`` -> ``train.classes.txt``."""
    return Path(rec).with_suffix(".classes.txt")


def read_class_names(rec: PathLike) -> list[str] | None:
    """Return the class names beside a record file, or None if there is no such file.

    Raises: FormatError if the file is not UTF-8 text, a line is empty or a name comes twice.
    """
    path = class_names_path(rec)
    return load_class_names(path) if path.is_file() else None


def load_class_names(path: PathLike) -> list[str]:
    """Return the names in a class-name file, see ``read_lines``.

    Raises: FileNotFoundError; FormatError as above, or if a name comes twice.
    """
    lines = read_lines(path, "class name file")
    first: dict[str, int] = {}
    for number, name in lines:
        if not name:
            raise FormatError(f"{path}: line {number} is empty; expected a class name")
        if name in first:
            raise FormatError(
                f"{path}: line {number} is {name!r} again, as line {first[name]}; "
                f"each class has one line"
            )
        first[name] = number
    if not first:
        raise FormatError(f"{path}: it holds no class name; expected one per line")
    return list(first)


def name_lines(names: Sequence[str]) -> bytes:
    """Return the content of a class-name file.  Raises: InputError if a name is not one line."""
    text = "".join(f"{name}\n" for name in names)
    if text.count("\n") > len(names) or "\n\n" in f"\n{text}":
        raise InputError("class names must be one line each and not empty")
    for name in names:
        if name != name.strip() or name.startswith("#"):
            raise InputError(
                f"the class name {name!r} begins or ends with a blank, or begins with #; rename it"
            )
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise InputError(f"the class name {twice!r} comes twice; class names must differ")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"class names must be UTF-8 text: {error.object!r}"[:200]) from None

"""Read and write class-name files such as ``train.classes.txt``: line k is the name of label k."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gluon_asymmnet.data.records.recordio import PathLike, require_file
from gluon_asymmnet.errors import FormatError, InputError


def class_names_path(rec: PathLike) -> Path:
    """Return the class-name file of a record file: ``train.rec`` -> ``train.classes.txt``."""
    return Path(rec).with_suffix(".classes.txt")


def read_class_names(rec: PathLike) -> list[str] | None:
    """Return the class names beside a record file, or None if there is no such file.

    Raises: FormatError if the file is not UTF-8 text or a line is empty.
    """
    path = class_names_path(rec)
    return load_class_names(path) if path.is_file() else None


def load_class_names(path: PathLike) -> list[str]:
    """Return the names in a class-name file.  Raises: FileNotFoundError, FormatError as above."""
    path = Path(path)
    require_file(path, "class name file")
    try:
        names = path.read_bytes().decode("utf-8").rstrip("\r\n").split("\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: byte {error.start} is not UTF-8 text") from None
    names = [name.rstrip("\r") for name in names]
    if "" in names:
        raise FormatError(f"{path}: line {names.index('') + 1} is empty; expected a class name")
    return names


def name_lines(names: Sequence[str]) -> bytes:
    """Return the content of a class-name file.  Raises: InputError if a name is not one line."""
    text = "".join(f"{name}\n" for name in names)
    if text.count("\n") > len(names) or "\n\n" in f"\n{text}":
        raise InputError("class names must be one line each and not empty")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"class names must be UTF-8 text: {error.object!r}"[:200]) from None

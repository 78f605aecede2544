"""Class names: files such as ``train.classes.txt``, and classes of two lists matched by name.

Line k of a file is the name of label k.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from gluon_asymmnet.data.records.recordio import PathLike
from gluon_asymmnet.data.text_files import read_lines
from gluon_asymmnet.errors import FormatError, InputError

_MAX_SHOWN = 5  # names in a message


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


def match_classes(
    names: Sequence[str], model_names: Sequence[str], source: str, model: str, way_out: str = "",
    *, same: bool = False,
) -> list[int]:  # fmt: skip
    """Return the label that each class of a source has in a model, matched by name.

    Names are compared as people see them: in composed Unicode, without blanks around them.

    Args:
        names: class names of the source in label order.
        model_names: those of the model, which may have more, in another order.
        source, model: what they are, for the message.
        way_out: advice for the message.
        same: refuse a model with more classes, too.

    Raises: InputError naming the classes that the model does not have.
    """
    if list(names) == list(model_names):  # also names that come twice
        return list(range(len(names)))
    for owner, listed in ((source, names), (model, model_names)):
        repeated = _repeated(listed)
        if repeated:
            raise InputError(
                f"{owner} has several classes named {quote_names(repeated)}: they cannot be "
                f"matched by name"
            )
    labels = {_key(name): label for label, name in enumerate(model_names)}
    unknown = [name for name in names if _key(name) not in labels]
    ours = {_key(name) for name in names}
    others = [name for name in model_names if _key(name) not in ours]
    if unknown or (same and others):
        raise InputError(
            f"the classes differ: only in {source}: {quote_names(unknown) or 'none'}; only in "
            f"{model}: {quote_names(others) or 'none'}{'; ' if way_out else ''}{way_out}"
        )
    return [labels[_key(name)] for name in names]


def common_classes(names: Sequence[str], others: Sequence[str]) -> dict[int, int]:
    """Return the labels of the names that two lists share: {label in names: label in others}.

    Names are compared as in ``match_classes``; those that come twice in a list are left out.
    """
    unclear = {*map(_key, _repeated(names)), *_repeated(others)}
    labels = {_key(name): label for label, name in enumerate(others) if _key(name) not in unclear}
    return {k: labels[_key(name)] for k, name in enumerate(names) if _key(name) in labels}


def quote_names(names: Iterable[str]) -> str:
    """Return the first names, quoted, and the number of the others, for a message."""
    names = list(names)
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return ", ".join(map(repr, names[:_MAX_SHOWN])) + more


def _key(name: str) -> str:
    # macOS writes file names decomposed: "e" and an accent
    return unicodedata.normalize("NFC", name.strip())


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(map(_key, names)).items() if count > 1]

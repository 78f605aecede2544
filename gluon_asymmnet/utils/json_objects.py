"""Read JSON files that users may have edited or that may be damaged.

A dataclass made from one has values of the right types, so nothing fails later, or in MXNet.
"""

import dataclasses
import json
import reprlib
import typing
from pathlib import Path

from gluon_asymmnet.errors import FormatError

_DEEPEST = 20  # objects inside objects; json.dumps gives up at some 300
_LONGEST = 4096  # characters of a text, as of a path
_LARGEST = 2**63 - 1


def parse_object(data, where, what: str) -> dict:
    """Return the JSON object in ``data``, text or bytes.

    Args:
        where: the file, for the message.
        what: the expected content, for the message: "the card of a model".

    Raises: FormatError.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise FormatError(f"{where}: not {what}: {error}") from None
    if not isinstance(found, dict):
        raise FormatError(f"{where}: not {what}: it holds a {type(found).__name__}, not an object")
    return found


def read_json_lines(path: Path, damaged: typing.Optional[list[int]] = None) -> list[dict]:
    """Return the objects in a file of JSON lines, none if it is missing.

    Args:
        damaged: the numbers of damaged lines, from 1, are added here.  A last line without its end
            is not among them: it is being written, or the process was killed.
    """
    if not path.exists():
        return []
    found = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            found.append(parse_object(line, path, "a JSON object"))
        except FormatError:
            if damaged is not None and line.strip() and number < len(lines):
                damaged.append(number)
    return found


def json_key(field: dataclasses.Field) -> str:
    """Return the name of a field in the JSON: its metadata's ``key``, or its own name."""
    return field.metadata.get("key", field.name)


def make(kind, settings: dict, where, what: str, *, complete: bool = False):
    """Return the dataclass ``kind`` of a JSON object.

    Args:
        complete: every field is required except those that may be None, which older versions did
            not write, and unknown names are ignored, which newer ones may write; otherwise only
            fields without a default are required, and unknown names are an error.

    Raises: FormatError naming the first field that is missing, unknown or of another type.
    """
    hints, values = typing.get_type_hints(kind), {}
    unknown = dict(settings)
    for field in dataclasses.fields(kind):
        key = json_key(field)
        if key in unknown:
            value = unknown.pop(key)
            try:
                values[field.name] = _typed(value, hints[field.name])
            except (ValueError, OverflowError) as error:
                raise FormatError(
                    f"{where}: not {what}: {key} is {reprlib.repr(value)}, expected {error}"
                ) from None
        elif field.default is dataclasses.MISSING or (complete and field.default is not None):
            raise FormatError(f"{where}: not {what}: it lacks {key!r}")
    if unknown and not complete:
        raise FormatError(f"{where}: not {what}: it has {reprlib.repr(next(iter(unknown)))}")
    return kind(**values)


_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false",
          dict: "an object", list: "a list", tuple: "a list"}  # fmt: skip


def _typed(value, hint):
    """``value`` as the type of a field; ValueError with what is expected."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union:  # Optional
        return None if value is None else _typed(value, parts[0])
    if origin in (list, tuple):
        if not isinstance(value, list):
            raise ValueError(_NAMES[origin])
        return origin(_typed(item, parts[0]) for item in value)
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise ValueError(_NAMES[hint])
    if hint is int and abs(value) > _LARGEST:
        raise ValueError(f"a whole number up to {_LARGEST}")
    if hint is str and len(value) > _LONGEST:
        raise ValueError(f"a text of up to {_LONGEST} characters")
    if hint is dict and _depth(value) > _DEEPEST:
        raise ValueError(f"at most {_DEEPEST} levels of objects")
    return value


def _depth(value, above: int = 0) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if above > _DEEPEST:
        return above
    return max((_depth(item, above + 1) for item in inner), default=above)

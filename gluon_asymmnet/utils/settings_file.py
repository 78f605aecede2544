"""Settings from a file, JSON or YAML, for ``--config``."""

import dataclasses
import json
import reprlib
import typing
from pathlib import Path
from typing import Any

from gluon_asymmnet.errors import FormatError, InputError, did_you_mean
from gluon_asymmnet.utils.extras import load_extra
from gluon_asymmnet.utils.json_objects import parse_object
from gluon_asymmnet.utils.settings import flag_of

_WHAT = "settings of a training"


def read_settings(path, config_class) -> dict[str, Any]:
    """Return the settings in a file, by the names of the fields of ``config_class``.

    Keys are those of ``config.json`` or the names of flags, ``num_epochs`` or ``num-epochs``.  A
    null is left out, and so are the declined flags, which the ``config.json`` of earlier versions
    lists.  The run's own ``config.json`` can be read, too.

    Raises:
        InputError: for an unknown key, with the nearest known one, or a value of another type.
        FormatError: if the file is neither JSON nor YAML.
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    content = _parse(path)
    hints, known = typing.get_type_hints(config_class), _keys(config_class)
    declined = {_key(flag) for flag in config_class.declined}
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = known.get(_key(key))
        if name is None and _key(key) in declined and not value:
            continue
        if name is None:
            hint = did_you_mean(_key(key), known, "; see --help")
            raise InputError(f"{path}: unknown setting {key!r}{hint}")
        if name in found:
            raise InputError(f"{path}: {key!r} is given twice, under two names")
        if value is not None:
            found[name] = _typed(value, hints[name], f"{path}: {key}")
    return found


def _parse(path: Path) -> dict:
    data = path.read_bytes()
    if path.suffix.lower() not in (".yaml", ".yml"):
        return parse_object(data, path, _WHAT)
    yaml = load_extra("yaml")
    try:
        found = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not {_WHAT}: {' '.join(str(error).split())}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise FormatError(f"{path}: not {_WHAT}: it holds a {type(found).__name__}, not a mapping")
    return found


def _keys(config_class) -> dict[str, str]:
    """Return the field of each key: its own name, and those of its flags."""
    keys = {}
    for field in dataclasses.fields(config_class):
        flags = field.metadata["flags"] or (flag_of(config_class, field.name),)
        keys.update({_key(flag): field.name for flag in flags})
    return {**keys, **{f.name: f.name for f in dataclasses.fields(config_class)}}


def _key(flag) -> str:
    return str(flag).strip("-").replace("-", "_")


def _typed(value, hint, where: str):
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Union:  # Optional
        hint, parts = parts[0], typing.get_args(parts[0])
    try:
        if typing.get_origin(hint) is tuple:
            items = value.split(",") if isinstance(value, str) else value
            if not isinstance(items, list):
                raise ValueError
            return tuple(_number(item, parts[0]) for item in items)
        if hint in (int, float):
            return _number(value, hint)
        if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)  # YAML reads `tag_name: 3` as a number
        if type(value) is not hint:
            raise ValueError
        return value
    except (ValueError, OverflowError):
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        what = names.get(hint, "a list of numbers")
        raise InputError(f"{where} is {reprlib.repr(value)}, expected {what}") from None


def _number(value, kind: type):
    """Return a number; YAML 1.1 reads ``1e-4`` as a text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    if kind is int and isinstance(value, float) and value != int(value):
        raise ValueError
    return kind(value)


def shown(config) -> str:
    """Return a config as ``--print-config`` prints it and ``--config`` takes it, without nulls."""
    settings = {k: v for k, v in dataclasses.asdict(config).items() if v is not None}
    return json.dumps(settings, indent=1, ensure_ascii=False)

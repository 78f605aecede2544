"""Settings as frozen dataclasses, from which command lines are made.

A setting is declared once, as a field, which also gives its flag, type, default and help.  A class
can list flags of GluonCV's and the authors' scripts that it declines: ``declined`` maps each to the
reason.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.json_objects import make, parse_object

DECLINED_FLAG = "declined_flag"  # destination of the declined flags in the parser
_GROUPS = ("model", "data", "optimisation", "run")  # in the order of the help


def option(default, help_text: str, *flags: str, group: str = "run", **argparse_kwargs):
    """Declare one setting; ``flags`` replace the flag made from the field's name."""
    metadata = {"help": help_text, "flags": flags, "group": group, **argparse_kwargs}
    return dataclasses.field(default=default, metadata=metadata)


def at_least(config, name: str, bound) -> None:
    """Raise InputError for a setting below ``bound``."""
    if getattr(config, name) < bound:
        raise InputError(
            f"{flag_of(config, name)} must be at least {bound}, got {getattr(config, name)}"
        )


def flag_of(config, name: str) -> str:
    """Return the flag that sets a field."""
    field = next(f for f in dataclasses.fields(config) if f.name == name)
    return _flags(field)[0]


def _flags(field) -> Sequence[str]:
    return field.metadata["flags"] or ("--" + field.name.replace("_", "-"),)


def add_flags(parser: argparse.ArgumentParser, config_class) -> None:
    """Add a flag for every field to ``parser``.  Flags that are not given stay unset."""
    groups = {name: parser.add_argument_group(name) for name in _GROUPS}
    for field in dataclasses.fields(config_class):
        meta = dict(field.metadata)
        group = meta.pop("group")
        kwargs = {"dest": field.name, "default": argparse.SUPPRESS, "help": meta.pop("help")}
        flags = meta.pop("flags") or _flags(field)
        if isinstance(field.default, bool):
            kwargs["action"] = "store_true"
        else:
            kwargs["help"] += _shown_default(field.default)
            kwargs["type"] = _parser_of(field.default)
            kwargs["metavar"] = _metavar(field.default)
            if "choices" in meta:
                kwargs.pop("metavar")
        groups[group].add_argument(*flags, **kwargs, **meta)
    group = parser.add_argument_group("declined (of GluonCV's and the authors' flags)")
    for flag, reason in config_class.declined.items():
        group.add_argument(flag, action="store_const", const=flag, dest=DECLINED_FLAG,
                           default=argparse.SUPPRESS, help=reason)  # fmt: skip


def _shown_default(default) -> str:
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    return f" (default {default})" if default not in ("", None) else ""


def _metavar(default) -> str:
    return {int: "N", float: "X", tuple: "X,..."}.get(type(default), "TEXT")


def _parser_of(default):
    if not isinstance(default, tuple):
        return type(default)
    element = type(default[0])

    def numbers(text: str):
        return tuple(element(part) for part in text.split(",") if part.strip())

    numbers.__name__ = f"comma-separated {element.__name__}"
    return numbers


def to_json(config) -> str:
    """Return a config as JSON, one setting per line."""
    return json.dumps(dataclasses.asdict(config), indent=1) + "\n"


def from_json(config_class, path: Path):
    """Read a config that ``to_json`` wrote.  Raises: FormatError; FileNotFoundError."""
    what = "the configuration of a run"
    settings = parse_object(Path(path).read_bytes(), path, what)
    # Earlier versions wrote declined flags, too, as false or null.
    declined = {flag.lstrip("-").replace("-", "_") for flag in config_class.declined}
    given = {k: v for k, v in settings.items() if v is not None and k not in declined}
    return make(config_class, given, path, what)

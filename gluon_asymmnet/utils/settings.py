"""Settings as frozen dataclasses, and the command lines made from them.

A setting is declared once, as a field; its flag, type, default and help follow, so no flag can
be unread.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.json_objects import make, parse_object

REFUSED = "refused"  # group of flags that exist elsewhere and are declined here, with the reason


# in the order of the help
_GROUPS = {**{name: name for name in ("model", "data", "optimisation", "run")},
           REFUSED: "declined (of GluonCV's and the authors' flags)"}  # fmt: skip


def option(default, help_text: str, *flags: str, group: str = "run", **argparse_kwargs):
    """Declare one setting; ``flags`` replace the flag made from the field's name."""
    metadata = {"help": help_text, "flags": flags, "group": group, **argparse_kwargs}
    return dataclasses.field(default=default, metadata=metadata)


def refused(reason: str, *flags: str, switch: bool = False):
    """Declare a flag of GluonCV's or the authors' scripts that is declined, and why."""
    return option(False if switch else None, reason, *flags, group=REFUSED)


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
    """Give ``parser`` a flag for every field.  Flags that are not given stay unset."""
    groups = {name: parser.add_argument_group(title) for name, title in _GROUPS.items()}
    for field in dataclasses.fields(config_class):
        meta = dict(field.metadata)
        group = meta.pop("group")
        kwargs = {"dest": field.name, "default": argparse.SUPPRESS, "help": meta.pop("help")}
        flags = meta.pop("flags") or _flags(field)
        if isinstance(field.default, bool):
            kwargs["action"] = "store_true"
        elif group == REFUSED:
            kwargs["metavar"] = "..."
        else:
            kwargs["help"] += _shown_default(field.default)
            kwargs["type"] = _parser_of(field.default)
            kwargs["metavar"] = _metavar(field.default)
            if "choices" in meta:
                kwargs.pop("metavar")
        groups[group].add_argument(*flags, **kwargs, **meta)


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
    """Write a config as JSON, one setting a line."""
    return json.dumps(dataclasses.asdict(config), indent=1) + "\n"


def from_json(config_class, path: Path):
    """Read a config that ``to_json`` wrote.  Raises: FormatError; FileNotFoundError."""
    what = "the configuration of a run"
    settings = parse_object(Path(path).read_bytes(), path, what)
    # None: a flag that was declined when this was written, and unset
    given = {name: value for name, value in settings.items() if value is not None}
    return make(config_class, given, path, what)

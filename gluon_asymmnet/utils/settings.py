"""Settings as frozen dataclasses, from which command lines are made.

A setting is declared once, as a field, which also gives its flag, type, default and help.  A class
can list flags of GluonCV's and the authors' scripts that it declines: ``declined`` maps each to the
reason.
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.json_objects import make, parse_object
from gluon_asymmnet.utils.registry import Registry

DECLINED_FLAG = "declined_flag"  # destination of the declined flags in the parser
_GROUPS = ("model", "data", "optimisation", "run")  # in the order of the help


def option(
    default, help_text: str, *flags: str, group: str = "run", within: str = "", needs=(),
    **argparse_kwargs,
):  # fmt: skip
    """Declare one setting.

    Args:
        flags: replace the flag made from the field's name.
        within: interval of the numbers that can be meant, e.g. "[0, 1)" or "[1, inf)".
        needs: settings without which this one has no effect, all of them: "mixup" is set,
            "lr_mode=step" has this value, "!data_dir" is not set; "mixup|cutmix": one of both.
        argparse_kwargs: ``choices`` may be a ``Registry``; ``action="append"``: a tuple of texts,
            one for each time the flag is given.
    """
    needs = (needs,) if isinstance(needs, str) else needs
    rules = {"within": within, "needs": needs}
    metadata = {"help": help_text, "flags": flags, "group": group, **rules, **argparse_kwargs}
    return dataclasses.field(default=default, metadata=metadata)


def check_settings(config) -> None:
    """Raise InputError for a value that cannot be meant, and for one that would have no effect."""
    for field in dataclasses.fields(config):
        value, rules = getattr(config, field.name), field.metadata
        if value == field.default:
            continue
        flag = _flags(field)[0]
        choices = rules.get("choices")
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(choices, Registry):
                choices.find(item)
            elif choices is not None and item not in choices:
                raise InputError(f"{flag} must be one of {', '.join(choices)}, got {item!r}")
        for number in value if isinstance(value, tuple) else (value,):
            if rules["within"] and not _inside(number, rules["within"]):
                raise InputError(f"{flag} must be {_in_words(rules['within'])}, got {number}")
        for need in rules["needs"]:
            if not any(_holds(config, condition) for condition in need.split("|")):
                given = flag if value is True else f"{flag} {_shown(value)}"
                wanted = " or ".join(_wanted(config, condition) for condition in need.split("|"))
                raise InputError(f"{given} needs {wanted}")


def _inside(number, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    if not math.isfinite(number) or not low <= number <= high:
        return False
    return (interval[0] == "[" or number > low) and (interval[-1] == "]" or number < high)


def _in_words(interval: str) -> str:
    low, high = interval[1:-1].split(", ")
    if high != "inf":
        return f"in {interval}"
    return f"at least {low}" if interval[0] == "[" else f"above {low}"


def _holds(config, condition: str) -> bool:
    name, _, wanted = condition.lstrip("!").partition("=")
    value = getattr(config, name)
    if wanted:
        return (value == wanted) != condition.startswith("!")
    is_set = value is None or bool(value)  # None: a default that follows from other settings
    return is_set != condition.startswith("!")


def _wanted(config, condition: str) -> str:
    name, _, value = condition.lstrip("!").partition("=")
    flag = f"{flag_of(config, name)} {value}".rstrip()
    return f"no {flag}" if condition.startswith("!") else flag


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
        del meta["within"], meta["needs"]
        if isinstance(field.default, bool):
            kwargs["action"] = "store_true"
        else:
            kind = meta.pop("type", type(field.default))
            repeatable = meta.get("action") == "append"
            kwargs["type"] = str if repeatable else kind
            if kind is tuple and not repeatable:
                kwargs["type"] = _tuple_parser(field.default)
            if isinstance(meta.get("choices"), Registry):  # users may add to it
                kwargs["help"] += f"; one of {', '.join(meta.pop('choices'))}, or your own"
                kwargs["metavar"] = "NAME"
            elif "choices" not in meta:
                kwargs["metavar"] = {int: "N", float: "X", tuple: "X,..."}.get(kind, "TEXT")
                kwargs["metavar"] = meta.pop("metavar", kwargs["metavar"])
            kwargs["help"] += _shown_default(field.default)
        groups[group].add_argument(*flags, **kwargs, **meta)
    group = parser.add_argument_group("declined (of GluonCV's and the authors' flags)")
    for flag, reason in config_class.declined.items():
        group.add_argument(flag, action="store_const", const=flag, dest=DECLINED_FLAG,
                           default=argparse.SUPPRESS, help=reason)  # fmt: skip


def _shown_default(default) -> str:
    return f" (default {_shown(default)})" if default not in ("", None, ()) else ""


def _shown(value) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _tuple_parser(default: tuple):
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

"""Settings as frozen dataclasses, and the command lines made from them.

A setting is declared once, as a field; its flag, type, default and help follow, so no flag can
be unread.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.json_objects import make, parse_object
from gluon_asymmnet.recipes import RECIPES

REFUSED = "refused"  # group of flags that exist elsewhere and are declined here, with the reason


def option(default, help_text: str, *flags: str, group: str = "run", **argparse_kwargs):
    """Declare one setting; ``flags`` replace the flag made from the field's name."""
    metadata = {"help": help_text, "flags": flags, "group": group, **argparse_kwargs}
    return dataclasses.field(default=default, metadata=metadata)


def refused(reason: str, *flags: str, switch: bool = False):
    """Declare a flag of GluonCV's or the authors' scripts that is declined, and why."""
    return option(False if switch else None, reason, *flags, group=REFUSED)


def check_loop(config) -> None:
    """Check the settings that every task's training has.  Raises: InputError."""
    for name in ("num_epochs", "num_workers", "keep_last"):
        at_least(config, name, 1)
    for name in (
        "num_gpus", "threads", "log_interval", "save_frequency", "checkpoint_steps", "seed",
        "warmup_epochs", "warmup_lr", "lr", "lr_decay_period", "momentum", "wd", "patience",
        "clip_norm", "ema_power", "max_bad_records",
    ):  # fmt: skip
        at_least(config, name, 0)
    if not 0 <= config.ema < 1:
        raise InputError(f"--ema must be at least 0 and below 1, got {config.ema}")
    for name in ("rgb_mean", "rgb_std"):
        if len(getattr(config, name)) != 3:
            raise InputError(f"{flag_of(config, name)} takes three numbers: R,G,B")
    if min(config.rgb_std) <= 0:
        raise InputError(f"--rgb-std must be above 0, got {config.rgb_std}")
    if config.warmup_epochs >= config.num_epochs:
        raise InputError(
            f"--warmup-epochs {config.warmup_epochs} leaves nothing of the {config.num_epochs} "
            f"epochs; set it below {flag_of(config, 'num_epochs')}"
        )


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
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(config_class):
        meta = dict(field.metadata)
        group = meta.pop("group")
        if group not in groups:
            title = "declined (of GluonCV's and the authors' flags)" if group == REFUSED else group
            groups[group] = parser.add_argument_group(title)
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


def resolve(config_class, given: dict[str, Any]):
    """Return defaults, overridden by the recipe, overridden by what was given; checked."""
    names = {f.name: f for f in dataclasses.fields(config_class)}
    for name, value in given.items():
        if names[name].metadata["group"] == REFUSED and value not in (None, False):
            raise InputError(
                f"{_flags(names[name])[0]} is declined: {names[name].metadata['help']}"
            )
    recipe = given.get("recipe", "")
    settings = {**(RECIPES[recipe].settings if recipe else {}), **given}
    return config_class(**settings).check()


def parse_config(config_class, argv=None, *, prog: Optional[str] = None, description: str = ""):
    """Read a command line into a checked config."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    add_flags(parser, config_class)
    return resolve(config_class, vars(parser.parse_args(argv)))


def to_json(config) -> str:
    """Write a config as JSON, one setting a line."""
    return json.dumps(dataclasses.asdict(config), indent=1) + "\n"


def from_json(config_class, path: Path):
    """Read a config that ``to_json`` wrote.  Raises: FormatError; FileNotFoundError."""
    what = "the configuration of a run"
    return make(config_class, parse_object(Path(path).read_bytes(), path, what), path, what)

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

from gluon_asymmnet.data.constants import IMAGENET_MEAN, IMAGENET_STD
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.json_objects import make, parse_object
from gluon_asymmnet.recipes import RECIPES

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


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """What the training of every task can be told."""

    rgb_mean: tuple[float, ...] = option(IMAGENET_MEAN, "mean of R, G, B, 0 to 255", group="data")
    rgb_std: tuple[float, ...] = option(IMAGENET_STD, "deviation of R, G, B", group="data")
    lr_mode: str = option(
        "step", "schedule after the warm-up", group="optimisation",
        choices=("step", "poly", "cosine"),
    )  # fmt: skip
    lr_decay: float = option(0.1, "step: factor", group="optimisation")
    lr_decay_period: int = option(
        0, "step: every so many epochs; 0: at --lr-decay-epoch", group="optimisation"
    )
    warmup_lr: float = option(0.0, "learning rate before the first update", group="optimisation")
    no_wd: bool = option(False, "no weight decay on beta, gamma and bias", group="optimisation")
    clip_norm: float = option(
        0.0, "bound of the gradient's norm over all parameters; 0: none", group="optimisation"
    )
    ema: float = option(
        0.0, "decay of a moving average of the weights, e.g. 0.9999; 0: none", group="optimisation"
    )
    ema_power: float = option(
        0.75, "its warm-up: the decay of update n is at most 1 - n ** -EMA_POWER; 0: none",
        group="optimisation",
    )  # fmt: skip
    threads: int = option(0, "MXNet's CPU threads; 0: one per processor")
    patience: int = option(
        0, "end after so many epochs without a better validation; 0: after all epochs"
    )
    checkpoint_steps: int = option(0, "also checkpoint every so many steps; 0: after each epoch")
    keep_last: int = option(3, "checkpoints to keep, besides that of the best epoch")
    logging_file: str = option("log.txt", "log file in the run directory")

    @property
    def model_name(self) -> str:
        """What a run is named after: the model, or its spec file without folder."""
        return Path(self.model).stem if self.model.endswith(".json") else self.model

    def check_loop(self) -> None:
        """Raise InputError for one of these, or of what every task has, that cannot be meant."""
        for name in ("num_epochs", "num_workers", "keep_last"):
            at_least(self, name, 1)
        for name in (
            "num_gpus", "threads", "log_interval", "save_frequency", "checkpoint_steps", "seed",
            "warmup_epochs", "warmup_lr", "lr", "lr_decay_period", "momentum", "wd", "patience",
            "clip_norm", "ema_power", "max_bad_records",
        ):  # fmt: skip
            at_least(self, name, 0)
        if not 0 <= self.ema < 1:
            raise InputError(f"--ema must be at least 0 and below 1, got {self.ema}")
        for name in ("rgb_mean", "rgb_std"):
            if len(getattr(self, name)) != 3:
                raise InputError(f"{flag_of(self, name)} takes three numbers: R,G,B")
        if min(self.rgb_std) <= 0:
            raise InputError(f"--rgb-std must be above 0, got {self.rgb_std}")
        if self.warmup_epochs >= self.num_epochs:
            raise InputError(
                f"--warmup-epochs {self.warmup_epochs} leaves nothing of the {self.num_epochs} "
                f"epochs; set it below {flag_of(self, 'num_epochs')}"
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
    settings = parse_object(Path(path).read_bytes(), path, what)
    # None: a flag that was declined when this was written, and unset
    given = {name: value for name, value in settings.items() if value is not None}
    return make(config_class, given, path, what)

"""Options shared by all training tasks, and the command line made from them."""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any, ClassVar, Optional

from gluon_asymmnet.data.constants import IMAGENET_MEAN, IMAGENET_STD
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.train.optimizers import OPTIMIZERS, check_optimizer
from gluon_asymmnet.train.recipes import recipe_settings
from gluon_asymmnet.train.schedules import SCHEDULES
from gluon_asymmnet.utils.registry import import_modules
from gluon_asymmnet.utils.settings import DECLINED_FLAG, add_flags, check_settings, flag_of, option
from gluon_asymmnet.utils.threads import set_threads


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Settings shared by all training tasks."""

    imports: tuple[str, ...] = option(
        (), "module or .py file that registers own parts, see docs/python.md; repeatable",
        "--import", action="append",
    )  # fmt: skip
    rgb_mean: tuple[float, ...] = option(
        IMAGENET_MEAN, "mean of R, G, B, 0 to 255", group="data", within="[0, 255]"
    )
    rgb_std: tuple[float, ...] = option(
        IMAGENET_STD, "deviation of R, G, B", group="data", within="(0, inf)"
    )
    optimizer: str = option("nag", "optimizer", group="optimisation", choices=OPTIMIZERS)
    momentum: float = option(
        0.9, "momentum of nag, sgd and rmsprop", group="optimisation", within="[0, 1)"
    )
    beta1: float = option(
        0.9, "adam, adamw, lamb: decay of the average of the gradient", "--beta1",
        group="optimisation", within="[0, 1)",
    )  # fmt: skip
    beta2: float = option(
        0.999, "adam, adamw, lamb: decay of the average of its square", "--beta2",
        group="optimisation", within="[0, 1)",
    )  # fmt: skip
    rho: float = option(
        0.9, "rmsprop: decay of the average of the squared gradient", group="optimisation",
        within="[0, 1)",
    )  # fmt: skip
    epsilon: float = option(
        0.0, "added to the divisor; 0: 1e-8, lamb 1e-6", group="optimisation", within="[0, inf)"
    )
    lr_mode: str = option(
        "step", "schedule after the warm-up", group="optimisation", choices=SCHEDULES
    )
    lr_decay: float = option(
        0.1, "step and exp: factor", group="optimisation", within="[0, 1]",
        needs=("!lr_mode=cosine", "!lr_mode=poly"),
    )  # fmt: skip
    lr_decay_period: int = option(
        0,
        "step: every so many epochs, 0: at --lr-decay-epoch; exp: epochs in which the rate falls "
        "by the factor, 0: all epochs",
        group="optimisation",
        within="[0, inf)",
        needs=("!lr_mode=cosine", "!lr_mode=poly"),
    )
    warmup_lr: float = option(
        0.0,
        "learning rate before the first update",
        group="optimisation",
        within="[0, inf)",
        needs="warmup_epochs",
    )
    no_wd: bool = option(False, "no weight decay on beta, gamma and bias", group="optimisation")
    clip_norm: float = option(
        0.0,
        "bound of the gradient's norm over all parameters; 0: none",
        group="optimisation",
        within="[0, inf)",
    )
    ema: float = option(
        0.0,
        "decay of a moving average of the weights, e.g. 0.9999; 0: none",
        group="optimisation",
        within="[0, 1)",
    )
    ema_power: float = option(
        0.75, "its warm-up: the decay of update n is at most 1 - n ** -EMA_POWER; 0: none",
        group="optimisation", within="[0, inf)", needs="ema",
    )  # fmt: skip
    threads: int = option(0, "MXNet's CPU threads; 0: one per processor", within="[0, inf)")
    patience: int = option(
        0,
        "end after so many epochs without a better validation; 0: after all epochs",
        within="[0, inf)",
    )
    checkpoint_steps: int = option(
        0, "also checkpoint every so many steps; 0: after each epoch", within="[0, inf)"
    )
    keep_last: int = option(
        3, "checkpoints to keep, besides that of the best epoch", within="[1, inf)"
    )
    logging_file: str = option("log.txt", "log file in the run directory")

    usual_warmup: ClassVar[int]  # epochs, of a run that is not short

    @property
    def model_name(self) -> str:
        """The model in the name of the run; of a spec file its name without folder."""
        return Path(self.model).stem if self.model.endswith(".json") else self.model

    @property
    def warmup(self) -> int:
        """Epochs of linear warm-up; by default few enough for the run, and for a fine-tuning."""
        if self.warmup_epochs is not None:
            return self.warmup_epochs
        usual = min(1, self.usual_warmup) if self.finetune else self.usual_warmup
        return min(usual, -(-self.num_epochs // 3), self.num_epochs - 1)

    def settled(self, before: Optional["LoopConfig"] = None):
        """Return the config with the epochs of the warm-up written out.

        Args:
            before: the settings of the run that is resumed.  Its warm-up stays, also where the run
                becomes longer.
        """
        if self.warmup_epochs is not None:
            return self
        return dataclasses.replace(self, warmup_epochs=(before or self).warmup)

    def check_loop(self) -> None:
        """Raise InputError for a setting or a shared combination that is not valid."""
        check_settings(self)
        check_optimizer(self)
        for name in ("rgb_mean", "rgb_std"):
            if len(getattr(self, name)) != 3:
                raise InputError(f"{flag_of(self, name)} takes three numbers: R,G,B")
        if self.warmup >= self.num_epochs:
            raise InputError(
                f"--warmup-epochs {self.warmup} leaves nothing of the {self.num_epochs} "
                f"epochs; set it below {flag_of(self, 'num_epochs')}"
            )


def resolve(config_class, given: dict[str, Any]):
    """Return the checked config: defaults, then the recipe, then the given values.

    Imports the modules with own parts, after the threads are set: they may load MXNet.
    """
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    flag = given.pop(DECLINED_FLAG, None)
    if flag:
        raise InputError(f"{flag} is declined: {config_class.declined[flag]}")
    recipe = given.get("recipe", "")
    settings = recipe_settings(recipe, config_class) if recipe else {}
    if imports := given.get("imports", settings.get("imports")):
        set_threads(given.get("threads", 0))
        import_modules(imports)
    if settings.get("warmup_epochs", 0) >= given.get("num_epochs", math.inf):
        del settings["warmup_epochs"]  # a short run of the recipe
    if given.get("finetune"):
        settings.update(config_class.fine_tuning(given, settings))
    return config_class(**{**settings, **given}).check()


def parse_config(config_class, argv=None, *, prog: Optional[str] = None, description: str = ""):
    """Parse a command line into a checked config."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    add_flags(parser, config_class)
    return resolve(config_class, vars(parser.parse_args(argv)))

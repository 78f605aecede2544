"""How far a run is and when it will end: for the log, the bar and ``asymmnet status``."""

import contextlib
import json
import time
from pathlib import Path
from typing import NamedTuple

from gluon_asymmnet.atomic import write_text

PROGRESS_FILE = "progress.json"


class TimeLeft(NamedTuple):
    """Seconds until the end, with the validations that are still to come."""

    epoch: float
    run: float


def time_left(
    step: int, steps_per_epoch: int, epochs: int, step_seconds: float, validation_seconds: float
) -> TimeLeft:
    """Return what is left after ``step`` updates, the running epoch's last one not being done.

    Args:
        step_seconds, validation_seconds: of one update, and of what follows an epoch.
    """
    epoch, done = divmod(step - 1, steps_per_epoch)
    here = (steps_per_epoch - done - 1) * step_seconds + validation_seconds
    later = (epochs - epoch - 1) * (steps_per_epoch * step_seconds + validation_seconds)
    return TimeLeft(here, here + later)


def write_progress(folder: Path, left: TimeLeft, **values) -> None:
    """Replace the progress file of a run directory.

    It is for information: a full disk ends the run where something is lost, not here.
    """
    content = {"time": time.time(), **values, "epoch_ends_in": left.epoch, "run_ends_in": left.run}
    with contextlib.suppress(OSError):
        write_text(folder / PROGRESS_FILE, json.dumps(content) + "\n")


def clock(seconds: float) -> str:
    """Write seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"

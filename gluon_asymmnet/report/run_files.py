"""Read the files of a run, also while it is running or after it failed.

A damaged line or file is skipped and listed in ``problems``, never an error: the page helps to find
out what went wrong.
"""

import fcntl
import math
import re
from pathlib import Path
from typing import NamedTuple, Optional

from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.json_objects import parse_object, read_json_lines

CLASSIFIER, DETECTOR = "classifier", "detector"
_MOST_EPOCHS = 10**6
_ENDINGS = ("stopped", "ended", "not_finite", "fault")  # kinds of events that end a process


class Run(NamedTuple):
    """A run directory."""

    path: Path
    name: str
    task: str  # CLASSIFIER or DETECTOR
    config: dict
    card: dict
    environment: dict
    metrics: list[dict]  # one per epoch, ascending; as in metrics.jsonl
    events: list[dict]  # as in events.jsonl: time, step, kind, message
    running: bool  # a process works in it
    problems: list[str]  # files and lines that could not be read

    @property
    def epochs(self) -> int:
        """Epochs in all, or 0 if the configuration does not say."""
        epochs = self.config.get("num_epochs")
        return epochs if isinstance(epochs, int) and 0 < epochs < _MOST_EPOCHS else 0

    @property
    def score(self) -> str:
        """Name of the metric that decides which weights are the best."""
        return "val_mAP" if self.task == DETECTOR else "val_top1"

    @property
    def best(self) -> Optional[dict]:
        """The row of the best validation, the first of equals; None if nothing was validated."""
        rows = [row for row in self.metrics if finite(row.get(self.score))]
        return max(rows, key=lambda row: row[self.score], default=None)

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, or no better validation ended the run."""
        done = bool(self.epochs and self.metrics and self.metrics[-1]["epoch"] + 1 >= self.epochs)
        return done or self._last_event.get("kind") == "ended"

    @property
    def ending(self) -> str:
        """Why no process works in it any more; "" while one does."""
        event = self._last_event
        if self.running:
            return ""
        if event.get("kind") in _ENDINGS:
            return str(event.get("message", ""))
        return "after its last epoch" if self.finished else "killed, or the machine went down"

    @property
    def _last_event(self) -> dict:
        kinds = ("started", "resumed", *_ENDINGS)
        return next((e for e in reversed(self.events) if e.get("kind") in kinds), {})

    @property
    def state(self) -> str:
        """Return running, finished or stopped."""
        return "running" if self.running else "finished" if self.finished else "stopped"


def read_run(path) -> Run:
    """Read a run directory.

    Raises:
        InputError: there is no such directory, or it holds no run.
    """
    path = Path(path)
    config_file = path / "config.json"
    if not path.is_dir():
        raise InputError(f"{path}: no such directory; expected that of a training run")
    if not config_file.is_file():
        raise InputError(f"{path}: holds no run (no config.json){_runs_below(path)}")
    problems: list[str] = []
    config = _object(config_file, problems)
    return Run(
        path=path,
        name=_name(path.resolve().name, config),
        task=DETECTOR if "network" in config else CLASSIFIER,
        config=config,
        card=_object(path / "card.json", problems),
        environment=_object(path / "environment.json", problems),
        metrics=_metrics(path / "metrics.jsonl", problems),
        events=read_lines(path / "events.jsonl", problems),
        running=is_locked(path / ".lock"),
        problems=problems,
    )


def read_object(path: Path) -> dict:
    """Return a JSON object, or an empty one if the file is missing or damaged."""
    return _object(path, [])


def finite(value) -> bool:
    """Return whether a value is a number that can be drawn."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) < 1e300  # False for nan; a JSON integer may be larger than any float


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock of a run directory."""
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go when the file is closed
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read_lines(path: Path, problems: list[str]) -> list[dict]:
    """Return the objects in a file of JSON lines; add the damaged lines to ``problems``."""
    damaged: list[int] = []
    try:
        found = read_json_lines(path, damaged)
    except OSError as error:
        problems.append(f"{path.name}: {error.strerror}")
        return []
    if damaged:
        shown = ", ".join(map(str, damaged[:5])) + (" ..." if len(damaged) > 5 else "")
        problems.append(f"{path.name}: {len(damaged)} damaged line(s) left out: {shown}")
    return found


def _object(path: Path, problems: list[str]) -> dict:
    try:
        return parse_object(path.read_bytes(), path, "a JSON object")
    except OSError as error:
        problems.append(f"{path.name}: {error.strerror}")
    except FormatError:
        problems.append(f"{path.name}: damaged, not a JSON object")
    return {}


def _metrics(path: Path, problems: list[str]) -> list[dict]:
    """Return one row per epoch; of an epoch that was done twice, the last."""
    rows = {}
    for row in read_lines(path, problems):
        epoch = row.get("epoch")
        if isinstance(epoch, int) and not isinstance(epoch, bool) and 0 <= epoch < _MOST_EPOCHS:
            rows[epoch] = row
        else:
            problems.append(f"{path.name}: a line without an epoch left out")
    odd = sorted(
        {
            name
            for row in rows.values()
            for name, value in row.items()
            if isinstance(value, float) and not math.isfinite(value)
        }
    )
    if odd:
        shown = repr(", ".join(odd))[1:-1][:200]  # out of a file: no line ends, not a page
        problems.append(f"{path.name}: values that are not finite are not drawn: {shown}")
    return [rows[epoch] for epoch in sorted(rows)]


def _name(folder: str, config: dict) -> str:
    """Return the name of a run, with its width unless that is 1 or in the folder's name."""
    width = config.get("width")
    if not finite(width) or width == 1 or f"{width:g}" in folder:
        return folder
    return f"{folder}, width {width:g}"


def _runs_below(path: Path) -> str:
    found = sorted(file.parent for file in path.glob("*/config.json"))
    found += sorted(file.parent for file in path.glob("*/*/config.json"))
    if not found:
        return "; expected the directory of a training run, e.g. checkpoints/imagenet/MODEL_TAG"
    return f"; there are runs below it: {', '.join(map(str, found[:5]))}"


def newest_checkpoint(path: Path) -> Optional[tuple[int, Path]]:
    """Return step and folder of the newest checkpoint of a run directory, or None."""
    found = [
        (int(match[1]), file.parent)
        for file in path.glob("checkpoints/step-*/state.json")
        if (match := re.fullmatch(r"step-(\d+)", file.parent.name))
    ]
    return max(found, default=None)

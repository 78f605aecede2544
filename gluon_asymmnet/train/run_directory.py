"""A run's directory: its first files, its log, its metrics, and what a resume finds there."""

import contextlib
import fcntl
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from gluon_asymmnet.atomic import write_text
from gluon_asymmnet.config import from_json, to_json
from gluon_asymmnet.distributed.workers import Workers
from gluon_asymmnet.errors import InputError, RunError
from gluon_asymmnet.train.checkpoint import Checkpoint, latest, list_checkpoints

# Settings that may change between a run and its continuation: they do not decide its result.
# The number of threads does, in the last digits, and still may: machines are not all alike.
FREE_SETTINGS = frozenset({
    "num_workers", "threads", "log_interval", "save_frequency", "checkpoint_steps", "resume",
    "logging_file", "dry_run", "recipe", "kvstore", "horovod",
})  # fmt: skip


class RunDirectory:
    """``path`` with ``config.json``, ``environment.json``, ``log.txt``, ``metrics.jsonl``, ...

    Raises:
        InputError: if the directory holds another run, or a run and ``config.resume`` is "never",
            or another process works in it.
    """

    def __init__(self, path, config, environment: dict):
        self.path, self.config = Path(path), config
        self.checkpoints = self.path / "checkpoints"
        self.metrics_path = self.path / "metrics.jsonl"
        self._check_same_run()
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock()
        self.latest: Optional[Checkpoint] = latest(self.checkpoints)
        write_text(self.path / "config.json", to_json(config))
        write_text(self.path / "environment.json", json.dumps(environment, indent=1) + "\n")
        self.checkpoints.mkdir(exist_ok=True)

    def _check_same_run(self) -> None:
        """Refuse to mix two runs.  Reads only, so that a refusal leaves nothing behind."""
        file = self.path / "config.json"
        if not file.exists():
            if self.path.is_dir() and any(self.path.iterdir()):
                raise InputError(f"{self.path} is not empty and holds no run; choose another place")
            return
        if self.config.resume == "never":
            raise InputError(
                f"{self.path} holds a run already; resume it, or choose another name or place"
            )
        before = from_json(type(self.config), file)
        changed = [
            f"{name} {getattr(before, name)!r} -> {getattr(self.config, name)!r}"
            for name in vars(before)
            if name not in FREE_SETTINGS and getattr(before, name) != getattr(self.config, name)
        ]
        if changed:
            raise InputError(
                f"{self.path} holds a run with other settings ({'; '.join(changed)}): repeat its "
                f"command to go on, or choose another --tag-name"
            )

    def _lock(self) -> None:
        self._lock_file = open(self.path / ".lock", "w")  # noqa: SIM115 - held until the end
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock_file.close()
            raise InputError(f"{self.path}: another process is working on this run") from None

    def close(self) -> None:
        """Let another process have the directory."""
        self._lock_file.close()

    def add_metrics(self, **values) -> None:
        """Append one line to ``metrics.jsonl``."""
        with open(self.metrics_path, "a") as file:
            file.write(json.dumps(values) + "\n")

    def read_metrics(self) -> list[dict]:
        """Return what ``add_metrics`` wrote; a line cut by a kill is left out."""
        return list(_json_lines(self.metrics_path))

    def forget_after(self, step: int) -> None:
        """Drop metrics of steps that a resumed run will do again."""
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        write_text(self.metrics_path, "".join(json.dumps(line) + "\n" for line in kept))


class FollowedRun:
    """The directory as the other workers have it: they read its checkpoints and write nothing.

    Raises: RunError if the checkpoint that worker 0 goes on from is not there.
    """

    def __init__(self, path, step: int):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        found = {c.step: c for c in list_checkpoints(self.checkpoints)}
        if step and step not in found:
            raise RunError(
                f"{self.checkpoints} has no checkpoint of step {step}, from which worker 0 goes "
                f"on: --save-dir must be on a file system that all workers share"
            )
        self.latest: Optional[Checkpoint] = found.get(step)

    def forget_after(self, step: int) -> None:
        """Leave that to worker 0."""

    def close(self) -> None:
        """Nothing is held."""


def open_run(path, config, environment: dict, workers: Workers):
    """Return the run's directory: worker 0 writes it, the others follow."""
    own = RunDirectory(path, config, environment) if workers.rank == 0 else None
    step = int(workers.first("checkpoint", own.latest.step if own and own.latest else 0))
    return own or FollowedRun(path, step)


def _json_lines(path: Path) -> Iterator[dict]:
    if path.exists():
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)


@contextlib.contextmanager
def logging_to(path: Optional[Path]) -> Iterator[logging.Logger]:
    """Yield a logger that writes plain lines to ``path`` and to standard output; None: nowhere."""
    logger = logging.getLogger("gluon_asymmnet.train")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handlers = [logging.FileHandler(path), _BarSafeHandler(sys.stdout)] if path else []
    logger.disabled = not path
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield logger
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


class _BarSafeHandler(logging.StreamHandler):
    """Print a line above the progress bar instead of through it."""

    def emit(self, record):
        from tqdm import tqdm

        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)

"""The directory of a run: settings, log, metrics, events, and the checkpoint to resume from."""

import contextlib
import datetime
import fcntl
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from gluon_asymmnet.data.class_names import quote_names
from gluon_asymmnet.distributed.workers import Workers
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.train.checkpoint_files import (
    Checkpoint,
    Damage,
    find_good,
    list_checkpoints,
    list_set_aside,
    set_aside,
)
from gluon_asymmnet.utils.atomic import naming, remove_leftovers, write_text
from gluon_asymmnet.utils.json_objects import parse_object, read_json_lines
from gluon_asymmnet.utils.settings import flag_of, from_json, to_json

# Settings that may differ when a run is resumed, because they do not change its result; the number
# of threads changes only the last digits.  A run may be moved, too.
FREE_SETTINGS = frozenset({
    "num_workers", "threads", "log_interval", "save_frequency", "checkpoint_steps", "keep_last",
    "resume", "logging_file", "dry_run", "recipe", "save_dir", "save_prefix", "tag_name",
    "trust", "max_bad_records", "kvstore", "horovod", "imports",
})  # fmt: skip

CONFIG, METRICS, EVENTS, DATA = "config.json", "metrics.jsonl", "events.jsonl", "data.json"
CHECKPOINTS, LOCK = "checkpoints", ".lock"
# Files that a killed process may have left incomplete, besides checkpoints.
_TEMPORARY = ("*.params", "*.json", METRICS, "curves.png")


class RunDirectory:
    """``path`` with ``config.json``, ``environment.json``, ``log.txt``, ``metrics.jsonl``, ...

    ``latest`` is the newest good checkpoint, or None.  Newer, damaged ones are renamed, which
    ``events.jsonl`` records.  ``extended`` says that the run has more epochs than before, or is "".

    Args:
        data: identity of each data set, see ``Task.fingerprints``; None: not checked.

    Raises:
        InputError: if the directory holds another run, or one on other data, or a run and
            ``config.resume`` is "never", or another process works in it.
        RunError: if there are checkpoints, and each is damaged.
    """

    def __init__(self, path, config, environment: dict, data: Optional[dict] = None):
        self.path, self.config, self._data = Path(path), config, data
        self.extended = ""
        self.checkpoints = self.path / CHECKPOINTS
        self.metrics_path = self.path / METRICS
        self._refuse_other_folder()
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock_file = lock(self.path)
        try:
            self._open(environment)
        except BaseException:
            self.close()
            raise

    def _open(self, environment: dict) -> None:
        self.damaged: list[Damage] = []
        self.latest: Optional[Checkpoint] = None
        search = find_good(self.checkpoints)
        self._check_same_run(search.good)
        self._check_same_data(search.good)
        if search.good is None:
            self._refuse_to_start_anew(search.damaged)
        self.latest, self.damaged = search.good, search.damaged
        for pattern in _TEMPORARY:
            remove_leftovers(self.path, pattern)
        remove_leftovers(self.checkpoints, "*")
        if self.latest:
            remove_leftovers(self.latest.path, "*")
        for damage in self.damaged:
            step, aside = damage.checkpoint.step, set_aside(damage.checkpoint)
            self.add_event("fallback", step, f"set aside as {aside.name}: {damage.reason}")
        write_text(self.path / CONFIG, to_json(self.config))
        if self._data is not None:
            write_text(self.path / DATA, _data_text(self._data))
        if self.extended:
            self.add_event("extended", self.latest.step if self.latest else 0, self.extended)
        write_text(self.path / "environment.json", json.dumps(environment, indent=1) + "\n")
        self.checkpoints.mkdir(exist_ok=True)
        self._restore_metrics()

    def _refuse_other_folder(self) -> None:
        """Raise InputError for the directory of something else, before anything is written."""
        if (self.path / CONFIG).exists() or list_checkpoints(self.checkpoints):
            if self.config.resume == "never":
                raise InputError(
                    f"{self.path} holds a run already; resume it, or choose another name or place"
                )
        elif self.path.is_dir() and not all(map(_is_of_a_start, self.path.iterdir())):
            raise InputError(f"{self.path} is not empty and holds no run; choose another place")

    def _check_same_run(self, newest: Optional[Checkpoint]) -> None:
        """Raise InputError if the settings are not those of the run in the directory."""
        before = self._settings_before(newest)
        if before is None:
            return
        changed = [
            f"{name} {getattr(before, name)!r} -> {getattr(self.config, name)!r}"
            for name in vars(before)
            if name not in FREE_SETTINGS and getattr(before, name) != getattr(self.config, name)
        ]
        epochs, now = before.num_epochs, self.config.num_epochs
        if [name.split()[0] for name in changed] == ["num_epochs"]:
            reason = _why_not_extended(before, self.config)
            if reason:
                raise InputError(
                    f"{self.path} holds a run of {epochs} epochs, which cannot become {now}: "
                    f"{reason}; give {flag_of(before, 'num_epochs')} {epochs} to go on, or "
                    f"--finetune {self.path} with another --tag-name to train on from its weights"
                )
            self.extended = (
                f"{epochs} epochs become {now}: the {before.lr_mode} schedule has the same rates "
                f"in those done"
            )
        elif changed:
            raise InputError(
                f"{self.path} holds a run with other settings ({'; '.join(changed)}): repeat its "
                f"command to go on, or choose another --tag-name"
            )

    def _check_same_data(self, newest: Optional[Checkpoint]) -> None:
        """Raise InputError if the data are not those of the run in the directory.

        A run of a version that did not write ``data.json`` takes those of now.
        """
        before = None
        for folder in (self.path, newest.path) if newest else (self.path,):
            with contextlib.suppress(FormatError):
                if before is None and (folder / DATA).is_file():
                    before = parse_object((folder / DATA).read_bytes(), folder / DATA, "data")
        if before is None or self._data is None:
            return
        changes = data_changes(before, self._data)
        if changes:
            raise InputError(
                f"{self.path} holds a run on other data ({'; '.join(changes)}): put the data back "
                f"to go on, or choose another --tag-name; --finetune {self.path} starts from its "
                f"weights"
            )

    def _settings_before(self, newest: Optional[Checkpoint]):
        """Read ``config.json`` or, if it is damaged, its copy in the newest checkpoint."""
        file = self.path / CONFIG
        try:
            return from_json(type(self.config), file)
        except (InputError, FileNotFoundError):
            if newest is None or not (newest.path / CONFIG).exists():
                if file.exists():
                    raise
                return None
            found = from_json(type(self.config), newest.path / CONFIG)
            reason = f"{CONFIG} is {'damaged' if file.exists() else 'missing'}"
            self.add_event("fallback", newest.step, f"{reason}; taken from {newest.path.name}")
            return found

    def _refuse_to_start_anew(self, damaged: list[Damage]) -> None:
        reasons = [f"{d.checkpoint.path.name}: {d.reason}" for d in damaged]
        reasons += [f"{path.name}: set aside" for path in list_set_aside(self.checkpoints)]
        if reasons:
            raise RunError(
                f"{self.checkpoints}: every checkpoint is damaged ({'; '.join(reasons)}): put a "
                f"good copy there, or remove them to start anew"
            )

    def close(self) -> None:
        """Release the directory for other processes."""
        self._lock_file.close()

    def add_event(self, kind: str, step: int, message: str) -> None:
        """Append one line to ``events.jsonl``, the history of the run besides training.

        Args:
            kind: started, resumed, stopped, fallback, fault, not_finite, ...
        """
        now = datetime.datetime.now(datetime.timezone.utc)
        _append_line(
            self.path / EVENTS,
            {"time": now.isoformat(timespec="seconds"), "step": step, "kind": kind,
             "message": message},
        )  # fmt: skip

    def read_events(self) -> list[dict]:
        """Return the events, those of earlier processes included."""
        return read_json_lines(self.path / EVENTS)

    def add_metrics(self, **values) -> None:
        """Append one line to ``metrics.jsonl``."""
        self._rows.append(values)
        _append_line(self.metrics_path, values)

    def read_metrics(self) -> list[dict]:
        """Return the rows of metrics, those of the restored checkpoint included."""
        return list(self._rows)

    def texts(self) -> dict[str, str]:
        """Return the text files of which a checkpoint keeps a copy, by name."""
        data = {} if self._data is None else {DATA: _data_text(self._data)}
        return {CONFIG: to_json(self.config), METRICS: _lines(self._rows), **data}

    def _restore_metrics(self) -> None:
        """Replace ``metrics.jsonl`` by the copy in ``latest``, with the row of its validation.

        Later rows are repeated; a kill or a bad disk may have truncated the file.
        """
        copy = self.latest.path / METRICS if self.latest else None
        self._rows = read_json_lines(copy) if copy else []
        row = self.latest.read_state().get("row") if self.latest else None
        self._rows += [row] if row else []
        if self.metrics_path.exists() or self._rows:
            write_text(self.metrics_path, _lines(self._rows))


def settle(config, path):
    """Return the config with its defaults written out, see ``LoopConfig.settled``.

    Args:
        path: directory of the run, which may exist.
    """
    path = Path(path)
    copies = [checkpoint.path for checkpoint in list_checkpoints(path / CHECKPOINTS)]
    for folder in (path, *reversed(copies)):
        with contextlib.suppress(InputError, OSError):
            return config.settled(from_json(type(config), folder / CONFIG))
    return config.settled()


class FollowedRun:
    """The directory for the workers other than 0, which only read the checkpoint.

    Raises: RunError if the checkpoint that worker 0 resumes from is missing.
    """

    damaged, extended = (), ""

    def __init__(self, path, step: int):
        self.path = Path(path)
        self.checkpoints = self.path / CHECKPOINTS
        found = {c.step: c for c in list_checkpoints(self.checkpoints)}
        if step and step not in found:
            raise RunError(
                f"{self.checkpoints} has no checkpoint of step {step}, from which worker 0 goes "
                f"on: --save-dir must be on a file system that all workers share"
            )
        self.latest: Optional[Checkpoint] = found.get(step)

    def add_event(self, kind: str, step: int, message: str) -> None:
        """Do nothing; worker 0 writes the events."""

    def close(self) -> None:
        """Do nothing."""


def open_run(path, config, environment: dict, workers: Workers, data: Optional[dict] = None):
    """Open the run's directory: worker 0 writes it, the others only read."""
    own = RunDirectory(path, config, environment, data) if workers.rank == 0 else None
    step = int(workers.broadcast("checkpoint", own.latest.step if own and own.latest else 0))
    return own or FollowedRun(path, step)


def data_changes(before: dict, now: dict) -> list[str]:
    """Return the differences between the data of two runs; see ``Task.fingerprints``."""
    changes = []
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if not isinstance(old, dict) or not isinstance(new, dict):
            if old != new:
                changes.append(f"{name}: {'none before' if new else 'none now'}")
            continue
        found = []
        if old.get("images") != new["images"]:
            found.append(f"{old.get('images')} images are {new['images']}")
        if old.get("classes") != new["classes"]:
            found.append(_class_changes(old.get("classes"), new["classes"]))
        if not found and old.get("labels") != new["labels"]:
            found.append("images have other names or labels")
        if not found and old.get("files") != new["files"]:
            found.append("images have other names, keys or sizes")
        if found:
            changes.append(f"{name}: {', '.join(found)}")
    return changes


def _class_changes(old, new) -> str:
    if not isinstance(old, list) or not isinstance(new, list):
        texts = [f"{len(x)} classes with names" if isinstance(x, list) else f"{x} classes"
                 for x in (old, new)]  # fmt: skip
        return f"{texts[0]} are {texts[1]}"
    gone, added = [x for x in old if x not in new], [x for x in new if x not in old]
    if not gone and not added:
        return "the classes have another order"
    return f"classes {quote_names(gone) or 'none'} are now {quote_names(added) or 'none'}"


def _data_text(data: dict) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def _why_not_extended(before, now) -> str:
    """Return why a run cannot go on with another number of epochs, or "" if it can."""
    if now.num_epochs < before.num_epochs:
        return "it may only have more"
    if before.lr_mode != "step" and not (before.lr_mode == "exp" and before.lr_decay_period):
        return (
            f"the {before.lr_mode} schedule spreads the learning rate over all epochs, so those "
            f"done would have had other rates"
        )
    if getattr(before, "mixup_off_epoch", 0):
        return "the last epochs were without mixup"
    return ""


def lock(path: Path):
    """Lock a run's directory; return the open file, which holds the lock until it is closed.

    Raises: InputError if another process is working there.
    """
    file = open(Path(path) / LOCK, "w")  # noqa: SIM115 - held until the end
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(f"{path}: another process is working on this run") from None
    except OSError:
        file.close()
        raise
    return file


def _is_of_a_start(path: Path) -> bool:
    """Return whether a process that was killed before it wrote ``config.json`` left this."""
    return path.name == LOCK or path.name.startswith(f".{CONFIG}.")


def _lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _append_line(path: Path, values: dict) -> None:
    """Append a line in one write, on a line of its own even after a truncated one."""
    with naming(path), open(path, "ab+") as file:
        cut = b""
        if file.tell():
            file.seek(-1, os.SEEK_END)
            cut = b"" if file.read(1) == b"\n" else b"\n"
        file.write(cut + json.dumps(values).encode() + b"\n")


@contextlib.contextmanager
def logging_to(path: Optional[Path]) -> Iterator[logging.Logger]:
    """Yield a logger that writes plain lines to ``path`` and to standard output; None: nowhere."""
    logger = logging.getLogger("gluon_asymmnet.train")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handlers = [_LogFile(path), _BarSafeHandler(sys.stdout)] if path else []
    logger.disabled = not path
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield logger
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            with contextlib.suppress(OSError):  # a full disk was reported at the write
                handler.close()


class _LogFile(logging.FileHandler):
    """Raise errors of the disk, which end the run, instead of printing a traceback per line."""

    def handleError(self, record):  # noqa: N802 - logging's name
        with naming(Path(self.baseFilename)):
            raise


class _BarSafeHandler(logging.StreamHandler):
    """Print a line above the progress bar instead of through it."""

    def handleError(self, record):  # noqa: N802 - logging's name
        """Ignore a closed pipe, e.g. of ``| head``: the log file has the line."""

    def emit(self, record):
        from tqdm import tqdm

        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)

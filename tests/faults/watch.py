"""See in a run's directory what its process is doing, and afterwards what it was doing."""

import os
import re
import time
from pathlib import Path
from typing import Callable

from tests.faults.subject import KEEP, Subject

POLL = 0.0005  # seconds

START, RESUME, STEP = "start", "resume", "training step"
WRITING = "checkpoint being written"
RENAMING = "checkpoint complete, not yet named"
NAMED = "checkpoint named, older ones not yet removed"
REMOVING = "older checkpoint being removed"
VALIDATION, EPOCH_END = "validation", "end of epoch: metrics, curves, weights"
PHASES = (START, RESUME, STEP, WRITING, RENAMING, NAMED, REMOVING, VALIDATION, EPOCH_END)

_BATCH = re.compile(rb"Epoch\[(\d+)\] Batch \[(\d+)\]")
_SCRATCH = re.compile(r"\.step-(\d+)\.[0-9a-f]{16}\.tmp")


class Watch:
    """One process's traces in its run directory; make it before the process starts."""

    def __init__(self, subject: Subject, folder: Path):
        self.subject, self.folder = subject, folder
        self.log, self.config = folder / "log.txt", folder / "config.json"
        self._log_before = self.log.stat().st_size if self.log.exists() else 0
        self._config_before = self._config_time()
        self.newest_before = max(self.steps(), default=0)

    def _config_time(self):
        return self.config.stat().st_mtime_ns if self.config.exists() else None

    def config_written(self) -> bool:
        """Whether the process has the directory and has chosen its checkpoint."""
        return self._config_time() != self._config_before

    def new_log(self) -> bytes:
        """What the process has logged."""
        try:
            with open(self.log, "rb") as file:
                file.seek(self._log_before)
                return file.read()
        except FileNotFoundError:
            return b""

    def batches(self) -> list[tuple[int, int]]:
        """Epoch and batch of the steps that were logged."""
        return [(int(e), int(b)) for e, b in _BATCH.findall(self.new_log())]

    def steps(self) -> list[int]:
        """Steps of the checkpoints that have their names."""
        return sorted(int(n[5:]) for n in self._names() if n.startswith("step-"))

    def scratch(self) -> list[tuple[int, Path]]:
        """Checkpoints that have hidden names: step and path."""
        found = ((_SCRATCH.fullmatch(n), n) for n in self._names())
        return [(int(m[1]), self.folder / "checkpoints" / n) for m, n in found if m]

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.folder / "checkpoints")
        except FileNotFoundError:
            return []

    def phase(self) -> str:
        """Where a process that is dead now was, by what it left."""
        steps, newest = self.steps(), max(self.steps(), default=0)
        for step, path in self.scratch():
            if step <= newest:
                return REMOVING
            return RENAMING if (path / "manifest.json").exists() else WRITING
        if not self.config_written():
            return START
        batches = self.batches()
        if not batches:
            return RESUME if self.newest_before else START
        if newest > self.newest_before and len(steps) > KEEP + 1:  # one may be the best epoch's
            return NAMED
        epoch, batch = batches[-1]
        done = epoch * self.subject.steps_per_epoch + batch + 1
        if batch + 1 < self.subject.steps_per_epoch or newest < done or self.validated(newest):
            return STEP
        return EPOCH_END if b"[Epoch %d] training:" % epoch in self.new_log() else VALIDATION

    def validated(self, step: int) -> bool:
        """Whether a checkpoint holds the results of its validation."""
        manifest = self.folder / f"checkpoints/step-{step:09d}/manifest.json"
        return b"validation.json" in manifest.read_bytes()


def wait_for(process, condition: Callable[[], bool], timeout: float = 300) -> bool:
    """Poll until a condition holds; False if the process ended before."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None:
            return False
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {process.pid}: nothing to see for {timeout} s")
        time.sleep(POLL)
    return True


def moment(watch: Watch, aim: str, number: int) -> Callable[[], bool]:
    """Return the condition that the ``number``-th chance (from 1) of a phase has come."""
    last = watch.subject.steps_per_epoch - 1
    seen: set = set()

    def scratch(complete: bool) -> bool:
        for step, path in watch.scratch():
            if not complete or (path / "manifest.json").exists():
                seen.add(step)
        return len(seen) >= number

    def named() -> bool:
        steps = watch.steps()
        seen.update(step for step in steps if step > watch.newest_before)
        return len(seen) >= number and len(steps) > KEEP

    def vanished() -> bool:
        steps = set(watch.steps())
        gone = seen - steps
        seen.update(steps)
        return bool(gone)

    return {
        START: lambda: True,
        RESUME: watch.config_written,
        STEP: lambda: sum(b != last for _, b in watch.batches()) >= number,
        WRITING: lambda: scratch(False),
        RENAMING: lambda: scratch(True),
        NAMED: named,
        REMOVING: vanished,
        VALIDATION: lambda: any(
            watch.newest_before < s and not s % (last + 1) for s in watch.steps()
        ),
        EPOCH_END: lambda: b"] validation:" in watch.new_log(),
    }[aim]


# Longest wait between the moment and the fault, seconds: about as long as the phase lasts.
SPREAD = {
    START: 3.0, RESUME: 0.3, STEP: 0.1, WRITING: 0.01, RENAMING: 0.004, NAMED: 0.001,
    REMOVING: 0.0, VALIDATION: 0.15, EPOCH_END: 0.5,
}  # fmt: skip

"""Time candidates in turn, round by round, each in a process of its own."""

import json
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import NamedTuple, Optional

from benchmarks import ROOT
from benchmarks.candidates import Case, environment
from gluon_asymmnet.errors import RunError


class Timing(NamedTuple):
    """Seconds per call, over all rounds."""

    name: str
    median: float
    p95: float
    fastest: float
    slowest: float
    calls: int
    ready: float  # seconds from the start of the process to the end of the first call
    peak_mb: float


def compare(names, case: Case, *, rounds: int, calls: int) -> list:
    """Return a ``Timing`` for each candidate that could be built, in the given order.

    Raises: RunError if none could be built.
    """
    return compare_cases([(name, case) for name in names], rounds=rounds, calls=calls)[0]


def compare_cases(
    candidates, *, rounds: int, calls: int, pythons: Optional[Mapping[str, str]] = None
) -> tuple[list, dict[str, str]]:
    """Time each ``(name, Case)``; return the timings, and the error of those not built, by name.

    A round times ``calls`` calls of each candidate in turn.  The others are stopped (SIGSTOP)
    meanwhile: some libraries spin while they wait.

    Args:
        pythons: the Python that runs a candidate, by name, where it is not this one.

    Raises: RunError if none could be built.
    """
    workers, left_out, pythons = [], {}, pythons or {}
    try:
        for name, case in candidates:
            try:
                workers.append(_Worker(name, case, pythons.get(name, sys.executable)))
            except _BuildError as error:
                left_out[name] = str(error)
                print(f"left out: {name}: {error}", file=sys.stderr)
        if not workers:
            raise RunError(f"no candidate of {', '.join(n for n, _ in candidates)} could be built")
        for _ in range(rounds):
            for worker in workers:
                worker.measure(calls)
        return [worker.finish() for worker in workers], left_out
    finally:
        for worker in workers:
            worker.kill()


class _BuildError(Exception):
    """The last line that a candidate printed before it exited."""


class _Worker:
    """A candidate's process, stopped between its turns."""

    def __init__(self, name: str, case: Case, python: str):
        """Start the process and wait for its first call.  Raises: _BuildError."""
        # A file, not a pipe: nobody reads it, and MXNet without oneDNN says more than a pipe holds.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", name, json.dumps(case._asdict())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            env=environment(name, case.threads), cwd=ROOT,
        )  # fmt: skip
        self.name, self._seconds = name, []
        answer = self._answer()
        if answer is None:
            self._errors.seek(0)
            reason = (self._errors.read().strip().splitlines() or ["no reason given"])[-1]
            self.kill()
            raise _BuildError(reason)
        self._ready = answer["ready_s"]
        self._process.send_signal(signal.SIGSTOP)

    def measure(self, calls: int) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._tell(str(calls))
        answer = self._answer()
        if answer is None:
            raise RunError(f"{self.name} ended while it was measured")
        self._seconds += answer["seconds"]
        self._process.send_signal(signal.SIGSTOP)

    def finish(self) -> Timing:
        self._process.send_signal(signal.SIGCONT)
        self._tell("quit")
        s = sorted(self._seconds)
        p95 = s[min(len(s) - 1, int(0.95 * len(s)))]
        peak = self._answer()["peak_mb"]
        return Timing(self.name, statistics.median(s), p95, s[0], s[-1], len(s), self._ready, peak)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _tell(self, line: str) -> None:
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RunError(
                f"the process of {self.name} was killed, probably for lack of memory: all "
                f"candidates run at once; name fewer with --only"
            ) from None

    def _answer(self) -> Optional[dict]:
        for line in self._process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        return None

"""Start the workers of a run, on this machine or over ssh, and end them together.

This replaces MXNet's own launcher, ``dmlc_tracker`` in its wheel.  That one fails on Python 3.9 and
later (it calls ``Thread.isAlive``), does not quote the command's arguments, and leaves the other
workers waiting when one dies.
"""

import contextlib
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from gluon_asymmnet.distributed.heartbeat import LOST, status_text
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.command import COMMAND, own_command
from gluon_asymmnet.utils.threads import available

_GRACE = 5  # seconds for the workers to end by themselves, then from SIGTERM to SIGKILL
_COPIED_VARIABLES = ("OMP_NUM_THREADS", "PYTHONPATH", "PATH", "LD_LIBRARY_PATH", "DMLC_INTERFACE")
_PID = "asymmnet-worker-process "  # begins the first line that a remote shell prints
_STOPPED = {128 + signal.SIGINT, 128 + signal.SIGTERM}  # a run that saved and ended at a signal
_WRONG_INPUT = 2  # exit status of an InputError, which a restart does not repair


class LaunchPlan(NamedTuple):
    """The command of the workers, and the hosts to run them on."""

    command: list[str]
    workers: int
    hosts: list[str]  # of each worker; empty: all on this machine
    servers: int = 0  # of the kvstore; 0: one per host
    engine: str = "kvstore"
    timeout: float = 300  # seconds
    port: int = 0  # on which worker 0 listens; 0: a free one
    restarts: int = 0
    ssh: str = "ssh"


def read_hosts(path, workers: int) -> list[str]:
    """Read the host of each worker from lines of ``host [slots=N]``, the format of MPI.

    Raises: InputError for other lines, or for fewer slots than workers.
    """
    slots = []
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        count = words[1][len("slots=") :] if words[1:] and words[1].startswith("slots=") else "1"
        if len(words) > 2 or (words[1:] and "=" not in words[1]) or not count.isdigit():
            raise InputError(f"{path}, line {number}: expected `host` or `host slots=N`: {line!r}")
        if words[0].startswith("-"):
            raise InputError(f"{path}, line {number}: a host cannot begin with '-': {line!r}")
        slots += [words[0]] * int(count)
    if len(slots) < workers:
        raise InputError(f"-n {workers}: {path} offers {len(slots)}; add hosts or slots=N")
    return slots[:workers]


def launch(plan: LaunchPlan) -> int:
    """Run all workers; return 0, or the exit status of the first one that failed."""
    if plan.workers < 1:
        raise InputError(f"-n must be at least 1, got {plan.workers}")
    if plan.servers > plan.workers:
        raise InputError(f"--servers {plan.servers} is above -n {plan.workers}")
    for number in range(plan.restarts + 1):
        attempt = _Attempt(plan)
        status = attempt.run()
        stopped = attempt.stopping or attempt.saved
        if status in (0, _WRONG_INPUT) or stopped or number == plan.restarts:
            return status
        _print(f"starting all again from the last checkpoint ({number + 1} of {plan.restarts})")
    raise AssertionError  # the loop returns


class _Worker:
    """The process of one worker: its own, or that of its ssh."""

    def __init__(self, plan: LaunchPlan, rank: int, variables: dict):
        self.rank = rank
        self._host = plan.hosts[rank] if plan.hosts else None
        self._ssh = shlex.split(plan.ssh)
        self._remote = None if self._host else ""
        command, environment = list(plan.command), {**os.environ, **variables}
        if command[0].endswith(".py"):
            command.insert(0, sys.executable)
        if self._host:
            command = [*self._ssh, self._host, _remote_command(command, variables)]
        # In a session of its own: the launcher alone passes a Ctrl-C on.
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        streams = ((self.process.stdout, sys.stdout), (self.process.stderr, sys.stderr))
        self._threads = [threading.Thread(target=self._copy, args=pair) for pair in streams]
        for thread in self._threads:
            thread.start()

    def _copy(self, source, target) -> None:
        for line in source:
            if self._remote is None and line.startswith(_PID):
                self._remote = line[len(_PID) :].strip()
                continue
            with contextlib.suppress(OSError, ValueError):  # a closed pipe must not end the run
                # One call: print writes the end of a line apart, and other workers between.
                target.write(f"[{self.rank}] {line.rstrip()}\n")
                target.flush()

    def send(self, number: int) -> None:
        """Send a signal to the worker."""
        if self.process.poll() is not None:
            return
        if self._host is None:
            self.process.send_signal(number)
        elif self._remote and self._remote.isdigit():
            kill = f"kill -{int(number)} {self._remote}"
            subprocess.run([*self._ssh, self._host, kill], capture_output=True)
        if number == signal.SIGKILL:
            self.process.kill()

    def finish(self) -> None:
        """Wait until all output of the worker is printed."""
        for thread in self._threads:
            thread.join(_GRACE)


class _Attempt:
    """One start of all workers."""

    def __init__(self, plan: LaunchPlan):
        self.plan, self.stopping = plan, False  # stopping: by a signal
        self.saved = False  # all workers ended at a signal after saving

    def run(self) -> int:
        with _signal_handler(self._stop):
            self.workers = []
            variables = _variables(self.plan)
            try:
                for rank in range(self.plan.workers):
                    own = {**variables, "DMLC_WORKER_ID": str(rank)}
                    self.workers.append(_Worker(self.plan, rank, own))
                return self._wait()
            finally:
                for worker in self.workers:
                    worker.send(signal.SIGKILL)
                    worker.process.wait()
                    worker.finish()

    def _wait(self) -> int:
        while True:
            statuses = {w.rank: w.process.poll() for w in self.workers}
            failed = {rank: s for rank, s in statuses.items() if s and s not in _STOPPED}
            if failed:
                return self._end_after(failed)
            if None not in statuses.values():
                status = next(filter(None, statuses.values()), 0)
                self.saved = status != 0
                return status
            time.sleep(0.05)

    def _end_after(self, failed: dict[int, int]) -> int:
        """Report the worker that failed first; wait for the others, which detect the loss."""
        # Status LOST reports the loss of another worker, which is the one to name.
        rank = next((r for r, s in failed.items() if s != LOST), next(iter(failed)))
        self._wait_for_all(_GRACE)
        ended = {w.rank: w.process.poll() for w in self.workers}
        if failed[rank] == LOST:
            rank = next((r for r, s in ended.items() if s and s != LOST), rank)
        status = ended[rank]
        _print(f"worker {rank} ended first: {status_text(status)}")
        self._signal(signal.SIGTERM)
        self._wait_for_all(_GRACE if None in ended.values() else 0)
        return 128 - status if status < 0 else status

    def _wait_for_all(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(w.process.poll() is None for w in self.workers):
            time.sleep(0.05)

    def _stop(self, number, _frame) -> None:
        self.stopping = True
        self._signal(number)

    def _signal(self, number: int) -> None:
        for worker in self.workers:
            worker.send(number)


def _variables(plan: LaunchPlan) -> dict[str, str]:
    here = set(plan.hosts) <= {"localhost", "127.0.0.1"}
    # Workers on one machine share its processors; on a host of its own a worker uses all.
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, available() // plan.workers))
    return {
        "DMLC_NUM_WORKER": str(plan.workers),
        "DMLC_NUM_SERVER": str(plan.servers or min(plan.workers, len(set(plan.hosts)) or 1)),
        "DMLC_PS_ROOT_URI": "127.0.0.1" if here else plan.hosts[0],
        "DMLC_PS_ROOT_PORT": str(plan.port or _free_port(here)),
        "ASYMMNET_ENGINE": plan.engine,
        "ASYMMNET_LAUNCHER": str(os.getpid()),
        COMMAND: own_command(),  # which a worker prints to resume
        "ASYMMNET_TIMEOUT": str(plan.timeout),
        **({} if plan.hosts else {"OMP_NUM_THREADS": threads}),
    }  # fmt: skip


def _free_port(here: bool) -> int:
    if not here:
        return 20000 + secrets.randbelow(12000)  # below the range of automatic ports
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _remote_command(command: list[str], variables: dict) -> str:
    """Return the line for the remote shell, whose process becomes the worker."""
    copied = {name: os.environ[name] for name in _COPIED_VARIABLES if name in os.environ}
    words = [f"{name}={value}" for name, value in {**copied, **variables}.items()]
    return (
        f"echo {_PID}$$; cd {shlex.quote(os.getcwd())} && "
        f"exec env {shlex.join(words)} {shlex.join(command)}"
    )


@contextlib.contextmanager
def _signal_handler(function):
    """Handle SIGINT and SIGTERM for the length of a block."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, function) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print(text: str) -> None:
    sys.stderr.write(f"asymmnet launch: {text}\n")
    sys.stderr.flush()

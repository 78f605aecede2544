"""Notice a lost worker, and end all the others with one line instead of a silent hang.

ps-lite and Gloo wait for a lost peer in C++, without end or with an error from deep inside.  So
each worker holds a TCP connection to worker 0 and sends a line a second; a connection that closes
without goodbye, or is silent for too long, is a lost worker, and worker 0 tells all the rest.
The lines are JSON objects of one entry: hello, go, ready, beat, bye, fail, end.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Callable, Optional

from gluon_asymmnet.distributed.place import Place
from gluon_asymmnet.errors import RunError

LOST = 75  # exit status of a survivor: EX_TEMPFAIL of sysexits.h, "try again"
_FAREWELL = 2  # seconds for the others to end, before worker 0 does
# Seconds at least, until a worker is ready: on a loaded machine the import of MXNet takes some, and
# no other thread runs while its library is loaded.
_MEETING = 60
_LONGEST = 65536  # bytes of a line; a peer that sends more is not one of ours


class _Line:
    """A connection that carries lines."""

    def __init__(self, connection: socket.socket):
        self.socket, self.heard = connection, time.monotonic()
        self._rest = b""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, kind: str, content=None) -> None:
        with contextlib.suppress(OSError):  # whether the peer is there shows when reading
            self.socket.sendall(json.dumps({kind: content}).encode() + b"\n")

    def read(self) -> Optional[list[tuple]]:
        """Return the (kind, content) pairs that have come; None if the peer is gone."""
        try:
            data = self.socket.recv(_LONGEST)
        except OSError:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data or len(self._rest) > _LONGEST:
            return None
        self.heard = time.monotonic()
        try:
            return [next(iter(json.loads(line).items())) for line in lines]
        except (ValueError, AttributeError, StopIteration, RecursionError):
            return None


class Hub:
    """Worker 0's side: who is there, who is lost.

    Raises: RunError if the port is taken.
    """

    def __init__(self, place: Place, share: dict):
        self.place, self._share = place, share  # ``share``: what every worker is told at the start
        try:
            self._listener = socket.create_server(("", place.port), backlog=place.size)
        except OSError as error:
            raise RunError(f"worker 0 cannot listen on port {place.port}: {error}") from None
        self._members: dict[int, dict] = {}  # by rank: line, who, host, ready, gone
        self._lines: dict[_Line, Optional[int]] = {}  # its rank, once it has said it
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._deadline = time.monotonic() + place.timeout
        self._verdict: Optional[str] = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until all have left, or have been told who is lost."""
        self._thread.join(seconds)

    def _serve(self) -> None:
        beat = 0.0
        while self._verdict is None and not self._all_left():
            for key, _ in self._selector.select(_interval(self.place) / 2):
                if key.data is None:
                    self._accept()
                else:
                    self._read(key.data)
            self._look_for_the_missing()
            if time.monotonic() - beat > _interval(self.place):
                beat = time.monotonic()
                for line in self._lines:
                    line.send("beat")
        if self._verdict is not None:
            self._tell(self._verdict)
        for line in self._lines:
            line.socket.close()
        self._listener.close()
        self._selector.close()

    def _tell(self, verdict: str) -> None:
        """Send the verdict to all who are still there.

        Worker 0 comes last: this process then ends.  And each is heard to its end, because closing
        a connection with something unread can take back what was just sent.
        """
        others = [line for line, rank in self._lines.items() if rank != 0]
        for line in others:
            line.send("end", verdict)
            with contextlib.suppress(OSError):
                line.socket.shutdown(socket.SHUT_WR)
        until = time.monotonic() + _FAREWELL
        for line in others:
            with contextlib.suppress(OSError):
                while (left := until - time.monotonic()) > 0:
                    line.socket.settimeout(left)
                    if not line.socket.recv(_LONGEST):
                        break
        for line in set(self._lines) - set(others):
            line.send("end", verdict)

    def _all_left(self) -> bool:
        return len(self._members) == self.place.size and all(
            m["gone"] for m in self._members.values()
        )

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(self.place.timeout)
        line = _Line(connection)
        self._lines[line] = None
        self._selector.register(connection, selectors.EVENT_READ, line)

    def _drop(self, line: _Line) -> None:
        self._selector.unregister(line.socket)
        line.socket.close()
        del self._lines[line]

    def _read(self, line: _Line) -> None:
        messages, rank = line.read(), self._lines[line]
        if messages is None:
            self._drop(line)
            if rank is not None and not self._members[rank]["gone"]:
                self._members[rank]["gone"] = True
                self._end(f"{self._title(rank)} is gone: its connection closed")
            return
        for kind, content in messages:
            if kind == "hello" and rank is None:
                rank = self._welcome(line, content)
            elif rank is not None and kind == "ready":
                self._members[rank]["ready"] = True
            elif rank is not None and kind in ("bye", "fail"):
                self._members[rank]["gone"] = True
                if kind == "fail":
                    self._end(f"{self._title(rank)} failed: {content}")

    def _welcome(self, line: _Line, hello) -> Optional[int]:
        """Take a worker in; return its rank, or None for what is not one of this run's."""
        try:
            rank, size, who = int(hello["rank"]), hello["size"], str(hello["who"])
        except (TypeError, KeyError, ValueError):
            return None
        size_differs = size != self.place.size or not 0 <= rank < size
        if size_differs or rank in self._members:
            taken = "" if size_differs else f", as {self._members[rank]['who']} does already"
            self._end(
                f"{who} came as worker {rank} of {size}{taken}; this run has {self.place.size}"
            )
            return None
        self._lines[line] = rank
        self._members[rank] = {
            "line": line, "who": who, "host": hello.get("host"), "ready": False, "gone": False,
        }  # fmt: skip
        if len(self._members) == self.place.size:
            hosts = [self._members[r]["host"] for r in range(self.place.size)]
            told = {**self._share, "hosts": hosts, "address": self._address()}
            for member in self._members.values():
                member["line"].send("go", told)
        return rank

    def _address(self) -> str:
        """Return the address at which the others have reached this machine.

        Its own name may lead to 127.0.1.1 here, as on Debian.
        """
        reached = [m["line"].socket.getsockname()[0] for m in self._members.values()]
        return next((a for a in reached if not a.startswith("127.")), reached[0])

    def _look_for_the_missing(self) -> None:
        now = time.monotonic()
        if len(self._members) < self.place.size and now > self._deadline:
            missing = [str(r) for r in range(self.place.size) if r not in self._members]
            self._end(
                f"worker {', '.join(missing)} of {self.place.size} did not come within "
                f"{self.place.timeout:g} s: it must be started, and reach {self.place.host}, "
                f"port {self.place.port}"
            )
        for rank, member in self._members.items():
            limit = _patience(self.place, member["ready"])
            if not member["gone"] and now - member["line"].heard > limit:
                self._end(f"{self._title(rank)} has been silent for {limit:g} s")

    def _title(self, rank: int) -> str:
        return f"worker {rank} of {self.place.size} ({self._members[rank]['who']})"

    def _end(self, verdict: str) -> None:
        self._verdict = self._verdict or verdict


class Member:
    """Every worker's side: says that it lives, watches its helpers, hears the verdict.

    Args:
        end: called with the line that says why, when this process has to end.

    Raises: RunError if worker 0 does not answer in time.
    """

    def __init__(self, place: Place, end: Optional[Callable[[str], None]] = None):
        self.place, self._end_process = place, end or self._exit
        self._helpers: list[tuple[str, subprocess.Popen]] = []
        self._told: Optional[dict] = None
        self._came = threading.Event()
        self._left = threading.Event()
        self._lock = threading.Lock()  # the thread and the caller both send
        self._deadline: Optional[tuple[float, str]] = None
        self._ready = self._leaving = False
        parent = os.getppid()
        self._launcher = parent if os.environ.get("ASYMMNET_LAUNCHER") == str(parent) else None
        self._line = _Line(self._connect())
        self.address = self._line.socket.getsockname()[0]  # of the interface that reaches worker 0
        self._send("hello", {
            "rank": place.rank, "size": place.size, "host": socket.gethostname(),
            "who": f"{socket.gethostname()}, process {os.getpid()}",
        })  # fmt: skip
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def wait_for_the_verdict(self, seconds: float) -> None:
        """Wait whether worker 0 ends this process."""
        self._thread.join(seconds)

    def _connect(self) -> socket.socket:
        place, deadline = self.place, time.monotonic() + self.place.timeout
        while True:
            try:
                return socket.create_connection((place.host, place.port), timeout=place.timeout)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise RunError(
                        f"worker {place.rank} of {place.size}: no answer from worker 0 at "
                        f"{place.host}, port {place.port}, within {place.timeout:g} s ({error})"
                    ) from None
                time.sleep(0.1)

    def wait_for_all(self) -> dict:
        """Wait until every worker is there; return what worker 0 tells."""
        self._came.wait()
        if self.address.startswith("127."):  # on the machine of worker 0
            self.address = self._told["address"]
        return self._told

    @contextlib.contextmanager
    def within_time(self, what: str):
        """End the process if the block does not end in time; after it this worker is ready."""
        self._deadline = (time.monotonic() + _patience(self.place, False), what)
        yield
        self._deadline, self._ready = None, True
        self._send("ready")

    def help_by(self, name: str, process: subprocess.Popen) -> None:
        """Watch a process that this worker cannot do without."""
        self._helpers.append((name, process))

    def leave(self) -> None:
        """Say goodbye: from here on nobody has to be there."""
        self._say_last("bye")
        for _, process in self._helpers:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def fail(self, why: str) -> None:
        """Tell the others that this worker ends, and why."""
        self._say_last("fail", why[:2000])
        self.stop_helpers()

    def _say_last(self, kind: str, content=None) -> None:
        self._leaving = True  # what is lost from here on does not matter
        self._send(kind, content)
        self._left.set()

    def stop_helpers(self) -> None:
        """Kill the processes of ``help_by``."""
        for _, process in self._helpers:
            process.kill()

    def _serve(self) -> None:
        beat, interval = 0.0, _interval(self.place)
        selector = selectors.DefaultSelector()
        selector.register(self._line.socket, selectors.EVENT_READ)
        own, until = None, 0.0  # what is wrong here, and how long to let worker 0 tell all
        while not self._left.is_set():
            reason = self._hear() if selector.select(interval / 2) else None
            if own is None and reason is None and (own := self._look()):
                self._send("fail", own)
                until = time.monotonic() + 2 * _FAREWELL
            if own and time.monotonic() > until:
                reason = f"worker {self.place.rank} of {self.place.size} failed: {own}"
            if reason:
                if not self._leaving:
                    self._end_process(reason)
                break
            if time.monotonic() - beat > interval:
                beat = time.monotonic()
                self._send("beat")
        selector.close()
        self._left.wait(_FAREWELL)  # until the last word is said
        self._line.socket.close()

    def _hear(self) -> Optional[str]:
        messages = self._line.read()
        for kind, content in messages or ():
            if kind == "end":
                return str(content)
            if kind == "go":
                self._told = content
                self._came.set()
        return None if messages is not None else f"{self._first()} is gone: its connection closed"

    def _look(self) -> Optional[str]:
        now, limit = time.monotonic(), _patience(self.place, self._ready)
        for name, process in self._helpers:
            status = process.poll()
            if status is not None:
                return f"its {name} ended early ({status_text(status)})"
        if self._launcher and os.getppid() != self._launcher:
            return "its launcher is gone"
        if self._deadline and now > self._deadline[0]:
            return f"{self._deadline[1]} did not happen in time"
        if now - self._line.heard > limit:
            return f"{self._first()} has been silent for {limit:g} s"
        return None

    def _first(self) -> str:
        return f"worker 0 of {self.place.size} (at {self.place.host}, port {self.place.port})"

    def _send(self, kind: str, content=None) -> None:
        with self._lock:
            self._line.send(kind, content)

    def _exit(self, reason: str) -> None:
        """End this process although its main thread may wait in C++ for ever."""
        self.stop_helpers()
        program = os.path.basename(sys.argv[0])
        with contextlib.suppress(OSError, ValueError):  # the reader may be what is gone
            print(f"{program}: {reason}; the same command goes on from the last checkpoint",
                  file=sys.stderr, flush=True)  # fmt: skip
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(LOST)


def status_text(status: int) -> str:
    """Say how a process ended, as ``Popen.poll`` gives it."""
    if status >= 0:
        return f"status {status}"
    return f"killed by {signal.Signals(-status).name}"


def _patience(place: Place, ready: bool) -> float:
    """Return how long a worker may be silent, in seconds."""
    return place.timeout if ready else max(place.timeout, _MEETING)


def _interval(place: Place) -> float:
    return min(1.0, place.timeout / 5)

"""Detect a lost worker, and end all others with one line instead of a hang.

After the loss of a worker ps-lite and Gloo wait in C++ without end, or raise an internal error.  So
every worker keeps a TCP connection to worker 0 and sends a heartbeat each second.  A worker whose
connection closes without a goodbye, or stays silent for too long, is lost; worker 0 tells all
others.  Each message is one line with a JSON object of one entry: hello, go, ready, beat, bye, fail
or end.
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

from gluon_asymmnet.distributed.environment import WorkerEnvironment
from gluon_asymmnet.errors import RunError

LOST = 75  # exit status after the loss of another worker: EX_TEMPFAIL of sysexits.h, "try again"
_END_TIME = 2  # seconds that worker 0 gives the others to end before it
# Seconds a worker has at least until it is ready.  On a loaded machine the import of MXNet takes
# some of them, and no other thread runs while its library is loaded.
_MIN_START_TIME = 60
_MAX_LINE = 65536  # bytes; the peer of a longer line is not a worker


class _Connection:
    """A TCP connection that carries messages."""

    def __init__(self, connection: socket.socket):
        self.socket, self.last_message = connection, time.monotonic()
        self._rest = b""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, kind: str, content=None) -> None:
        with contextlib.suppress(OSError):  # reading detects a peer that is gone
            self.socket.sendall(json.dumps({kind: content}).encode() + b"\n")

    def read(self) -> Optional[list[tuple]]:
        """Return the (kind, content) pairs that have arrived; None if the peer is gone."""
        try:
            data = self.socket.recv(_MAX_LINE)
        except OSError:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data or len(self._rest) > _MAX_LINE:
            return None
        self.last_message = time.monotonic()
        try:
            return [next(iter(json.loads(line).items())) for line in lines]
        except (ValueError, AttributeError, StopIteration, RecursionError):
            return None


class Coordinator:
    """The side of worker 0: accepts the workers, and tells all of them when one is lost.

    Args:
        share: entries of the rendezvous, sent to every worker when all are connected.

    Raises: RunError if the port is taken.
    """

    def __init__(self, environment: WorkerEnvironment, share: dict):
        self.environment, self._share = environment, share
        self.world_size = environment.world_size
        try:
            self._listener = socket.create_server(("", environment.port), backlog=self.world_size)
        except OSError as error:
            raise RunError(f"worker 0 cannot listen on port {environment.port}: {error}") from None
        self._members: dict[int, dict] = {}  # by rank: connection, process, host, ready, gone
        self._connections: dict[_Connection, Optional[int]] = {}  # rank, None before the hello
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._deadline = time.monotonic() + environment.timeout
        self._failure: Optional[str] = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until all workers have closed, or have been told about a failure."""
        self._thread.join(seconds)

    def _serve(self) -> None:
        beat = 0.0
        while self._failure is None and not self._all_closed():
            for key, _ in self._selector.select(_interval(self.environment) / 2):
                if key.data is None:
                    self._accept()
                else:
                    self._read(key.data)
            self._check_silence()
            if time.monotonic() - beat > _interval(self.environment):
                beat = time.monotonic()
                for connection in self._connections:
                    connection.send("beat")
        if self._failure is not None:
            self._end_all(self._failure)
        for connection in self._connections:
            connection.socket.close()
        self._listener.close()
        self._selector.close()

    def _end_all(self, reason: str) -> None:
        """Send the reason of the failure to all connected workers.

        Worker 0 comes last, because this process then ends.  The others' connections are read until
        they close: to close a connection with unread data can discard what was just sent.
        """
        others = [connection for connection, rank in self._connections.items() if rank != 0]
        for connection in others:
            connection.send("end", reason)
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_WR)
        until = time.monotonic() + _END_TIME
        for connection in others:
            with contextlib.suppress(OSError):
                while (left := until - time.monotonic()) > 0:
                    connection.socket.settimeout(left)
                    if not connection.socket.recv(_MAX_LINE):
                        break
        for connection in set(self._connections) - set(others):
            connection.send("end", reason)

    def _all_closed(self) -> bool:
        members = self._members.values()
        return len(members) == self.world_size and all(m["gone"] for m in members)

    def _accept(self) -> None:
        accepted, _ = self._listener.accept()
        accepted.settimeout(self.environment.timeout)
        connection = _Connection(accepted)
        self._connections[connection] = None
        self._selector.register(accepted, selectors.EVENT_READ, connection)

    def _drop(self, connection: _Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.socket.close()
        del self._connections[connection]

    def _read(self, connection: _Connection) -> None:
        messages, rank = connection.read(), self._connections[connection]
        if messages is None:
            self._drop(connection)
            if rank is not None and not self._members[rank]["gone"]:
                self._members[rank]["gone"] = True
                self._fail(f"{self._title(rank)} is gone: its connection closed")
            return
        for kind, content in messages:
            if kind == "hello" and rank is None:
                rank = self._add_member(connection, content)
            elif rank is not None and kind == "ready":
                self._members[rank]["ready"] = True
            elif rank is not None and kind in ("bye", "fail"):
                self._members[rank]["gone"] = True
                if kind == "fail":
                    self._fail(f"{self._title(rank)} failed: {content}")

    def _add_member(self, connection: _Connection, hello) -> Optional[int]:
        """Return the rank of a new worker, or None if it does not belong to this run."""
        try:
            rank, world_size = int(hello["rank"]), hello["world_size"]
            process = str(hello["process"])
        except (TypeError, KeyError, ValueError):
            return None
        size_differs = world_size != self.world_size or not 0 <= rank < world_size
        if size_differs or rank in self._members:
            taken = "" if size_differs else f", as {self._members[rank]['process']} does already"
            self._fail(
                f"{process} came as worker {rank} of {world_size}{taken}; this run has "
                f"{self.world_size}"
            )
            return None
        self._connections[connection] = rank
        self._members[rank] = {
            "connection": connection, "process": process, "host": hello.get("host"),
            "ready": False, "gone": False,
        }  # fmt: skip
        if len(self._members) == self.world_size:
            hosts = [self._members[r]["host"] for r in range(self.world_size)]
            rendezvous = {**self._share, "hosts": hosts, "address": self._address()}
            for member in self._members.values():
                member["connection"].send("go", rendezvous)
        return rank

    def _address(self) -> str:
        """Return the address at which the other workers have reached this machine.

        The machine's own name can resolve to 127.0.1.1, as on Debian.
        """
        used = [m["connection"].socket.getsockname()[0] for m in self._members.values()]
        return next((a for a in used if not a.startswith("127.")), used[0])

    def _check_silence(self) -> None:
        now, environment = time.monotonic(), self.environment
        if len(self._members) < self.world_size and now > self._deadline:
            missing = [str(r) for r in range(self.world_size) if r not in self._members]
            self._fail(
                f"worker {', '.join(missing)} of {self.world_size} did not come within "
                f"{environment.timeout:g} s: it must be started, and reach {environment.host}, "
                f"port {environment.port}"
            )
        for rank, member in self._members.items():
            limit = _silence_limit(environment, member["ready"])
            if not member["gone"] and now - member["connection"].last_message > limit:
                self._fail(f"{self._title(rank)} has been silent for {limit:g} s")

    def _title(self, rank: int) -> str:
        return f"worker {rank} of {self.world_size} ({self._members[rank]['process']})"

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason


class Member:
    """The side of every worker: sends heartbeats, watches its servers, ends with the group.

    Args:
        end: called with the reason when this process has to end.

    Raises: RunError if worker 0 does not answer in time.
    """

    def __init__(self, environment: WorkerEnvironment, end: Optional[Callable[[str], None]] = None):
        self.environment, self._end_process = environment, end or self._exit
        self._title = f"worker {environment.rank} of {environment.world_size}"
        self._servers: list[tuple[str, subprocess.Popen]] = []
        self._rendezvous: Optional[dict] = None
        self._all_connected = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()  # the thread and the caller both send
        self._deadline: Optional[tuple[float, str]] = None
        self._ready = self._closing = False
        parent = os.getppid()
        self._launcher = parent if os.environ.get("ASYMMNET_LAUNCHER") == str(parent) else None
        self._connection = _Connection(self._connect())
        # of the interface that reaches worker 0
        self.address = self._connection.socket.getsockname()[0]
        host = socket.gethostname()
        self._send("hello", {
            "rank": environment.rank, "world_size": environment.world_size, "host": host,
            "process": f"{host}, process {os.getpid()}",
        })  # fmt: skip
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def wait_for_end(self, seconds: float) -> None:
        """Give worker 0 some time to end this process."""
        self._thread.join(seconds)

    def _connect(self) -> socket.socket:
        host, port, timeout = self.environment.host, self.environment.port, self.environment.timeout
        deadline = time.monotonic() + timeout
        while True:
            try:
                return socket.create_connection((host, port), timeout=timeout)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise RunError(
                        f"{self._title}: no answer from worker 0 at {host}, port {port}, within "
                        f"{timeout:g} s ({error})"
                    ) from None
                time.sleep(0.1)

    def wait_for_all(self) -> dict:
        """Wait until every worker is connected; return the rendezvous that worker 0 sends."""
        self._all_connected.wait()
        if self.address.startswith("127."):  # on the machine of worker 0
            self.address = self._rendezvous["address"]
        return self._rendezvous

    @contextlib.contextmanager
    def start_limit(self, event: str):
        """End the process if the block takes too long; after the block this worker is ready."""
        self._deadline = (time.monotonic() + _silence_limit(self.environment, False), event)
        yield
        self._deadline, self._ready = None, True
        self._send("ready")

    def watch_server(self, name: str, process: subprocess.Popen) -> None:
        """End this worker, too, if this process of it ends early."""
        self._servers.append((name, process))

    def close(self) -> None:
        """Leave the group; later failures of other workers are ignored."""
        self._send_last("bye")
        for _, process in self._servers:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def fail(self, reason: str) -> None:
        """Leave the group with an error, which ends the other workers."""
        self._send_last("fail", reason[:2000])
        self._kill_servers()

    def _send_last(self, kind: str, content=None) -> None:
        self._closing = True  # what is lost from here on does not matter
        self._send(kind, content)
        self._closed.set()

    def _kill_servers(self) -> None:
        for _, process in self._servers:
            process.kill()

    def _serve(self) -> None:
        beat, interval = 0.0, _interval(self.environment)
        selector = selectors.DefaultSelector()
        selector.register(self._connection.socket, selectors.EVENT_READ)
        failure, until = None, 0.0  # of this worker, and how long worker 0 may take to tell all
        while not self._closed.is_set():
            reason = self._read() if selector.select(interval / 2) else None
            if failure is None and reason is None and (failure := self._find_failure()):
                self._send("fail", failure)
                until = time.monotonic() + 2 * _END_TIME
            if failure and time.monotonic() > until:
                reason = f"{self._title} failed: {failure}"
            if reason:
                if not self._closing:
                    self._end_process(reason)
                break
            if time.monotonic() - beat > interval:
                beat = time.monotonic()
                self._send("beat")
        selector.close()
        self._closed.wait(_END_TIME)  # until the last message is sent
        self._connection.socket.close()

    def _read(self) -> Optional[str]:
        """Handle messages; return the reason if this process has to end."""
        messages = self._connection.read()
        for kind, content in messages or ():
            if kind == "end":
                return str(content)
            if kind == "go":
                self._rendezvous = content
                self._all_connected.set()
        if messages is None:
            return f"{self._coordinator_title()} is gone: its connection closed"
        return None

    def _find_failure(self) -> Optional[str]:
        now, limit = time.monotonic(), _silence_limit(self.environment, self._ready)
        for name, process in self._servers:
            status = process.poll()
            if status is not None:
                return f"its {name} ended early ({status_text(status)})"
        if self._launcher and os.getppid() != self._launcher:
            return "its launcher is gone"
        if self._deadline and now > self._deadline[0]:
            return f"{self._deadline[1]} did not happen in time"
        if now - self._connection.last_message > limit:
            return f"{self._coordinator_title()} has been silent for {limit:g} s"
        return None

    def _coordinator_title(self) -> str:
        here = self.environment
        return f"worker 0 of {here.world_size} (at {here.host}, port {here.port})"

    def _send(self, kind: str, content=None) -> None:
        with self._lock:
            self._connection.send(kind, content)

    def _exit(self, reason: str) -> None:
        """End this process, although its main thread may wait in C++ without end."""
        self._kill_servers()
        program = os.path.basename(sys.argv[0])
        with contextlib.suppress(OSError, ValueError):  # the reader of the pipe may be gone
            print(f"{program}: {reason}; the same command goes on from the last checkpoint",
                  file=sys.stderr, flush=True)  # fmt: skip
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(LOST)


def status_text(status: int) -> str:
    """Describe the exit status of a process, as ``Popen.poll`` returns it."""
    if status >= 0:
        return f"status {status}"
    return f"killed by {signal.Signals(-status).name}"


def _silence_limit(environment: WorkerEnvironment, ready: bool) -> float:
    """Return how long a worker may be silent, in seconds."""
    return environment.timeout if ready else max(environment.timeout, _MIN_START_TIME)


def _interval(environment: WorkerEnvironment) -> float:
    """Return the time between two heartbeats, in seconds."""
    return min(1.0, environment.timeout / 5)

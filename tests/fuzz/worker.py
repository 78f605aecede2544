"""One process of a campaign: reads inputs of one parser under guard.

It may be killed by what it reads, so it tells how far it is through a shared file; the parent
(``campaign``) notes the input that did it and starts another.
"""

import json
import mmap
import os
import resource
import signal
import struct
import tracemalloc
from pathlib import Path

from tests.fuzz.parsers.base import REFUSALS
from tests.fuzz.targets import TARGETS, empty, input_of

CPU_S = 5  # of one input in Python code: a hang
WALL_S = 60  # of one input wherever it is, e.g. in C or waiting: the process is killed
ADDRESS_SPACE = 512 << 20  # bytes beyond what the libraries take, for any input
TRACED = 10  # every so many inputs the memory is measured, which makes them three times as slow
FIXED_BYTES = 3 << 20  # of any input: Python's own objects, two buffers of 1 MB for copying
_LONGEST_MESSAGE = 1500

FIELDS = ("index", "accepted", "refused", "failures", "peak_bytes", "largest_input")
LAYOUT = struct.Struct(f"<{len(FIELDS)}q")


class HangError(BaseException):
    """No parser may catch it by mistake."""


class Progress:
    """The counts of a worker, in a file that its parent reads, also after its death."""

    def __init__(self, shared: mmap.mmap):
        self._map = shared

    @classmethod
    def new(cls, path: Path) -> "Progress":
        path.write_bytes(bytes(LAYOUT.size))
        with open(path, "r+b") as file:
            return cls(mmap.mmap(file.fileno(), LAYOUT.size))

    def read(self) -> dict:
        return dict(zip(FIELDS, LAYOUT.unpack(self._map[: LAYOUT.size])))

    def write(self, values: dict) -> None:
        self._map[: LAYOUT.size] = LAYOUT.pack(*(values[name] for name in FIELDS))


def guard() -> None:
    """Bound memory, size of files and time of this process."""

    def hang(*_):
        raise HangError

    signal.signal(signal.SIGVTALRM, hang)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def attempt(target, folder: Path, data: bytes) -> bool:
    """Read one input; return whether it was accepted.  What is wrong raises."""
    try:
        target.read(folder, data)
    except REFUSALS as error:
        message = str(error)
        assert "\n" not in message, f"a message of several lines: {message!r}"
        assert len(message) < _LONGEST_MESSAGE, f"{len(message)} characters: {message[:100]}"
        return False
    return True


def timed(target, folder: Path, data: bytes) -> bool:
    """``attempt`` with its time bounded."""
    files = _open_files()
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S)
    signal.setitimer(signal.ITIMER_REAL, WALL_S)
    try:
        accepted = attempt(target, folder, data)
        assert _open_files() == files, "a file was left open"
        return accepted
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def traced(target, folder: Path, data: bytes) -> tuple[bool, int]:
    """``timed`` with its memory bounded; return the bytes at its peak, too."""
    tracemalloc.start()
    try:
        accepted = timed(target, folder, data)
        spent = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    allowed = FIXED_BYTES + target.bytes_per_byte * len(data)
    assert spent <= allowed, f"memory: {spent} bytes for an input of {len(data)}"
    return accepted, spent


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def work(
    name: str, seed: int, first: int, end: int, progress: Progress, failures: Path, scratch: Path
) -> None:
    """Read inputs ``first`` to ``end``; append one line of JSON to ``failures`` for each bug."""
    target, counts = TARGETS[name], progress.read()
    seeds = target.seeds()
    folder = scratch / "input"
    folder.mkdir(exist_ok=True)
    empty(folder)  # what the input that killed the process before has left
    with open(failures, "a") as log:
        for sound in seeds:  # loads what is loaded on first use, too
            assert attempt(target, folder, sound), f"{name}: sound input refused: {sound[:80]}"
            empty(folder)
        guard()
        for index in range(first, end):
            counts["index"] = index
            progress.write(counts)
            data = input_of(name, seeds, seed, index)
            counts["largest_input"] = max(counts["largest_input"], len(data))
            try:
                if index % TRACED:
                    accepted = timed(target, folder, data)
                else:
                    accepted, spent = traced(target, folder, data)
                    counts["peak_bytes"] = max(counts["peak_bytes"], spent)
                counts["accepted" if accepted else "refused"] += 1
            except (Exception, HangError) as error:
                counts["failures"] += 1
                where = _where(error)
                line = {"index": index, "kind": type(error).__name__, "error": str(error)[:300]}
                log.write(json.dumps({**line, "where": where}) + "\n")
                log.flush()
            empty(folder)
        counts["index"] = end
        progress.write(counts)


def _where(error: BaseException) -> str:
    """The innermost line of ours in a traceback."""
    ours, trace = "", error.__traceback__
    while trace:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.parts[-2] != "fuzz" and {"gluon_asymmnet", "tests"} & set(file.parts):
            ours = f"{file.name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return ours

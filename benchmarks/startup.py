"""Time whole processes, from the start of Python to its exit."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.candidates import Case, environment
from benchmarks.compare import Timing
from gluon_asymmnet.errors import RunError

_ANSWER = (
    "import sys; from gluon_asymmnet import Predictor; folder, engine, threads, picture = "
    "sys.argv[1:]; print(Predictor(folder, engine, threads=int(threads)).classify([picture], 1))"
)


def commands(case: Case, picture: Path) -> dict[str, list[str]]:
    """Return the arguments of Python for each process, by name."""
    answer = {
        f"first_answer_{engine}": ["-c", _ANSWER, case.folder, engine, str(case.threads), picture]
        for engine in ("openvino", "onnxruntime", "mxnet")
    }
    return {"python": ["-c", "pass"], "help": ["-m", "gluon_asymmnet", "--help"], **answer}


def time_processes(case: Case, picture: Path, *, rounds: int, only=()) -> list[Timing]:
    """Time every process once per round, in turn, with its files in the disk cache.

    Raises: RunError if one fails.
    """
    chosen = {n: c for n, c in commands(case, picture).items() if not only or n in only}
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for number in range(rounds + 1):  # the first fills the caches
        for name, command in chosen.items():
            spent = _timed(name, command, case.threads)
            if number:
                seconds[name].append(spent)
    return [_timing(name, sorted(values)) for name, values in seconds.items()]


def _timed(name: str, command: list, threads: int) -> float:
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True,
        env=environment(name, threads),
    )  # fmt: skip
    spent = time.perf_counter() - begun
    if done.returncode:
        raise RunError(f"{name} ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
    return spent


def _timing(name: str, s: list[float]) -> Timing:
    p95 = s[min(len(s) - 1, int(0.95 * len(s)))]
    return Timing(name, statistics.median(s), p95, s[0], s[-1], len(s), 0.0, 0.0)

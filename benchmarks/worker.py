"""A candidate's process: build it, then time calls on request.

Each line on standard input is a number of calls to time, or ``quit``; each answer is a JSON line.
"""

import json
import sys
import time
from pathlib import Path

_LONG = 3  # seconds of a call that cold caches do not change


def main() -> None:
    """Serve one candidate.  Arguments: its name, the ``Case`` as JSON."""
    begun = time.perf_counter()
    from benchmarks import candidates, detectors, exported, pipeline, readers, shifts

    parts = (candidates, detectors, exported, pipeline, readers, shifts)
    builders = {name: build for part in parts for name, build in part.CANDIDATES.items()}
    call = builders[sys.argv[1]](candidates.Case(**json.loads(sys.argv[2])))
    first = _timed(call)
    _answer({"ready_s": time.perf_counter() - begun})
    for line in sys.stdin:
        if line.strip() == "quit":
            break
        if first < _LONG:
            call()  # caches are cold after another candidate's turn
        _answer({"seconds": [_timed(call) for _ in range(int(line))]})
    _answer({"peak_mb": _peak_mb()})


def _peak_mb() -> float:
    """Return the peak of resident memory.  Not ``ru_maxrss``: that starts at the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _timed(call) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _answer(message: dict) -> None:
    # To the real standard output; libraries may print into sys.stdout.
    sys.__stdout__.write("\n@" + json.dumps(message) + "\n")
    sys.__stdout__.flush()


if __name__ == "__main__":
    main()

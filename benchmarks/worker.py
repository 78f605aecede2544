"""A contender's process: builds it, then times calls when it is told to.

Reads lines from standard input: a number of calls to time, or ``quit``; answers in JSON lines.
"""

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Serve one contender: ``worker.py NAME CASE-AS-JSON``."""
    begun = time.perf_counter()
    from benchmarks import contenders, deployed, primitives, readers

    parts = (contenders, deployed, readers, primitives)
    all_of_them = {name: made for part in parts for name, made in part.CONTENDERS.items()}
    call = all_of_them[sys.argv[1]](contenders.Case(**json.loads(sys.argv[2])))
    call()
    _say({"ready_s": time.perf_counter() - begun})
    for line in sys.stdin:
        if line.strip() == "quit":
            break
        call()  # caches are cold after another contender's turn
        _say({"seconds": [_timed(call) for _ in range(int(line))]})
    _say({"peak_mb": _peak_mb()})


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


def _say(message: dict) -> None:
    # To the real standard output; libraries may print into sys.stdout.
    sys.__stdout__.write("\n@" + json.dumps(message) + "\n")
    sys.__stdout__.flush()


if __name__ == "__main__":
    main()

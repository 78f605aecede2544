"""Feed damaged inputs to every parser of ours, and count.

    python -m tests.fuzz.campaign --inputs 100000 --report docs/data/fuzzing.json

Input ``i`` of seed ``s`` of a parser is always the same bytes, so the index of a failure in the
report reproduces it: ``--only NAME --first i --inputs 1``.  Exit status 1 if there was a failure.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from gluon_asymmnet.atomic import write_text
from tests.conftest import ROOT
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import LAYOUT, Progress

_MOST_DEATHS = 20  # processes killed by inputs of one parser


def run(name: str, inputs: int, seed: int = 0, first: int = 0) -> dict:
    """Read ``inputs`` damaged inputs of one parser; return the counts."""
    with tempfile.TemporaryDirectory(dir=_memory()) as scratch:
        progress_file, failures = Path(scratch) / "progress", Path(scratch) / "failures"
        progress_file.write_bytes(bytes(LAYOUT.size))
        failures.touch()
        progress, deaths, at = Progress(progress_file), [], first
        while at < first + inputs and len(deaths) < _MOST_DEATHS:
            done = subprocess.run(
                [sys.executable, "-m", "tests.fuzz.worker", name, str(seed), str(at),
                 str(first + inputs), str(progress_file), str(failures)],
                cwd=ROOT, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": scratch},
            )  # fmt: skip
            counts = progress.read()
            if done.returncode > 0:
                raise RuntimeError(f"{name}: {done.stderr.decode(errors='replace')[-2000:]}")
            at = counts["index"]
            if done.returncode < 0:
                deaths.append({"index": at, "kind": f"killed by signal {-done.returncode}"})
                at += 1
        found = deaths + [json.loads(line) for line in failures.read_text().splitlines()]
    kinds = Counter(_kind(failure) for failure in found)
    return {
        "parser": TARGETS[name].reads,
        "inputs": at - first,
        "accepted": counts["accepted"],
        "refused": counts["refused"],
        "crashes": kinds["crash"],
        "hangs": kinds["hang"],
        "peak_bytes": counts["peak_bytes"],
        "largest_input_bytes": counts["largest_input"],
        "failures": found[:10],
    }


def _kind(failure: dict) -> str:
    return "hang" if failure["kind"] in ("HangError", "killed by signal 14") else "crash"


def _memory():
    """A file system in memory, where there is one: a million small files wear out a disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def main(argv=None) -> int:
    """Run the campaign over all parsers, or those of ``--only``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="of each parser")
    parser.add_argument("--first", type=int, default=0, help="index of the first")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other inputs")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--report", help="JSON file to write")
    args = parser.parse_args(argv)
    results = {}
    for name in args.only:
        results[name] = run(name, args.inputs, args.seed, args.first)
        print(json.dumps({name: results[name]}), flush=True)
    if args.report:
        report = {"python": platform.python_version(), "seed": args.seed, "results": results}
        write_text(args.report, json.dumps(report, indent=1) + "\n")
    return int(any(found["crashes"] or found["hangs"] for found in results.values()))


if __name__ == "__main__":
    sys.exit(main())

"""Feed damaged inputs to every parser of ours, and count.

    python -m tests.fuzz.campaign --inputs 100000 --report docs/data/fuzzing.json

Input ``i`` of seed ``s`` of a parser is always the same bytes, so the index of a failure in the
report reproduces it: ``--only NAME --first i --inputs 1``.  Exit status 1 if there was a failure.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

from gluon_asymmnet.utils.atomic import write_text
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import Progress, work

_MOST_DEATHS = 20  # processes killed by inputs of one parser


def run(name: str, inputs: int, seed: int = 0, first: int = 0) -> dict:
    """Read ``inputs`` damaged inputs of one parser; return the counts."""
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        scratch, end, at, deaths = Path(folder), first + inputs, first, []
        progress = Progress.new(scratch / "progress")
        failures = scratch / "failures"
        failures.touch()
        waited = None
        while at < end and len(deaths) < _MOST_DEATHS:
            status = _in_a_process(
                scratch, lambda start=at: work(name, seed, start, end, progress, failures, scratch)
            )
            counts = progress.read()
            at = counts["index"]
            if status == -signal.SIGALRM and waited != at:
                waited = at  # once more: a machine that stood still for a minute is not a hang
            elif status < 0:
                deaths.append({"index": at, "kind": f"killed by signal {-status}"})
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


def _in_a_process(scratch: Path, function) -> int:
    """Call ``function`` in a copy of this process; return 0, or minus the signal that killed it.

    What C libraries say of damaged pictures goes to a file.
    """
    with warnings.catch_warnings():  # of OpenBLAS's threads, which wait and hold nothing
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        errors = os.open(scratch / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(errors, 2)
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status > 0:
        said = (scratch / "stderr").read_text(errors="replace")
        raise RuntimeError(f"the fuzzing itself failed: {said[-2000:]}")
    return status


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
    parser.add_argument("--report", help="JSON file to write, or to bring up to date")
    args = parser.parse_args(argv)
    failed = False
    for name in args.only:
        found = run(name, args.inputs, args.seed, args.first)
        print(json.dumps({name: found}), flush=True)
        failed = failed or bool(found["crashes"] or found["hangs"])
        if args.report:
            _add_to_report(Path(args.report), args.seed, name, found)
    return int(failed)


def _add_to_report(path: Path, seed: int, name: str, found: dict) -> None:
    """Put one parser's counts in the report, in the place of those of before."""
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    results[name] = found
    ordered = {name: results[name] for name in TARGETS if name in results}
    report = {"python": platform.python_version(), "seed": seed, "results": ordered}
    write_text(path, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())

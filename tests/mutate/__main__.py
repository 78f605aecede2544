"""The mutation campaign: ``python -m tests.mutate --report FILE`` writes FILE.json and FILE.md.

Each mutant is one small change of a module in which a wrong line gives a wrong number.  The tests
of that module run on it, a file after the other, and have to fail.  What is in the report already
is not run again, so that a stopped campaign goes on; a module that changed starts anew.  A person
writes a ``note`` into the report's JSON for each survivor: why no test can see it, or which test
is missing.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT
from tests.mutate.mutations import mutants
from tests.mutate.runner import Workplace

# module: its tests, the fastest first
MODULES = {
    "arch": "arch models complexity mobilenetv2 convert",
    "models/complexity": "complexity graph_complexity arch",
    "train/optimization": "train_step gradients",
    "train/optimizers": "optimizers own_parts",
    "train/schedules": "schedule train_step loop own_parts",
    "train/mixing": "mixing train_step",
    "train/ema": "ema loop",
    "train/distillation": "distillation",
    "data/transforms": "augment image_changes",
    "data/randaugment": "image_changes",
    "data/loader": "input bad_records image_changes",
    "train/ssd_targets": "ssd_targets",
    "train/ssd_loss": "ssd_targets",
    "models/ssd_box_coder": "ssd ssd_targets",
    "evaluation/voc_ap": "voc_ap",
    "evaluation/coco_ap": "voc_ap evaluate_voc",
    "evaluation/classification": "evaluate distributed",
    "export/int8/quantizers": "int8",
    "nn/folding": "graph_modes export_onnx",
    "weights/layouts": "weights convert",
}
PER_MODULE = 40  # drawn from all, with a fixed seed
SEED = 1


class Campaign:
    """The mutants of all modules, and what became of them."""

    def __init__(self, report: Path, again: Sequence[str]):
        """``again``: the modules whose survivors without a note are run again."""
        self.json, self.page = report.with_suffix(".json"), report.with_suffix(".md")
        rows = json.loads(self.json.read_text())["mutants"] if self.json.exists() else []
        self.rows = [
            r for r in rows
            if not (r["result"] == "survived" and "note" not in r and r["module"] in again)
        ]  # fmt: skip

    def module(self, name: str, count: int, places: list[Workplace]) -> None:
        path = f"gluon_asymmnet/{name}.py"
        source = (ROOT / path).read_text()
        version = zlib.crc32(source.encode())
        self.rows = [r for r in self.rows if r["module"] != name or r["version"] == version]
        known = {(r["start"], r["after"]): r for r in self.rows if r["module"] == name}
        found = list(mutants(source))
        chosen = random.Random(SEED).sample(found, min(count, len(found)))
        left = [m for m in sorted(chosen) if (m.start, m.after) not in known]
        tests = [f"tests/test_{test}.py" for test in MODULES[name].split()]
        if not left:
            return
        sound = self._run(places[0], tests, {}, {}, 1800)
        if sound["failed"]:
            raise SystemExit(f"{name}: without a mutant, this test fails: {sound['failed']}")
        seconds = sound["seconds"]
        tests = [file for file in tests if any(test.startswith(f"{file}::") for test in seconds)]
        failures = Counter(r["result"] for r in known.values())
        running = {}  # place: (mutant, the test files that it has not met yet)

        def run_next(place, mutant, files):
            running[place] = mutant, files[1:]
            alone = sum(s for test, s in seconds.items() if test.startswith(f"{files[0]}::"))
            place.start(files[:1], failures, seconds, 60 + 5 * alone)

        while left or running:
            for place in places:
                if left and place not in running:
                    mutant = left.pop(0)
                    place.replace(path, mutant.apply(source.encode()))
                    run_next(place, mutant, sorted(tests, key=lambda f: -_kills(failures, f)))
                elif place in running and (ended := place.ended()):
                    mutant, files = running.pop(place)
                    if files and not ended["failed"]:
                        run_next(place, mutant, files)
                        continue
                    place.replace(path, source.encode())
                    result = ended["failed"] or "survived"
                    failures[result] += 1
                    self.rows.append(
                        {"module": name, "version": version, **mutant._asdict(), "result": result}
                    )
                    self.write()
                    change = f"{mutant.before} -> {mutant.after}"
                    print(f"{path}:{mutant.line}: {change}: {result}", flush=True)
            time.sleep(0.1)

    @staticmethod
    def _run(place: Workplace, *arguments) -> dict:
        place.start(*arguments)
        while not (ended := place.ended()):
            time.sleep(0.1)
        return ended

    def write(self) -> None:
        self.rows.sort(key=lambda r: (r["module"], r["start"], r["after"]))
        scratch = self.json.with_suffix(".new")
        scratch.write_text(json.dumps({"mutants": self.rows}, indent=1) + "\n")
        scratch.replace(self.json)
        self.page.write_text(self.markdown())

    def markdown(self) -> str:
        survivors = [r for r in self.rows if r["result"] == "survived"]
        killed = len(self.rows) - len(survivors)
        lines = [
            "# Mutants", "",
            f"{killed} of {len(self.rows)} mutants killed"
            f" ({100 * killed / max(1, len(self.rows)):.1f} %) by `make mutate`.", "",
            "| module | mutants | survived |", "| --- | ---: | ---: |",
        ]  # fmt: skip
        for name in MODULES:
            rows = [r for r in self.rows if r["module"] == name]
            if rows:
                alive = sum(r["result"] == "survived" for r in rows)
                lines.append(f"| {name} | {len(rows)} | {alive} |")
        missing = [name for name in MODULES if not any(r["module"] == name for r in self.rows)]
        if missing:
            lines += ["", f"Not run yet: {', '.join(missing)}."]
        lines += ["", "## Survivors", ""]
        for r in survivors:
            note = r.get("note", "not judged yet")
            before, after = (" ".join(r[k].split()) for k in ("before", "after"))
            lines.append(f"- `{r['module']}.py:{r['line']}`: `{before}` -> `{after}`: {note}")
        return "\n".join(lines) + "\n"


def _kills(failures: Counter, file: str) -> int:
    """Return how many mutants a test file has killed."""
    return sum(count for test, count in failures.items() if test.startswith(f"{file}::"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=__doc__)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--modules", nargs="*", choices=MODULES, default=list(MODULES))
    parser.add_argument("--per-module", type=int, default=PER_MODULE)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--again", action="store_true", help="run survivors without a note again")
    options = parser.parse_args()
    campaign = Campaign(options.report, options.modules if options.again else ())
    places = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for i in range(options.workers):
                places.append(Workplace(Path(folder, str(i))))
            for name in options.modules:
                campaign.module(name, options.per_module, places)
        finally:
            for place in places:
                place.stop()
    campaign.write()
    print(campaign.markdown().split("\n")[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The mutation campaign: ``python -m tests.mutate --report FILE`` writes FILE.json and FILE.md.

Each mutant is one small change of a module in which a wrong line gives a wrong number.  The tests
of that module run on it and have to fail.  What is in the report already is not run again, so that
a stopped campaign goes on; a module that changed starts anew.  A person writes a ``note`` into the
report's JSON for each survivor: why no test can see it, or which test is missing.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock, local

from tests.conftest import ROOT
from tests.mutate.mutations import mutants

# module: its tests, the fastest first
MODULES = {
    "arch": "arch models",
    "models/complexity": "complexity graph_complexity arch",
    "train/optimization": "train gradients",
    "train/optimizers": "optimizers",
    "train/schedules": "schedule train",
    "train/mixing": "mixing train",
    "train/ema": "ema loop",
    "train/distillation": "distillation",
    "data/transforms": "augment image_changes",
    "data/randaugment": "image_changes",
    "data/loader": "input bad_records",
    "train/ssd_targets": "ssd_targets",
    "train/ssd_loss": "ssd_targets",
    "models/ssd_box_coder": "ssd ssd_targets",
    "evaluation/voc_ap": "voc_ap",
    "evaluation/coco_ap": "voc_ap evaluate_voc",
    "evaluation/classification": "evaluate",
    "export/int8/quantizers": "int8",
    "nn/folding": "graph_modes export_onnx",
    "weights/layouts": "weights convert",
}
PER_MODULE = 40  # drawn from all, with a fixed seed
SEED = 1
COPIED = ("gluon_asymmnet", "tests", "symbols", "benchmarks", "examples", "tools", "docs")


class Workplace:
    """A copy of the project in which one mutant at a time replaces its module."""

    def __init__(self, folder: Path):
        self.root = Path(tempfile.mkdtemp(dir=folder))
        hidden = shutil.ignore_patterns("__pycache__")
        for name in COPIED:
            shutil.copytree(ROOT / name, self.root / name, ignore=hidden)
        for pattern in ("*.py", "*.md", "*.toml", "*.txt"):
            for path in ROOT.glob(pattern):
                shutil.copy(path, self.root)

    def run(self, tests: list[str], timeout: float) -> str:
        """Run tests; return ``survived``, the name of the test that failed, or ``timeout``."""
        line = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--durations=0",
                "-p", "no:cacheprovider", "-p", "no:xdist",
                "-m", "not slow and not browser and not horovod", *tests]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(line, cwd=self.root, env=environment, capture_output=True,
                                  text=True, timeout=timeout)  # fmt: skip
        except subprocess.TimeoutExpired:
            return "timeout"
        if done.returncode == 0:
            return "survived"
        failed = [x for x in done.stdout.splitlines() if x.startswith(("FAILED ", "ERROR "))]
        return failed[0].split(" ")[1] if failed else f"pytest ended with {done.returncode}"


class Campaign:
    """The mutants of all modules, and what became of them."""

    def __init__(self, report: Path):
        self.json, self.page = report.with_suffix(".json"), report.with_suffix(".md")
        self.rows = json.loads(self.json.read_text())["mutants"] if self.json.exists() else []
        self.lock, self.local = Lock(), local()

    def module(self, name: str, count: int, pool, folder: Path) -> None:
        path = f"gluon_asymmnet/{name}.py"
        source = (ROOT / path).read_text()
        version = zlib.crc32(source.encode())
        self.rows = [r for r in self.rows if r["module"] != name or r["version"] == version]
        known = {r["start"]: r for r in self.rows if r["module"] == name}
        found = list(mutants(source))
        chosen = random.Random(SEED).sample(found, min(count, len(found)))
        tests = [f"tests/test_{test}.py" for test in MODULES[name].split()]
        left = [m for m in sorted(chosen) if (m.start, m.after) not in
                {(r["start"], r["after"]) for r in known.values()}]  # fmt: skip
        if not left:
            return
        begun = time.monotonic()
        sound = self._workplace(folder).run(tests, 1800)
        if sound != "survived":
            raise SystemExit(f"{name}: the tests fail without a mutant: {sound}")
        limit = 60 + 5 * (time.monotonic() - begun)

        def judge(mutant):
            place = self._workplace(folder)
            file = place.root / path
            file.write_bytes(mutant.apply(source.encode()))
            try:
                result = place.run(tests, limit)
            finally:
                file.write_text(source)
            row = {"module": name, "version": version, **mutant._asdict(), "result": result}
            with self.lock:
                self.rows.append(row)
                self.write()
            print(f"{path}:{mutant.line}: {mutant.before} -> {mutant.after}: {result}", flush=True)

        list(pool.map(judge, left))

    def _workplace(self, folder: Path) -> Workplace:
        if not hasattr(self.local, "place"):
            self.local.place = Workplace(folder)
        return self.local.place

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
        lines += ["", "## Survivors", ""]
        for r in survivors:
            note = r.get("note", "not judged yet")
            before, after = (" ".join(r[k].split()) for k in ("before", "after"))
            lines.append(f"- `{r['module']}.py:{r['line']}`: `{before}` -> `{after}`: {note}")
        return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=__doc__)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--modules", nargs="*", choices=MODULES, default=list(MODULES))
    parser.add_argument("--per-module", type=int, default=PER_MODULE)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    campaign = Campaign(options.report)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.workers) as pool:
        for name in options.modules:
            campaign.module(name, options.per_module, pool, Path(folder))
    campaign.write()
    print(campaign.markdown().split("\n")[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())

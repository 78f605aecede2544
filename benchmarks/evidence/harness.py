"""Run the plan: every finished run is a row in a JSON file; killed at any time it continues.

Several processes may work on one plan: a lock file marks a run that is under way.
"""

import contextlib
import fcntl
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Optional

from benchmarks.candidates import Case
from benchmarks.evidence import plan
from benchmarks.evidence.plan import Net, Run
from gluon_asymmnet.data.fashion import write_fashion
from gluon_asymmnet.errors import InputError, RunError
from gluon_asymmnet.utils.atomic import write_text
from gluon_asymmnet.utils.doctor import environment

RESULTS = Path("benchmarks/evidence.json")
PLACE = ("commit", "cpu")  # keys of a row: runs from two places may differ in the last bits
_POLL = 1.0  # seconds
_LET_STOP = 120  # seconds for a run to write its checkpoint


class Harness:
    """The plan, its results and the processes at work on it.

    Args:
        results: the JSON file.
        work: folder for the records, the unfinished runs and the locks.
        source: folder with Fashion-MNIST's four files; None: they are downloaded.
    """

    def __init__(self, results: Path, work: Path, source: Optional[str] = None):
        self.results, self.work, self.source = Path(results), Path(work).absolute(), source
        self.deadline: Optional[float] = None  # of ``time.monotonic``
        self.stopped = False

    def run(self, *, only: str = "", jobs: int = 1, max_minutes: float = 0) -> int:
        """Do the runs whose names contain ``only``; return the number of rows added.

        Args:
            jobs: runs at a time, each on one thread.
            max_minutes: then the running ones write a checkpoint and stop; 0: no limit.
        """
        if max_minutes:
            self.deadline = time.monotonic() + 60 * max_minutes
        self._prepare()
        self._drop_begun_elsewhere()
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        with ThreadPoolExecutor(jobs) as pool:
            workers = [pool.submit(self._work, only) for _ in range(jobs)]
            try:
                # With a timeout: if a signal reaches another thread, this one has to wake for it.
                while (state := wait(workers, timeout=_POLL)).not_done:
                    for worker in state.done:
                        worker.result()  # an error of one stops all
                return sum(worker.result() for worker in workers)
            except BaseException:
                self.stopped = True
                raise
            finally:
                signal.signal(signal.SIGTERM, before)

    def repeat(self, name: str) -> str:
        """Do a finished run again; return one line about what was equal, and store it."""
        data = load(self.results)
        row = next((row for row in data["rows"] if row["run"] == name), None)
        if row is None:
            raise InputError(f"no row of the run {name!r} in {self.results}")
        self._prepare()
        run = self._runs(data)[name]
        again = self._train(run, row["lr"], data, suffix=".again")
        if again is None:
            raise RunError(f"{name} was stopped")
        keys = [key for key in ("correct", "loss", "weights", "failure") if key in row]
        different = [key for key in keys if again.get(key) != row[key]]
        told = {key: again[key] for key in PLACE}
        with self._changing() as data:
            row = next(row for row in data["rows"] if row["run"] == name)
            row.setdefault("repeated", []).append({"equal": not different, **told})
        values = ", ".join(f"{key} {row[key]}" for key in keys)
        return f"{name}: {'DIFFERENT ' + ', '.join(different) if different else 'equal'}: {values}"

    def time_nets(self, rounds: int) -> None:
        """Store the milliseconds of each net in ONNX Runtime: one image, one thread."""
        self._prepare()
        from benchmarks.evidence import nets  # noqa: F401  registers its models

        found = latencies(nets_of(load(self.results)), self.work / "latency", rounds)
        with self._changing() as data:
            data["latency"] = found

    def _prepare(self) -> None:
        """Make the records and the plan if they do not exist."""
        self.work.mkdir(parents=True, exist_ok=True)
        with _locked(self.work / "prepare.lock"):
            records = self.work / "records"
            if not records.exists():
                write_fashion(records, source=self.source)
            if not self.results.exists():
                from benchmarks.evidence import nets  # noqa: F401  registers its models

                rows = [
                    {**net._asdict(), "macs": net.cost.macs, "parameters": net.cost.parameters}
                    for net in plan.make_nets()
                ]
                data = {"recipe": plan.RECIPE, "machine": environment(), "nets": rows, "rows": []}
                _store(self.results, data)
        data = load(self.results)
        if data["recipe"] != plan.RECIPE:
            raise InputError(f"{self.results} has the results of another recipe: move it away")

    def _drop_begun_elsewhere(self) -> None:
        """Remove the rows of an unfinished group that another commit or processor made.

        The runs of a group are compared seed by seed, so one place does all of them.
        """
        place = {"commit": _commit(), "cpu": environment()["cpu"]}
        with self._changing() as data:
            runs = self._runs(data)
            finished = {row["run"] for row in data["rows"]}
            open_groups = {run.group for run in runs.values() if run.name not in finished}
            for row in list(data["rows"]):
                run = runs[row["run"]]
                if run.tunes or run.group not in open_groups:
                    continue
                if any(row[key] != place[key] for key in PLACE):
                    print(f"again, since another commit or processor did it: {run.name}")
                    data["rows"].remove(row)

    def _work(self, only: str) -> int:
        done = 0
        while not self._late():
            claimed = self._claim(only)
            if claimed is None:
                break
            run, lr, data, lock = claimed
            with lock:
                print(f"{time.strftime('%H:%M:%S')} {run.name}", flush=True)
                row = self._train(run, lr, data)
                if row is None:
                    break
                with self._changing() as data:
                    data["rows"].append(row)
                shutil.rmtree(self._beside(run), ignore_errors=True)
            done += 1
        return done

    def _claim(self, only: str):
        """Return the next run that nobody does, its learning rate, the data and its lock."""
        data = load(self.results)
        finished = {row["run"] for row in data["rows"]}
        for run in self._runs(data).values():
            if run.name in finished or only not in run.name:
                continue
            lr = run.lr or chosen_rate(run.net, data)
            if lr is None:
                continue
            lock = contextlib.ExitStack()
            try:
                lock.enter_context(_locked(self._beside(run, ".lock"), wait=False))
            except BlockingIOError:
                continue
            if run.name in {row["run"] for row in load(self.results)["rows"]}:
                lock.close()  # finished by another process since
                continue
            return run, lr, data, lock
        return None

    def _train(self, run: Run, lr: float, data: dict, suffix: str = "") -> Optional[dict]:
        """Train and score; return the row, or None if it was stopped."""
        folder = self._beside(run, suffix)
        if suffix:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        net = next(net for net in data["nets"] if net["name"] == run.net.name)
        request = {
            **run.net._asdict(), "seed": run.seed, "lr": lr,
            "scored": "val" if run.tunes else "test",
        }  # fmt: skip
        begun, commit = time.monotonic(), _commit()
        with (folder / "output.txt").open("w+") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.evidence.worker", json.dumps(request),
                 str(self.work / "records"), str(folder)], stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
            status = self._wait(process)
            output.seek(0)
            lines = output.read().splitlines()
        if status and (self.stopped or self._late()):
            return None
        if status:
            raise RunError(f"{run.name} failed: {lines[-1] if lines else status}; see {folder}")
        row = {
            "run": run.name, "net": run.net.name, "seed": run.seed, "lr": lr,
            **json.loads(lines[-1]), "seconds": round(time.monotonic() - begun, 1),
            "macs": net["macs"], "parameters": net["parameters"], "commit": commit,
            "cpu": environment()["cpu"],
        }  # fmt: skip
        if suffix:
            shutil.rmtree(folder)
        return row

    def _wait(self, process) -> int:
        """Wait for a run; stop it if it is late or this process is told to stop."""
        try:
            while process.poll() is None:
                if self.stopped or self._late():
                    process.terminate()
                    process.wait(_LET_STOP)
                time.sleep(_POLL)
        finally:
            if process.poll() is None:
                process.kill()
        return process.returncode

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def _beside(self, run: Run, suffix: str = "") -> Path:
        """Return the folder of a run, or with a suffix a name beside it."""
        return self.work / "runs" / (run.name.replace("/", "_") + suffix)

    def _runs(self, data: dict) -> dict[str, Run]:
        return {run.name: run for run in plan.make_runs(nets_of(data))}

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict]:
        """Yield the data; what the caller changes is written, whoever else does the same."""
        with _locked(self.work / "results.lock"):
            data = load(self.results)
            yield data
            order = {name: i for i, name in enumerate(self._runs(data))}
            data["rows"].sort(key=lambda row: order[row["run"]])
            _store(self.results, data)


def latencies(nets: list[Net], folder: Path, rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each net in ONNX Runtime; the nets are timed in turn."""
    from benchmarks.compare import compare_cases
    from benchmarks.suite import random_net
    from gluon_asymmnet.export.onnx.export import export_onnx

    cases = []
    for net in nets:
        out = folder / net.name
        if not out.exists():
            export_onnx(random_net(net.model_spec, plan.PIXELS, plan.CLASSES), out)
        cases.append(("onnxruntime", Case(net.model, net.width, 1, plan.PIXELS, 1, str(out))))
    timings, left_out = compare_cases(cases, rounds=rounds, calls=20)
    if left_out:
        raise RunError(f"ONNX Runtime: {'; '.join(left_out.values())}")
    return {net.name: round(1e3 * one.median, 4) for net, one in zip(nets, timings)}


def load(results: Path) -> dict:
    """Return the results."""
    return json.loads(Path(results).read_text())


def nets_of(data: dict) -> list[Net]:
    """Return the nets of the stored plan."""
    return [Net(**{key: row[key] for key in Net._fields}) for row in data["nets"]]


def chosen_rate(net: Net, data: dict) -> Optional[float]:
    """Return the learning rate with the best score on the held-out images, None if not all ran."""
    prefix = f"tune/{net.family}-{plan.TUNED_WIDTH:g}-r{min(net.like, 1)}/"
    rows = [row for row in data["rows"] if row["run"].startswith(prefix)]
    if len(rows) < len(plan.RATES_OF_LEARNING):
        return None
    return max(rows, key=lambda row: row.get("correct", -1))["lr"]


def _store(results: Path, data: dict) -> None:
    """Write the results, a line per net and run, so that a diff shows the new ones."""
    parts = []
    for key, value in data.items():
        if isinstance(value, list):
            rows = ",\n".join(f"  {json.dumps(row)}" for row in value)
            value = f"[\n{rows}\n ]" if rows else "[]"
        else:
            value = json.dumps(value)
        parts.append(f" {json.dumps(key)}: {value}")
    write_text(results, "{\n" + ",\n".join(parts) + "\n}\n")


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file; BlockingIOError if another process has it and ``wait`` is False."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def _commit() -> str:
    """Return the commit of this checkout, with + if files were changed since."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "gluon_asymmnet")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")

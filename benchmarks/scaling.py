"""Training with 1, 2, ... workers on this machine: speed, efficiency and communication.

Each number of workers is a run of ``asymmnet launch``; every worker has the same batch and one
thread.  In turn, round by round, a worker times whole steps, the same steps without the exchange of
gradients, and the exchange alone.  Workers that exchange wait for the slowest of a round, so they
are compared with the time that the slowest takes without the exchange.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import ROOT
from benchmarks.suite import noise, write_records
from gluon_asymmnet.distributed.launch import LaunchPlan, launch
from gluon_asymmnet.errors import RunError
from gluon_asymmnet.utils.atomic import write_text
from tools.markdown import markdown_table


class Case(NamedTuple):
    """The work of every worker."""

    model: str
    width: float
    batch: int  # images of one worker
    size: int  # pixels
    engine: str  # kvstore or horovod
    rounds: int


def scaling(case: Case, numbers) -> list[dict]:
    """Measure each number of workers; return one row each.

    Raises: RunError if a run fails.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_records(Path(folder), noise(case.batch * max(numbers)))
        for workers in numbers:
            out = Path(folder) / f"{workers}.json"
            line = [sys.executable, "-m", __name__, json.dumps(case._asdict()), folder, str(out)]
            os.environ["OMP_NUM_THREADS"] = "1"
            os.environ["PYTHONPATH"] = str(ROOT)
            status = launch(LaunchPlan(line, workers, [], engine=case.engine))
            if status:
                raise RunError(f"the run of {workers} workers ended with status {status}")
            rows.append({**case._asdict(), "workers": workers, **json.loads(out.read_text())})
    return rows


def _measure(case: Case, folder: str, out: str) -> None:
    """Time one worker; worker 0 writes the means of all to ``out``."""
    from gluon_asymmnet.distributed.group import join_workers
    from gluon_asymmnet.distributed.workers import ALONE
    from gluon_asymmnet.train.classifier_config import ClassifierConfig
    from gluon_asymmnet.train.config import resolve

    config = resolve(ClassifierConfig, {
        "model": case.model, "width": case.width, "dataset": "custom", "input_size": case.size,
        "batch_size": case.batch, "data_backend": "opencv", "rec_val": "", "num_workers": 1,
        "rec_train": f"{folder}/train.rec", "rec_train_idx": f"{folder}/train.idx", "lr": 1e-3,
    })  # fmt: skip
    with join_workers(config) as workers:
        from gluon_asymmnet._mxnet import mx
        from gluon_asymmnet.train.classifier import ClassifierTask

        task = ClassifierTask(config, [mx.cpu()], workers)
        task.synchronize_workers()
        batch = next(task.batches(0, 0))

        def seconds(call) -> float:
            workers.barrier()
            begun = time.perf_counter()
            call()
            mx.nd.waitall()
            return time.perf_counter() - begun

        def step(together) -> None:
            task.workers = together
            task.step(batch, 0, np.random.default_rng(0))

        calls = {
            "step": lambda: step(workers),
            "compute": lambda: step(ALONE),
            "exchange": lambda: workers.sum_gradients(task.trainer),
        }
        for call in calls.values():
            seconds(call)
        times = {name: [] for name in calls}
        for _ in range(case.rounds):
            for name, call in calls.items():
                times[name].append(seconds(call))
        mine = np.zeros((workers.world_size, len(calls), case.rounds))
        mine[workers.rank] = [*times.values()]
        every = np.reshape(workers.sum_numbers("times", mine.ravel()), mine.shape)
        if workers.rank == 0:
            means = np.median(every, axis=2).mean(axis=0)
            result = {name: round(float(value), 6) for name, value in zip(calls, means)}
            slowest = every.max(axis=0)[[*calls].index("compute")]
            result["slowest"] = round(float(np.median(slowest)), 6)
            write_text(out, json.dumps({**result, "load": round(os.getloadavg()[0], 1)}))


def table(rows: list[dict]) -> str:
    """Return the table of ``scaling``."""
    case, one = rows[0], next((r for r in rows if r["workers"] == 1), rows[0])
    title = (
        f"**{case['model']} {case['width']}, {case['size']} px, {case['batch']} images and one "
        f"thread per worker, {case['engine']}**"
    )
    head = ("workers", "ms a step", "without exchange", "its slowest", "exchange alone", "images/s",
            "efficiency", "of the slowest", "load")  # fmt: skip
    lines = [
        (row["workers"], f"{1e3 * row['step']:.0f}", f"{1e3 * row['compute']:.0f}",
         f"{1e3 * row['slowest']:.0f}",
         f"{1e3 * row['exchange'] if row['workers'] > 1 else 0:.0f}",
         f"{row['workers'] * row['batch'] / row['step']:.1f}",
         f"{one['step'] / row['step']:.2f}",
         f"{row['slowest'] / row['step']:.2f}",
         row["load"])
        for row in rows
    ]  # fmt: skip
    return f"{title}\n\n{markdown_table(head, lines)}"


if __name__ == "__main__":
    _measure(Case(**json.loads(sys.argv[1])), sys.argv[2], sys.argv[3])

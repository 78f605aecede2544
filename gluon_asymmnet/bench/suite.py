"""What ``benchmark.py`` measures, and the tables it makes of it."""

import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gluon_asymmnet.atomic import write_text
from gluon_asymmnet.bench import contenders as c
from gluon_asymmnet.bench.compare import Timing, compare
from gluon_asymmnet.bench.contenders import Case
from gluon_asymmnet.complexity import count
from gluon_asymmnet.doctor import environment
from gluon_asymmnet.registry import plan_model

MATMUL_OPERATIONS = 2 * 2048**3
_FAST = 0.1  # seconds: a call below it is timed several times a round


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to measure; the defaults are those of the committed figures."""

    models: Sequence[str] = ("asymmnet_large",)
    widths: Sequence[float] = (1.0,)
    batches: Sequence[int] = (1, 32)
    sizes: Sequence[int] = (224,)
    threads: Sequence[int] = (1, 2)
    rounds: int = 7
    only: Sequence[str] = ()  # names of contenders; empty: all

    def cases(self):
        """Yield every combination."""
        for model in self.models:
            for width in self.widths:
                for size in self.sizes:
                    for batch in self.batches:
                        for threads in self.threads:
                            yield Case(model, width, batch, size, threads)


def infer(plan: Plan) -> list:
    """Measure inference; return a row per case and contender."""
    rows = []
    for case in plan.cases():
        with tempfile.TemporaryDirectory() as folder:
            case = case._replace(folder=_export(case, folder))
            names = [f.__name__ for f in (*c.INFER, c.matmul)]
            rows += _rows("infer", case, _chosen(names, plan), plan)
    return rows


def train(plan: Plan) -> list:
    """Measure training steps; return a row per case and contender."""
    rows = []
    for case in plan.cases():
        with tempfile.TemporaryDirectory() as folder:
            _write_records(Path(folder), case.batch)
            case = case._replace(folder=folder)
            rows += _rows("train", case, _chosen([f.__name__ for f in c.TRAIN], plan), plan)
    return rows


def _chosen(names, plan: Plan) -> list:
    return [name for name in names if not plan.only or name in plan.only]


def _rows(kind: str, case: Case, names, plan: Plan) -> list:
    calls = 1 if kind == "train" or case.batch > 8 else 10
    title = f"{kind} {case.model} {case.width} batch {case.batch} threads {case.threads}"
    print(f"{title}: {', '.join(names)}", file=sys.stderr, flush=True)
    timings = compare(names, case, rounds=plan.rounds, calls=calls)
    settings = {k: v for k, v in case._asdict().items() if k != "folder"}
    return [{"kind": kind, **settings, **_rounded(timing)} for timing in timings]


def _rounded(timing: Timing) -> dict:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in timing._asdict().items()}


def _export(case: Case, folder: str) -> str:
    """Write the exported files the engines need, and MXNet's own ONNX file of the plain net."""
    from gluon_asymmnet import get_model
    from gluon_asymmnet._environment import mx
    from gluon_asymmnet.bench.plain import plain_copy
    from gluon_asymmnet.card import Card
    from gluon_asymmnet.export.bundle import export_all
    from gluon_asymmnet.saved import SavedModel

    net = get_model(case.model, width=case.width)
    mx.random.seed(0)
    net.initialize(mx.init.MSRAPrelu())
    net.hybridize()
    card = Card(model=case.model, width=case.width, input_size=case.size)
    out = Path(folder) / "exported"
    export_all(SavedModel(card, net, Path("net.params")), out)
    sample = mx.nd.zeros((case.batch, 3, case.size, case.size))
    plain = plain_copy(net, sample)
    plain.hybridize()
    plain(sample)
    plain.export(str(Path(folder) / "stock"))
    mx.onnx.export_model(
        str(Path(folder) / "stock-symbol.json"), str(Path(folder) / "stock-0000.params"),
        [sample.shape], "float32", str(Path(folder) / "stock.onnx"),
    )  # fmt: skip
    return str(out)


def _write_records(folder: Path, count: int) -> None:
    import numpy as np

    from gluon_asymmnet.data.images import encode
    from gluon_asymmnet.data.record_writer import RecordWriter

    rng = np.random.default_rng(0)
    with RecordWriter(folder / "train.rec", folder / "train.idx") as writer:
        for i in range(count):
            writer.write(i, float(i), encode(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)))


def table(rows: list) -> str:
    """Return a table per case: time, ratio to the plain net, peak memory, share of the limit."""
    parts, key = [], ("kind", "model", "width", "size", "batch", "threads")
    for case in dict.fromkeys(tuple(row[k] for k in key) for row in rows):
        found = [row for row in rows if tuple(row[k] for k in key) == case]
        parts.append(_case_table(dict(zip(key, case)), found))
    return "\n\n".join(parts)


def _case_table(case: dict, rows: list) -> str:
    product = next((r for r in rows if r["name"] == "matmul"), None)
    rows = [r for r in rows if r["name"] != "matmul"]
    plain = next((r for r in rows if r["name"] in ("plain", "train_plain")), rows[0])
    title = (
        f"**{case['kind']}: {case['model']} {case['width']}, {case['size']} px, batch "
        f"{case['batch']}, {case['threads']} thread{'s' if case['threads'] > 1 else ''}**"
    )
    head = "| contender | ms, median | p95 | images/s | times plain | peak MB | of the limit |"
    lines = [title, "", head, "| --- | --- | --- | --- | --- | --- | --- |"]
    limit = 0.0
    if product:
        macs = count(
            plan_model(case["model"], width=case["width"])[1], input_size=case["size"]
        ).macs
        limit = 2 * macs * case["batch"] * product["median"] / MATMUL_OPERATIONS
    for row in rows:
        share = f"{limit / row['median']:.2f}" if limit else ""
        lines.append(
            f"| {row['name']} | {1e3 * row['median']:.2f} | {1e3 * row['p95']:.2f} | "
            f"{case['batch'] / row['median']:.1f} | {plain['median'] / row['median']:.2f} | "
            f"{row['peak_mb']:.0f} | {share} |"
        )
    if limit:
        lines.append(f"| (limit: multiply-adds at a matrix product's speed) | {1e3 * limit:.2f} |"
                     " | | | | |")  # fmt: skip
    return "\n".join(lines)


def write(rows: list, out: str) -> None:
    """Write ``out.json``, with the machine, and ``out.md``, made from it."""
    measured = {"machine": environment(), "rows": rows}
    write_text(f"{out}.json", json.dumps(measured, indent=1) + "\n")
    write_text(f"{out}.md", document(measured))


def document(measured: dict) -> str:
    """Return the page of what ``write`` wrote as JSON."""
    return f"# Measured\n\n{_machine(measured['machine'])}\n\n{table(measured['rows'])}\n"


def _machine(machine: dict) -> str:
    packages = ", ".join(f"{k} {v}" for k, v in machine["packages"].items())
    return (
        f"{machine['cpu']}, {machine['processors']} processors "
        f"({', '.join(machine['cpu_features'])}); {machine['platform']}; Python "
        f"{machine['python']}; {packages}. One process per contender, in turn, round by round."
    )

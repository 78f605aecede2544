"""Compare AsymmNet with other small nets: size, speed per engine, accuracy on the digits.

At about 60 and 220 million multiply-adds; each net has the width that comes nearest.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.candidates import Case
from benchmarks.compare import compare_cases
from benchmarks.suite import export
from gluon_asymmnet.data.digits import write_digits
from gluon_asymmnet.errors import RunError
from gluon_asymmnet.models.complexity import count_model
from gluon_asymmnet.models.registry import ModelSpec
from tools.markdown import markdown_table


class Compared(NamedTuple):
    """A net in the comparison."""

    budget: int  # millions of multiply-adds, about
    model: str
    width: float


NETS = (
    Compared(60, "asymmnet_small", 1.0),
    Compared(60, "mobilenetv3_small", 1.0),
    Compared(60, "eca_mobilenetv2", 0.4),
    Compared(60, "antnet", 0.35),
    Compared(60, "dicenet", 1.0),
    Compared(60, "addressnet", 0.3),
    Compared(220, "asymmnet_large", 1.0),
    Compared(220, "mobilenetv3_large", 1.0),
    Compared(220, "eca_mobilenetv2", 0.85),
    Compared(220, "antnet", 0.8),
    Compared(220, "dicenet", 2.0),
    Compared(220, "addressnet", 0.6),
)
LR = 0.05  # half the recipe's, at which ECA-MobileNetV2 diverged
_ENGINES = {"mxnet": "hybrid", "onnxruntime": "onnxruntime", "openvino": "openvino_f32"}


def compare_nets(
    nets: Sequence[Compared] = NETS, *, threads: int, rounds: int, epochs: int
) -> Iterator[list[dict]]:
    """Measure every net; yield the rows after each, so that a long run may be interrupted.

    Args:
        threads: of every engine; training has one, so that it is repeatable.
        epochs: of training on the digits by the demo's recipe.

    Raises: RunError if a net cannot be exported or run.
    """
    with tempfile.TemporaryDirectory() as folder:
        speed = _latencies(nets, Path(folder), threads, rounds)
        digits, rows = write_digits(Path(folder) / "digits"), []
        for net, times in zip(nets, speed):
            rows.append({**_counts(net), **times, **_trained(net, digits, Path(folder), epochs)})
            yield rows


def _counts(net: Compared) -> dict:
    cost = count_model(ModelSpec.parse(net.model, width=net.width))
    return {**net._asdict(), "parameters": cost.parameters, "macs": cost.macs}


def _latencies(nets, folder: Path, threads: int, rounds: int) -> list[dict]:
    """Return milliseconds for one image of 224 pixels, by engine; nets are timed in turn."""
    cases = []
    for number, net in enumerate(nets):
        out = folder / str(number)
        cases.append(Case(net.model, net.width, 1, 224, threads, str(out)))
        export(cases[-1], out)
    found: list[dict] = [{} for _ in nets]
    for engine, name in _ENGINES.items():
        timings, left_out = compare_cases([(name, case) for case in cases], rounds=rounds, calls=10)
        if left_out:
            raise RunError(f"{engine} could not be measured: {'; '.join(left_out.values())}")
        for row, timing in zip(found, timings):
            row[f"{engine}_ms"] = round(1e3 * timing.median, 3)
    return found


def _trained(net: Compared, digits, folder: Path, epochs: int) -> dict:
    """Train a net by the demo's recipe; return the last top-1, or None and the error."""
    name = ModelSpec.parse(net.model, width=net.width).id
    print(f"training {name}", file=sys.stderr, flush=True)
    runs = folder / "runs"
    settings = {
        "recipe": "demo", "model": net.model, "width": net.width, "num-epochs": epochs, "lr": LR,
        "threads": 1, "rec-train": digits.train, "rec-val": digits.val,
        "rec-train-idx": digits.train.with_suffix(".idx"),
        "rec-val-idx": digits.val.with_suffix(".idx"), "save-dir": runs, "tag-name": name,
    }  # fmt: skip
    line = [sys.executable, "-m", "gluon_asymmnet", "train"]
    for flag, value in settings.items():
        line += [f"--{flag}", str(value)]
    done = subprocess.run(line, capture_output=True, text=True)
    found = {"epochs": epochs, "lr": LR}
    if done.returncode:
        return {**found, "top1": None, "failure": done.stderr.strip().splitlines()[-1]}
    rows = (runs / "custom" / f"{net.model}_{name}" / "metrics.jsonl").read_text().splitlines()
    return {**found, "top1": json.loads(rows[-1])["val_top1"]}


def table(rows: list[dict]) -> str:
    """Return the table of ``compare_nets``."""
    head = ("net", "parameters", "multiply-adds", "MXNet, ms", "ONNX Runtime, ms", "OpenVINO, ms",
            "digits, top-1")  # fmt: skip
    lines = [
        (f"`{row['model']}` {row['width']}", f"{row['parameters']:,}", f"{row['macs'] / 1e6:.1f}M",
         *(f"{row[f'{engine}_ms']:.1f}" for engine in _ENGINES),
         "none" if row["top1"] is None else f"{row['top1']:.2%}")
        for row in rows
    ]  # fmt: skip
    return markdown_table(head, lines)

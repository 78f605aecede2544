"""Time each form of the joins (``export/onnx/joins.py``) beside MobileNetV3, in each engine."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.candidates import Case
from benchmarks.compare import compare_cases
from benchmarks.suite import random_net
from gluon_asymmnet.errors import InputError, RunError
from gluon_asymmnet.export.formats import export_all
from gluon_asymmnet.export.onnx.export import OnnxForm
from gluon_asymmnet.export.onnx.joins import BEFORE, JOINS
from gluon_asymmnet.models.registry import ModelSpec
from tools.markdown import markdown_table

GOAL = 1.05  # times MobileNetV3 of the same width
BASE = "mobilenetv3"
# by the candidate's name; MXNet's own graph, folded, has no other form
_ENGINES = {
    "onnxruntime": "ONNX Runtime", "openvino_f32": "OpenVINO", "opencv": "OpenCV",
    "optimized": "MXNet",
}  # fmt: skip
_CALLS = {1: 10}  # of a round, by batch size; else 1


def compare_joins(cases: Sequence[Case], rounds: int) -> Iterator[list[dict]]:
    """Measure AsymmNet-Large or -Small of each case; yield the rows after each.

    A row has the seconds for a batch of MobileNetV3 and of each form: the fastest call, which other
    programs on the machine disturb least.
    """
    rows, nets = [], dict.fromkeys((case.model, case.width, case.size) for case in cases)
    with tempfile.TemporaryDirectory() as folder:
        folders = {net: _export(Case(*net[:2], size=net[2]), Path(folder)) for net in nets}
        for case in cases:
            for engine in _ENGINES:
                forms = folders[case.model, case.width, case.size]
                if engine == "opencv" and case.batch > 1:
                    continue  # minutes
                if engine == "optimized":
                    compared = {BASE: case._replace(model=_base(case.model)), BEFORE: case}
                else:
                    compared = {form: case._replace(folder=str(p)) for form, p in forms.items()}
                timings, left_out = compare_cases(
                    [(engine, one) for one in compared.values()],
                    rounds=rounds, calls=_CALLS.get(case.batch, 1),
                )  # fmt: skip
                if left_out:
                    raise RunError(f"{engine} was not measured: {'; '.join(left_out.values())}")
                settings = {k: v for k, v in case._asdict().items() if k != "folder"}
                seconds = {f: round(t.fastest, 6) for f, t in zip(compared, timings)}
                rows.append({**settings, "engine": engine, **seconds})
            yield rows


def _base(model: str) -> str:
    """Return the MobileNetV3 that AsymmNet-Large or -Small is compared with."""
    family, _, size = model.rpartition("_")
    if family != "asymmnet":
        raise InputError(f"joins compares asymmnet_large and asymmnet_small, got {model}")
    return f"{BASE}_{size}"


def _export(case: Case, folder: Path) -> dict[str, Path]:
    """Write MobileNetV3 and each form of a net; return their folders."""
    base, ours = (
        random_net(ModelSpec.parse(name, width=case.width), case.size)
        for name in (_base(case.model), case.model)
    )
    made = {BASE: (base, BEFORE)}
    made.update((joins, (ours, joins)) for joins in JOINS)
    return {
        name: export_all(
            model, folder / f"{case.model}-{case.width}-{case.size}-{name}",
            form=OnnxForm(joins=joins), formats=("onnx", "openvino"),
        )
        for name, (model, joins) in made.items()
    }  # fmt: skip


def table(rows: list[dict]) -> str:
    """Return the table of ``compare_joins``: times MobileNetV3's time."""
    head = ("net", "batch", "threads", "engine", "MobileNetV3, ms",
            *(f"`{joins}`" for joins in JOINS), f"at most {GOAL}")  # fmt: skip
    lines = []
    for row in rows:
        ratios = {joins: row[joins] / row[BASE] for joins in JOINS if joins in row}
        lines.append((
            f"`{row['model']}` {row['width']}", row["batch"], row["threads"],
            _ENGINES[row["engine"]], f"{1e3 * row[BASE]:.2f}",
            *(f"{ratios[joins]:.2f}" if joins in ratios else "" for joins in JOINS),
            "met" if min(ratios.values()) < GOAL + 0.005 else "not met",
        ))  # fmt: skip
    return markdown_table(head, lines)

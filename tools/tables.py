"""Tables in the documents, made from data: ``python -m tools.tables`` rewrites them."""

import json
import re
from pathlib import Path

from benchmarks import joins, nets, scaling, targets
from benchmarks import scaling_model as model
from benchmarks.evidence import harness as evidence
from benchmarks.evidence import report as evidence_report
from benchmarks.report import machine_line
from examples import decomposition_report as decomposition
from gluon_asymmnet.models.complexity import count_model
from gluon_asymmnet.models.registry import ModelSpec
from gluon_asymmnet.utils.atomic import write_text
from tools.markdown import markdown_table

_ROOT = Path(__file__).parent.parent
AUTHORS_STEP = 2048 / 4050  # seconds: their log, 8 GPUs, 2,048 images a step
_WIDTHS = (0.5, 1.0)
_MEASURED = _ROOT / "benchmarks/measured.json"
# compared in README: candidate of the benchmark -> its title there
_COMPARED = {
    "plain": "authors' code, MXNet",
    "optimized": "MXNet, `optimize_for_inference()`",
    "torch_channels_last": "PyTorch, channels last",
    "onnxruntime": "ONNX Runtime",
    "onnxruntime_int8": "ONNX Runtime, int8",
    "openvino_f32": "OpenVINO, f32",
    "openvino_int8": "OpenVINO, int8",
    "openvino_bf16": "OpenVINO, bf16",
}


def counts_table() -> str:
    """Return the rows of README's table of models."""
    rows = []
    for name in ("asymmnet_large", "asymmnet_small", "mobilenetv3_large", "mobilenetv3_small"):
        for width in _WIDTHS if name.startswith("asymm") else (1.0,):
            cost = count_model(ModelSpec.parse(name, width=width))
            rows.append((f"`{name}`", width, f"{cost.parameters:,}", f"{cost.macs / 1e6:.1f}M"))
    return markdown_table(("model", "width", "parameters", "multiply-adds"), rows)


def targets_table() -> str:
    """Return the targets of speed and memory beside the measurements."""
    rows = json.loads(_MEASURED.read_text())["rows"]
    return targets.table(targets.targets(rows, count_model(ModelSpec("asymmnet_large")).macs))


def picture_targets_table() -> str:
    """Return the targets of preprocessing, folders and readers beside the measurements."""
    files = (_ROOT / f"benchmarks/{name}.json" for name in ("pictures", "readers"))
    return targets.table(
        targets.picture_targets(*(json.loads(f.read_text())["rows"] for f in files))
    )


def detect_targets_table() -> str:
    """Return the targets of detection beside the measurements."""
    rows = json.loads((_ROOT / "benchmarks/detect.json").read_text())["rows"]
    return targets.table(targets.detect_targets(rows))


def joins_table() -> str:
    """Return the forms of the joins beside MobileNetV3 on each machine."""
    parts = []
    for name in ("joins", "joins-intel"):
        measured = json.loads((_ROOT / f"benchmarks/{name}.json").read_text())
        parts += [machine_line(measured["machine"]), joins.table(measured["rows"])]
    return "\n\n".join(parts)


def related_table() -> str:
    """Return every net with a count from outside, and whether ours is equal to it."""
    rows = []
    for row in json.loads((_ROOT / "docs/data/counts.json").read_text()):
        spec = ModelSpec.parse(row["model"], width=row["width"], rate=row.get("rate"))
        cost = count_model(spec, classes=row["classes"], input_size=row["size"])
        name = f"`{row['model']}` {row['width']}" + (
            f", r = {row['rate']}" if "rate" in row else ""
        )
        rows.append((
            name, f"{row['classes']}, {row['size']}", f"{cost.parameters:,}",
            f"{cost.macs / 1e6:.2f}M", _expected(row), row["source"],
            "; ".join(filter(None, (_verdict(row, cost), row.get("note")))),
        ))  # fmt: skip
    head = ("net", "classes, pixels", "parameters", "multiply-adds", "expected", "source", "result")
    return markdown_table(head, rows)


def _expected(row: dict) -> str:
    counts = [f"{row['parameters']:,}" if row["parameters"] else ""]
    counts.append(f"{row['megamacs']}M" if row["megamacs"] else "")
    return ", ".join(filter(None, counts))


def _verdict(row: dict, cost) -> str:
    """Return whether the counts are the expected ones, these to as many digits as they have."""
    macs = row["megamacs"]
    equal = []
    if row["parameters"]:
        equal.append(cost.parameters == row["parameters"])
    if macs:
        equal.append(f"{cost.macs / 1e6:.{len(macs.partition('.')[2])}f}" == macs)
    return ("equal" if all(equal) else "not equal") if equal else ""


def compared_table() -> str:
    """Return the nets of the line side by side."""
    return nets.table(json.loads((_ROOT / "benchmarks/nets.json").read_text())["rows"])


def fuzzing_table() -> str:
    """Return the rows of the last fuzzing campaign."""
    report = json.loads((_ROOT / "docs/data/fuzzing.json").read_text())
    counted, rows = ("inputs", "accepted", "refused", "crashes", "hangs"), []
    for name, found in report["results"].items():
        counts = [f"{found[key]:,}" for key in counted]
        peak = f"{found['peak_bytes'] / 1e6:.2f} MB"
        rows.append((f"{name}: {found['parser']}", *counts, peak))
    table = markdown_table(("parser", *counted, "peak memory"), rows)
    return f"{table}\n\nPython {report['python']}, seed {report['seed']}."


def speed_table(measured=_MEASURED) -> str:
    """Return the rows of README's table of speed: each candidate at its best thread count."""
    rows = json.loads(Path(measured).read_text())["rows"]
    case = {"kind": "infer", "model": "asymmnet_large", "width": 1.0, "size": 224}
    best: dict = {}
    for row in rows:
        if "median" in row and all(row[k] == v for k, v in case.items()):
            key = row["name"], row["batch"]
            best[key] = min(row["median"], best.get(key, row["median"]))
    lines = []
    for name, title in _COMPARED.items():
        if {(name, 1), (name, 32)} <= best.keys():
            one, many = best[name, 1], best[name, 32]
            lines.append((
                title, f"{1e3 * one:.1f}", f"{best['plain', 1] / one:.1f}", f"{32 / many:.0f}",
                f"{best['plain', 32] / many:.1f}",
            ))  # fmt: skip
    head = ("AsymmNet-Large, 224 x 224", "batch 1, ms", "speedup", "batch 32, images/s", "speedup")
    return markdown_table(head, lines)


def demo_table() -> str:
    """Return the rows of the detector's demo, from each backbone."""
    rows = []
    for name in ("digits", "random"):
        found = json.loads((_ROOT / f"benchmarks/demo-ssd-{name}.json").read_text())
        for engine, one in found["engines"].items():
            scores = (f"{one['mAP']:.4f}", f"{one['mAP_resized']:.4f}")
            rows.append((name, found["epochs"], engine, *scores))
    head = ("backbone", "epochs", "engine", "mAP, original pixels", "in resized ones")
    return markdown_table(head, rows)


def scaling_table() -> str:
    """Return the rows of the last scaling benchmark."""
    return scaling.table(json.loads((_ROOT / "benchmarks/scaling.json").read_text())["rows"])


def weak_table() -> str:
    """Return what the model of docs/scaling.md predicts where each machine keeps its batch."""
    return model.weak_table(AUTHORS_STEP, model.gradient_bytes())


def strong_table() -> str:
    """Return what it predicts where the global batch stays."""
    return model.strong_table(AUTHORS_STEP, model.gradient_bytes())


def _decomposition(table):
    return lambda: table(json.loads((_ROOT / "docs/data/decomposition.json").read_text()))


def proposals_table() -> str:
    """Return what the search proposes in docs/search.md, stage by stage."""
    parts = []
    for found in _search()["proposals"]:
        before, after = found["value"]
        title = f"`asymmnet search {found['command']}`: value {before:.1f} -> {after:.1f} bits"
        rows = []
        total = {"units": ("", ""), "volume": (), **found}
        for number, stage in enumerate((*found["stages"], total)):
            name = "net" if stage is total else number
            changes = (
                " -> ".join(f"{n:,.0f}" for n in stage[key])
                for key in ("volume", "macs", "parameters")
            )
            rows.append((name, *stage["units"], *changes))
        head = ("stage", "before", "after", "volume", "multiply-adds", "parameters")
        parts += [title, markdown_table(head, rows)]
    return "\n\n".join(parts)


def trained_table() -> str:
    """Return the accuracy of the proposals of the search beside their originals."""
    rows = []
    for run in _search()["runs"]:
        top1 = [100 * one for one in run["top1"]]
        shown = ", ".join(f"{one:.1f}" for one in top1)
        mean = sum(top1) / len(top1)
        rows.append(
            (run["net"], f"{run['macs']:,}", f"{run['parameters']:,}", shown, f"{mean:.1f}")
        )
    return markdown_table(("net", "multiply-adds", "parameters", "top-1, %", "mean"), rows)


def published_table() -> str:
    """Return the ImageNet figures of others, by their multiply-adds."""
    found = json.loads((_ROOT / "docs/data/published.json").read_text())
    rows = [
        (one["budget"], one["net"], one["macs"], one["pixels"], one["top1"],
         one["source"], one["date"])
        for one in found
    ]  # fmt: skip
    head = ("about", "net", "multiply-adds", "pixels", "top-1, %", "source", "date")
    return markdown_table(head, rows)


def _evidence(make, *arguments):
    return lambda: make(evidence.load(_ROOT / evidence.RESULTS), *arguments)


def _search() -> dict:
    return json.loads((_ROOT / "docs/data/search.json").read_text())


TABLES = {
    "README.md": {"counts": counts_table, "speed": speed_table},
    "docs/voc.md": {"demo": demo_table},
    "docs/detection.md": {"speed": detect_targets_table},
    "docs/decomposition.md": {
        "nets": _decomposition(decomposition.nets_table),
        "accuracy": _decomposition(decomposition.accuracy_table),
        "layers": _decomposition(decomposition.layers_table),
    },
    "docs/evidence.md": {
        "progress": _evidence(evidence_report.progress),
        "rates": _evidence(evidence_report.rates_table),
        "nets": _evidence(evidence_report.accuracy_table),
        **{
            question.replace(" ", "-"): _evidence(evidence_report.pairs_table, question)
            for question in evidence_report.QUESTIONS
        },
        "published": published_table,
    },
    "docs/fuzzing.md": {"fuzzing": fuzzing_table},
    "docs/related.md": {"counts": related_table, "compared": compared_table},
    "docs/speed.md": {
        "targets": targets_table,
        "pictures": picture_targets_table,
        "joins": joins_table,
    },
    "docs/search.md": {"proposals": proposals_table, "trained": trained_table},
    "docs/scaling.md": {"measured": scaling_table, "weak": weak_table, "strong": strong_table},
}


def updated(text: str, tables: dict) -> str:
    """Return ``text`` with the lines between ``<!-- name: ... -->`` and ``<!-- /name -->`` anew."""
    for name, make in tables.items():
        pattern = rf"(<!-- {name}:[^\n]*-->\n).*?(<!-- /{name} -->)"
        text, found = re.subn(pattern, lambda m: f"{m[1]}{make()}\n{m[2]}", text, flags=re.DOTALL)  # noqa: B023
        if found != 1:
            raise ValueError(f"the text has {found} places for the table {name!r}, expected 1")
    return text


def main() -> None:
    """Rewrite the tables of every document."""
    for document, tables in TABLES.items():
        write_text(_ROOT / document, updated((_ROOT / document).read_text(), tables))
    evidence_report.draw(evidence.load(_ROOT / evidence.RESULTS), _ROOT / "docs/evidence.svg")


if __name__ == "__main__":
    main()

"""The parts of ``benchmark.py``: each builds files, times candidates and returns rows."""

import dataclasses
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from benchmarks import candidates as c
from benchmarks import detectors, exported, photographs, pipeline, readers, shifts
from benchmarks.candidates import Case
from benchmarks.compare import Timing, compare_cases
from benchmarks.report import document
from benchmarks.startup import time_processes
from gluon_asymmnet.data.digits import TRAIN_IMAGES, write_digits
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.export.folder import with_costs
from gluon_asymmnet.export.parity import sample_images
from gluon_asymmnet.models.registry import ModelSpec
from gluon_asymmnet.utils.atomic import write_text
from gluon_asymmnet.utils.doctor import environment

_PHOTOGRAPHS = 256  # records of an epoch
_TRAINERS = 3  # training processes at once, beside the reference


@dataclasses.dataclass(frozen=True)
class Plan:
    """Cases to measure; the defaults are those of the committed results."""

    models: Sequence[str] = ("asymmnet_large",)
    widths: Sequence[Optional[float]] = (None,)  # None: that of the name, or 1
    batches: Sequence[int] = (1, 32)
    sizes: Sequence[int] = (224,)
    threads: Sequence[int] = (1, 2)
    rounds: int = 7
    only: Sequence[str] = ()  # names of candidates; empty: all
    environments: Sequence[tuple[str, str]] = ()  # name and Python of each, for ``detect``

    def cases(self):
        """Return every combination; a model name may include its width."""
        every = itertools.product(self.models, self.widths, self.sizes, self.batches, self.threads)
        cases = []
        for name, width, size, batch, threads in every:
            spec = ModelSpec.parse(name, width=width)
            cases.append(Case(spec.name, spec.width, batch, size, threads))
        return list(dict.fromkeys(cases))


def infer(plan: Plan) -> list:
    """Measure inference; return a row per case and candidate."""
    rows = []
    for case in plan.cases():
        with tempfile.TemporaryDirectory() as folder:
            case = case._replace(folder=_export(case, folder))
            rows += _rows("infer", case, (*c.INFER, *exported.INFER, c.matmul), plan)
    return rows


def train(plan: Plan) -> list:
    """Measure training steps; return a row per case and candidate."""
    rows = []
    for case in plan.cases():
        with tempfile.TemporaryDirectory() as folder:
            write_records(Path(folder), noise(case.batch))
            rows += _rows("train", case._replace(folder=folder), c.TRAIN, plan)
    return rows


def inputs(plan: Plan) -> list:
    """Measure the input pipeline alone and a training step; return a row per data and reader.

    Models, widths, batches and sizes are those of two recipes: AsymmNet-Large on images of
    ImageNet's size, and the demo.
    """
    rows = []
    for threads in plan.threads:
        with tempfile.TemporaryDirectory() as folder:
            write_records(Path(folder), photographs.jpegs(_PHOTOGRAPHS))
            case = Case(batch=32, threads=threads, folder=folder)
            rows += _input_rows("JPEG 500x375", _PHOTOGRAPHS, case, plan)
            digits = write_digits(Path(folder) / "digits")
            demo = Case("asymmnet_small", 1.0, 64, 32, threads, str(digits.root))
            rows += _input_rows("the demo's digits", TRAIN_IMAGES, demo, plan)
    return rows


def _input_rows(data: str, images: int, case: Case, plan: Plan) -> list:
    rows = _rows("input", case, (*readers.INPUT, c.train_task), plan)
    for row in rows:
        whole = images if row["name"] == "read_records" else images // case.batch * case.batch
        row.update(data=data, images=case.batch if row["name"] == "train_task" else whole)
    return rows


def startup(plan: Plan) -> list:
    """Measure whole processes, and preprocessing's share of the time to classify an image."""
    rows = []
    for case in plan.cases():
        if case.batch != 1:
            continue
        with tempfile.TemporaryDirectory() as folder:
            case = case._replace(folder=_export(case, folder))
            picture = Path(folder) / "picture.jpg"
            picture.write_bytes(photographs.jpegs(1)[0])
            rows += _rows("picture", case, exported.PICTURES, plan)
            rows += [
                {"kind": "startup", **_settings(case), **_rounded(timing)}
                for timing in time_processes(case, picture, rounds=plan.rounds, only=plan.only)
            ]
    return rows


def pictures(plan: Plan) -> list:
    """Measure preprocessing of one picture, and a folder of them from files to classes."""
    rows = []
    for case in plan.cases():
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "exported"
            export(case, out)
            case = case._replace(folder=str(out))
            (out.parent / "picture.jpg").write_bytes(photographs.jpegs(1)[0])
            (out.parent / "large.jpg").write_bytes(photographs.large_jpeg())
            (out.parent / "pictures").mkdir()
            for i, data in enumerate(itertools.islice(_repeated(), pipeline.FOLDER_IMAGES)):
                (out.parent / f"pictures/{i:04}.jpg").write_bytes(data)
            one = case._replace(batch=1)
            rows += _rows("prepare", one, (exported.prepare, pipeline.prepare_opencv), plan)
            rows += _rows("large", one, pipeline.LARGE, plan)
            found = _rows("folder", case, pipeline.FOLDER, plan)
            rows += [{**row, "images": pipeline.FOLDER_IMAGES} for row in found]
    return rows


def detect(plan: Plan) -> list:
    """Measure detection from a picture file to boxes, and its stages; a row per candidate."""
    rows, pythons, environments = [], {}, dict(plan.environments)
    wanted = [*detectors.OTHERS, *detectors.OURS, *detectors.STAGES]
    for name, of in detectors.ENVIRONMENTS.items():
        if of in environments:
            pythons[name] = environments[of]
        else:
            print(f"left out: {name}: --environment {of}=PYTHON names its Python", file=sys.stderr)
            wanted.remove(detectors.CANDIDATES[name])
    for case in plan.cases():
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "exported"
            case = case._replace(model=f"ssdlite_{case.size}_{case.model}", folder=str(out))
            detectors.picture(case).write_bytes(photographs.jpegs(1)[0])
            detectors.export_detector(case, out)
            rows += _rows("detect", case, wanted, plan, pythons)
    return rows


def _repeated():
    return itertools.cycle(photographs.jpegs(_PHOTOGRAPHS))


def memory(plan: Plan) -> list:
    """Measure peak resident memory of inference and of training."""
    short = dataclasses.replace(plan, rounds=1)
    rows = [row for row in infer(short) if row["name"] != "matmul"]
    rows += train(dataclasses.replace(short, batches=[max(plan.batches)]))
    return [{**row, "kind": "memory", "of": row["kind"]} for row in rows]


def shift(plan: Plan) -> list:
    """Measure AddressNet's shifts; return a row per size, batch, threads and operator."""
    rows = []
    for size, batch, threads in itertools.product(plan.sizes, plan.batches, plan.threads):
        case = Case("addressnet", 1.0, batch, size, threads)
        found = _rows("shift", case, shifts.SHIFT, plan)
        rows += [{**row, "shape": shifts.map_shape(case)} for row in found]
    return rows


def _rows(kind: str, case: Case, candidates, plan: Plan, pythons=None) -> list:
    names = [f.__name__ for f in candidates if not plan.only or f.__name__ in plan.only]
    if not names:
        return []
    calls = 1 if kind in ("train", "input") or case.batch > 8 else 10
    title = f"{kind} {case.model} {case.width} batch {case.batch} threads {case.threads}"
    print(f"{title}: {', '.join(names)}", file=sys.stderr, flush=True)
    rows = []
    for group in _groups(kind, names):
        timings, left_out = compare_cases(
            [(name, case) for name in group], rounds=plan.rounds, calls=calls, pythons=pythons
        )
        row = {"kind": kind, **_settings(case), "beside": round(timings[0].median, 6)}
        again = {row["name"] for row in rows}
        rows += [{**row, **_rounded(timing)} for timing in timings if timing.name not in again]
        rows += [
            {**row, "name": name, "left_out": why}
            for name, why in left_out.items()
            if name not in again
        ]
    return rows


def _groups(kind: str, names: list[str]) -> list[list[str]]:
    """Return the names timed together: all; trainers need gigabytes each, so a few of those.

    The first, the reference, is in every group.
    """
    first, others = names[:1], names[1:]
    if kind != "train" or not others:
        return [names]
    return [first + others[i : i + _TRAINERS] for i in range(0, len(others), _TRAINERS)]


def _settings(case: Case) -> dict:
    return {k: v for k, v in case._asdict().items() if k != "folder"}


def _rounded(timing: Timing) -> dict:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in timing._asdict().items()}


def export(case: Case, out: Path):
    """Export a case's net with random weights to the folder ``out``; return the saved model."""
    from gluon_asymmnet.export.formats import export_all

    model = random_net(ModelSpec.parse(case.model, width=case.width), case.size)
    export_all(model, out)
    return model


def random_net(spec: ModelSpec, size: int, classes: int = 1000):
    """Return the net of a spec with random weights, as a saved model."""
    from gluon_asymmnet._mxnet import mx
    from gluon_asymmnet.card import ClassifierCard
    from gluon_asymmnet.models.build import build_classifier
    from gluon_asymmnet.saved import Saved

    net = build_classifier(spec, classes=classes, input_size=size)
    mx.random.seed(0)
    net.initialize(mx.init.MSRAPrelu())
    net.hybridize()
    card = ClassifierCard.of(spec, classes=classes, input_size=size)
    return Saved(card, net, Path("net.params"))


def _export(case: Case, folder: str) -> str:
    """Write every engine's files, and MXNet's own ONNX file of the authors' net."""
    from benchmarks.authors_net import plain_copy
    from gluon_asymmnet._mxnet import mx

    out = Path(folder) / "exported"
    model = export(case, out)
    _export_int8(model, out)
    sample = mx.nd.zeros((case.batch, 3, case.size, case.size))
    plain = plain_copy(model.net, sample)
    plain.hybridize()
    plain(sample)
    plain.export(str(Path(folder) / "stock"))
    mx.onnx.export_model(
        str(Path(folder) / "stock-symbol.json"), str(Path(folder) / "stock-0000.params"),
        [sample.shape], "float32", str(Path(folder) / "stock.onnx"),
    )  # fmt: skip
    return str(out)


def _export_int8(model, exported: Path) -> None:
    """Write int8 files beside ``exported``, for speed alone: random images and no search."""
    from gluon_asymmnet.export.int8.quantizers import SQUEEZE_EXCITE, quantizer_of

    images = sample_images(16, model.card.input_size)
    for engine, kept in (("onnxruntime", ()), ("openvino", (SQUEEZE_EXCITE,))):
        folder = exported.parent / f"int8-{engine}"
        try:
            quantizer = quantizer_of(engine)(model, images, exported.parent)
        except InputError as error:
            print(f"no 8 bits for {engine}: {error}", file=sys.stderr)
            continue
        folder.mkdir()
        file = quantizer.write(kept)
        quantizer.place(file, folder / f"net{quantizer.suffix}", with_costs(model.card))


def noise(count: int) -> list[bytes]:
    """Return JPEG files of noise, 64 x 64 pixels."""
    rng = np.random.default_rng(0)
    return [encode(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(count)]


def write_records(folder: Path, images: list[bytes]) -> None:
    """Write ``folder/train.rec`` and its index; an image's label is its number."""
    with RecordWriter(folder / "train.rec", folder / "train.idx") as writer:
        for i, image in enumerate(images):
            writer.write(i, float(i), image)


def write(rows: list, out: str) -> None:
    """Write ``out.json``, with the machine, and ``out.md``, made from it."""
    measured = {"machine": environment(), "rows": rows}
    write_text(f"{out}.json", json.dumps(measured, indent=1) + "\n")
    write_text(f"{out}.md", document(measured))

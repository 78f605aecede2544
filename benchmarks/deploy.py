"""All targets side by side: the page ``benchmarks/deploy.md``, from the demo's network.

A target that is not installed is left out, with the reason.  Those that do not run beside MXNet are
run by the Python of another environment, see ``deploy_worker``.  Sizes and accuracy do not depend
on the machine's load; speed does, and is measured only if asked for, all targets in turn.
"""

import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from benchmarks import deploy_worker
from benchmarks.installed import installed_size
from benchmarks.report import machine_line
from gluon_asymmnet.card import CARD_FILE
from gluon_asymmnet.errors import InputError, RunError
from gluon_asymmnet.utils.atomic import write_text
from gluon_asymmnet.utils.doctor import environment
from gluon_asymmnet.utils.extras import load_extra
from tools.markdown import markdown_table

_CALIBRATION = 128  # digits
_BATCH = 64
_SCRIPT = Path(__file__).with_suffix(".mjs")
_BASE = "onnxruntime"  # the speed that the others are divided by


class Target(NamedTuple):
    """A way to run the network: its files, and what they need."""

    files: list[Path]
    predict: Callable[[np.ndarray], np.ndarray]  # preprocessed images to logits
    install: float  # MB that the run-time adds to a bare environment
    seconds: Optional[Callable[[np.ndarray], float]] = None  # of one image, measured by itself
    close: Callable[[], object] = lambda: None


def measure(run, digits, *, rounds: int = 0, threads: int = 1, environments=None) -> dict:
    """Return what every target gives for the demo's network.

    Args:
        run: the demo's run directory.
        digits: the folder with its ``train.rec`` and ``val.rec``.
        rounds: of the comparison of speed, batch 1; 0: none.
        threads: of every engine that has such a setting, in that comparison.
        environments: {name of a target of ``deploy_worker``: Python of its environment}.
    """
    from gluon_asymmnet.data.sources import open_source
    from gluon_asymmnet.evaluation.classification import read_batches
    from gluon_asymmnet.saved import open_saved

    model = open_saved(run)
    train, val = (open_source(rec=str(Path(digits) / f"{n}.rec")) for n in ("train", "val"))
    calibration, _ = next(read_batches(train, model.card.preprocessing, _CALIBRATION))
    images, labels = map(np.concatenate, zip(*read_batches(val, model.card.preprocessing, _BATCH)))
    expected = np.concatenate([model.predict(part) for part in _parts(images)])
    rows, targets = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for (name, precision), build in {**_TARGETS, **_elsewhere(environments or {})}.items():
            print(f"{name} {precision}", file=sys.stderr, flush=True)
            row = {"target": name, "precision": precision}
            rows.append(row)
            folder = Path(scratch) / f"{name}-{precision}"
            folder.mkdir()
            try:
                target = build(model, folder, calibration, threads)
            except (InputError, RunError) as error:
                row["left_out"] = str(error)
                continue
            logits = np.concatenate([target.predict(part) for part in _parts(images)])
            difference = float(np.abs(logits - expected).max())
            row |= {
                "mb": sum(file.stat().st_size for file in target.files) / 1e6,
                "relative": difference / float(np.abs(expected).max()),
                "top1": float((logits.argmax(1) == labels).mean()),
                "install_mb": target.install,
            }
            targets[name, precision] = (row, target)
        if rounds:
            _compare_speed(targets, images[:1], rounds)
        for _, target in targets.values():
            target.close()
    return {"machine": environment(), "model": model.card.id, "images": len(images), "rows": rows,
            "threads": threads, "rounds": rounds}  # fmt: skip


def _parts(images: np.ndarray) -> list[np.ndarray]:
    return [images[at : at + _BATCH] for at in range(0, len(images), _BATCH)]


def _compare_speed(targets: dict, image: np.ndarray, rounds: int) -> None:
    """Add ``ratio``: the median over the rounds of each target's time over ONNX Runtime's."""
    times = {key: [] for key in targets}
    for _ in range(rounds):
        for key, (_, target) in targets.items():
            times[key].append((target.seconds or _seconds(target.predict))(image))
    base = times[_BASE, "f32"]
    for key, (row, _) in targets.items():
        row["ratio"] = statistics.median(a / b for a, b in zip(times[key], base))


def _seconds(predict) -> Callable[[np.ndarray], float]:
    def seconds(image: np.ndarray) -> float:
        found = []
        for _ in range(5):
            start = time.perf_counter()
            predict(image)
            found.append(time.perf_counter() - start)
        return min(found)

    return seconds


# ------------------------------------------------------------------------------------- targets


def _onnx(model, folder: Path, calibration, threads: int) -> Target:
    return _engine(_BASE, _onnx_file(model, folder), threads)


def _onnx_int8(model, folder: Path, calibration, threads: int) -> Target:
    return _engine(_BASE, _quantised(_BASE, model, folder, calibration), threads)


def _ort(model, folder: Path, calibration, threads: int) -> Target:
    source = _onnx_file(model, folder)
    command = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort", str(folder),
               "--optimization_style", "Fixed"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"the converter failed: {' '.join(done.stderr.split())[-200:]}")
    return _engine(_BASE, source.with_suffix(".ort"), threads)


def _web(model, folder: Path, calibration, threads: int) -> Target:
    from gluon_asymmnet.export.web.runtime import FILES, copy_runtime

    if not shutil.which("node"):
        raise InputError("Node.js is not installed")
    source, side = _onnx_file(model, folder), model.card.input_size
    (folder / "ort").mkdir()
    copy_runtime(folder / "ort")
    given, found = folder / "input", folder / "output"

    def execute(images: np.ndarray) -> float:
        given.write_bytes(images.tobytes())
        paths = (folder / "ort/ort.wasm.min.mjs", source, given, found)
        done = subprocess.run(
            ["node", _SCRIPT, *paths, str(side)], capture_output=True, text=True, check=True
        )
        return float(done.stdout) / 1000

    def predict(images: np.ndarray) -> np.ndarray:
        execute(images)
        return np.fromfile(found, np.float32).reshape(len(images), -1)

    loaded = [
        folder / "ort" / name for name in FILES if "webgpu" not in name and "asyn" not in name
    ]
    size = sum(file.stat().st_size for file in loaded) / 1e6
    # the median of many: the first ones run while the WebAssembly is still being compiled
    return Target([source], predict, size, lambda image: execute(np.repeat(image, 299, axis=0)))


def _opencv(model, folder: Path, calibration, threads: int) -> Target:
    return _engine("opencv", _onnx_file(model, folder), threads)


def _openvino(model, folder: Path, calibration, threads: int) -> Target:
    from gluon_asymmnet.export.openvino import save_ir, to_ir

    path = folder / "net.xml"
    load_extra("openvino")
    save_ir(to_ir(model), path)
    return _engine("openvino", path, threads)


def _openvino_half(model, folder: Path, calibration, threads: int) -> Target:
    from gluon_asymmnet.export.openvino import to_ir

    path = folder / "net.xml"
    load_extra("openvino").save_model(to_ir(model), str(path), compress_to_fp16=True)
    return _engine("openvino", path, threads)


def _openvino_int8(model, folder: Path, calibration, threads: int) -> Target:
    return _engine("openvino", _quantised("openvino", model, folder, calibration), threads)


def _openvino_runs_onnx(model, folder: Path, calibration, threads: int) -> Target:
    return _engine("openvino", _quantised(_BASE, model, folder, calibration), threads)


def _ncnn(model, folder: Path, calibration, threads: int, half: bool = False) -> Target:
    from gluon_asymmnet.export.ncnn import write_ncnn
    from gluon_asymmnet.predict.engines import NCNN, NCNN_HALF

    write_ncnn(model, folder, calibration[:4])
    model.card.save(folder / "card.json")
    return _engine("ncnn", folder / f"{model.card.id}{NCNN_HALF if half else NCNN}", threads)


def _ncnn_half(model, folder: Path, calibration, threads: int) -> Target:
    return _ncnn(model, folder, calibration, threads, half=True)


def _mxnet(model, folder: Path, calibration, threads: int) -> Target:
    from gluon_asymmnet.export.symbol import export_symbol

    out = export_symbol(model, folder / "symbol")
    return _engine("mxnet", out, threads, [file for file in out.iterdir() if file.stem != "card"])


_TARGETS = {
    (_BASE, "f32"): _onnx, (_BASE, "int8"): _onnx_int8, (".ort", "f32"): _ort,
    ("onnxruntime-web", "f32"): _web, ("ncnn", "f32"): _ncnn, ("ncnn", "fp16"): _ncnn_half,
    ("openvino", "f32"): _openvino, ("openvino", "fp16"): _openvino_half,
    ("openvino", "int8"): _openvino_int8, ("openvino", "int8, ONNX file"): _openvino_runs_onnx,
    ("opencv", "f32"): _opencv, ("mxnet", "f32"): _mxnet,
}  # fmt: skip
_PACKAGES = {"opencv": "opencv-python"}  # where engine and package differ


class _Elsewhere:
    """A target of ``deploy_worker`` in a process of another Python."""

    def __init__(self, name: str, python: str, folder: Path, threads: int):
        self._folder, self._errors = folder, folder / "errors"
        root = Path(__file__).parent.parent
        with open(self._errors, "w") as errors:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.deploy_worker", name, str(folder), str(threads)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=root,
                env={**os.environ, "PYTHONPATH": str(root)},
            )  # fmt: skip
        self.files, self.install = json.loads(self._answer())

    def _answer(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            self.close()
            said = self._errors.read_text(errors="replace").split("\n")
            raise RunError(f"it failed: {next((x for x in reversed(said) if x.strip()), '')[:200]}")
        return line

    def close(self) -> None:
        self._process.communicate()  # the end of its input ends it

    def seconds(self, images: np.ndarray) -> float:
        np.save(self._folder / deploy_worker.IMAGES, images)
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._answer())

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.seconds(images)
        return np.load(self._folder / deploy_worker.LOGITS)


def _elsewhere(environments: dict[str, str]) -> dict:
    """Return targets as in ``_TARGETS``: LiteRT and ExecuTorch, and NNCF if its Python is named."""

    def build(name, model, folder: Path, calibration, threads: int) -> Target:
        if name not in environments:
            raise InputError(f"--environment {name}=PYTHON names its Python, see docs/deploy.md")
        model.card.save(folder / CARD_FILE)
        if name == "nncf":
            from gluon_asymmnet.export.onnx.joins import BEFORE
            from gluon_asymmnet.export.openvino import save_ir, to_ir

            save_ir(to_ir(model, BEFORE), folder / deploy_worker.IR)  # as ``export int8`` does
            np.save(folder / deploy_worker.CALIBRATION, calibration)
        else:
            model.net.save_parameters(str(folder / deploy_worker.WEIGHTS))
        found = _Elsewhere(name, environments[name], folder, threads)
        files = [folder / file for file in found.files]
        return Target(files, found.predict, found.install, found.seconds, found.close)

    named = {("litert", "f32"): "litert", ("executorch", "f32"): "executorch"}
    if "nncf" in environments:
        named["openvino", "int8"] = "nncf"
    return {key: functools.partial(build, name) for key, name in named.items()}


def _engine(name: str, path: Path, threads: int, files: Optional[list[Path]] = None) -> Target:
    from gluon_asymmnet.predict.engines import ENGINES

    run = ENGINES[name](path, threads).run
    weights = path.with_suffix(".bin")
    files = files or [path, *([weights] if weights.exists() else [])]
    return Target(files, lambda images: run(images)[0], installed_size(_PACKAGES.get(name, name)))


def _onnx_file(model, folder: Path) -> Path:
    from gluon_asymmnet.export.onnx.export import to_onnx

    load_extra("onnx").save(to_onnx(model), folder / "net.onnx")
    return folder / "net.onnx"


def _quantised(engine: str, model, folder: Path, calibration) -> Path:
    from gluon_asymmnet.export.int8.quantizers import quantizer_of

    return quantizer_of(engine)(model, calibration, folder).write([])


# ---------------------------------------------------------------------------------------- page


def write(found: dict, out: str) -> None:
    """Write ``out.json`` and ``out.md``, made from it."""
    write_text(f"{out}.json", json.dumps(found, indent=1) + "\n")
    write_text(f"{out}.md", document(found))


def document(found: dict) -> str:
    """Return the page made from the results of ``measure``."""
    head = ["target", "weights", "files, MB", "largest difference", "top-1", "run-time, MB"]
    timed = bool(found["rounds"])
    lines = []
    for row in found["rows"]:
        if "left_out" in row:
            lines.append([row["target"], row["precision"], f"left out: {row['left_out']}",
                          *[""] * (3 + timed)])  # fmt: skip
            continue
        lines.append([
            row["target"], row["precision"], f"{row['mb']:.1f}", f"{row['relative']:.1e}",
            f"{100 * row['top1']:.2f} %", f"{row['install_mb']:.0f}",
            *([f"{row['ratio']:.2f}"] if timed else []),
        ])  # fmt: skip
    speed = (
        f"The last column is the time of one image over ONNX Runtime's, the median of "
        f"{found['rounds']} rounds in turn, {found['threads']} thread; 0.8 to 1.25 is equal. "
        f"The network is small (32 pixels), so the overhead of a call counts. "
        if timed else "Speed was not measured. "
    )  # fmt: skip
    return (
        f"# Targets side by side\n\n{machine_line(found['machine'])}\n\n"
        f"The demo's network ({found['model']}) on its {found['images']} held-out digits. The "
        f"difference is relative to the largest logit of the network in MXNet. The last size is "
        f"that of the Python package with all it needs; of onnxruntime-web, what a browser loads, "
        f"run by Node.js here. {speed}Made by `benchmark.py deploy`.\n\n"
        f"{markdown_table([*head, *(['time'] if timed else [])], lines)}\n"
    )

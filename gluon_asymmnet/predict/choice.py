"""Choose the engine of a model, its precision, and which of the model's files it runs."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Union

from gluon_asymmnet.card import CARD_FILE, DETECTOR, Accuracy, differences, read_card
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.predict.engines import (
    BF16,
    ENGINES,
    F32,
    INT8,
    NCNN,
    NCNN_HALF,
    computes_bf16,
)
from gluon_asymmnet.predict.fastest import Candidate, fastest
from gluon_asymmnet.utils.doctor import cpu_model
from gluon_asymmnet.utils.extras import installed

AUTO = "auto"
# Engines and the files they run.  "auto" takes the first that is possible; if that is one of
# _MEASURED, the fastest of those.  The others are slower in every measurement of benchmarks/.
_RUNS = (
    ("openvino", ".xml"),
    ("onnxruntime", ".onnx"),
    ("openvino", ".onnx"),
    ("mxnet", "-symbol.json"),
    ("opencv", ".onnx"),
    ("ncnn", NCNN),
    ("ncnn", NCNN_HALF),
)
_MEASURED = ("openvino", "onnxruntime")
# engine -> the format to export
_EXPORT = {"openvino": "openvino", "onnxruntime": "onnx", "opencv": "onnx", "ncnn": "ncnn"}
_REDUCED = (BF16, INT8)  # in the order of their measurement


class Choice(NamedTuple):
    """An engine with a file, and why."""

    engine: str
    precision: str  # f32, bf16 or int8
    weights: Path
    card_file: Path  # of the model as it was named; it may not exist
    reason: str  # one line

    def open(self, threads: int = 0):
        """Return the engine with the file."""
        return Candidate(self.engine, self.precision, self.weights).open(threads)


def choose(
    path,
    engine: str = AUTO,
    *,
    threads: int = 0,
    precision: str = F32,
    allow: Union[str, Sequence[str]] = (),
) -> Choice:
    """Choose engine, precision and file; arguments and errors are those of ``Predictor``."""
    if engine not in (AUTO, *ENGINES):
        raise InputError(f"engine must be auto, {', '.join(ENGINES)}, got {engine!r}")
    if precision not in (F32, BF16, AUTO):
        raise InputError(f"precision must be f32, bf16 or auto, got {precision!r}")
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
        raise InputError(f"threads must be a whole number, 0 (all) or more, got {threads!r}")
    allowed = _allowed(allow)
    if allowed and precision != AUTO:
        raise InputError(f"what to allow goes with precision auto, got precision {precision}")
    name, file = choose_engine(path, engine)
    chosen = Candidate(name, BF16 if precision == BF16 else F32, file)
    reasons = ["as asked for" if engine != AUTO else "the first that fits"]
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    measured: dict[Candidate, Accuracy] = {}
    if precision != BF16:
        measured, hindrances = _reduced(Path(path), folder, engine, allowed)
        candidates = [*_to_measure(path, engine), *measured]
        if len(candidates) > 1 or measured:
            chosen, reasons[0] = fastest(candidates, threads)
        reasons += [_said(measured[chosen])] if chosen in measured else []
        reasons += hindrances
    return Choice(*chosen, folder / CARD_FILE, "; ".join(reasons))


def choose_engine(path, engine: str = AUTO) -> tuple[str, Path]:
    """Return the first engine that fits ``path``, and the file it runs.

    MXNet runs a path without exported files: a run directory or a parameter file.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"the model must be a path, got {path!r}")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; expected an exported model")
    possible = _possible(path, engine)
    if possible:
        return next((one for one in possible if _is_installed(one[0])), possible[0])
    if engine in _EXPORT:
        raise InputError(
            f"{path} holds nothing for {engine}: export it with `asymmnet export {_EXPORT[engine]}`"
        )
    return "mxnet", path


def _allowed(allow: Union[str, Sequence[str]]) -> list[str]:
    """Return reduced precisions, given as a sequence or with commas, each once and in one order."""
    names = [name.strip() for name in allow.split(",")] if isinstance(allow, str) else [*allow]
    unknown = [name for name in names if name not in (*_REDUCED, "")]
    if unknown:
        raise InputError(f"only {' and '.join(_REDUCED)} can be allowed, got {unknown[0]!r}")
    return [name for name in _REDUCED if name in names]


def _reduced(
    path: Path, folder: Path, engine: str, allowed: Sequence[str]
) -> tuple[dict[Candidate, Accuracy], list[str]]:
    """Return the candidates in reduced precisions with their accuracies, and why others are none.

    Raises: InputError if the accuracy of an allowed precision has not been measured.
    """
    found: dict[Candidate, Accuracy] = {}
    hindrances = []
    for precision in allowed:
        candidate, accuracy = {BF16: _in_bf16, INT8: _in_int8}[precision](path, folder, engine)
        if not installed(candidate.engine):
            hindrances.append(f"no {precision}: {candidate.engine} is not installed")
        elif precision == BF16 and not computes_bf16():
            hindrances.append("no bf16: this processor does not compute in it")
        else:
            found[candidate] = accuracy
    return found, hindrances


def _in_bf16(path: Path, folder: Path, engine: str) -> tuple[Candidate, Accuracy]:
    if engine not in (AUTO, "openvino"):
        raise InputError(f"precision bf16 is for openvino; {engine} computes in f32")
    file = _file(path, ".xml")  # the accuracy is that of the IR
    found = Candidate("openvino", BF16, file)
    accuracy = read_card(folder / CARD_FILE).accuracy_in(found.label) if file else None
    if accuracy is None:
        raise _not_measured(path, BF16, "openvino RUN OUT --bf16 --rec-val FILE")
    return found, accuracy


def _in_int8(path: Path, folder: Path, engine: str) -> tuple[Candidate, Accuracy]:
    """Return the 8-bit export in the folder ``int8`` of the model's, in the engine it is for."""
    if engine not in (AUTO, *_MEASURED):
        raise InputError(f"int8 is for {' and '.join(_MEASURED)}; {engine} computes in f32")
    card, place = read_card(folder / CARD_FILE), folder / INT8
    if card.kind == DETECTOR:
        raise InputError(f"int8 is for classifiers, {path} holds a detector")
    if any(label.endswith(INT8) for label in card.accuracy or ()):
        raise InputError(f"{path} is in int8 itself: name the folder that has it as {INT8}/")
    files = _possible(place, engine) if place.is_dir() else []
    if files:
        inside = read_card(place / CARD_FILE)
        if differing := differences(card, inside):
            raise FormatError(
                f"{place / CARD_FILE} belongs to another model than {folder / CARD_FILE}: "
                f"{'; '.join(differing)}"
            )
        for name, file in files:
            found = Candidate(name, INT8, file)
            if accuracy := inside.accuracy_in(found.label):
                return found, accuracy
    of_engine = "" if engine == AUTO else f" --engine {engine}"
    raise _not_measured(place, INT8, f"int8 RUN {place} --rec-calib FILE --rec-val FILE{of_engine}")


def _said(accuracy: Accuracy) -> str:
    known = accuracy.processor in (None, cpu_model())
    return f"{accuracy}{'' if known else f', measured on {accuracy.processor}'}"


def _not_measured(path: Path, precision: str, export: str) -> InputError:
    return InputError(
        f"{path}: the accuracy of {precision} is not measured: `asymmnet export {export}` writes "
        f"the files and measures it"
    )


def _possible(path: Path, engine: str = AUTO) -> list[tuple[str, Path]]:
    return [
        (name, file)
        for name, suffix in _RUNS
        if engine in (AUTO, name) and (file := _file(path, suffix))
    ]


def _is_installed(engine: str) -> bool:
    return engine == "opencv" or installed(engine)


def _to_measure(path, engine: str) -> list[Candidate]:
    """Return the installed ones of ``_MEASURED``, each with the first file it runs."""
    found: dict[str, Candidate] = {}
    for name, file in _possible(Path(path), engine):
        if name in _MEASURED and _is_installed(name):
            found.setdefault(name, Candidate(name, F32, file))
    return [*found.values()]


def _file(path: Path, suffix: str):
    """Return the file with this suffix that ``path`` is or contains, or None."""
    found = [path] if path.is_file() else sorted(path.iterdir())
    found = [file for file in found if file.name.endswith(suffix)]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(f"{path} holds several models: {names}; name one of them")
    return found[0] if found else None

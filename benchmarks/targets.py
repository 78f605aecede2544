"""Speed and memory targets beside the measured values.

A ratio is between candidates timed in turn; "best" is over the numbers of threads.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

from benchmarks.detectors import OTHERS
from tools.markdown import markdown_table

_LARGE = {"model": "asymmnet_large", "width": 1.0, "size": 224}


class Target(NamedTuple):
    """A target and the measured value; None if it was not measured."""

    title: str
    wanted: float
    found: Optional[float]
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        if self.found is None:
            return False
        return self.found <= self.wanted if self.at_most else self.found >= self.wanted


class _Rows:
    """The measured rows of one kind."""

    def __init__(self, rows: list[dict], kind: str, **case):
        case = {"kind": kind, **case}
        self.rows = [
            row for row in rows if "median" in row and all(row[k] == v for k, v in case.items())
        ]

    def value(self, name: str, key: str = "median", **case) -> Optional[float]:
        """Return the smallest value of a candidate's rows that match ``case``."""
        found = [
            row[key]
            for row in self.rows
            if row["name"] == name and all(row[k] == v for k, v in case.items())
        ]
        return min(found, default=None)

    def times(self, name: str, other: str, key: str = "median", **case) -> Optional[float]:
        """Return the value of ``other`` over that of ``name``."""
        one, two = self.value(name, key, **case), self.value(other, key, **case)
        return two / one if one and two else None


def targets(rows: list[dict], macs: int) -> Iterator[Target]:
    """Yield the targets of AsymmNet-Large, which has ``macs`` multiply-adds."""
    infer = _Rows(rows, "infer", **_LARGE)
    for batch in (1, 32):
        found = infer.times("optimized", "plain", batch=batch)
        yield Target(f"MXNet, optimized: times plain, batch {batch}, best", 1.5, found)
    two = {"batch": 1, "threads": 2}
    for name, wanted in (("openvino_f32", 5), ("openvino_bf16", 9), ("onnxruntime", 2.5)):
        found = infer.times(name, "plain", **two)
        yield Target(f"`{name}`: times plain, batch 1, 2 threads", wanted, found)
    product, engine = (infer.value(name, **two) for name in ("matmul", "openvino_f32"))
    found = engine * 2048**3 / (macs * product) if product and engine else None
    yield Target("`openvino_f32`: times the arithmetic limit", 1.7, found, at_most=True)
    for engine in ("onnxruntime", "openvino"):
        f32 = engine if engine == "onnxruntime" else "openvino_f32"
        for batch in (1, 32):
            found = infer.times(f"{engine}_int8", f32, batch=batch)
            yield Target(f"`{engine}_int8`: times its own f32, batch {batch}, best", 1.4, found)
    train = _Rows(rows, "train", **_LARGE, batch=32, threads=2)
    for name in ("train_ours", "train_task"):
        yield Target(f"`{name}`: times plain", 3, train.times(name, "train_plain"))
    for name, of, plain in (("optimized", infer, "plain"), ("train_ours", train, "train_plain")):
        times = of.times(plain, name, "peak_mb", batch=32, threads=2)
        yield Target(f"`{name}`: peak memory, of plain's, batch 32", 1, times, at_most=True)
    for threads in (1, 2):
        read = _Rows(rows, "input", data="JPEG 500x375", threads=threads)
        found = _reading_ratio(read.rows)
        yield Target(f"reader on {threads} thread(s): times the speed of training", 20, found)
    picture = _Rows(rows, "picture", **_LARGE, **two)
    for name in ("classify_onnxruntime", "classify_openvino"):
        found = picture.times(name, "prepare")
        yield Target(f"preprocessing's share of `{name}`", 0.2, found, at_most=True)
    started = _Rows(rows, "startup").value("help")
    yield Target("`asymmnet --help`, seconds", 0.3, started, at_most=True)


def _reading_ratio(rows: list[dict]) -> Optional[float]:
    """Return the reader's images per second over those of training."""
    speed = {row["name"]: row["images"] / row["median"] for row in rows}
    if not {"input_opencv", "train_task"} <= set(speed):
        return None
    return speed["input_opencv"] / speed["train_task"]


def picture_targets(pictures: list[dict], readers: list[dict]) -> Iterator[Target]:
    """Yield the targets from picture files to classes, and of the readers for training."""
    one = _Rows(pictures, "prepare").value("prepare", "fastest")
    found = 1e3 * one if one else None
    yield Target("preprocessing of 500 x 375, ms, fastest", 1.2, found, at_most=True)
    large = _Rows(pictures, "large")
    found = large.times("prepare_large_scaled", "prepare_large_opencv", "fastest")
    yield Target("preprocessing of 12 megapixels, scaled: times OpenCV's whole one", 4, found)
    folder = _Rows(pictures, "folder")
    slower = max(folder.value(name) or 0 for name in ("folder_prepared", "folder_inferred"))
    took = folder.value("folder_classified")
    found = slower / took if took and slower else None
    yield Target("folder: of the slower of reading and inference alone", 0.9, found)
    found = folder.times("folder_classified", "folder_in_turn")
    yield Target("folder: times reading and inference in turn", 1.8, found)
    for data in ("JPEG 500x375", "the demo's digits"):
        for threads, wanted in ((1, 1.0), (2, 1.5)):
            read = _Rows(readers, "input", data=data, threads=threads)
            found = read.times("input_opencv", "input_record_iter")
            title = f"reader, {data}, {threads} thread(s): times ImageRecordIter"
            yield Target(title, wanted, found)


def detect_targets(rows: list[dict]) -> Iterator[Target]:
    """Yield the targets of detection from a picture file to boxes, for each net and threads."""
    others = [function.__name__ for function in OTHERS]
    cases = ((row["model"], row["size"], row["threads"]) for row in rows)
    for model, size, threads in dict.fromkeys(cases):
        found = _Rows(rows, "detect", model=model, size=size, threads=threads)
        ours, best = (
            min(filter(None, map(found.value, names)), default=None)
            for names in (("detect_onnxruntime", "detect_openvino"), others)
        )
        title = f"`{model}`, {threads} thread(s)"
        times = best / ours if best and ours else None
        yield Target(f"{title}: times the best of the others", 3, times)
        share = found.times("detect_onnxruntime", "stage_suppress")
        yield Target(f"{title}: suppression's share in ONNX Runtime", 0.1, share, at_most=True)


def table(found: Iterable[Target]) -> str:
    """Return the table of targets."""
    lines = []
    for target in found:
        sign = "at most" if target.at_most else "at least"
        found = "not measured" if target.found is None else f"{target.found:.2f}"
        met = "met" if target.met else "not met"
        lines.append((target.title, f"{sign} {target.wanted:g}", found, met))
    return markdown_table(("quantity", "target", "measured", ""), lines)

"""The fastest engine and precision for a model on this machine: measured once, then remembered.

``engines.json`` in the user's cache holds the measurements.  The key of an entry is made of the
engines with their precisions and versions, the content of their files, the processor, and the
number of threads.
"""

import contextlib
import hashlib
import json
import math
import statistics
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.predict.engines import ENGINES, F32, INT8
from gluon_asymmnet.utils.atomic import write_text
from gluon_asymmnet.utils.cache import cache_folder
from gluon_asymmnet.utils.doctor import cpu_features, cpu_model, version
from gluon_asymmnet.utils.threads import available

CACHE_FILE = "engines.json"
_SECONDS = 0.15  # of measuring, after loading
_ROUNDS = 3  # at least
_KEPT = 100  # entries of the cache, the newest

# label of a candidate -> seconds for one image; None: it cannot run the file
Times = dict[str, Optional[float]]


class Candidate(NamedTuple):
    """An engine, its precision, and the file that it runs."""

    engine: str
    precision: str  # f32, bf16, or int8, which is in the file
    weights: Path

    @property
    def label(self) -> str:
        """The engine, with its precision if that is not f32."""
        return self.engine if self.precision == F32 else f"{self.engine} {self.precision}"

    def open(self, threads: int = 0):
        """Return the engine with the file."""
        arithmetic = F32 if self.precision == INT8 else self.precision
        return ENGINES[self.engine](self.weights, threads, arithmetic)


def fastest(candidates: Sequence[Candidate], threads: int = 0) -> tuple[Candidate, str]:
    """Return the fastest candidate for one image, and in one line why.

    Takes a fraction of a second the first time, and as long as reading files and cache afterwards.
    A cache that is damaged or cannot be written only means that engines are measured again.

    Args:
        candidates: their labels differ; of equal ones the first wins.
        threads: CPU threads; 0: one per processor.
    """
    key = _key(candidates, threads or available())
    times, when = _read_cache().get(key), "measured earlier"
    if not _is_valid(times, [one.label for one in candidates]):
        times, when = _measure(candidates, threads), "measured now"
        if all(times.values()):
            _remember(key, times)
    best = min(candidates, key=lambda one: times[one.label] or math.inf)
    shown = ", ".join(
        f"{label} {f'{1e3 * seconds:.2f} ms' if seconds else 'fails'}"
        for label, seconds in times.items()
    )
    return best, f"{shown} for one image, {when}"


def _key(candidates: Sequence[Candidate], threads: int) -> str:
    parts: list = [cpu_model(), cpu_features(), available(), threads]
    contents = {file: _content(file) for file in {one.weights for one in candidates}}
    for one in candidates:
        parts += [one.label, version(one.engine), contents[one.weights]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _content(file: Path) -> list[int]:
    """Return size and check sum of a model's file and, of an IR, of its weights.

    CRC-32 takes a quarter of the time of a hash, 9 ms for 24 MB; by chance two versions of one size
    have the same one once in four billion.
    """
    parts = [part.read_bytes() for part in (file, file.with_suffix(".bin")) if part.is_file()]
    return [number for data in parts for number in (len(data), zlib.crc32(data))]


def _measure(candidates: Sequence[Candidate], threads: int) -> Times:
    """Time the engines in turn, round by round."""
    runs, samples = {}, {}
    for one in candidates:
        # Whatever is wrong with a file is said when the predictor opens it.
        with contextlib.suppress(Exception):
            engine = one.open(threads)
            _, channels, *sides = engine.inputs[0]
            images = np.random.default_rng(0).normal(size=(1, channels, *sides)).astype(np.float32)
            engine.run(images)  # the first call is slower
            runs[one.label], samples[one.label] = (engine, images), []
    begun, rounds = time.perf_counter(), 0
    while rounds < _ROUNDS or time.perf_counter() - begun < _SECONDS:
        for label, (engine, images) in runs.items():
            start = time.perf_counter()
            engine.run(images)
            samples[label].append(time.perf_counter() - start)
        rounds += 1
    return {one.label: statistics.median(samples[one.label]) if one.label in runs else None
            for one in candidates}  # fmt: skip


def _read_cache() -> dict:
    try:
        found = json.loads((cache_folder() / CACHE_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_valid(times, labels: list[str]) -> bool:
    return isinstance(times, dict) and [*times] == labels and all(
        isinstance(seconds, float) and 0 < seconds < math.inf for seconds in times.values()
    )  # fmt: skip


def _remember(key: str, times: Times) -> None:
    """Add an entry.  Of processes that do so at once, one entry may be lost, and measured again."""
    entries = {**_read_cache(), key: times}
    kept = dict([*entries.items()][-_KEPT:])
    with contextlib.suppress(OSError, InputError):
        write_text(cache_folder() / CACHE_FILE, json.dumps(kept, indent=1) + "\n")

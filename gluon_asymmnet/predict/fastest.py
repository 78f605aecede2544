"""The fastest engine for a model on this machine: measured once, then remembered.

``engines.json`` in the user's cache holds the measurements.  Files of a model, versions of the
engines, processor and number of threads are part of an entry's key.
"""

import contextlib
import hashlib
import json
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.predict.engines import ENGINES
from gluon_asymmnet.utils.atomic import write_text
from gluon_asymmnet.utils.cache import cache_folder
from gluon_asymmnet.utils.doctor import cpu_features, cpu_model, version
from gluon_asymmnet.utils.threads import available

CACHE_FILE = "engines.json"
_SECONDS = 0.15  # of measuring, after loading
_ROUNDS = 3  # at least
_KEPT = 100  # entries of the cache, the newest

Times = dict[str, Optional[float]]  # engine -> seconds for one image; None: it cannot run the file


class Choice(NamedTuple):
    """An engine, the file it runs, and why."""

    engine: str
    weights: Path
    reason: str  # one line


def fastest(candidates: Sequence[tuple[str, Path]], threads: int = 0) -> Choice:
    """Return the fastest of engines for one image.

    Takes a fraction of a second the first time, and as long as reading the cache afterwards.  A
    cache that is damaged or cannot be written only means that engines are measured again.

    Args:
        candidates: engines, each once, with the file that each runs; of equal ones the first wins.
        threads: CPU threads; 0: one per processor.
    """
    key = _key(candidates, threads or available())
    times, when = _read_cache().get(key), "measured earlier"
    if not _is_valid(times, [name for name, _ in candidates]):
        times, when = _measure(candidates, threads), "measured now"
        if all(times.values()):
            _remember(key, times)
    best = min(candidates, key=lambda one: times[one[0]] or math.inf)
    shown = ", ".join(
        f"{name} {f'{1e3 * seconds:.2f} ms' if seconds else 'fails'}"
        for name, seconds in times.items()
    )
    return Choice(*best, f"{shown} for one image, {when}")


def _key(candidates: Sequence[tuple[str, Path]], threads: int) -> str:
    parts: list = [cpu_model(), cpu_features(), available(), threads]
    for name, file in candidates:
        status = file.stat()
        parts += [name, version(name), str(file.resolve()), status.st_size, status.st_mtime_ns]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _measure(candidates: Sequence[tuple[str, Path]], threads: int) -> Times:
    """Time the engines in turn, round by round."""
    runs, samples = {}, {}
    for name, file in candidates:
        # Whatever is wrong with a file is said when the predictor opens it.
        with contextlib.suppress(Exception):
            engine = ENGINES[name](file, threads)
            _, channels, *sides = engine.inputs[0]
            images = np.random.default_rng(0).normal(size=(1, channels, *sides)).astype(np.float32)
            engine.run(images)  # the first call is slower
            runs[name], samples[name] = (engine, images), []
    begun, rounds = time.perf_counter(), 0
    while rounds < _ROUNDS or time.perf_counter() - begun < _SECONDS:
        for name, (engine, images) in runs.items():
            start = time.perf_counter()
            engine.run(images)
            samples[name].append(time.perf_counter() - start)
        rounds += 1
    return {name: statistics.median(samples[name]) if name in runs else None
            for name, _ in candidates}  # fmt: skip


def _read_cache() -> dict:
    try:
        found = json.loads((cache_folder() / CACHE_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_valid(times, names: list[str]) -> bool:
    return isinstance(times, dict) and [*times] == names and all(
        isinstance(seconds, float) and 0 < seconds < math.inf for seconds in times.values()
    )  # fmt: skip


def _remember(key: str, times: Times) -> None:
    """Add an entry.  Of processes that do so at once, one entry may be lost, and measured again."""
    entries = {**_read_cache(), key: times}
    kept = dict([*entries.items()][-_KEPT:])
    with contextlib.suppress(OSError, InputError):
        write_text(cache_folder() / CACHE_FILE, json.dumps(kept, indent=1) + "\n")

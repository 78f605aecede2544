"""Every parser of ours, with sound inputs to start from and what must hold of what it accepts.

A parser is an entry of ``TARGETS`` of a module in ``parsers``.
"""

import random
import shutil
from pathlib import Path

from tests.fuzz.parsers import archives, boxes, cards, records, runs, weights

TARGETS = {
    name: target
    for part in (records, boxes, weights, cards, runs, archives)
    for name, target in part.TARGETS.items()
}


def input_of(name: str, seeds: list[bytes], seed: int, index: int) -> bytes:
    """Return input ``index`` of a campaign: always the same bytes."""
    rng = random.Random(f"{name} {seed} {index}")
    return TARGETS[name].damaged(rng, rng.choice(seeds))


def empty(folder: Path) -> None:
    """Remove what an input has left in its folder."""
    for item in folder.iterdir():
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink()

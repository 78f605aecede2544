"""Parsers with known faults: ``python -m tests.fuzz.broken`` says what a campaign finds in them."""

import json
import os
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

from gluon_asymmnet.errors import FormatError
from tests.fuzz import campaign, targets, worker
from tests.fuzz.parsers.base import Target

_LEAKED = []


class Broken(NamedTuple):
    """What a parser does with every input but its seed, and what that must be called."""

    read: Callable
    kind: str


def _refuse(message):
    raise FormatError(message)


def _spin(folder, data):
    while True:
        pass


BROKEN = {
    "another exception": Broken(lambda folder, data: {}[data], "KeyError"),
    "two lines": Broken(lambda folder, data: _refuse("a\nb"), "AssertionError"),
    "a long message": Broken(lambda folder, data: _refuse("x" * 5000), "AssertionError"),
    "memory": Broken(lambda folder, data: bytearray(10 << 20), "AssertionError"),
    "more memory": Broken(lambda folder, data: bytearray(5 << 30), "MemoryError"),
    "an open file": Broken(
        lambda folder, data: _LEAKED.append(os.open(os.devnull, os.O_RDONLY)), "AssertionError"
    ),
    "death": Broken(
        lambda folder, data: os.kill(os.getpid(), signal.SIGKILL), "killed by signal 9"
    ),
    "a hang": Broken(_spin, "HangError"),
    "waiting": Broken(lambda folder, data: time.sleep(99), "killed by signal 14"),
}


def main() -> None:
    """Print what is found, as JSON."""
    results = {}
    worker.CPU_S, worker.TRACED = 0.3, 1
    for what, broken in BROKEN.items():

        def read(folder, data, broken=broken):
            if data != b"sound":
                broken.read(folder, data)

        worker.WALL_S = 1 if what == "waiting" else 60
        targets.TARGETS[what] = Target(what, lambda: [b"sound"], lambda rng, seed: b"x", read)
        results[what] = campaign.run(what, 2)
    print(json.dumps(results))


if __name__ == "__main__":
    main()

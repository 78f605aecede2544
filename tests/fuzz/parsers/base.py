"""What a parser is to the campaign, and the picture that several of them read."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.images import encode
from gluon_asymmnet.errors import InputError

REFUSALS = (InputError, FileNotFoundError)  # and nothing else; FormatError is an InputError


class Target(NamedTuple):
    """A parser and its inputs."""

    reads: str  # what of ours, for the report
    seeds: Callable[[], list[bytes]]  # each must be accepted
    damaged: Callable[[random.Random, bytes], bytes]
    read: Callable[[Path, bytes], object]  # (an empty folder, input); raises REFUSALS
    bytes_per_byte: int = 60  # memory an input may cost, beyond what is fixed


def picture(level=90, size=(12, 16), encoding=".jpg"):
    return encode(np.full((*size, 3), level, np.uint8), encoding)

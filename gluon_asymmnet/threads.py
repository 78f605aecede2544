"""How many CPU threads MXNet uses.  Must be said before MXNet is imported."""

import os
import sys

from gluon_asymmnet.errors import InputError


def available() -> int:
    """Return the number of processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(count: int = 0) -> int:
    """Let MXNet use ``count`` threads; 0: one per processor, or what OMP_NUM_THREADS says.

    Left alone, MXNet takes half the processors.

    Raises: InputError if MXNet is already there with another number.
    """
    wanted = str(count or os.environ.get("OMP_NUM_THREADS") or available())
    if "mxnet" in sys.modules and os.environ.get("OMP_NUM_THREADS") != wanted:
        if not count:
            return int(os.environ.get("OMP_NUM_THREADS", 0))
        raise InputError(
            f"MXNet is already imported and reads the number of threads only then: set "
            f"OMP_NUM_THREADS={count} before starting Python"
        )
    os.environ["OMP_NUM_THREADS"] = wanted
    return int(wanted)

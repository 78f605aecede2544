"""How many CPU threads MXNet uses.  Must be said before MXNet is imported."""

import os
import sys

from gluon_asymmnet.errors import InputError

# What MXNet reads at its start, besides OMP_NUM_THREADS.  Measured, see benchmarks/.
SETTINGS = {
    # Threads that wait for the next operator stay awake for some microseconds.  Left alone, they do
    # until MXNet's engine has as many pools of threads as there are processors, then sleep.
    "OMP_WAIT_POLICY": "ACTIVE",
    "GOMP_SPINCOUNT": "20000",  # and no longer: decoding wants the processors, too
    # MXNet times its operators at the start, alone, and then runs many of them on one thread.
    "MXNET_USE_OPERATOR_TUNING": "0",
}


def available() -> int:
    """Return the number of processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(count: int = 0) -> int:
    """Let MXNet use ``count`` threads; 0: one per processor, or what OMP_NUM_THREADS says.

    Left alone, MXNet takes half the processors.  Variables that are set already stay.

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
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    return int(wanted)

"""The number of CPU threads of MXNet, which must be set before MXNet is imported."""

import os
import sys

from gluon_asymmnet.errors import InputError

# Read by MXNet when it is imported, besides OMP_NUM_THREADS.  Measured, see benchmarks/.
SETTINGS = {
    # Waiting threads spin for some microseconds for the next operator.  By default they spin until
    # MXNet's engine has as many thread pools as there are processors, then sleep.
    "OMP_WAIT_POLICY": "ACTIVE",
    "GOMP_SPINCOUNT": "20000",  # no longer: decoding needs the processors, too
    # The tuning at import makes MXNet run many operators on one thread.
    "MXNET_USE_OPERATOR_TUNING": "0",
}


def available() -> int:
    """Return the number of processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(count: int = 0) -> int:
    """Let MXNet use ``count`` threads; 0: OMP_NUM_THREADS, or one per processor.

    MXNet's default is half the processors.  Variables that are set already are kept.

    Raises: InputError if MXNet is already imported with another number, or ``count`` is negative.
    """
    if count < 0:
        raise InputError(f"the number of threads must be at least 0, got {count}")
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

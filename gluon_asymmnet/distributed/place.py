"""Which worker this process is, from the environment.

``asymmnet launch`` sets MXNet's own variables; Slurm, MPI and Kubernetes set theirs, and need
``DMLC_PS_ROOT_URI`` (the host of worker 0) beside them.
"""

import os
from typing import NamedTuple, Optional

from gluon_asymmnet.errors import InputError

DEFAULT_PORT = 9091  # the first of MXNet's own tracker
DEFAULT_TIMEOUT = 300.0  # seconds
ENGINES = ("kvstore", "horovod")

# Who numbers the processes: the variables of the number and of how many there are.
_NUMBERED_BY = (
    ("DMLC_WORKER_ID", "DMLC_NUM_WORKER"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("JOB_COMPLETION_INDEX", "DMLC_NUM_WORKER"),  # Kubernetes' indexed jobs
)


class Place(NamedTuple):
    """One of ``size`` workers."""

    rank: int
    size: int
    host: str  # of worker 0
    port: int  # where worker 0 listens
    servers: int  # of the kvstore; the first so many workers start one each
    engine: str  # kvstore or horovod
    timeout: float  # seconds after which a worker that is missing or silent counts as lost


def find_place(kvstore: str = "auto", horovod: bool = False, environment=None) -> Optional[Place]:
    """Return this process's place, or None if it trains alone.

    Args:
        kvstore: auto, local or dist_sync; with auto only ``asymmnet launch`` makes several
            workers, because Slurm's variables are also set where nothing is distributed.
        environment: instead of ``os.environ``.

    Raises: InputError if several workers are asked for and the variables are missing or wrong.
    """
    variables = os.environ if environment is None else environment
    launched = variables.get("ASYMMNET_ENGINE")
    engine = "horovod" if horovod else "kvstore" if kvstore == "dist_sync" else launched
    if kvstore == "local" or not engine:
        return None
    if engine not in ENGINES:
        raise InputError(f"ASYMMNET_ENGINE must be kvstore or horovod, got {engine!r}")
    names = next((n for n in _NUMBERED_BY if n[0] in variables), None)
    if names is None:
        raise InputError(
            f"{'--horovod' if horovod else '--kvstore dist_sync'} needs to know which worker this "
            f"is: start it by `asymmnet launch`, Slurm or MPI, or set DMLC_WORKER_ID, "
            f"DMLC_NUM_WORKER and DMLC_PS_ROOT_URI"
        )
    rank, size = (_number(variables, name, least) for name, least in zip(names, (0, 1)))
    if rank >= size:
        raise InputError(f"{names[0]} {rank} is not below {names[1]} {size}")
    if size > 1 and "DMLC_PS_ROOT_URI" not in variables:
        raise InputError("set DMLC_PS_ROOT_URI to the host name or address of worker 0")
    host = variables.get("DMLC_PS_ROOT_URI", "127.0.0.1")
    servers = _number(variables, "DMLC_NUM_SERVER", 1, 1 if host == "127.0.0.1" else size)
    if servers > size:
        raise InputError(f"DMLC_NUM_SERVER {servers} is above the number of workers, {size}")
    return Place(
        rank, size, host, _number(variables, "DMLC_PS_ROOT_PORT", 1, DEFAULT_PORT), servers, engine,
        _number(variables, "ASYMMNET_TIMEOUT", 1, DEFAULT_TIMEOUT, float),
    )  # fmt: skip


def _number(variables, name: str, least, default=None, kind=int):
    text = variables.get(name, default)
    try:
        value = kind(text)
    except (TypeError, ValueError):
        value = None
    if value is None or not least <= value < 2**31:
        raise InputError(f"{name} must be a number from {least} on, got {text!r}")
    return value

"""Read the rank, the world size and the address of worker 0 from the environment.

``asymmnet launch`` sets MXNet's own variables.  Slurm, MPI and Kubernetes set theirs; with them
``DMLC_PS_ROOT_URI``, the host of worker 0, must be set, too.
"""

import os
from typing import NamedTuple, Optional

from gluon_asymmnet.errors import InputError

DEFAULT_PORT = 9091  # the first of MXNet's own tracker
DEFAULT_TIMEOUT = 300.0  # seconds
ENGINES = ("kvstore", "horovod")

# Variables of the rank and of the world size, by launcher.
_RANK_VARIABLES = (
    ("DMLC_WORKER_ID", "DMLC_NUM_WORKER"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("JOB_COMPLETION_INDEX", "DMLC_NUM_WORKER"),  # Kubernetes' indexed jobs
)


class WorkerEnvironment(NamedTuple):
    """One worker of a distributed run, and how it reaches the others."""

    rank: int
    world_size: int
    host: str  # of worker 0
    port: int  # on which worker 0 listens
    servers: int  # of the kvstore; workers 0 to ``servers - 1`` start one each
    engine: str  # kvstore or horovod
    timeout: float  # seconds after which a missing or silent worker counts as lost


def read_environment(
    kvstore: str = "auto", horovod: bool = False, environment=None
) -> Optional[WorkerEnvironment]:
    """Return the settings of this worker, or None if this process trains alone.

    Args:
        kvstore: auto, local or dist_sync.  With auto a run is distributed only under ``asymmnet
            launch``: Slurm sets its variables for every job.
        environment: variables to read instead of ``os.environ``.

    Raises: InputError if a distributed run is requested and the variables are missing or wrong.
    """
    variables = os.environ if environment is None else environment
    launched = variables.get("ASYMMNET_ENGINE")
    engine = "horovod" if horovod else "kvstore" if kvstore == "dist_sync" else launched
    if kvstore == "local" or not engine:
        return None
    if engine not in ENGINES:
        raise InputError(f"ASYMMNET_ENGINE must be kvstore or horovod, got {engine!r}")
    names = next((n for n in _RANK_VARIABLES if n[0] in variables), None)
    if names is None:
        raise InputError(
            f"{'--horovod' if horovod else '--kvstore dist_sync'} needs the rank of this worker: "
            f"start it by `asymmnet launch`, Slurm or MPI, or set DMLC_WORKER_ID, DMLC_NUM_WORKER "
            f"and DMLC_PS_ROOT_URI"
        )
    rank, world_size = (_number(variables, name, low) for name, low in zip(names, (0, 1)))
    if rank >= world_size:
        raise InputError(f"{names[0]} {rank} is not below {names[1]} {world_size}")
    if world_size > 1 and "DMLC_PS_ROOT_URI" not in variables:
        raise InputError("set DMLC_PS_ROOT_URI to the host name or address of worker 0")
    host = variables.get("DMLC_PS_ROOT_URI", "127.0.0.1")
    servers = _number(variables, "DMLC_NUM_SERVER", 1, 1 if host == "127.0.0.1" else world_size)
    if servers > world_size:
        raise InputError(f"DMLC_NUM_SERVER {servers} is above the number of workers, {world_size}")
    return WorkerEnvironment(
        rank, world_size, host, _number(variables, "DMLC_PS_ROOT_PORT", 1, DEFAULT_PORT), servers,
        engine, _number(variables, "ASYMMNET_TIMEOUT", 1, DEFAULT_TIMEOUT, float),
    )  # fmt: skip


def _number(variables, name: str, minimum, default=None, kind=int):
    text = variables.get(name, default)
    try:
        value = kind(text)
    except (TypeError, ValueError):
        value = None
    if value is None or not minimum <= value < 2**31:
        raise InputError(f"{name} must be a number, at least {minimum}, got {text!r}")
    return value

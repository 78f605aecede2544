"""Join the group of workers of a distributed run, for the length of a block."""

import contextlib
import faulthandler
import os
import socket
from collections.abc import Iterator

from gluon_asymmnet.distributed.environment import WorkerEnvironment, read_environment
from gluon_asymmnet.distributed.heartbeat import Coordinator, Member
from gluon_asymmnet.distributed.workers import ALONE, Workers
from gluon_asymmnet.errors import InputError, RunError
from gluon_asymmnet.utils.extras import load_extra, require

_EXIT_TIME = 10  # seconds that a failed worker has to print its message and end


@contextlib.contextmanager
def join_workers(config) -> Iterator[Workers]:
    """Yield the workers of a run; ``ALONE`` if there is only one.

    If any worker is lost while the block runs, this process prints one line and ends with status
    75.

    Raises: InputError for variables that do not fit; RunError if worker 0 cannot be reached.
    """
    environment = read_environment(config.kvstore, config.horovod)
    if environment is None or environment.world_size == 1:
        yield ALONE
        return
    coordinator = _start_coordinator(environment) if environment.rank == 0 else None
    member = Member(environment)
    workers = None
    try:
        workers = _start_engine(environment, member)
        yield workers
        workers.close()
    except BaseException as error:
        _abort(member, workers, error)
        if coordinator:
            coordinator.wait(_EXIT_TIME)
        raise
    member.close()
    if coordinator:
        coordinator.wait(environment.timeout)


def _start_coordinator(environment: WorkerEnvironment) -> Coordinator:
    if environment.engine == "horovod":
        require("horovod")
        server = load_extra("horovod.runner.http.http_server")
        port = server.RendezvousServer().start()
    else:
        port = _free_port()
    return Coordinator(environment, {"port": port})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _start_engine(environment: WorkerEnvironment, member: Member) -> Workers:
    rendezvous = member.wait_for_all()
    from gluon_asymmnet.distributed import engines  # imports MXNet, which takes seconds

    engine = engines.HorovodWorkers if environment.engine == "horovod" else engines.KVStoreWorkers
    return engine(environment, member, rendezvous)


def _abort(member: Member, workers, error: BaseException) -> None:
    """Tell the other workers about the error, and make sure that this process ends."""
    if not isinstance(error, (InputError, RunError, OSError, KeyboardInterrupt)):
        # After the loss of a worker the engine raises, too; the coordinator knows the cause.
        member.wait_for_end(2 + member.environment.timeout / 100)
    lines = str(error).strip().splitlines()
    member.fail(lines[0] if lines else type(error).__name__)
    if workers is not None:
        workers.abandon()
    # Threads of the engine can block the exit of the interpreter, but not this C thread.
    faulthandler.dump_traceback_later(_EXIT_TIME, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115

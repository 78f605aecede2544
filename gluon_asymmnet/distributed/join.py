"""Become one of the workers, for the length of a block."""

import contextlib
import faulthandler
import os
import socket
from collections.abc import Iterator

from gluon_asymmnet.distributed.place import Place, find_place
from gluon_asymmnet.distributed.watch import Hub, Member
from gluon_asymmnet.distributed.workers import ALONE, Workers
from gluon_asymmnet.errors import InputError, RunError

_LAST_WORDS = 10  # seconds that a failed worker has for its message and its end


@contextlib.contextmanager
def joined(config) -> Iterator[Workers]:
    """Yield the workers of a run; ``ALONE`` where there is but one.

    While the block runs, the loss of any worker ends this process with one line and status 75.

    Raises: InputError for variables that do not fit; RunError if worker 0 is not reached.
    """
    place = find_place(config.kvstore, config.horovod)
    if place is None or place.size == 1:
        yield ALONE
        return
    hub = _start_hub(place) if place.rank == 0 else None
    member = Member(place)
    workers = None
    try:
        workers = _engine(place, member)
        yield workers
        workers.close()
    except BaseException as error:
        _end_without_the_others(member, workers, error)
        if hub:
            hub.wait(_LAST_WORDS)
        raise
    member.leave()
    if hub:
        hub.wait(place.timeout)


def _start_hub(place: Place) -> Hub:
    if place.engine == "horovod":
        from gluon_asymmnet.utils.extras import load_extra, require

        require("horovod")
        server = load_extra("horovod.runner.http.http_server")
        port = server.RendezvousServer().start()
    else:
        port = _free_port()
    return Hub(place, {"port": port})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _engine(place: Place, member: Member) -> Workers:
    told = member.wait_for_all()
    from gluon_asymmnet.distributed import engines

    kind = engines.HorovodWorkers if place.engine == "horovod" else engines.KVStoreWorkers
    return kind(place, member, told)


def _end_without_the_others(member: Member, workers, error: BaseException) -> None:
    """Tell them why, and see to it that this process ends, too."""
    if not isinstance(error, (InputError, RunError, OSError, KeyboardInterrupt)):
        # An engine that has lost a peer raises, too, and knows less than the watch does.
        member.wait_for_the_verdict(2 + member.place.timeout / 100)
    first = str(error).strip().splitlines()
    member.fail(first[0] if first else type(error).__name__)
    if workers is not None:
        workers.abandon()
    # The engines' threads may keep the interpreter from ending; this C thread does not ask it.
    faulthandler.dump_traceback_later(_LAST_WORDS, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115

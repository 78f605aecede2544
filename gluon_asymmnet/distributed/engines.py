"""Sums over several workers, by MXNet's kvstore or by Horovod.

What is exchanged goes as one flat array in single precision: one message instead of hundreds, and
added in one order.
"""

import ctypes
import os
import socket
import zlib

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.distributed.helper import start_helper
from gluon_asymmnet.distributed.place import Place
from gluon_asymmnet.distributed.watch import Member
from gluon_asymmnet.distributed.workers import Workers
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.extras import load_extra, require

_SIOCGIFADDR = 0x8915  # Linux: the address of an interface


class _Many(Workers):
    """What both engines build on their ``sum``."""

    def __init__(self, place: Place):
        self.rank, self.size = place.rank, place.size

    def sum_numbers(self, name: str, numbers) -> list[float]:
        """Return the sums of some numbers, in single precision."""
        return self.sum(name, mx.nd.array(list(numbers))).asnumpy().tolist()

    def first(self, name: str, number: float) -> float:
        """Return worker 0's number; exact for integers below 2^24."""
        return self.sum_numbers(name, [0 if self.rank else number])[0]

    def barrier(self) -> None:
        """Wait until every worker is here."""
        self.sum_numbers("barrier", [0])

    def sum_gradients(self, trainer) -> None:
        """Add up the gradients in a Gluon trainer's parameters, and average running statistics."""
        gradients = [p.list_grad() for p in trainer._params if p.grad_req != "null"]
        running = [p.list_data() for p in trainer._params if _is_running(p)]
        flat = _flat([arrays[0] for arrays in gradients + running])
        total = self.sum("gradients", flat)
        start = _put_back(total, gradients, 0)
        _put_back(total / self.size, running, start)

    def share_parameters(self, net) -> None:
        """Give every worker worker 0's parameters."""
        parameters = [p.list_data() for p in net.collect_params().values()]
        flat = _flat([arrays[0] for arrays in parameters])
        _put_back(self.sum("parameters", flat * 0 if self.rank else flat), parameters, 0)

    def check_same(self, name: str, facts: dict) -> None:
        """Raise InputError if a fact is not the same on all workers."""
        digests = [zlib.crc32(repr(value).encode()) % 2**23 for value in facts.values()]
        theirs = self.sum_numbers(name, [0 if self.rank else digest for digest in digests])
        for fact, value, mine, first in zip(facts, facts.values(), digests, theirs):
            if mine != first:
                raise InputError(
                    f"worker {self.rank} ({socket.gethostname()}) has {fact} {value}, worker 0 "
                    f"another: all need the same command and the same files"
                )
        self.barrier()  # the others must not end well where one fails


def _is_running(parameter) -> bool:
    return parameter.name.endswith(("running_mean", "running_var"))


def _flat(arrays):
    context = arrays[0].context
    return mx.nd.concat(
        *(a.astype("float32", copy=False).reshape(-1).as_in_context(context) for a in arrays), dim=0
    )


def _put_back(flat, parameters, start: int) -> int:
    """Write the pieces of ``flat`` from ``start`` on into every device's arrays."""
    for arrays in parameters:
        stop = start + arrays[0].size
        for array in arrays:
            piece = flat[start:stop].reshape(array.shape).astype(array.dtype, copy=False)
            array[:] = piece.as_in_context(array.context)
        start = stop
    return start


class KVStoreWorkers(_Many):
    """MXNet's ``dist_sync``: servers add up what the workers push.

    They add in the order in which it arrives.  Two numbers have the same sum in any order, so two
    workers repeat bit for bit; more do so up to the last digits.  The optimizer stays here: sent to
    the servers, it would travel as a pickle.
    """

    def __init__(self, place: Place, member: Member, told: dict):
        super().__init__(place)
        variables = {
            "DMLC_PS_ROOT_URI": told["address"], "DMLC_PS_ROOT_PORT": str(told["port"]),
            "DMLC_NUM_WORKER": str(place.size), "DMLC_NUM_SERVER": str(place.servers),
            "DMLC_NODE_HOST": member.address,
        }  # fmt: skip
        if place.rank == 0:
            member.help_by("scheduler", start_helper("scheduler", variables))
        if place.rank < place.servers:
            member.help_by("parameter server", start_helper("server", variables))
        os.environ.update(variables, DMLC_ROLE="worker")
        with member.within_time("the meeting of workers, servers and scheduler"):
            self._store = mx.kv.create("dist_sync")
        self._known: set[str] = set()

    def sum(self, name: str, array):
        """Return the sum of an array over the workers."""
        if name not in self._known:
            self._store.init(name, mx.nd.zeros_like(array))
            self._known.add(name)
        total = mx.nd.empty(array.shape, ctx=array.context)
        self._store.push(name, array)
        self._store.pull(name, out=total)
        return total

    def close(self) -> None:
        """End the communication; all workers call it."""
        self.barrier()
        del self._store

    def abandon(self) -> None:
        """End without the others: its destructor would wait for them."""
        library = mx.base._LIB
        mx.base.check_call(library.MXKVStoreSetBarrierBeforeExit(self._store.handle, 0))


class HorovodWorkers(_Many):
    """Horovod over Gloo: the workers add up among themselves, in a ring.

    One array at a time, and a ring adds in the order of the ranks, so any number of workers repeats
    bit for bit.
    """

    def __init__(self, place: Place, member: Member, told: dict):
        super().__init__(place)
        hosts, host = told["hosts"], told["hosts"][place.rank]
        order = list(dict.fromkeys(hosts))
        local_rank = hosts[: place.rank].count(host)
        peers = [h for h in order if hosts.count(h) > local_rank]  # with a worker of that number
        os.environ.update({
            "HOROVOD_RANK": str(place.rank), "HOROVOD_SIZE": str(place.size),
            "HOROVOD_LOCAL_RANK": str(local_rank), "HOROVOD_LOCAL_SIZE": str(hosts.count(host)),
            "HOROVOD_CROSS_RANK": str(peers.index(host)), "HOROVOD_CROSS_SIZE": str(len(peers)),
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": told["address"],
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(told["port"]),
            "HOROVOD_GLOO_IFACE": _interface(member.address), "HOROVOD_HOSTNAME": host,
            "HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo",
            "HOROVOD_FUSION_THRESHOLD": "0",  # what is added together depends on the moment
        })  # fmt: skip
        self._horovod = _load_horovod()
        with member.within_time("the meeting of the Horovod workers"):
            self._horovod.init()
        self._under_way: dict = {}

    def sum(self, name: str, array):
        """Return the sum of an array over the workers."""
        if name in self._under_way:  # it takes a name once at a time, and crashes otherwise
            self._under_way[name].wait_to_read()
        total = self._horovod.allreduce(array, op=self._horovod.Sum, name=name)
        self._under_way[name] = total
        return total

    def close(self) -> None:
        """End the communication; all workers call it."""
        self.barrier()
        self._horovod.shutdown()

    def abandon(self) -> None:
        """End without the others."""


def _load_horovod():
    """Import Horovod with its symbols to itself.

    It loads its library for all to see, and PyTorch, which tensorboardX imports where it is there,
    then takes Horovod's Gloo for its own and crashes.
    """
    require("horovod")
    visible = ctypes.RTLD_GLOBAL
    ctypes.RTLD_GLOBAL = ctypes.RTLD_LOCAL
    try:
        return load_extra("horovod.mxnet")
    finally:
        ctypes.RTLD_GLOBAL = visible


def _interface(address: str) -> str:
    """Return the name of the network interface that has an address."""
    import fcntl
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue  # an interface without an address
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return "lo"

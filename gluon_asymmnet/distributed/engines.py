"""Sums over several workers, by MXNet's kvstore or by Horovod.

All arrays of an exchange are sent as one flat float32 array: one message instead of hundreds, and
one order of addition.
"""

import ctypes
import fcntl
import os
import socket
import struct
import zlib
from typing import Optional

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.distributed.environment import WorkerEnvironment
from gluon_asymmnet.distributed.heartbeat import Member
from gluon_asymmnet.distributed.server import start_server
from gluon_asymmnet.distributed.shared_memory import shared_sum
from gluon_asymmnet.distributed.workers import Workers
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.extras import load_extra, require

_SIOCGIFADDR = 0x8915  # Linux: the address of an interface


class _DistributedWorkers(Workers):
    """The operations of both engines, built on ``sum``."""

    def __init__(self, environment: WorkerEnvironment):
        self.rank, self.world_size = environment.rank, environment.world_size
        self._packed: Optional[_Packed] = None

    def sum_numbers(self, name: str, numbers) -> list[float]:
        """Return the sum of each number over the workers, in single precision."""
        return self.sum(name, mx.nd.array(list(numbers))).asnumpy().tolist()

    def broadcast(self, name: str, number: float) -> float:
        """Return the number of worker 0; exact for integers below 2^24."""
        return self.sum_numbers(name, [0 if self.rank else number])[0]

    def barrier(self) -> None:
        """Wait until every worker has called this."""
        self.sum_numbers("barrier", [0])

    def sum_gradients(self, trainer) -> None:
        """Sum the gradients of a Gluon trainer's parameters, and average running statistics."""
        if self._packed is None or self._packed.trainer is not trainer:
            self._packed = _Packed(trainer)
        self._packed.put_back(self._sum_large(self._packed.flat()), self.world_size)

    def _sum_large(self, flat):
        """Return the sum of the gradients and running statistics ``flat`` over the workers."""
        return self.sum("gradients", flat)

    def share_parameters(self, net) -> None:
        """Copy the parameters of worker 0 to every worker."""
        parameters = [p.list_data() for p in net.collect_params().values()]
        flat = _flat([arrays[0] for arrays in parameters])
        _put_back(self.sum("parameters", flat * 0 if self.rank else flat), parameters)

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
        self.barrier()  # no worker may continue if one fails


class _Packed:
    """The gradients and running statistics of a trainer's parameters as one float32 array.

    The places in the array are made once.  Concatenating and slicing hundreds of arrays for each
    exchange took longer than sending them.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        gradients = [p.list_grad() for p in trainer._params if p.grad_req != "null"]
        running = [p.list_data() for p in trainer._params if _is_running(p)]
        arrays = gradients + running
        ends = np.cumsum([0, *(devices[0].size for devices in arrays)]).tolist()
        self._flat = mx.nd.empty(ends[-1], ctx=arrays[0][0].context)
        self._running = self._flat[ends[len(gradients)] :] if running else None
        self._places = [
            (devices, self._flat[start:end].reshape(devices[0].shape))
            for devices, start, end in zip(arrays, ends, ends[1:])
        ]

    def flat(self):
        """Return the values of the first device, ``(n,)``; the next call writes over them."""
        for devices, place in self._places:
            devices[0].copyto(place)
        return self._flat

    def put_back(self, total, workers: int) -> None:
        """Write sums to all devices: those of gradients, and means of running statistics."""
        total.copyto(self._flat)
        if self._running is not None:
            self._running /= workers
        for devices, place in self._places:
            # MXNet copies between two GPUs within one type only
            place = place.astype(devices[0].dtype, copy=False)
            for array in devices:
                place.copyto(array)


def _is_running(parameter) -> bool:
    return parameter.name.endswith(("running_mean", "running_var"))


def _flat(arrays):
    context = arrays[0].context
    return mx.nd.concat(
        *(a.astype("float32", copy=False).reshape(-1).as_in_context(context) for a in arrays), dim=0
    )


def _put_back(flat, parameters) -> None:
    """Write the pieces of ``flat`` into every device's arrays."""
    start = 0
    for arrays in parameters:
        stop = start + arrays[0].size
        for array in arrays:
            piece = flat[start:stop].reshape(array.shape).astype(array.dtype, copy=False)
            array[:] = piece.as_in_context(array.context)
        start = stop


class KVStoreWorkers(_DistributedWorkers):
    """MXNet's ``dist_sync``: parameter servers sum the arrays that the workers push.

    Gradients of workers on one machine are summed in memory that they share, in the order of the
    ranks, so a run is reproducible bit for bit.  The servers add in the order of arrival.  Two
    numbers have the same sum in any order, so a run of two machines is reproducible bit for bit,
    one of more up to the last digits.  The optimizer runs in the workers: MXNet would send it to
    the servers as a pickle.
    """

    def __init__(self, environment: WorkerEnvironment, member: Member, rendezvous: dict):
        super().__init__(environment)
        variables = {
            "DMLC_PS_ROOT_URI": rendezvous["address"], "DMLC_PS_ROOT_PORT": str(rendezvous["port"]),
            "DMLC_NUM_WORKER": str(self.world_size), "DMLC_NUM_SERVER": str(environment.servers),
            "DMLC_NODE_HOST": member.address,
        }  # fmt: skip
        if self.rank == 0:
            member.watch_server("scheduler", start_server("scheduler", variables))
        if self.rank < environment.servers:
            member.watch_server("parameter server", start_server("server", variables))
        os.environ.update(variables, DMLC_ROLE="worker")
        with member.start_limit("the rendezvous of workers, servers and scheduler"):
            self._store = mx.kv.create("dist_sync")
        self._known: set[str] = set()
        self._one_host = len(set(rendezvous["hosts"])) == 1
        self._shared = None

    def sum(self, name: str, array):
        """Return the sum of an array over the workers."""
        if name not in self._known:
            self._store.init(name, mx.nd.zeros_like(array))
            self._known.add(name)
        total = mx.nd.empty(array.shape, ctx=array.context)
        self._store.push(name, array)
        self._store.pull(name, out=total)
        return total

    def _sum_large(self, flat):
        if self._one_host and self._shared is None:
            self._shared = shared_sum(self, flat.size)
            self._one_host = self._shared is not None
        return self._shared.sum(flat) if self._shared else super()._sum_large(flat)

    def close(self) -> None:
        """End the communication; all workers call it."""
        self.barrier()
        del self._store

    def abandon(self) -> None:
        """Close without the other workers, for which the store's destructor would wait."""
        library = mx.base._LIB
        mx.base.check_call(library.MXKVStoreSetBarrierBeforeExit(self._store.handle, 0))


class HorovodWorkers(_DistributedWorkers):
    """Horovod over Gloo: a ring of workers without servers.

    A ring adds in the order of the ranks, and only one array at a time is summed, so a run of any
    number of workers is reproducible bit for bit.
    """

    def __init__(self, environment: WorkerEnvironment, member: Member, rendezvous: dict):
        super().__init__(environment)
        hosts, host = rendezvous["hosts"], rendezvous["hosts"][self.rank]
        order = list(dict.fromkeys(hosts))
        local_rank = hosts[: self.rank].count(host)
        peers = [h for h in order if hosts.count(h) > local_rank]  # hosts with that local rank
        os.environ.update({
            "HOROVOD_RANK": str(self.rank), "HOROVOD_SIZE": str(self.world_size),
            "HOROVOD_LOCAL_RANK": str(local_rank), "HOROVOD_LOCAL_SIZE": str(hosts.count(host)),
            "HOROVOD_CROSS_RANK": str(peers.index(host)), "HOROVOD_CROSS_SIZE": str(len(peers)),
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": rendezvous["address"],
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(rendezvous["port"]),
            "HOROVOD_GLOO_IFACE": _interface(member.address), "HOROVOD_HOSTNAME": host,
            "HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo",
            "HOROVOD_FUSION_THRESHOLD": "0",  # fusion would depend on timing
        })  # fmt: skip
        self._horovod = _load_horovod()
        with member.start_limit("the rendezvous of the Horovod workers"):
            self._horovod.init()
        self._pending: dict = {}

    def sum(self, name: str, array):
        """Return the sum of an array over the workers."""
        if name in self._pending:  # two pending sums of one name crash Horovod
            self._pending[name].wait_to_read()
        total = self._horovod.allreduce(array, op=self._horovod.Sum, name=name)
        self._pending[name] = total
        return total

    def close(self) -> None:
        """End the communication; all workers call it."""
        self.barrier()
        self._horovod.shutdown()

    def abandon(self) -> None:
        """Close without the other workers; nothing to do."""


def _load_horovod():
    """Import Horovod without making its symbols global.

    Horovod loads its library with ``RTLD_GLOBAL``.  If PyTorch is installed, tensorboardX imports
    it, and it then binds to Horovod's Gloo instead of its own and crashes.
    """
    require("horovod")
    before = ctypes.RTLD_GLOBAL
    ctypes.RTLD_GLOBAL = ctypes.RTLD_LOCAL
    try:
        return load_extra("horovod.mxnet")
    finally:
        ctypes.RTLD_GLOBAL = before


def _interface(address: str) -> str:
    """Return the name of the network interface that has an address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue  # an interface without an address
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return "lo"

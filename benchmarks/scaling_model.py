"""Predicted efficiency on many machines: computation plus exchange, without overlap.

``G`` bytes of gradients, ``n`` machines, links of ``B`` bytes a second in each direction.

- kvstore, ``s`` servers: all machines push ``G``, then pull ``G``; a server's link carries
  ``n * G / s`` each time, a worker's ``G``; the slower of the two counts.  A server has ``n``
  messages, a worker ``s``.
- Horovod's ring: ``2 (n - 1) / n * G`` through every link, in ``2 (n - 1)`` messages.

Source of the ring: Patarasuk and Yuan 2009, doi 10.1016/j.jpdc.2008.09.002.
"""

from typing import NamedTuple

from gluon_asymmnet.models.complexity import count_model
from gluon_asymmnet.models.registry import ModelSpec
from tools.markdown import markdown_table

LATENCY = 50e-6  # seconds of a message, a usual figure for TCP in one data centre
MESSAGE = 10e-6  # seconds to receive or send one of many; assumed


class Link(NamedTuple):
    """A network link."""

    gigabits: float  # per second

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.gigabits * 1e9 / 8


def kvstore_seconds(
    machines: int, size: float, link: Link, servers: int, pushed: float = 1
) -> float:
    """Return the time of an exchange by servers, each on one of the machines.

    Args:
        size: bytes.
        pushed: share of the bytes that is pushed; 1/16 with 2-bit compression, which does not
            reduce what is pulled.
    """
    if machines == 1:
        return 0.0
    through = max(machines / servers, 1) * size / link.rate
    return (1 + pushed) * through + 2 * LATENCY + 2 * max(machines, servers) * MESSAGE


def ring_seconds(machines: int, size: float, link: Link) -> float:
    """Return the time of an exchange in a ring; ``size`` in bytes."""
    if machines == 1:
        return 0.0
    return 2 * (machines - 1) / machines * size / link.rate + 2 * (machines - 1) * LATENCY


EXCHANGES = {  # name -> seconds of (machines, bytes, link)
    "kvstore, one server": lambda n, size, link: kvstore_seconds(n, size, link, 1),
    "kvstore, n servers": lambda n, size, link: kvstore_seconds(n, size, link, n),
    "the same, 2-bit": lambda n, size, link: kvstore_seconds(n, size, link, n, 1 / 16),
    "ring": ring_seconds,
    "ring, fp16": lambda n, size, link: ring_seconds(n, size / 2, link),
}
MACHINES = (8, 64, 512)
LINKS = (Link(1), Link(10), Link(100))


def efficiency(compute: float, exchange: float) -> float:
    """Return the share of a step spent on computation; arguments in seconds."""
    return compute / (compute + exchange)


def gradient_bytes(model: str = "asymmnet_large", width: float = 1.0) -> int:
    """Return the size of a model's gradients in single precision."""
    return 4 * count_model(ModelSpec.parse(model, width=width)).parameters


def weak_table(compute: float, size: float) -> str:
    """Return efficiencies where each machine keeps its batch, and so its ``compute`` seconds."""
    return _table(lambda n: compute, size, LINKS)


def strong_table(compute: float, size: float) -> str:
    """Return efficiencies where the machines share one machine's batch."""
    return _table(lambda n: compute / n, size, LINKS[1:])


def _table(compute_of, size: float, links) -> str:
    rows = []
    for machines in MACHINES:
        for link in links:
            found = (
                efficiency(compute_of(machines), seconds(machines, size, link))
                for seconds in EXCHANGES.values()
            )
            rows.append((machines, f"{link.gigabits:g}", *(f"{value:.2f}" for value in found)))
    return markdown_table(("machines", "link, Gbit/s", *EXCHANGES), rows)

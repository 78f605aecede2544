"""Communication between the workers of a run."""

import zlib

import numpy as np


class Workers:
    """The interface, and its implementation for one process: a sum is its argument."""

    rank, world_size = 0, 1

    def sum(self, name: str, array):
        """Return the sum of an MXNet array over the workers; asynchronous.

        All workers get the same bits.  They must call it in the same order, with the same names and
        shapes.
        """
        return array

    def sum_numbers(self, name: str, numbers) -> list[float]:
        """Return the sum of each number over the workers, in single precision."""
        return list(numbers)

    def broadcast(self, name: str, number: float) -> float:
        """Return the number of worker 0."""
        return number

    def sum_gradients(self, trainer) -> None:
        """Sum the gradients of a Gluon trainer's parameters, and average running statistics."""

    def share_parameters(self, net) -> None:
        """Copy the parameters of worker 0 to every worker."""

    def check_same(self, name: str, facts: dict) -> None:
        """Raise InputError if a fact is not the same on all workers."""

    def barrier(self) -> None:
        """Wait until every worker has called this."""

    def close(self) -> None:
        """End the communication; all workers call it."""


ALONE = Workers()


def digest(arrays: dict[str, np.ndarray]) -> int:
    """Return a checksum over named arrays."""
    check = 0
    for name in sorted(arrays):
        check = zlib.crc32(np.ascontiguousarray(arrays[name]).tobytes(), check)
    return check

"""Memory that workers share: sums in the order of the ranks, and what is not that memory."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.distributed.shared_memory import _open, shared_sum

SHAPE = (2, 3, 4)
LENGTH = 4 * 2 * 3 * 4


class Workers:
    """One of several in this process; numbers are added through a list that all have."""

    def __init__(self, rank, meeting, numbers):
        self.rank, self.world_size, self._numbers = rank, meeting.parties, numbers
        self.barrier = meeting.wait

    def sum_numbers(self, _name, numbers):
        self._numbers[self.rank] = numbers
        self.barrier()
        total = np.sum(self._numbers, axis=0).tolist()
        self.barrier()
        return total


@pytest.fixture
def three():
    meeting, numbers = threading.Barrier(3, timeout=20), [None] * 3
    return [Workers(rank, meeting, numbers) for rank in range(3)]


def test_sums_are_those_of_the_ranks_order_in_every_turn(three):
    """In single precision 1e8 + 1 - 1e8 is 0, and in another order 1."""
    of_ranks = np.float32([[1e8, 1, 2, 3], [1, 1, 1, 1], [-1e8, 1, 0, 2]])

    def five_turns(workers):
        together, found = shared_sum(workers, 4), []
        for turn in range(5):
            mine = mx.nd.array(of_ranks[workers.rank] * (turn + 1))
            found.append(together.sum(mine).asnumpy().tolist())
        return found

    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(five_turns, three):
            assert found == [[0, 3 * n, 3 * n, 6 * n] for n in range(1, 6)]


def test_one_worker_can_turn_it_off_for_all(three, monkeypatch):
    monkeypatch.setenv("ASYMMNET_SHARED_MEMORY", "0")
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda workers: shared_sum(workers, 4), three)) == [None] * 3


def test_what_is_not_the_memory_is_not_taken(tmp_path):
    path, other = tmp_path / "memory", tmp_path / "pipe"
    numbers = np.zeros(SHAPE, np.float32)
    numbers[0, 0, 0] = 77
    path.write_bytes(numbers.tobytes())
    assert _open(str(path), SHAPE, LENGTH, 77)[0, 0, 0] == 77
    assert _open(str(path), SHAPE, LENGTH, 78) is None  # of another run
    assert _open(str(path), SHAPE, LENGTH + 4, 77) is None
    assert _open(str(tmp_path / "missing"), SHAPE, LENGTH, 77) is None
    os.mkfifo(other)
    assert _open(str(other), SHAPE, LENGTH, 77) is None

"""Map a function on threads: in order, with bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from gluon_asymmnet.errors import InputError

Progress = Callable[[int, int], None]  # called as progress(done, total)


def threads_or_default(threads: int | None) -> int:
    """Return ``threads``, or one per processor up to 16.  Raises InputError below 1."""
    if threads is None:
        return min(16, os.cpu_count() or 1)
    if threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    return threads


def map_in_order(function, items: Iterable, threads: int, *, ahead: int | None = None) -> Iterator:
    """Yield ``function(item)`` for each item, computed on threads, in the order of the items.

    Args:
        ahead: most calls that are started and not yet yielded, for a data set does not fit in
            memory; by default 4 per thread.
    """
    limit = 4 * threads if ahead is None else ahead
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= limit:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def silent(_done: int, _total: int) -> None:
    """Ignore the progress."""

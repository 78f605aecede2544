"""The order in which the authors' validation reads its records.

Their ImageRecordIter has ``round_batch=True`` and lives as long as the run: it fills the last batch
of a pass with records from the front, and the next pass starts behind them.  So a pass counts some
records twice or leaves some out, and its denominator is not the number of records.
"""

from typing import NamedTuple

import numpy as np

from gluon_asymmnet.errors import InputError


class Pass(NamedTuple):
    """One pass: from ``start`` to the end, then on from the front to ``stop``, exclusive."""

    records: int
    start: int
    stop: int  # where the next pass starts

    @property
    def images(self) -> int:
        """How many images are scored: the denominator."""
        return self.records - self.start + self.stop

    @property
    def positions(self) -> np.ndarray:
        """``(images,)`` int64, the records in the order they are read."""
        return (self.start + np.arange(self.images)) % self.records

    @property
    def twice(self) -> range:
        """The records counted twice."""
        return range(self.start, max(self.start, self.stop))

    @property
    def never(self) -> range:
        """The records left out."""
        return range(self.stop, max(self.start, self.stop))


def walk(records: int, batch_size: int, passes: int) -> list[Pass]:
    """Return the first ``passes`` passes over ``records`` records; pass ``e`` follows epoch ``e``.

    Every pass reads whole batches, so after ``p`` of them the reader stands ``-p * records`` modulo
    the batch size behind the front.

    Raises: InputError for a batch larger than the set, which ImageRecordIter refuses too.
    Source: MXNet's src/io/iter_image_recordio_2.cc, ``BeforeFirst`` and ``ParseNext``.
    """
    for what, value in (("batch size", batch_size), ("number of passes", passes)):
        if value < 1:
            raise InputError(f"the walk's {what} must be at least 1, got {value}")
    if records < batch_size:
        raise InputError(
            f"the walk's batch size {batch_size} is above the number of records, {records}: "
            f"ImageRecordIter refuses that; give a smaller one"
        )
    starts = [-records * number % batch_size for number in range(passes + 1)]
    return [Pass(records, start, stop) for start, stop in zip(starts, starts[1:])]

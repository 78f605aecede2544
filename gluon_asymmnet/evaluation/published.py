"""Compute the accuracy that the authors' validation would report, and compare it with theirs.

The authors' ImageRecordIter has ``round_batch=True`` and lives as long as the run: it fills the
last batch of a pass with records from the start of the file, and the next pass starts after them.
So a pass counts some records twice or leaves some out, and its denominator is not the number of
records.

An image's logits do not depend on the pass.  One exact evaluation, each image once, is enough to
compute every pass: add the hits counted twice and subtract those left out.
"""

from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation.classification import Evaluation, wilson_interval


class ValidationPass(NamedTuple):
    """The records of one pass: from ``start`` to the end, then from 0 to ``stop``, exclusive."""

    records: int
    start: int
    stop: int  # where the next pass starts

    @property
    def images(self) -> int:
        """Number of images scored: the denominator."""
        return self.records - self.start + self.stop

    @property
    def positions(self) -> np.ndarray:
        """``(images,)`` int64, the records in reading order."""
        return (self.start + np.arange(self.images)) % self.records

    @property
    def counted_twice(self) -> range:
        """The records counted twice."""
        return range(self.start, max(self.start, self.stop))

    @property
    def left_out(self) -> range:
        """The records left out."""
        return range(self.stop, max(self.start, self.stop))


def validation_passes(records: int, batch_size: int, passes: int) -> list[ValidationPass]:
    """Return the first passes over ``records`` records; pass ``e`` follows epoch ``e``.

    Every pass reads whole batches, so pass ``p`` starts at record ``-p * records`` modulo the batch
    size.

    Raises: InputError for a batch larger than the set, which ImageRecordIter refuses too.
    Source: MXNet's src/io/iter_image_recordio_2.cc, ``BeforeFirst`` and ``ParseNext``.
    """
    for what, value in (("batch size", batch_size), ("number of passes", passes)):
        if value < 1:
            raise InputError(f"the authors' {what} must be at least 1, got {value}")
    if records < batch_size:
        raise InputError(
            f"the authors' batch size {batch_size} is above the number of records, {records}: "
            f"ImageRecordIter refuses that; choose a smaller one"
        )
    starts = [-records * number % batch_size for number in range(passes + 1)]
    return [ValidationPass(records, start, stop) for start, stop in zip(starts, starts[1:])]


class PassResult(NamedTuple):
    """The accuracy that one pass reports."""

    number: int  # of the pass, from 0: the epoch it follows
    validation_pass: ValidationPass
    top1_hits: int
    top5_hits: int

    @property
    def top1(self) -> float:
        """Share of the scored images whose best class is right."""
        return self.top1_hits / self.validation_pass.images

    @property
    def top5(self) -> float:
        """Share of the scored images whose class is among the best five."""
        return self.top5_hits / self.validation_pass.images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of top-1."""
        return wilson_interval(self.top1_hits, self.validation_pass.images)

    def as_dict(self) -> dict:
        """Return the values for a JSON file; ranges of records are ``[first, last]``."""
        return {
            "pass": self.number,
            "images": self.validation_pass.images,
            "top1": self.top1,
            "top1_hits": self.top1_hits,
            "top1_95": self.interval,
            "top5": self.top5,
            "top5_hits": self.top5_hits,
            "twice": _ends(self.validation_pass.counted_twice),
            "never": _ends(self.validation_pass.left_out),
        }


BATCH_SIZE = 2048  # 8 GPUs x 256


# The epoch whose weights were published.  Its log line reports 0.754232 and 0.925090; of the 49,152
# images in this pass, only these numbers of hits are printed as that.
PUBLISHED = PassResult(
    358, validation_passes(50_000, BATCH_SIZE, 359)[358], top1_hits=37_072, top5_hits=45_470
)


# The tolerance.  The same weights on the same images differ only by arithmetic, decoding and
# resizing.  If one image in 200 changes between hit and miss, in either direction as often, the sum
# moves by sqrt(49152 / 200) = 16 images (one standard deviation).  The order of the authors'
# records is unknown; another well shuffled order leaves out 848 other images and moves the sum by
# sqrt(2 * 848 * 0.754 * 0.246) = 18.  Together 24 images; the band is 49, about two standard
# deviations.  Records sorted by class can differ by more: ``possible_hits``.
BAND = 0.001


class Comparison(NamedTuple):
    """The difference between a pass and the published one."""

    verdict: str  # reproduced, not reproduced, not comparable
    top1_difference: Optional[float] = None  # ours minus theirs
    top5_difference: Optional[float] = None


def pass_results(result: Evaluation, batch_size: int, passes: int) -> list[PassResult]:
    """Return the accuracy that each of the first passes would report.

    Args:
        result: each record scored once, in the order of the records.

    Raises: InputError if there are fewer records than ``batch_size``.
    """
    hits = result.ranked == result.labels[:, None]
    top1, top5 = _Hits(hits[:, 0]), _Hits(hits.any(axis=1))
    return [
        PassResult(number, one, top1.count(one), top5.count(one))
        for number, one in enumerate(validation_passes(result.images, batch_size, passes))
    ]


class _Hits:
    """Cumulative numbers of hits, to count those of a pass."""

    def __init__(self, hits: np.ndarray):
        self._before = np.concatenate([[0], np.cumsum(hits)])

    def count(self, one: ValidationPass) -> int:
        total = self._before[-1] + self._within(one.counted_twice)
        return int(total - self._within(one.left_out))

    def _within(self, records: range) -> int:
        return self._before[records.stop] - self._before[records.start]


def compare_with_published(ours: PassResult) -> Comparison:
    """Compare a pass with the published one, if it has the same records of 50,000."""
    if ours.validation_pass != PUBLISHED.validation_pass:
        return Comparison("not comparable")
    top1, top5 = ours.top1 - PUBLISHED.top1, ours.top5 - PUBLISHED.top5
    agrees = max(abs(top1), abs(top5)) <= BAND
    return Comparison("reproduced" if agrees else "not reproduced", top1, top5)


def possible_hits(counted: int) -> range:
    """Return the possible hits in all 50,000 records if the published pass had ``counted``.

    The 848 records it left out may all be misses or all be hits, so this holds for any order.
    """
    return range(counted, counted + len(PUBLISHED.validation_pass.left_out) + 1)


def pass_table(results: list[PassResult]) -> str:
    """Return a text table with one line per pass."""
    rows = ["pass   images     top-1     top-5  records"]
    rows += [
        f"{one.number:>4} {one.validation_pass.images:>8,}  {one.top1:.6f}  {one.top5:.6f}  "
        f"{_uneven(one.validation_pass)}"
        for one in results
    ]
    return "\n".join(rows)


def comparison_text(result: Evaluation, ours: PassResult) -> str:
    """Return a pass of ``result`` beside the published one, and the verdict."""
    compared, (low, high) = compare_with_published(ours), ours.interval
    row = "{:<12} top-1 {:<26} top-5 {}".format
    lines = [
        f"as the authors count after epoch {ours.number}: {ours.validation_pass.images:,} images, "
        f"records {_uneven(ours.validation_pass)}",
        row("here", *_shares(ours)),
        row("published", *_shares(PUBLISHED)),
    ]
    if compared.verdict == "not comparable":
        why = (
            f"the published figures are of {PUBLISHED.validation_pass.records:,} records "
            f"in batches of {BATCH_SIZE:,}"
        )
    else:
        differences = compared.top1_difference, compared.top5_difference
        possible = map(possible_hits, (PUBLISHED.top1_hits, PUBLISHED.top5_hits))
        totals = (round(share * result.images) for share in (result.top1, result.top5))
        lines += [
            row("difference", *(f"{d:+.6f}" for d in differences)),
            f"right of all {result.images:,}; allowed by the published figures, in any order:",
            row("", *(f"{n:,} ({r[0]:,} to {r[-1]:,})" for n, r in zip(totals, possible))),
        ]
        largest = max(map(abs, differences))
        why = f"largest difference {largest:.6f}, at most {BAND} is the same"
    lines.append(f"95 % interval of top-1 on other images: {low:.6f} to {high:.6f}")
    lines.append(f"verdict: {compared.verdict} ({why})")
    return "\n".join(lines)


def _shares(one: PassResult) -> tuple[str, str]:
    return (
        f"{one.top1:.6f} ({one.top1_hits:,} of {one.validation_pass.images:,})",
        f"{one.top5:.6f} ({one.top5_hits:,})",
    )


def _uneven(one: ValidationPass) -> str:
    """Return which records are not counted once."""
    for what, records in (("counted twice", one.counted_twice), ("left out", one.left_out)):
        if records:
            return f"{records[0]:,} to {records[-1]:,} ({len(records):,}) {what}"
    return "each once"


def _ends(records: range) -> Optional[list[int]]:
    return [records[0], records[-1]] if records else None

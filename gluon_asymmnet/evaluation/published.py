"""What the authors' validation would have reported, and whether it is what they published.

An image's logits do not depend on the pass, so the exact result, each image scored once, is all
that is needed: a pass is those hits, plus the ones it counts twice, less the ones it leaves out.

Their ImageRecordIter has ``round_batch=True`` and lives as long as the run: it fills the last batch
of a pass with records from the front, and the next pass starts behind them.  So a pass counts some
records twice or leaves some out, and its denominator is not the number of records.
"""

from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation.classification import Evaluation, wilson_interval


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


class Reading(NamedTuple):
    """What one pass of the walk reports."""

    number: int  # of the pass, from 0: the epoch it follows
    walked: Pass
    top1_hits: int
    top5_hits: int

    @property
    def top1(self) -> float:
        """Share of the images scored whose best class is right."""
        return self.top1_hits / self.walked.images

    @property
    def top5(self) -> float:
        """Share of the images scored with the right class among the best five."""
        return self.top5_hits / self.walked.images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of top-1."""
        return wilson_interval(self.top1_hits, self.walked.images)

    def as_dict(self) -> dict:
        """Return it for a JSON file; ranges of records are ``[first, last]``."""
        return {
            "pass": self.number,
            "images": self.walked.images,
            "top1": self.top1,
            "top1_hits": self.top1_hits,
            "top1_95": self.interval,
            "top5": self.top5,
            "top5_hits": self.top5_hits,
            "twice": _ends(self.walked.twice),
            "never": _ends(self.walked.never),
        }


BATCH_SIZE = 2048  # 8 GPUs x 256


# The epoch whose weights were published.  Its log line says 0.754232 and 0.925090; of the 49,152
# images this pass scores, only these numbers of hits print as that.
PUBLISHED = Reading(358, walk(50_000, BATCH_SIZE, 359)[358], top1_hits=37_072, top5_hits=45_470)


# The same weights on the same images differ by arithmetic, decoding and resizing alone.  If one
# image in 200 changes sides, either way as often, the sum moves by sqrt(49152 / 200) = 16 images
# (one standard deviation).  The order of the authors' records is not known; another well mixed
# one leaves out 848 other images and moves the sum by sqrt(2 * 848 * 0.754 * 0.246) = 18.
# Together 24 images; the band is 49, about two of that.  Records sorted by class can differ by
# more: ``possible_hits``.
BAND = 0.001


class Verdict(NamedTuple):
    """A reading beside the published one."""

    word: str  # reproduced, not reproduced, not comparable
    top1_difference: Optional[float] = None  # ours less theirs
    top5_difference: Optional[float] = None


def readings(result: Evaluation, batch_size: int, passes: int) -> list[Reading]:
    """Return what the first ``passes`` passes of the walk would have reported.

    Args:
        result: each record scored once, in the order of the records.

    Raises: InputError if there are fewer records than ``batch_size``.
    """
    hits = result.ranked == result.labels[:, None]
    top1, top5 = _Hits(hits[:, 0]), _Hits(hits.any(axis=1))
    return [
        Reading(number, walked, top1.counted(walked), top5.counted(walked))
        for number, walked in enumerate(walk(result.images, batch_size, passes))
    ]


class _Hits:
    """Which records are right, summed up from the front."""

    def __init__(self, hits: np.ndarray):
        self._before = np.concatenate([[0], np.cumsum(hits)])

    def counted(self, walked: Pass) -> int:
        total = self._before[-1] + self._within(walked.twice) - self._within(walked.never)
        return int(total)

    def _within(self, records: range) -> int:
        return self._before[records.stop] - self._before[records.start]


def judge(reading: Reading) -> Verdict:
    """Say whether a reading is the published one, which is of one pass over 50,000 records."""
    if reading.walked != PUBLISHED.walked:
        return Verdict("not comparable")
    top1, top5 = reading.top1 - PUBLISHED.top1, reading.top5 - PUBLISHED.top5
    agrees = max(abs(top1), abs(top5)) <= BAND
    return Verdict("reproduced" if agrees else "not reproduced", top1, top5)


def possible_hits(counted: int) -> range:
    """Return how many of all 50,000 can be right if ``counted`` were in the published pass.

    The 848 it left out may all be wrong or all be right, so this holds in any order of the records.
    """
    return range(counted, counted + len(PUBLISHED.walked.never) + 1)


def table(found: list[Reading]) -> str:
    """Return one line per reading."""
    rows = ["pass   images     top-1     top-5  records"]
    rows += [
        f"{r.number:>4} {r.walked.images:>8,}  {r.top1:.6f}  {r.top5:.6f}  {_seen(r.walked)}"
        for r in found
    ]
    return "\n".join(rows)


def comparison(result: Evaluation, reading: Reading) -> str:
    """Return a reading of ``result`` beside the published one, and the verdict."""
    verdict, (low, high) = judge(reading), reading.interval
    row = "{:<12} top-1 {:<26} top-5 {}".format
    lines = [
        f"as the authors count after epoch {reading.number}: {reading.walked.images:,} images, "
        f"records {_seen(reading.walked)}",
        row("here", *_shares(reading)),
        row("published", *_shares(PUBLISHED)),
    ]
    if verdict.word == "not comparable":
        why = (
            f"the published figures are of {PUBLISHED.walked.records:,} records in batches of "
            f"{BATCH_SIZE:,}"
        )
    else:
        differences = verdict.top1_difference, verdict.top5_difference
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
    lines.append(f"verdict: {verdict.word} ({why})")
    return "\n".join(lines)


def _shares(reading: Reading) -> tuple[str, str]:
    images = reading.walked.images
    return (
        f"{reading.top1:.6f} ({reading.top1_hits:,} of {images:,})",
        f"{reading.top5:.6f} ({reading.top5_hits:,})",
    )


def _seen(walked: Pass) -> str:
    for what, records in (("counted twice", walked.twice), ("left out", walked.never)):
        if records:
            return f"{records[0]:,} to {records[-1]:,} ({len(records):,}) {what}"
    return "each once"


def _ends(records: range) -> Optional[list[int]]:
    return [records[0], records[-1]] if records else None

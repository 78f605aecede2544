"""A static optimizer: a smaller or better-shaped net within budgets, nothing trained or run.

It looks for a large ``receptive_field.value`` at two levels.  Of a stage: its width, how many
units it has, and after which of them it pools.  Of a unit: whether it stays as it is or becomes
depthwise + RPW, of how many groups and with what overlap.  The stem stays a regular convolution,
and every stage keeps a unit at its first resolution.

The levels are arXiv:2009.05236's; the search, like the measure, is this project's own: first the
changes that lose the least value for what they save, until the budgets are kept; then those that
gain the most for what they cost, as long as the budgets are.
"""

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from gluon_asymmnet.compress.receptive_field import stage_volume
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.rpw_plan import (
    Cost,
    Stage,
    Unit,
    as_json,
    check,
    classifier_cost,
    net_cost,
    side_after,
    stage_cost,
    stage_inputs,
    window_starts,
)

EIGHTHS = tuple(range(2, 17))  # widths of a stage: 1/4 to 2 times the original's
MULTIPLE = 16  # of the channels of a stage whose width changes
# groups and overlap; the first of equals is taken, and half a window is the cheapest to gather
WINDOWS = ((1, 0.5), *itertools.product((2, 4, 8), (0.5, 0.25, 0.75)))
_DIGITS = 9  # of a difference of values, bits; what is beyond is rounding


class Choice(NamedTuple):
    """What is done to one stage."""

    eighths: int  # its width, of the original's
    windows: tuple[Optional[tuple[int, float]], ...]  # of each unit left; None: as it was
    pool: Optional[int]  # the unit that pools


class StageReport(NamedTuple):
    """A stage, and what it is worth and costs."""

    stage: Stage
    volume: float
    cost: Cost
    side: int  # of its output, pixels


class NetReport(NamedTuple):
    """A net, and what it is worth and costs."""

    stages: tuple[StageReport, ...]
    value: float  # bits, as ``receptive_field.value``
    cost: Cost  # with the classifier's


class Proposal(NamedTuple):
    """A net within the budgets, beside the original."""

    before: NetReport
    after: NetReport
    rule: str

    @property
    def spec(self) -> dict:
        """What a spec file holds, from which ``get_model`` builds the net."""
        stages = as_json([report.stage for report in self.after.stages])
        return {"family": "rpw", "settings": {"net": stages, "rule": self.rule}}

    def as_json(self) -> dict:
        """Return everything as JSON values; pairs are before and after."""
        nets = self.before, self.after
        return {
            "value": [net.value for net in nets],
            "macs": [net.cost.macs for net in nets],
            "parameters": [net.cost.parameters for net in nets],
            "stages": [
                {
                    "units": [describe(report.stage) for report in pair],
                    "volume": [report.volume for report in pair],
                    "macs": [report.cost.macs for report in pair],
                    "parameters": [report.cost.parameters for report in pair],
                }
                for pair in zip(*(net.stages for net in nets))
            ],
            "spec": self.spec,
        }


def describe(stage: Stage) -> str:
    """Return a stage in short, e.g. ``2 x conv3 64, pool``."""
    parts = [part for unit in stage for part in (_short(unit), *["pool"] * unit.pool)]
    runs = [(name, len(list(run))) for name, run in itertools.groupby(parts)]
    return ", ".join(name if number == 1 else f"{number} x {name}" for name, number in runs)


def _short(unit: Unit) -> str:
    stride = "/2" if unit.stride == 2 else ""
    if unit.kind == "conv":
        return f"conv{unit.kernel}{stride} {unit.channels}"
    windows = f"+rpw {unit.channels} g{unit.groups} o{unit.overlap:g}"
    pointwise = f"+1x1 {unit.channels}" if unit.groups == 1 else windows
    return f"dw{unit.kernel}{stride}{pointwise}"


def optimize(
    stages: Sequence[Stage], *, budget_macs: Optional[int] = None,
    budget_params: Optional[int] = None, classes: int = 10, input_size: int = 32,
    rule: str = "cuda",
) -> Proposal:  # fmt: skip
    """Propose a net of at most so many multiply-adds and parameters.

    The same arguments give the same proposal.

    Args:
        stages: the original, from ``rpw_plan.plan``.
        budget_macs, budget_params: what is not given is the original's.
        classes, input_size: of the net; the volume, too, depends on the size of the input.
        rule: of all windows.

    Raises: InputError if the budgets cannot be kept; it says the least that can be reached.
    """
    check(stages)
    original = net_cost(stages, classes, input_size)
    budget = Cost(
        original.parameters if budget_params is None else budget_params,
        original.macs if budget_macs is None else budget_macs,
    )
    for name, most in budget._asdict().items():
        if most < 1:
            raise InputError(f"the budget of {name} must be at least 1, got {most}")
    search = _Search(stages, budget, classes, input_size, rule)
    choices, found = search.climb(search.original, search.saving)
    if search.excess(found.cost) > 0:
        raise InputError(
            f"{budget.macs:,} multiply-adds and {budget.parameters:,} parameters cannot be kept: "
            f"the least that can be reached is {found.cost.macs:,} and {found.cost.parameters:,}"
        )
    _, found = search.climb(choices, search.gain)
    return Proposal(search.judge(search.original), found, rule)


class _Search:
    """The space of nets around one, and the way through it."""

    def __init__(self, stages, budget: Cost, classes: int, input_size: int, rule: str):
        self._stages, self._budget, self._classes = tuple(stages), budget, classes
        self._input_size, self._rule = input_size, rule
        self._inputs = [channels for _, channels, _ in stage_inputs(stages, input_size)]
        for number, stage in enumerate(stages):
            if sum(unit.pool for unit in stage) > 1:
                raise InputError(f"stage {number} pools more than once: list a stage for each pool")
        self.original = tuple(
            Choice(8, (None,) * len(stage), next((i for i, u in enumerate(stage) if u.pool), None))
            for stage in stages
        )
        self._report = functools.lru_cache(None)(self._make_report)

    def judge(self, choices: Sequence[Choice]) -> Optional[NetReport]:
        """Return the net that choices make; None if its windows do not come out even."""
        reports, channels, side = [], 3, self._input_size
        for index, choice in enumerate(choices):
            report = self._report(index, choice, channels, side)
            if report is None:
                return None
            reports.append(report)
            channels, side = report.stage[-1].channels, report.side
        head = classifier_cost([report.stage], self._classes)
        return NetReport(
            tuple(reports),
            sum(math.log2(r.volume) for r in reports) + math.log2(channels),
            sum((r.cost for r in reports), head),
        )

    def _make_report(self, index, choice, in_channels, side) -> Optional[StageReport]:
        stage = self._stage(index, choice, in_channels)
        if stage is None:
            return None
        return StageReport(
            stage,
            stage_volume(stage, in_channels, side, self._rule),
            stage_cost(stage, in_channels, side),
            side_after(stage, side),
        )

    def _stage(self, index: int, choice: Choice, in_channels: int) -> Optional[Stage]:
        old, old_in = self._stages[index], self._inputs[index]
        last = len(choice.windows) - 1
        units = []
        for i, (unit, windows) in enumerate(zip(old, choice.windows)):
            was, old_in = (old_in, unit.channels), unit.channels
            channels = _scaled(old[-1].channels if i == last else unit.channels, choice.eighths)
            unit = dataclasses.replace(unit, channels=channels, pool=i == choice.pool)
            if windows is not None:
                unit = _separable(unit, *windows)
            same = windows is None and was == (in_channels, channels)
            if not same and not _even(unit, in_channels, self._rule):
                return None
            units.append(unit)
            in_channels = channels
        return tuple(units)

    def excess(self, cost: Cost) -> float:
        """Return by how much the budgets are exceeded, in doublings; 0 if they are kept."""
        return sum(max(0.0, math.log2(c / b)) for c, b in zip(cost, self._budget))

    def saving(self, here: NetReport, there: NetReport) -> Optional[tuple[float, float]]:
        """Rank a change by the value it keeps for what it saves of the excess."""
        saved = self.excess(here.cost) - self.excess(there.cost)
        return (round(there.value - here.value, _DIGITS) / saved, saved) if saved > 0 else None

    def gain(self, here: NetReport, there: NetReport) -> Optional[float]:
        """Rank a change that keeps the budgets by the value it gains for what it costs."""
        gained = round(there.value - here.value, _DIGITS)
        if gained <= 0 or self.excess(there.cost) > 0:
            return None
        spent = sum((c - was) / b for c, was, b in zip(there.cost, here.cost, self._budget))
        return gained / spent if spent > 0 else math.inf

    def climb(self, choices: tuple[Choice, ...], rank) -> tuple[tuple[Choice, ...], NetReport]:
        """Make the change of the highest rank, the first of equals, until none has a rank."""
        here = self.judge(choices)
        while True:
            changes = ((rank(here, there), other, there) for other, there in self._changes(choices))
            best = max(
                (c for c in changes if c[0] is not None), key=operator.itemgetter(0), default=None
            )
            if best is None:
                return choices, here
            _, choices, here = best

    def _changes(
        self, choices: tuple[Choice, ...]
    ) -> Iterator[tuple[tuple[Choice, ...], NetReport]]:
        """Yield every net that is one change away."""
        for index, choice in enumerate(choices):
            for other in self._alternatives(index, choice):
                changed = (*choices[:index], other, *choices[index + 1 :])
                net = self.judge(changed)
                if net is not None:
                    yield changed, net

    def _alternatives(self, index: int, choice: Choice) -> Iterator[Choice]:
        stage, left = self._stages[index], len(choice.windows)
        yield from (choice._replace(eighths=e) for e in EIGHTHS if e != choice.eighths)
        for number in range(1, len(stage) + 1):
            if number != left and not any(unit.stride > 1 for unit in stage[number:]):
                windows = (*choice.windows[:number], *[None] * (number - left))
                pool = None if choice.pool is None else min(choice.pool, number - 1)
                yield Choice(choice.eighths, windows, pool)
        if choice.pool is not None:
            yield from (choice._replace(pool=i) for i in range(left) if i != choice.pool)
        for i in range(index == 0, left):  # not the stem
            for windows in (None, *WINDOWS):
                if windows != choice.windows[i]:
                    all_windows = (*choice.windows[:i], windows, *choice.windows[i + 1 :])
                    yield choice._replace(windows=all_windows)


def _scaled(channels: int, eighths: int) -> int:
    if eighths == 8:
        return channels
    return -(-channels * eighths // (8 * MULTIPLE)) * MULTIPLE


def _separable(unit: Unit, groups: int, overlap: float) -> Unit:
    """Return depthwise + RPW in place of a unit, with a bias as the authors have it."""
    bias = unit.bias or unit.kind == "conv"
    return dataclasses.replace(unit, kind="separable", groups=groups, overlap=overlap, bias=bias)


def _even(unit: Unit, in_channels: int, rule: str) -> bool:
    """Whether windows of a whole step divide the outputs, so that RPW shares what it gathers."""
    if unit.groups == 1:
        return True
    if in_channels % unit.groups or unit.overlap * in_channels % unit.groups:
        return False
    starts = window_starts(in_channels, unit.channels, unit.groups, unit.overlap, rule)
    return unit.channels % len(set(starts)) == 0 and len(set(starts)) <= unit.channels

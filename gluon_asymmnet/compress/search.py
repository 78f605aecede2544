"""Architecture search within budgets of multiply-adds and parameters, without training.

The search maximises ``receptive_field.value`` at two levels.  Stages: width, number of units, and
the unit that pools.  Units: unchanged, or depthwise + RPW with a number of groups and an overlap.
The stem stays a regular convolution, and every stage keeps a unit at its first resolution.

The levels are from arXiv:2009.05236.  The greedy search, like the measure, is this project's own:
first the changes that lose the least value for their savings, until the net is within the budgets;
then the changes that gain the most value for their cost within the budgets.
"""

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from gluon_asymmnet.compress.receptive_field import stage_volume, value
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

EIGHTHS = tuple(range(2, 17))  # widths of a stage: 1/4 to 2 times the original
MULTIPLE = 16  # divisor of the channels of a stage with a new width
# Groups and overlap.  The first of equals is taken; an overlap of 0.5 is the cheapest to gather.
WINDOWS = ((1, 0.5), *itertools.product((2, 4, 8), (0.5, 0.25, 0.75)))
_DIGITS = 9  # of a difference of values, bits; further ones are rounding errors


class Choice(NamedTuple):
    """The changes of one stage."""

    eighths: int  # new width over the original, in eighths
    windows: tuple[Optional[tuple[int, float]], ...]  # of each remaining unit; None: unchanged
    pool: Optional[int]  # index of the unit that pools


class StageReport(NamedTuple):
    """A stage with its volume and cost."""

    stage: Stage
    volume: float
    cost: Cost
    side: int  # of its output, pixels


class NetReport(NamedTuple):
    """A net with its value and cost."""

    stages: tuple[StageReport, ...]
    value: float  # bits, see ``receptive_field.value``
    cost: Cost  # with the classifier


class Proposal(NamedTuple):
    """The original net and the proposed one."""

    before: NetReport
    after: NetReport
    rule: str

    @property
    def spec(self) -> dict:
        """Content of a spec file of the proposed net, for ``get_model``."""
        stages = as_json([report.stage for report in self.after.stages])
        return {"family": "rpw", "settings": {"net": stages, "rule": self.rule}}

    def as_json(self) -> dict:
        """Return a JSON object; lists of two are before and after."""
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
    """Return a short text for a stage, e.g. ``2 x conv3 64, pool``."""
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
    """Propose a net within budgets.  The same arguments give the same proposal.

    Args:
        stages: the original net, from ``rpw_plan.plan``.
        budget_macs, budget_params: maximum multiply-adds and parameters; by default the
            original's.
        classes, input_size: of the net; volumes depend on the input size, too.
        rule: of all windows, see ``rpw_plan.window_starts``.

    Raises: InputError if the budgets cannot be reached; the message has the reachable minimum.
    """
    check(stages)
    original = net_cost(stages, classes, input_size)
    budget = Cost(
        original.parameters if budget_params is None else budget_params,
        original.macs if budget_macs is None else budget_macs,
    )
    for name, limit in budget._asdict().items():
        if limit < 1:
            raise InputError(f"the budget of {name} must be at least 1, got {limit}")
    search = _Search(stages, budget, classes, input_size, rule)
    choices, found = search.climb(search.original, search.saving)
    if search.excess(found.cost) > 0:
        raise InputError(
            f"{budget.macs:,} multiply-adds and {budget.parameters:,} parameters cannot be "
            f"reached: the minimum is {found.cost.macs:,} and {found.cost.parameters:,}"
        )
    _, found = search.climb(choices, search.gain)
    return Proposal(search.report(search.original), found, rule)


class _Search:
    """Greedy search over the nets that changes of one net can make."""

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
        self._stage_report = functools.lru_cache(None)(self._make_stage_report)

    def report(self, choices: Sequence[Choice]) -> Optional[NetReport]:
        """Return the net of some choices; None if its windows do not divide the channels."""
        reports, channels, side = [], 3, self._input_size
        for index, choice in enumerate(choices):
            report = self._stage_report(index, choice, channels, side)
            if report is None:
                return None
            reports.append(report)
            channels, side = report.stage[-1].channels, report.side
        head = classifier_cost([report.stage], self._classes)
        return NetReport(
            tuple(reports),
            value([report.volume for report in reports], channels),
            sum((r.cost for r in reports), head),
        )

    def _make_stage_report(self, index, choice, in_channels, side) -> Optional[StageReport]:
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
        """Return the log2 of cost over budget, summed over exceeded budgets; 0 within them."""
        return sum(max(0.0, math.log2(c / b)) for c, b in zip(cost, self._budget))

    def saving(self, here: NetReport, there: NetReport) -> Optional[tuple[float, float]]:
        """Rank a change by the change of value over the saved excess; None if it saves nothing."""
        saved = self.excess(here.cost) - self.excess(there.cost)
        return (round(there.value - here.value, _DIGITS) / saved, saved) if saved > 0 else None

    def gain(self, here: NetReport, there: NetReport) -> Optional[float]:
        """Rank a change by gained value over cost; None without gain or beyond the budgets."""
        gained = round(there.value - here.value, _DIGITS)
        if gained <= 0 or self.excess(there.cost) > 0:
            return None
        spent = sum((c - was) / b for c, was, b in zip(there.cost, here.cost, self._budget))
        return gained / spent if spent > 0 else math.inf

    def climb(self, choices: tuple[Choice, ...], rank) -> tuple[tuple[Choice, ...], NetReport]:
        """Apply the change of the highest rank, the first of equals, until none has a rank."""
        here = self.report(choices)
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
                net = self.report(changed)
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
    """Return a unit as depthwise + RPW, with a bias as in the authors' code."""
    bias = unit.bias or unit.kind == "conv"
    return dataclasses.replace(unit, kind="separable", groups=groups, overlap=overlap, bias=bias)


def _even(unit: Unit, in_channels: int, rule: str) -> bool:
    """Return whether window steps are whole numbers and the windows divide the outputs.

    RPW then gathers each window once for all its outputs.
    """
    if unit.groups == 1:
        return True
    if in_channels % unit.groups or unit.overlap * in_channels % unit.groups:
        return False
    starts = window_starts(in_channels, unit.channels, unit.groups, unit.overlap, rule)
    return unit.channels % len(set(starts)) == 0 and len(set(starts)) <= unit.channels

"""Line charts as inline SVG, without scripts.

The drawing is stretched to the width of the page and its text is HTML, so lines and letters keep
their size on a phone.  Lines differ in colour *and* dashes; hovering shows the values of an epoch.
Not matplotlib's SVG: its text shrinks with the drawing, its colours do not follow the browser's
dark mode, and it has no values to hover over.
"""

import math
from typing import Callable, NamedTuple

from gluon_asymmnet.report.markup import Markup, breakable, element, join

DASHES = ("", "7 4", "2 4", "10 3 2 3", "14 5", "5 3 1 3 1 3")  # one per style, pixels
REFERENCE = "ref"  # style of a curve that is not ours
_DOTTED = 40  # places up to which each point gets a dot
_STRIPS = 400  # most places that can be hovered over
_LEAST, _MOST = 1e-200, 1e300  # beyond them floating point has no room for ticks


class Line(NamedTuple):
    """One curve; ``points`` are (x, y), ascending, y nan where there is no value."""

    name: str
    points: list[tuple[float, float]]
    style: object = 0  # number of colour and dashes, or REFERENCE


class Mark(NamedTuple):
    """Something that happened at ``x``."""

    x: float
    text: str


class Chart(NamedTuple):
    """Curves over the epochs."""

    title: str
    lines: list[Line]
    show: Callable[[float], str]  # writes a value with its unit
    unit: str = ""  # of the axis
    log: bool = False
    marks: tuple[Mark, ...] = ()
    limits: tuple[float, float] = (-math.inf, math.inf)  # that the axis does not pass


class Axis(NamedTuple):
    """Maps values to 0 to 100."""

    low: float
    high: float
    ticks: list[float]
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return round(100 * (value - low) / (high - low), 2)


def draw(chart: Chart) -> Markup:
    """Return a chart as a ``<figure>``, or nothing if there is no point to draw."""
    lines = [Line(one.name, _drawable(one.points, chart.log), one.style) for one in chart.lines]
    lines = [one for one in lines if any(math.isfinite(y) for _, y in one.points)]
    if not lines:
        return Markup("")
    places = [x for one in lines for x, _ in one.points]
    values = [y for one in lines for _, y in one.points if math.isfinite(y)]
    x_axis = whole_axis(min(places), max(places))
    y_axis = log_axis(values) if chart.log else linear_axis(values, chart.limits)
    return element(
        "figure",
        element("figcaption", element("h3", chart.title), _legend(chart, lines)),
        element(
            "div",
            _drawing(chart, lines, x_axis, y_axis),
            element("span", "log scale", class_="tick log") if chart.log else None,
            *(_label("y", "bottom", y_axis(v), _short(v, chart.unit)) for v in y_axis.ticks),
            *(_label("x", "left", x_axis(v), f"{v:g}") for v in x_axis.ticks),
            class_="plot",
        ),
        element("p", "epoch", class_="axis"),
        class_="chart",
    )  # fmt: skip


def linear_axis(values: list[float], limits=(-math.inf, math.inf), parts: int = 5) -> Axis:
    """Return an axis with about ``parts`` round ticks around the values."""
    low, high = min(values), max(values)
    if high - low < max(1e-9 * max(abs(low), abs(high)), _LEAST):  # a level line
        half = abs(high) * 0.05 if abs(high) > _LEAST else 0.5
        low, high = low - half, high + half
    step = _round_step((high - low) / parts)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [_plain(k * step, step) for k in range(first, last + 1)]
    ticks = [tick for tick in ticks if limits[0] <= tick <= limits[1]] or ticks
    return Axis(min(ticks[0], low), max(ticks[-1], high), ticks)


def whole_axis(low: float, high: float, parts: int = 6) -> Axis:
    """Return the axis of the epochs: ticks at whole numbers, ends at the first and last."""
    if high <= low:
        return Axis(low - 1, low + 1, [low])
    step = max(1, round(_round_step((high - low) / parts)))
    first = math.ceil(low / step)
    return Axis(low, high, [k * step for k in range(first, math.floor(high / step) + 1)])


def log_axis(values: list[float]) -> Axis:
    """Return a logarithmic axis with ticks at 1, 2 and 5 times powers of ten."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    last = max(last, first + 1)
    factors = (1,) if last - first > 2 else (1, 2, 5)
    ticks = [_plain(f * 10.0**k, 10.0**k) for k in range(first, last + 1) for f in factors]
    low = max(tick for tick in ticks if tick <= min(values) * 1.000001)
    high = min((tick for tick in ticks if tick >= max(values) * 0.999999), default=ticks[-1])
    if high <= low:
        high = low * 10
    return Axis(low, high, [tick for tick in ticks if low <= tick <= high], log=True)


def swatch(style) -> Markup:
    """Return a short piece of a line, for a legend."""
    path = element("path", d="M1 5H27", class_=f"line s{style}", stroke_dasharray=_dashes(style))
    return element("svg", path, class_="swatch", viewBox="0 0 28 10", aria_hidden="true")


def _dashes(style):
    return "3 3" if style == REFERENCE else DASHES[style % len(DASHES)] or None


def _drawable(points, log: bool):
    """Replace what cannot be drawn with nan."""
    least = _LEAST if log else -_MOST
    return [(x, y if least < y < _MOST else math.nan) for x, y in points]


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= step * 0.999999)


def _plain(value: float, step: float) -> float:
    """Drop the last digits, which are rounding."""
    return round(value, max(0, 2 - math.floor(math.log10(step))))


def _short(value: float, unit: str) -> str:
    return f"{value:g}{unit}"


def _label(kind: str, side: str, place: float, text: str) -> Markup:
    return element("span", text, class_=f"tick {kind}", style=f"{side}:{place:g}%")


def _legend(chart: Chart, lines: list[Line]) -> Markup:
    rows = []
    for one in lines:
        last = element("b", chart.show(_last(one)))
        rows.append(element("li", swatch(one.style), element("span", breakable(one.name)), last))
    return element("ul", *rows, class_="legend")


def _last(line: Line) -> float:
    return next(y for _, y in reversed(line.points) if math.isfinite(y))


def _drawing(chart: Chart, lines: list[Line], x_axis: Axis, y_axis: Axis) -> Markup:
    grid = "".join(f"M0 {100 - y_axis(tick):g}H100" for tick in y_axis.ticks)
    parts = [element("path", d=grid, class_="grid")]
    for mark in chart.marks:
        if x_axis.low <= mark.x <= x_axis.high:
            parts.append(
                element("path", element("title", mark.text), d=f"M{x_axis(mark.x):g} 0V100",
                        class_="mark", stroke_dasharray="1 3")
            )  # fmt: skip
    dotted = len({x for one in lines for x, _ in one.points}) <= _DOTTED
    parts += [_curve(one, x_axis, y_axis, dotted) for one in lines]
    parts.append(_strips(chart, lines, x_axis))
    names = ", ".join(f"{one.name} {chart.show(_last(one))}" for one in lines)
    return element(
        "svg", *parts, viewBox="0 0 100 100", preserveAspectRatio="none", role="img",
        aria_label=f"{chart.title}; last values: {names}",
    )  # fmt: skip


def _curve(line: Line, x_axis: Axis, y_axis: Axis, dotted: bool) -> Markup:
    path, pen = "", "M"
    for x, y in line.points:
        if math.isfinite(y):
            path += f"{pen}{x_axis(x):g} {100 - y_axis(y):g}"
            pen = "L"
        else:
            pen = "M"
    shown = [
        element("path", d=path, class_=f"line s{line.style}", stroke_dasharray=_dashes(line.style))
    ]
    if dotted or "L" not in path:
        # lines of no length with round ends: dots that stay round when the drawing is stretched
        dots = path.replace("L", "M").replace("M", "h0M")[2:] + "h0"
        shown.append(element("path", d=dots, class_=f"dots s{line.style}"))
    return join(shown)


def _strips(chart: Chart, lines: list[Line], x_axis: Axis) -> Markup:
    """Return one transparent strip per place, whose title gives the values there."""
    at: dict[float, list[str]] = {}
    for one in lines:
        for x, y in one.points:
            if math.isfinite(y):
                at.setdefault(x, []).append(f"{one.name}: {chart.show(y)}")
    places = sorted(at)
    places = places[:: -(-len(places) // _STRIPS)]
    strips = []
    for k, x in enumerate(places):
        here = x_axis(x)
        left = (x_axis(places[k - 1]) + here) / 2 if k else 0
        right = (x_axis(places[k + 1]) + here) / 2 if k + 1 < len(places) else 100
        title = "\n".join([f"epoch {x:g}", *at[x]])
        strips.append(
            element(
                "g",
                element("rect", x=f"{left:g}", width=f"{right - left:g}", height=100),
                element("path", d=f"M{here:g} 0V100"),
                element("title", title),
            )
        )
    return element("g", *strips, class_="strips")

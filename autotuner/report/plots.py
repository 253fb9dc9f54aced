"""Charts as SVG text: pure functions of marks and lines, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 28, 46
LANE = 36
"""Height of the strip below the plot that holds the marks without a value."""
ROOM, ROW = 26, 40
"""Heights of the line above a chart of intervals, and of each of its rows."""

SHAPES = {
    "circle": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
    "square": "M-4 -4h8v8h-8z",
    "triangle": "M0 -5.2L5 4H-5z",
    "diamond": "M0 -5.8L5.8 0L0 5.8L-5.8 0z",
    "wedge": "M0 5.2L5 -4H-5z",
    "pentagon": "M0 -5.2L5 -1.6L3.1 4.3H-3.1L-5 -1.6z",
    "star": "M0 -6.5L1.8 -2.2L6.2 -2L2.8 .9L3.9 5.3L0 2.9L-3.9 5.3L-2.8 .9L-6.2 -2L-1.8 -2.2z",
    "cross": "M-3.8 -3.8L3.8 3.8M3.8 -3.8L-3.8 3.8",
}
ROLES = {"best": "star", "baseline": "diamond", "front": "square", "lost": "cross"}
"""Shape of each role; everything else is a circle."""

_SIZES = {"best": 1.35, "baseline": 1.35}


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Attributes:
        unit: ``s`` becomes ms below one second, ``share`` becomes percent.
        log: logarithmic where the values span more than a factor of ten.
        whole: ticks at whole numbers only.
        reach: values to have room for, besides those of the marks.
    """

    label: str
    unit: str = ""
    log: bool = False
    whole: bool = False
    reach: Sequence[float] = ()


@dataclass(frozen=True)
class Mark:
    """One point, a link to `href`; without `y` it is a cross in the strip below the plot.

    Attributes:
        title: the tooltip.
        role: one of `ROLES`, or none; gives shape and colour, and size to best and baseline.
        hollow: not filled.
        shape: one of `SHAPES` instead of the role's.
    """

    x: float
    y: float | None
    title: str
    href: str
    role: str = ""
    hollow: bool = False
    shape: str = ""


@dataclass(frozen=True)
class Line:
    """A line through points; as steps, each value holds until the next."""

    points: Sequence[tuple[float, float]]
    style: str
    step: bool = False


@dataclass(frozen=True)
class Rule:
    """A line across the whole plot at one value of y, or of x where it is upright."""

    at: float
    style: str
    upright: bool = False


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    log: bool

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def chart(
    label: str, x: Axis, y: Axis, marks: Sequence[Mark], lines: Sequence[Line | Rule] = ()
) -> str:
    """An SVG of the marks over the lines; rules outside the marks' range are left out."""
    floor = HEIGHT - BOTTOM - (LANE if any(mark.y is None for mark in marks) else 0)
    across = _scale(x, [*(mark.x for mark in marks), *x.reach], LEFT, WIDTH - RIGHT)
    heights = [*(mark.y for mark in marks if mark.y is not None), *y.reach]
    up = _scale(y, heights, floor, TOP)
    drawn = [
        f'<svg class="chart" role="group" viewBox="0 0 {WIDTH} {HEIGHT}"'
        f' aria-label="{escape(label)}">',
        *_grid(x, y, across, up, floor, bool(heights)),
        *(f'<path class="line {line.style}" d="{_path(line, across, up)}"/>' for line in lines),
        *(_mark(mark, across, up, floor) for mark in sorted(marks, key=_painted)),
    ]
    return "".join(drawn) + "</svg>"


@dataclass(frozen=True)
class Interval:
    """A row of `interval_chart`: a value, the interval it lies in, and a link to `href`.

    Attributes:
        value, low, high: shares; without `value` the row says `told` instead.
        told: what is written beside the row.
    """

    name: str
    href: str
    title: str
    value: float | None
    low: float | None
    high: float | None
    role: str = ""
    told: str = ""


def interval_chart(label: str, x: Axis, rows: Sequence[Interval], zero: str) -> str:
    """An SVG of one row per interval, over a line at 0, which is named `zero`."""
    bottom = ROOM + ROW * len(rows)
    ends = [each for row in rows for each in (row.low, row.value, row.high) if each is not None]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    room = 0.08 * (high - low) or 0.01
    across = _Scale(low - room, high + room, LEFT + 24, WIDTH - RIGHT, False)
    at, middle = across(0.0), (LEFT + 24 + WIDTH - RIGHT) / 2
    drawn = [
        f'<svg class="chart" role="group" viewBox="0 0 {WIDTH} {bottom + BOTTOM}"'
        f' aria-label="{escape(label)}">',
    ]
    for value, text in _labels(x, across):
        drawn.append(f'<path class="grid" d="M{across(value):.1f} {ROOM}V{bottom}"/>')
        drawn.append(
            f'<text x="{across(value):.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>'
        )
    anchor = "start" if at < middle else "end"
    drawn += [
        f'<path class="frame" d="M{LEFT + 24} {bottom}H{WIDTH - RIGHT}"/>',
        f'<path class="line reference" d="M{at:.1f} {ROOM - 6}V{bottom}"/>',
        f'<text class="name" x="{at:.1f}" y="14" text-anchor="{anchor}">{escape(zero)}</text>',
        f'<text class="name" x="{middle}" y="{bottom + BOTTOM - 6}" text-anchor="middle">'
        f"{_name(x, across)}</text>",
        *(_row(row, ROOM + ROW * (place + 0.5), across) for place, row in enumerate(rows)),
    ]
    return "".join(drawn) + "</svg>"


def glyph(shape: str, kind: str) -> str:
    """A small mark for a legend; shape ``line`` is a stretch of line."""
    drawn = (
        f'<path class="line {kind}" d="M-8 0H8"/>'
        if shape == "line"
        else f'<g class="mark {kind}"><path d="{SHAPES[shape]}"/></g>'
    )
    return f'<svg class="glyph" viewBox="-8 -8 16 16" aria-hidden="true">{drawn}</svg>'


def ticks(low: float, high: float, *, log: bool = False, whole: bool = False) -> list[float]:
    """Round numbers within a range: 1, 2 or 5 times a power of ten, four to seven of them."""
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        fine = [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]
        coarse = [10.0**p for p in powers if low <= 10.0**p <= high]
        if len(fine) > 1:
            return coarse if len(fine) > 7 else fine
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def axis_unit(axis: Axis, top: float) -> tuple[float, str]:
    """Factor and unit the ticks are written in."""
    if axis.unit == "share":
        return 100.0, "%"
    return (1000.0, "ms") if axis.unit == "s" and top < 1 else (1.0, axis.unit)


def _row(row: Interval, y: float, across: _Scale) -> str:
    name = (
        f'<text class="name" x="{LEFT + 16}" y="{y + 4:.1f}" text-anchor="end">'
        f"{escape(row.name)}</text>"
    )
    if row.value is None:
        return f'{name}<text x="{LEFT + 32}" y="{y + 4:.1f}" class="over">{escape(row.told)}</text>'
    line = ""
    if row.low is not None and row.high is not None:
        left, right = across(row.low), across(row.high)
        line = (
            f'<path class="interval {row.role}" d="M{left:.1f} {y - 5:.1f}v10m0 -5'
            f'H{right:.1f}m0 -5v10"/>'
        )
    at = across(row.value)
    mark = Mark(row.value, 0.0, row.title, row.href, role=row.role)
    # Beside the line there is room for the words either above it or nowhere.
    told = (
        f'<text x="{at:.1f}" y="{y - 10:.1f}" text-anchor="middle" class="over">'
        f"{escape(row.told)}</text>"
    )
    return name + line + told + _placed(mark, mark.role, at, y)


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> _Scale:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if axis.log and low > 0 and high > 10 * low:
        room = (high / low) ** 0.06
        return _Scale(low / room, high * room, start, end, True)
    if axis.whole:
        return _Scale(low - 0.6, high + 0.6, start, end, False)
    # From zero where the values come near it; otherwise the differences would be lost.
    bottom = 0.0 if 0 <= low < 0.6 * high else low
    room = 0.07 * (high - bottom) or 0.1 * abs(high) or 1.0
    return _Scale(bottom - (room if bottom else 0.0), high + room, start, end, False)


def _grid(
    x: Axis, y: Axis, across: _Scale, up: _Scale, floor: float, measured: bool
) -> Iterable[str]:
    right, bottom, middle = WIDTH - RIGHT, HEIGHT - BOTTOM, (LEFT + WIDTH - RIGHT) / 2
    if measured:
        for value, text in _labels(y, up):
            at = up(value)
            yield f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>'
            yield f'<text x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{text}</text>'
    else:
        yield (
            f'<text x="{middle}" y="{(TOP + floor) / 2}" text-anchor="middle">nothing measured'
            "</text>"
        )
    for value, text in _labels(x, across):
        at = across(value)
        yield f'<path class="grid" d="M{at:.1f} {bottom}v4"/>'
        yield f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>'
    yield f'<path class="frame" d="M{LEFT} {TOP}V{bottom}H{right}"/>'
    if floor < bottom:
        yield f'<path class="frame faint" d="M{LEFT} {floor}H{right}"/>'
        yield f'<text x="{LEFT - 7}" y="{floor + LANE / 2 + 4}" text-anchor="end">none</text>'
    yield f'<text class="name" x="4" y="14">{_name(y, up)}</text>'
    yield (
        f'<text class="name" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{_name(x, across)}</text>"
    )


def _name(axis: Axis, scale: _Scale) -> str:
    unit = axis_unit(axis, scale.high)[1]
    written = f"{axis.label} ({unit})" if unit else axis.label
    return escape(written + (", log scale" if scale.log else ""))


def _labels(axis: Axis, scale: _Scale) -> list[tuple[float, str]]:
    factor = axis_unit(axis, scale.high)[0]
    low, high = scale.low * factor, scale.high * factor
    values = ticks(low, high, log=scale.log, whole=axis.whole)
    gap = min((b - a for a, b in pairwise(values)), default=1.0)
    decimals = max(0, -math.floor(math.log10(gap) + 1e-9))
    texts = [f"{v:,.6g}" if scale.log else f"{v:,.{decimals}f}" for v in values]
    return [(value / factor, text) for value, text in zip(values, texts, strict=True)]


def _path(line: Line | Rule, across: _Scale, up: _Scale) -> str:
    if isinstance(line, Rule):
        if line.at not in (across if line.upright else up):
            return ""
        if line.upright:
            return f"M{across(line.at):.1f} {TOP}V{up.start}"
        return f"M{LEFT} {up(line.at):.1f}H{WIDTH - RIGHT}"
    (x, y), *others = [(across(x), up(y)) for x, y in line.points]
    path = f"M{x:.1f} {y:.1f}"
    return path + "".join(
        f"H{x:.1f}V{y:.1f}" if line.step else f"L{x:.1f} {y:.1f}" for x, y in others
    )


def _mark(mark: Mark, across: _Scale, up: _Scale, floor: float) -> str:
    role, y = mark.role, floor + LANE / 2 if mark.y is None else up(mark.y)
    if mark.y is None:
        role = "lost"
    return _placed(mark, role, across(mark.x), y)


def _placed(mark: Mark, role: str, x: float, y: float) -> str:
    shape = SHAPES[mark.shape or ROLES.get(role, "circle")]
    return (
        f'<a class="mark {role}{" hollow" * mark.hollow}" href="{escape(mark.href)}"'
        f' transform="translate({x:.1f} {y:.1f}) scale({_SIZES.get(role, 1)})">'
        f'<title>{escape(mark.title)}</title><path d="{shape}"/></a>'
    )


def _painted(mark: Mark) -> int:
    """The order of painting: best on top."""
    return ("", "front", "baseline", "best").index(mark.role)

# SPDX-License-Identifier: BSD-2-Clause
"""Small plots as self-contained SVG: no script, no font file, readable in light and dark pages and without colour.

They are drawn narrow, so that their words can still be read where a telephone shrinks them, and grow with the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.report.page import shown

_WIDTH = 420
_SIDE = 8
_ROW = 40  # a line of words and what is drawn under it
_HEAD, _FOOT = 26, 24
_PLANE = 170  # height of what has two axes
_LEFT = 52  # room for the numbers of an upright axis
_FONT = 13
_STYLE = (
    f".plot{{max-width:35rem}}.plot text{{font:{_FONT}px system-ui,sans-serif;fill:currentColor}}"
    ".plot .quiet{opacity:.6}.plot .line{stroke:currentColor;stroke-width:1}.plot .mark{stroke-dasharray:4 3}"
    ".plot .curve{fill:none;stroke:currentColor;stroke-width:2}.plot .bar{fill:currentColor;fill-opacity:.45}"
    ".plot .faster{fill:#1a7f37;stroke:#1a7f37}.plot .slower{fill:#cf222e;stroke:#cf222e}"
    ".plot .alike{fill:#6e7781;stroke:#6e7781}"
)
_DASHES = ("", "7 4", "2 3", "9 3 2 3")
_WORDS = _WIDTH // 9  # characters that fit into one line, in wide fonts, too


@dataclass(frozen=True)
class Bar:
    """One line of a ratio plot: a ratio, its interval, and whether it is beyond noise."""

    label: str
    ratio: float
    low: float
    high: float
    is_changed: bool

    @property
    def kind(self) -> str:
        """The colour's name."""
        if not self.is_changed:
            return "alike"
        return "slower" if self.ratio > 1 else "faster"


@dataclass(frozen=True)
class Curve:
    """Points in two dimensions under one name, joined by a line unless they are `loose`."""

    label: str
    points: Sequence[tuple[float, float]]
    loose: bool = False


def ratio_plot(title: str, bars: Sequence[Bar]) -> str:
    """Return an SVG with one interval per bar on a common scale, and a line at 1."""
    low = min([0.95, *(bar.low for bar in bars)])
    high = max([1.05, *(bar.high for bar in bars)])
    rows = [
        (bar.label, f"{bar.ratio:.3f}" if bar.is_changed else f"{bar.ratio:.3f} (noise)", bar.low, bar.ratio, bar.high,
         bar.kind)
        for bar in bars
    ]  # fmt: skip
    return _intervals(title, rows, (low, high), 1.0, [f"{value:.2f}" for value in (low, 1.0, high)])


def share_plot(title: str, rows: Sequence[tuple[str, float, float, float]]) -> str:
    """Return an SVG with an interval within 0 and 1 per row: label, lower end, value, upper end."""
    rated = [(label, f"{value:.0%}", low, value, high, "alike") for label, low, value, high in rows]
    return _intervals(title, rated, (0.0, 1.0), 0.5, ["0%", "50%", "100%"])


def _intervals(
    title: str,
    rows: Sequence[tuple[str, str, float, float, float, str]],
    ends: tuple[float, float],
    middle: float,
    numbers: Sequence[str],
) -> str:
    low, high = ends

    def x(value: float) -> float:
        return round(2 * _SIDE + (value - low) / ((high - low) or 1.0) * (_WIDTH - 4 * _SIDE), 1)

    def body() -> Iterator[str]:
        bottom = _HEAD + _ROW * len(rows)
        yield f'<line class="line quiet mark" x1="{x(middle)}" y1="{_HEAD}" x2="{x(middle)}" y2="{bottom}"/>'
        for number, (label, value, first, at, last, kind) in enumerate(rows):
            y = _HEAD + _ROW * number
            yield from _labelled(y + 14, label, value)
            yield (
                f'<line class="{kind}" stroke-width="3" x1="{x(first)}" y1="{y + 26}" x2="{x(last)}" y2="{y + 26}"/>'
                f'<circle class="{kind}" cx="{x(at)}" cy="{y + 26}" r="4"/>'
            )
        for place, number_, anchor in zip((low, middle, high), numbers, ("start", "middle", "end"), strict=True):
            yield _text(x(place), bottom + 16, number_, anchor=anchor, quiet=True)

    return _drawing(title, _HEAD + _ROW * len(rows) + _FOOT, body())


def scatter_plot(title: str, series: Sequence[tuple[str, Sequence[float]]], unit: str) -> str:
    """Return an SVG with the values of each of SERIES, in UNIT, as points on a line of its own."""
    values = [value for _, points in series for value in points]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    span = (high - low) or abs(high) or 1.0

    def body() -> Iterator[str]:
        for number, (label, points) in enumerate(series):
            y = _HEAD + _ROW * number
            yield from _labelled(y + 14, label, "")
            for point in points:
                cx = 2 * _SIDE + (point - low) / span * (_WIDTH - 4 * _SIDE)
                yield f'<circle class="alike" fill-opacity=".5" cx="{cx:.1f}" cy="{y + 26}" r="3"/>'
        bottom = _HEAD + _ROW * len(series) + 16
        yield _text(2 * _SIDE, bottom, f"{low:.3g} {unit}", quiet=True)
        yield _text(_WIDTH - 2 * _SIDE, bottom, f"{high:.3g} {unit}", anchor="end", quiet=True)

    return _drawing(title, _HEAD + _ROW * len(series) + _FOOT, body())


def bar_chart(title: str, bars: Sequence[tuple[str, float]], unit: str) -> str:
    """Return an SVG with one bar per label and value (not negative, in UNIT), all from zero."""
    most = max([value for _, value in bars if value > 0], default=1.0)

    def body() -> Iterator[str]:
        for number, (label, value) in enumerate(bars):
            y = _HEAD + _ROW * number
            yield from _labelled(y + 14, label, f"{value:.2f} {unit}")
            width = max(1.0, value / most * (_WIDTH - 4 * _SIDE))
            yield f'<rect class="bar" x="{2 * _SIDE}" y="{y + 19}" width="{width:.1f}" height="12"/>'

    return _drawing(title, _HEAD + _ROW * len(bars) + _SIDE, body())


def histogram(title: str, values: Sequence[float], unit: str, *, bins: int = 24, mark: float | None = None) -> str:
    """Return an SVG of how VALUES, in UNIT, are distributed over BINS from zero on, with a line at MARK."""
    last = max([*values, mark or 0.0, 1e-9]) * 1.05
    counted = [0] * bins
    for value in values:
        counted[min(bins - 1, max(0, int(value / last * bins)))] += 1
    most = max([1, *counted])
    room, bottom = _WIDTH - _LEFT - 2 * _SIDE, _HEAD + _PLANE

    def body() -> Iterator[str]:
        step = room / bins
        for number, count in enumerate(counted):
            height = count / most * (_PLANE - _FONT)
            if count:
                yield (
                    f'<rect class="bar" x="{_LEFT + number * step:.1f}" y="{bottom - height:.1f}"'
                    f' width="{step - 1:.1f}" height="{height:.1f}"/>'
                )
        if mark is not None:
            x = round(_LEFT + mark / last * room, 1)
            yield f'<line class="line mark" x1="{x}" y1="{_HEAD}" x2="{x}" y2="{bottom}"/>'
            yield _text(x - 4, _HEAD + 10, f"{mark:g} {unit}", anchor="end")
        yield from _axes((0.0, last), (0.0, float(most)), unit)

    return _drawing(title, bottom + _FOOT, body())


def curve_plot(title: str, curves: Sequence[Curve], x_unit: str) -> str:
    """Return an SVG of CURVES over a common axis in X_UNIT; lines differ by their dashes, and have their names."""
    points = [point for curve in curves for point in curve.points] or [(0.0, 0.0)]
    xs, ys = zip(*points, strict=True)
    left, right = min(xs), max(xs)
    low, high = min(0.0, *ys), max(ys)
    bottom = _HEAD + _PLANE
    room = _WIDTH - _LEFT - 2 * _SIDE

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = _LEFT + (point[0] - left) / ((right - left) or 1.0) * room
        return round(x, 1), round(bottom - (point[1] - low) / ((high - low) or 1.0) * (_PLANE - _FONT), 1)

    def body() -> Iterator[str]:
        legend = bottom + _FOOT + _SIDE
        for number, curve in enumerate(curves):
            dash = f' stroke-dasharray="{_DASHES[number % len(_DASHES)]}"' if number else ""
            placed = [place(point) for point in curve.points]
            if curve.loose:
                yield from (f'<circle class="alike" cx="{x}" cy="{y}" r="2"/>' for x, y in placed)
            else:
                yield f'<polyline class="curve"{dash} points="{" ".join(f"{x},{y}" for x, y in placed)}"/>'
            y = legend + number * 20
            if curve.loose:
                yield f'<circle class="alike" cx="{_LEFT + 15}" cy="{y + 8}" r="3"/>'
            else:
                yield f'<line class="curve"{dash} x1="{_LEFT}" y1="{y + 8}" x2="{_LEFT + 30}" y2="{y + 8}"/>'
            yield _text(_LEFT + 38, y + 12, _cut(curve.label, _WORDS - 14))
        yield from _axes((left, right), (low, high), x_unit)

    return _drawing(title, bottom + _FOOT + _SIDE + 20 * len(curves), body())


def _axes(horizontal: tuple[float, float], upright: tuple[float, float], unit: str) -> Iterator[str]:
    bottom, right = _HEAD + _PLANE, _WIDTH - 2 * _SIDE
    yield f'<line class="line quiet" x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>'
    yield f'<line class="line quiet" x1="{_LEFT}" y1="{_HEAD}" x2="{_LEFT}" y2="{bottom}"/>'
    yield _text(_LEFT, bottom + 16, _number(horizontal[0]), quiet=True)
    yield _text(right, bottom + 16, f"{_number(horizontal[1])} {unit}", anchor="end", quiet=True)
    yield _text(_LEFT - 4, bottom, _number(upright[0]), anchor="end", quiet=True)
    yield _text(_LEFT - 4, _HEAD + _FONT, _number(upright[1]), anchor="end", quiet=True)


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"


def _labelled(y: float, label: str, value: str) -> Iterator[str]:
    short = _cut(label, _WORDS - len(value) - 2)
    yield _text(_SIDE, y, short, hint=label if short != label else "")
    if value:
        yield _text(_WIDTH - _SIDE, y, value, anchor="end")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: max(1, length - 1)]}…"


def _text(x: float, y: float, text: str, *, anchor: str = "", quiet: bool = False, hint: str = "") -> str:
    attributes = (f' text-anchor="{anchor}"' if anchor not in {"", "start"} else "") + ' class="quiet"' * quiet
    tip = f"<title>{shown(hint)}</title>" if hint else ""
    return f'<text x="{x:g}" y="{y:g}"{attributes}>{tip}{shown(text)}</text>'


def _drawing(title: str, height: float, body: Iterable[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {_WIDTH} {math.ceil(height)}"'
            f' width="100%" role="img" aria-label="{shown(title)}"><style>{_STYLE}</style>',
            f'<text x="{_SIDE}" y="16" font-weight="bold">{shown(_cut(title, _WORDS * 7 // 8))}</text>',
            *body,
            "</svg>\n",
        ]
    )

"""Small plots as self-contained SVG: no script, no font file, readable in light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 640
_ROW = 26
_LABEL = 250
_RIGHT = 110
_AXIS = 34
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:currentColor}.quiet{opacity:.6}.line{stroke:currentColor;stroke-width:1}"
    ".faster{fill:#1a7f37;stroke:#1a7f37}.slower{fill:#cf222e;stroke:#cf222e}.alike{fill:#6e7781;stroke:#6e7781}"
)


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


def ratio_plot(title: str, bars: Sequence[Bar]) -> str:
    """Return an SVG with one interval per bar on a common scale, and a line at 1."""
    low = min([0.95, *(bar.low for bar in bars)])
    high = max([1.05, *(bar.high for bar in bars)])
    height = _AXIS + _ROW * len(bars) + _AXIS
    room = _WIDTH - _LABEL - _RIGHT

    def x(value: float) -> float:
        return round(_LABEL + (value - low) / (high - low) * room, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
        f' role="img" aria-label="{escape(title, quote=True)}"><style>{_STYLE}</style>',
        f'<text x="8" y="18" font-weight="bold">{escape(title)}</text>',
        f'<line class="line quiet" x1="{x(1)}" y1="{_AXIS - 6}" x2="{x(1)}" y2="{height - _AXIS + 6}"/>',
    ]
    for number, bar in enumerate(bars):
        y = _AXIS + _ROW * number + _ROW / 2
        shown = f"{bar.ratio:.3f}" if bar.is_changed else f"{bar.ratio:.3f} (noise)"
        parts += [
            f'<text x="8" y="{y + 4}">{escape(bar.label)}</text>',
            f'<line class="{bar.kind}" stroke-width="3" x1="{x(bar.low)}" y1="{y}" x2="{x(bar.high)}" y2="{y}"/>',
            f'<circle class="{bar.kind}" cx="{x(bar.ratio)}" cy="{y}" r="4"/>',
            f'<text x="{_WIDTH - _RIGHT + 8}" y="{y + 4}">{shown}</text>',
        ]
    for value in (low, 1.0, high):
        parts.append(f'<text class="quiet" x="{x(value)}" y="{height - 10}" text-anchor="middle">{value:.2f}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def scatter_plot(title: str, series: Sequence[tuple[str, Sequence[float]]], unit: str) -> str:
    """Return an SVG with the values of each of SERIES, in UNIT, as points on a line of its own."""
    values = [value for _, points in series for value in points]
    if not values:
        return ratio_plot(title, [])
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    height = _AXIS + _ROW * len(series) + _AXIS
    room = _WIDTH - _LABEL - 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
        f' role="img" aria-label="{escape(title, quote=True)}"><style>{_STYLE}</style>',
        f'<text x="8" y="18" font-weight="bold">{escape(title)}</text>',
    ]
    for number, (label, points) in enumerate(series):
        y = _AXIS + _ROW * number + _ROW / 2
        parts.append(f'<text x="8" y="{y + 4}">{escape(label)}</text>')
        parts += [
            f'<circle class="alike" fill-opacity=".5" cx="{_LABEL + (point - low) / span * room:.1f}" cy="{y}" r="3"/>'
            for point in points
        ]
    parts += [
        f'<text class="quiet" x="{_LABEL}" y="{height - 10}">{low:.3g} {escape(unit)}</text>',
        f'<text class="quiet" x="{_WIDTH - 20}" y="{height - 10}" text-anchor="end">{high:.3g} {escape(unit)}</text>',
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"

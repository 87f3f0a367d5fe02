"""Bars as SVG: no library, no script, no font to load."""

import math
from collections.abc import Mapping
from html import escape

_COLOURS = {"zcat": "#0b6e99", "": "#9aa5ad"}
_WIDTH, _LABEL, _VALUE, _BAR, _GAP = 860, 190, 120, 15, 12
_FONT = 'font-family="system-ui, sans-serif" font-size="12"'


def bars(title: str, groups: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """Draw horizontal bars in groups, on one logarithmic scale from the lowest decade to the longest bar.

    Args:
        title: above all.
        groups: by heading, the values by name; those of zcat have a colour of their own.
        unit: of the values.
    """
    values = [value for group in groups.values() for value in group.values() if value > 0]
    if not values:
        return ""
    low, high = math.floor(math.log10(min(values)) - 0.2), math.log10(max(values))
    room = _WIDTH - _LABEL - _VALUE
    lines = [f'<text x="0" y="18" font-weight="bold" {_FONT}>{escape(title)}</text>']
    y = 34
    for heading, group in groups.items():
        lines.append(f'<text x="0" y="{y + 12}" font-weight="bold" {_FONT}>{escape(heading)}</text>')
        y += _BAR + 4
        for name, value in group.items():
            share = (math.log10(value) - low) / max(high - low, 0.1) if value > 0 else 0
            colour = _COLOURS["zcat" if name.startswith("zcat") else ""]
            length = max(share * room, 1)
            lines += [
                f'<text x="{_LABEL - 8}" y="{y + 12}" text-anchor="end" {_FONT}>{escape(name)}</text>',
                f'<rect x="{_LABEL}" y="{y + 1}" width="{length:.1f}" height="{_BAR - 2}" fill="{colour}"/>',
                f'<text x="{_LABEL + length + 6:.1f}" y="{y + 12}" {_FONT}>{number(value)} {escape(unit)}</text>',
            ]
            y += _BAR + 3
        y += _GAP
    box = f'viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}"'
    white = f'<rect width="{_WIDTH}" height="{y}" fill="white"/>'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {box}>', white, *lines, "</svg>", ""])


def number(value: float) -> str:
    """Write a number with about three digits, and no more than are known."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.2g}" if value < 1 else f"{value:.3g}"

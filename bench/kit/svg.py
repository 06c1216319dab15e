"""Two kinds of plots, as SVG text: bars in groups, and lines over logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 32, 64, 52
COLOURS = {"gtask": "#c2410c", "Workerman": "#1d4ed8", "C epoll echo": "#15803d"}
OTHERS = ("#6b7280", "#9333ea", "#b45309", "#0e7490")
MARGIN = 1.25  # of a logarithmic axis beyond its figures


def bars(title: str, unit: str, groups: dict[str, dict[str, float]]) -> str:
    """A group of bars for each name, one for each of its series; figures on top."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    colours = _colours(names)
    top = max(value for group in groups.values() for value in group.values())
    inner, parts = WIDTH - LEFT - RIGHT, [*_frame(title, "", unit), *_legend(colours)]
    for value in _steps(top):
        parts += _grid_line(_linear(value, top), _short(value))
    slot = inner / len(groups)
    width = slot * 0.8 / len(names)
    for number, (label, group) in enumerate(groups.items()):
        left = LEFT + slot * number + slot * 0.1
        parts.append(_text(left + slot * 0.4, HEIGHT - BOTTOM + 20, label, "middle"))
        for name, value in group.items():
            x, y = left + width * names.index(name), _linear(value, top)
            parts.append(_bar(x, y, width * 0.9, colours[name]))
            parts.append(_text(x + width * 0.45, y - 4, _short(value), "middle", size=11))
    return _document(parts)


def lines(title: str, x_label: str, y_label: str, series: Mapping[str, Points]) -> str:
    """A line for each series; both axes are logarithmic."""
    colours = _colours(series)
    points = [point for line in series.values() for point in line]
    x_of = _logarithmic([x for x, _ in points], LEFT, WIDTH - RIGHT, margin=1.0)
    y_of = _logarithmic([y for _, y in points], HEIGHT - BOTTOM, TOP, margin=MARGIN)
    parts = [*_frame(title, x_label, y_label), *_legend(colours)]
    for y in _decades([y for _, y in points]):
        parts += _grid_line(y_of(y), _short(y))
    for x in dict.fromkeys(x for x, _ in points):
        parts.append(_text(x_of(x), HEIGHT - BOTTOM + 20, f"{x:,.0f}", "middle"))
    for name, line in series.items():
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line)
        colour = colours[name]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3" fill="{colour}"/>'
            for x, y in line
        ]
    return _document(parts)


def _colours(names: Iterable[str]) -> dict[str, str]:
    others = iter(OTHERS * 3)
    return {name: COLOURS.get(name) or next(others) for name in names}


def _linear(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - value / (top * 1.1) * (HEIGHT - BOTTOM - TOP)


def _logarithmic(values: list[float], start: float, end: float, margin: float):  # type: ignore[no-untyped-def]
    low, high = math.log(min(values) / margin), math.log(max(values) * margin)
    return lambda value: start + (math.log(value) - low) / ((high - low) or 1) * (end - start)


def _steps(top: float) -> list[float]:
    step = 10 ** math.floor(math.log10(top))
    step *= next(factor for factor in (0.2, 0.5, 1, 2) if top / (step * factor) <= 7)
    return [step * n for n in range(int(top / step) + 1)]


def _decades(values: list[float]) -> list[float]:
    low, high = min(values) / MARGIN, max(values) * MARGIN
    marks = (1, 2, 5) if high / low < 200 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10**p for p in powers for m in marks if low <= m * 10**p <= high]


def _short(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:g} M"
    if value >= 10_000:
        return f"{value / 1000:.0f} k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _frame(title: str, x_label: str, y_label: str) -> list[str]:
    middle = (HEIGHT - BOTTOM + TOP) / 2
    return [
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#ffffff"/>',
        f'<text x="16" y="24" font-size="15" font-weight="600">{escape(title)}</text>',
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_label, "middle"),
        f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>',
    ]


def _legend(colours: dict[str, str]) -> list[str]:
    parts, x = [], 16.0
    for name, colour in colours.items():
        parts.append(f'<rect x="{x}" y="36" width="10" height="10" rx="2" fill="{colour}"/>')
        parts.append(_text(x + 15, 45, name))
        x += 34 + 6.8 * len(name)
    return parts


def _grid_line(y: float, label: str) -> list[str]:
    return [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>',
        _text(LEFT - 8, y + 4, label, "end"),
    ]


def _bar(x: float, y: float, width: float, colour: str) -> str:
    height = HEIGHT - BOTTOM - y
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _document(parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="#1f2937">\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )

"""Charts as inline SVG: no script, no font and no file from elsewhere, so that a page works offline and for good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

COLOURS: Final = ("#1d70b8", "#d4351c", "#00703c", "#912b88", "#f47738", "#28a197")
UP, DOWN, INK, FAINT = "#00703c", "#d4351c", "#0b0c0c", "#b1b4b6"
Points = Sequence[tuple[float, float]]


def bars(rows: Sequence[tuple[str, str, float]], *, unit: str) -> str:
    """A bar to the right for each weight above 0, to the left below; rows are (group, label, weight)."""
    most = max((abs(weight) for _, _, weight in rows), default=1.0) or 1.0
    height, left, middle, half = 22 * len(rows) + 30, 250, 500, 210
    marks = []
    previous = ""
    for n, (group, label, weight) in enumerate(rows):
        top = 22 * n + 8
        if group != previous:
            marks.append(_text(4, top + 12, group, weight="bold"))
            if n:
                marks.append(f'<line x1="0" x2="760" y1="{top - 3}" y2="{top - 3}" stroke="{FAINT}"/>')
        previous = group
        width = half * abs(weight) / most
        start = middle if weight >= 0 else middle - width
        marks.append(_rect(start, top, width, 15, UP if weight >= 0 else DOWN))
        marks.append(_text(left - 8, top + 12, label, anchor="end"))
        beside = middle + width + 5 if weight >= 0 else middle - width - 5
        marks.append(_text(beside, top + 12, f"{weight:+.1f}", anchor="start" if weight >= 0 else "end"))
    marks.append(f'<line x1="{middle}" x2="{middle}" y1="0" y2="{height - 22}" stroke="{INK}"/>')
    marks.append(_text(middle, height - 6, unit, anchor="middle"))
    return _svg(760, height, marks, label=f"Bars in {unit}")


def waterfall(steps: Sequence[tuple[str, float]], *, marks_at: Mapping[str, float], unit: str) -> str:
    """From 0, step by step, to the sum; `marks_at` are lines across to hold it against."""
    sums = [0.0]
    for _, step in steps:
        sums.append(sums[-1] + step)
    low, high = min(*sums, *marks_at.values()) - 2, max(*sums, *marks_at.values()) + 2
    width, height, base = 110, 260, 30

    def y(value: float) -> float:
        return base + (height - 60) * (high - value) / (high - low)

    marks = [f'<line x1="0" x2="{width * (len(steps) + 1)}" y1="{y(0):.1f}" y2="{y(0):.1f}" stroke="{INK}"/>']
    for label, at in marks_at.items():
        marks.append(
            f'<line x1="0" x2="{width * (len(steps) + 1)}" y1="{y(at):.1f}" y2="{y(at):.1f}" stroke="{INK}" '
            'stroke-dasharray="4 4"/>'
        )
        marks.append(_text(2, y(at) - 4, label))
    for n, (label, step) in enumerate([*steps, ("together", sums[-1])]):
        start = 0.0 if n == len(steps) else sums[n]
        end = start + step
        colour = INK if n == len(steps) else UP if step >= 0 else DOWN
        top, bottom = y(max(start, end)), y(min(start, end))
        marks.append(_rect(width * n + 20, top, width - 40, max(bottom - top, 1.5), colour))
        marks.append(_text(width * n + width / 2, top - 4, f"{step:+.1f}", anchor="middle"))
        for line, words in enumerate(label.split("\n")):
            marks.append(_text(width * n + width / 2, height - 14 + 14 * line, words, anchor="middle"))
    return _svg(width * (len(steps) + 1), height + 20, marks, label=f"Waterfall in {unit}")


def lines(curves: Mapping[str, Points], *, x_label: str, marked: Mapping[str, float], low: float) -> str:
    """Curves over one axis, y from `low` to 1; `marked` are upright lines.  Three curves share a colour."""
    width, height, left, top, bottom, right = 900, 330, 50, 14, 46, 290
    xs = [x for points in curves.values() for x, _ in points]
    first, last = min(xs, default=0.0), max(xs, default=1.0)

    def at(x: float, y: float) -> tuple[float, float]:
        across = left + (width - left - right) * (x - first) / ((last - first) or 1)
        return across, top + (height - top - bottom) * (1 - (max(y, low) - low) / (1 - low))

    marks = []
    for step in range(6):
        value = low + (1 - low) * step / 5
        _, y = at(first, value)
        marks.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{FAINT}"/>')
        marks.append(_text(left - 6, y + 4, f"{value:.2f}", anchor="end"))
    step_x = max(1, round((last - first) / 8))
    for value in range(round(first), round(last) + 1, step_x):
        x, _ = at(value, low)
        marks.append(_text(x, height - bottom + 18, f"{value:d}", anchor="middle"))
    for label, value in marked.items():
        x, _ = at(value, low)
        marks.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - bottom}" stroke="{INK}" stroke-dasharray="4 4"/>'
        )
        marks.append(_text(x + 4, height - bottom - 6, label))
    for n, (label, points) in enumerate(curves.items()):
        colour = COLOURS[n // 3 % len(COLOURS)]
        dash = ("", "6 3", "2 3")[n % 3]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        marks.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}" points="{path}"/>'
        )
        y = top + 10 + 18 * n
        marks.append(
            f'<line x1="{width - right + 12}" x2="{width - right + 42}" y1="{y}" y2="{y}" stroke="{colour}" '
            f'stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        marks.append(_text(width - right + 48, y + 4, label))
    marks.append(_text((left + width - right) / 2, height - 8, x_label, anchor="middle"))
    return _svg(width, height, marks, label=f"{', '.join(curves)} by {x_label}")


def _svg(width: float, height: float, marks: Sequence[str], *, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" '
        f'aria-label="{escape(label)}">{"".join(marks)}</svg>'
    )


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _text(x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'

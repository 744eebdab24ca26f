"""What is inside of a panel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tests.pictures.units import shown, size_of

Json = dict[str, Any]
#: Grafana's classic palette, its first colours.
PALETTE = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0", "#508642", "#cca300",
           "#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62", "#584477", "#b7dbab", "#f4d598")  # fmt: skip
THRESHOLDS = {"yellow": "#f2cc0c", "red": "#e02f44"}
NAMED = {"green": "#56a64b", "red": "#e02f44", "orange": "#ff780a", "dark-red": "#ad0317", "purple": "#a352cc",
         "yellow": "#f2cc0c", "blue": "#3274d9", "light-blue": "#8ab8ff"}  # fmt: skip
FAINT = "#6e7781"

Drawn = Sequence[tuple[str, list[Any]]]


def blank(axes: Axes) -> None:
    """Nothing but its colour and an edge."""
    axes.set_xticks([])
    axes.set_yticks([])


def colours(panel: Json, drawn: Drawn) -> list[str]:
    """That which the panel gives a series by its name, else the next of the palette."""
    fixed = {
        each["matcher"]["options"]: NAMED[each["properties"][0]["value"]["fixedColor"]]
        for each in panel["fieldConfig"]["overrides"]
        if each["properties"][0]["id"] == "color"
    }
    return [fixed.get(name, PALETTE[n % len(PALETTE)]) for n, (name, _) in enumerate(drawn)]


def lines(axes: Axes, panel: Json, drawn: Drawn, colors: Sequence[str], span: tuple[float, float]) -> None:
    """Lines over time, one upon the other where they are stacked."""
    defaults = panel["fieldConfig"]["defaults"]
    times = sorted({float(at) for _, points in drawn for at, _ in points})
    heights = [_on(times, points) for _, points in drawn]
    if defaults["custom"]["stacking"]["mode"] == "normal":
        _stack(axes, times, heights, colors)
    else:
        for n, values in enumerate(heights):
            axes.plot(times, values, color=colors[n], linewidth=1)
            axes.fill_between(times, values, color=colors[n], alpha=0.06, linewidth=0)
    top = _limits(axes, defaults, np.nanmax(np.abs(heights), initial=0) if times else 0)
    for step in defaults["thresholds"]["steps"][1:]:
        if defaults["custom"]["thresholdsStyle"]["mode"] != "off" and step["value"] <= top:
            axes.axhline(step["value"], color=THRESHOLDS[step["color"]], linestyle="--", linewidth=0.8)
    _axes(axes, span, defaults["unit"])
    if not times:
        axes.text(0.5, 0.5, "No data", ha="center", transform=axes.transAxes, color=FAINT)


def _on(times: list[float], points: list[Any]) -> Any:
    known = {float(at): float(value) for at, value in points}
    values = np.array([known.get(at, np.nan) for at in times])
    return np.where(np.isfinite(values), values, np.nan)


def _stack(axes: Axes, times: list[float], heights: list[Any], colors: Sequence[str]) -> None:
    below = np.zeros(len(times))
    for n, values in enumerate(heights):
        above = below + np.nan_to_num(values)
        axes.fill_between(times, below, above, color=colors[n], alpha=0.7, linewidth=0)
        below = above


def _limits(axes: Axes, defaults: Json, highest: float) -> float:
    low, high = axes.get_ylim()
    low = defaults.get("min", low)
    if highest == 0:  # nothing to be seen but 0
        high = low + 1
    axes.set_ylim(low, defaults.get("max", high) if defaults["unit"] == "percentunit" and "max" in defaults else high)
    return axes.get_ylim()[1]


def _axes(axes: Axes, span: tuple[float, float], unit: str) -> None:
    axes.grid(color="#e6e8ea", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=6, colors=FAINT)
    scale = size_of(axes.get_ylim()[1], unit)
    low, high = (end / scale for end in axes.get_ylim())
    axes.set_yticks([tick * scale for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high * 1.001])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit, None)))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")))
    axes.set_xlim(*span)


def legend(axes: Axes, panel: Json, drawn: Drawn, colors: Sequence[str], columns: int, rows: int) -> None:
    """Below: names, with the last and the highest value of each."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    high = axes.get_position().height * axes.figure.get_figheight()
    fitting = columns * rows
    ranked = sorted(zip(drawn, colors, strict=True), key=lambda each: -_most(each[0][1]))  # as the panel asks for
    for n, ((name, points), color) in enumerate(ranked[:fitting]):
        values = [float(value) for _, value in points if np.isfinite(float(value))]
        numbers = f"{shown(values[-1], unit, None)}, max {shown(max(values), unit, None)}" if values else "no data"
        more = f"  (+ {len(drawn) - fitting} more)" if n == fitting - 1 and len(drawn) > fitting else ""
        x, y = n % columns / columns, -(0.27 + 0.135 * (n // columns)) / high
        width = axes.get_position().width * axes.figure.get_figwidth() / columns
        label = f"{_short(name, int(width * 23) - len(numbers) - 4)}  {numbers}{more}"
        axes.text(x, y, "━", color=color, transform=axes.transAxes, size=6, va="center")
        axes.text(
            x + 0.14 / (columns * width), y, label, transform=axes.transAxes, size=5.5, va="center", color="#24292e"
        )


def _most(points: list[Any]) -> float:
    return max((float(value) for _, value in points if np.isfinite(float(value))), default=-1.0)


def _short(name: str, most: int) -> str:
    most = max(most, 6)
    return name if len(name) <= most else name[: most - 1] + "…"


def sparkline(axes: Axes, points: list[Any]) -> None:
    """The way to the value, without axes."""
    blank(axes)
    values = [float(value) for _, value in points if np.isfinite(float(value))]
    if len(values) > 1:
        axes.fill_between(range(len(values)), values, color="white", alpha=0.25, linewidth=0)
        axes.set_xlim(0, len(values) - 1)
        axes.set_ylim(min(0, *values), max(max(values) * 1.6, 1e-9))


def bars(axes: Axes, drawn: Sequence[tuple[str, float]], colors: Sequence[str], defaults: Json) -> None:
    """A bar for each."""
    places = range(len(drawn), 0, -1)
    axes.barh(list(places), [value for _, value in drawn], color=list(colors), height=0.7)
    most = max([value for _, value in drawn], default=1) or 1
    axes.set_xlim(0, most)
    for place, (name, value) in zip(places, drawn, strict=True):
        axes.text(-0.02 * most, place, _short(name, 26), ha="right", va="center", size=6, color="#24292e")
        axes.text(most * 1.02, place, shown(value, defaults["unit"], defaults.get("decimals")), va="center", size=6)
    blank(axes)
    axes.set_ylim(0.4, len(drawn) + 0.6)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def heat(axes: Axes, series: list[Json], span: tuple[float, float]) -> None:
    """Buckets over time: Prometheus counts up to each bound, Grafana shows what lies between two."""
    found = sorted(series, key=lambda each: float(each["metric"]["le"]))
    bounds = [float(each["metric"]["le"]) for each in found]
    times = sorted({float(at) for each in found for at, _ in each["values"]})
    counts = np.nan_to_num(np.array([_on(times, each["values"]) for each in found]))
    between = np.diff(counts, axis=0, prepend=0).clip(min=0)
    used = np.flatnonzero(between.sum(axis=1) > 0)
    if len(used):
        first, last = used[0], used[-1]
        shades = np.ma.masked_equal(between[first : last + 1], 0) ** 0.5
        axes.pcolormesh(
            times, np.arange(last - first + 1) + 0.5, shades, cmap="Oranges", shading="nearest", rasterized=True
        )
        axes.set_yticks(np.arange(last - first + 1) + 1, [shown(bounds[n], "s", None) for n in range(first, last + 1)])
    ticks, names = axes.get_yticks(), [text.get_text() for text in axes.get_yticklabels()]
    _axes(axes, span, "s")
    axes.grid(visible=False)
    axes.set_yticks(ticks, names)


def words(text: Callable[..., None], width: float, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; the first column is twice as wide."""
    step = width / (len(heads) + 1)
    lefts = [0.08, *(step * (n + 2) for n in range(len(heads) - 1))]
    for x, head in zip(lefts, heads, strict=True):
        text(x, 0.45, head, size=7, weight="bold", color=FAINT)
    for n, row in enumerate(rows):
        for place, (x, cell) in enumerate(zip(lefts, row, strict=True)):
            text(x, 0.68 + 0.2 * n, _short(cell, int(step * (14 if place else 28))), size=7)

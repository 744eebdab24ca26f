"""A dashboard's file and its answers, drawn as Grafana lays it out: grid, units, colours of thresholds, legends.

It is a drawing of the data by matplotlib, not a screenshot of Grafana.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from tests.pictures import charts
from tests.pictures.units import shown

Json = dict[str, Any]
#: Inches of a column and of a row of the grid, and between panels.
COLUMN, LINE, GAP = 0.56, 0.29, 0.07
DOTS = 80
MOST_COLOURS = 128
INK, FAINT, PAPER, BOARD = "#24292e", "#6e7781", "#ffffff", "#f4f5f5"
COLOURS = {"green": "#56a64b", "yellow": "#f2cc0c", "red": "#e02f44", "blue": "#3274d9"}


def draw(document: Json, answers: dict[str, Any], target: Path) -> None:
    """Write the picture of a dashboard."""
    mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 7, "axes.edgecolor": "#d0d7de"})
    panels = document["panels"]
    lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(24 * COLUMN, (lines + 2) * LINE), dpi=DOTS, facecolor=BOARD)
    figure.text(0.008, 1 - LINE / figure.get_figheight(), document["title"], size=11, weight="bold", color=INK)
    span = _span(answers)
    for place, panel in enumerate(panels):
        _panel(_Box(figure, panel["gridPos"], span), panel, answers[str(place)])
    _write(figure, target)


def _span(answers: dict[str, Any]) -> tuple[float, float]:
    """From the first to the last moment of any graph."""
    times = [float(at) for panel in answers.values() for each in panel for one in each for at, _ in one["values"]]
    return min(times), max(times)


def _write(figure: Figure, target: Path) -> None:
    """With a palette: a third of the size."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", facecolor=BOARD)
    picture = Image.open(drawn).convert("RGB")
    picture.quantize(MOST_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        target, optimize=True
    )


class _Box:
    """A panel's rectangle on the figure; places in it are in inches from its upper left corner."""

    def __init__(self, figure: Figure, at: Json, span: tuple[float, float]) -> None:
        self.figure = figure
        #: The time that graphs show.
        self.span = span
        self.left, self.top = at["x"] * COLUMN + GAP / 2, (at["y"] + 2) * LINE
        self.width, self.height = at["w"] * COLUMN - GAP, at["h"] * LINE - GAP

    def axes(self, left: float, top: float, right: float, bottom: float, **options: Any) -> Axes:
        """Axes with these margins."""
        wide, high = self.figure.get_size_inches()
        return self.figure.add_axes(
            (
                (self.left + left) / wide,
                1 - (self.top + self.height - bottom) / high,
                max(self.width - left - right, 0.1) / wide,
                max(self.height - top - bottom, 0.1) / high,
            ),
            **options,
        )

    def text(self, x: float, y: float, text: str, **options: Any) -> None:
        """Words, their baseline at this place."""
        wide, high = self.figure.get_size_inches()
        self.figure.text((self.left + x) / wide, 1 - (self.top + y) / high, text, **{"color": INK, **options})


def _panel(box: _Box, panel: Json, answers: list[list[Json]]) -> None:
    if panel["type"] == "row":
        box.text(0.02, 0.17, f"▾ {panel['title']}", size=9, weight="bold")
        return
    charts.blank(box.axes(0, 0, 0, 0, facecolor=PAPER))
    box.text(0.08, 0.17, panel["title"], size=7.5, weight="bold")
    _DRAWN[panel["type"]](box, panel, answers)


def _timeseries(box: _Box, panel: Json, answers: list[list[Json]]) -> None:
    drawn = named(panel, answers)
    lines = min(-(-len(drawn) // _legend_columns(box)), 4)
    axes = box.axes(0.62, 0.28, 0.1, 0.26 + 0.135 * lines)
    colors = charts.colours(panel, drawn)
    charts.lines(axes, panel, drawn, colors, box.span)
    charts.legend(axes, panel, drawn, colors, _legend_columns(box), lines)


def _legend_columns(box: _Box) -> int:
    return max(int(box.width / 2.0), 1)


def _stat(box: _Box, panel: Json, answers: list[list[Json]]) -> None:
    points = [point for each in answers for one in each for point in one["values"]]
    value = float(points[-1][1]) if points else None
    defaults = panel["fieldConfig"]["defaults"]
    color = _colour(defaults, value)
    axes = box.axes(0.0, 0.26, 0.0, 0.0, facecolor=color)
    charts.sparkline(axes, points)
    words = "No data" if value is None else shown(value, defaults["unit"], defaults.get("decimals"))
    box.text(box.width / 2, 0.3 + (box.height - 0.3) * 0.6, words, size=15, weight="bold", ha="center", color=PAPER)


def _bargauge(box: _Box, panel: Json, answers: list[list[Json]]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    drawn = [(name, float(points[-1][1])) for name, points in named(panel, answers)]
    axes = box.axes(1.5, 0.3, 0.55, 0.08)
    charts.bars(axes, drawn, [_colour(defaults, value) for _, value in drawn], defaults)


def _heatmap(box: _Box, panel: Json, answers: list[list[Json]]) -> None:
    charts.heat(box.axes(0.62, 0.28, 0.1, 0.26), answers[0], box.span)


def _table(box: _Box, panel: Json, answers: list[list[Json]]) -> None:
    organize = panel["transformations"][-1]["options"]
    units = {each["matcher"]["options"]: each["properties"][0]["value"] for each in panel["fieldConfig"]["overrides"]}
    labels = [name for name in organize["indexByName"] if not name.startswith("Value")]
    heads = [organize["renameByName"].get(name, name) for name in organize["indexByName"]]
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for target, answer in zip(panel["targets"], answers, strict=True):
        for sample in answer:
            key = tuple(sample["metric"].get(label, "") for label in labels)
            text = shown(float(sample["value"][1]), units[target["legendFormat"]], None)
            rows.setdefault(key, {})[target["legendFormat"]] = text
    cells = [[*key, *(found.get(head, "") for head in heads[len(labels) :])] for key, found in sorted(rows.items())]
    fitting = max(int((box.height - 0.75) / 0.2), 1)
    charts.words(box.text, box.width, heads, cells[:fitting])
    if not cells:
        box.text(box.width / 2, box.height / 2, "No data", ha="center", color=FAINT)


def _text(box: _Box, panel: Json, answers: list[list[Json]]) -> None:
    for n, line in enumerate(textwrap.wrap(panel["options"]["content"], int(box.width * 15))):
        box.text(0.08, 0.42 + n * 0.16, line, size=7)


_DRAWN: dict[str, Callable[[_Box, Json, list[list[Json]]], None]] = {
    "timeseries": _timeseries,
    "stat": _stat,
    "bargauge": _bargauge,
    "heatmap": _heatmap,
    "table": _table,
    "text": _text,
}


def named(panel: Json, answers: list[list[Json]]) -> list[tuple[str, list[Any]]]:
    """Each series with its name in the legend."""
    called = {
        each["matcher"]["options"]: each["properties"][0]["value"]
        for each in panel["fieldConfig"]["overrides"]
        if each["properties"][0]["id"] == "displayName"
    }
    found = []
    for target, answer in zip(panel["targets"], answers, strict=True):
        for series in answer:
            found.append((_name(target["legendFormat"], series["metric"]), series["values"]))
    ordered = sorted(found, key=lambda each: each[0]) if len(panel["targets"]) == 1 else found
    return [(called.get(name, name), points) for name, points in ordered]


def _name(legend: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found.group(1), ""), legend)


def _colour(defaults: Json, value: float | None) -> str:
    """That of the last threshold which the value has reached."""
    if value is None:
        return FAINT
    reached = [step for step in defaults["thresholds"]["steps"] if step["value"] is None or value >= step["value"]]
    return COLOURS[reached[-1]["color"]]

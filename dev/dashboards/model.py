"""A dashboard as it is written here, and the JSON of Grafana that it becomes.

A panel says what is asked (queries), what it means (unit, thresholds, description) and how wide it is; its place, and
everything that Grafana wants besides, is filled in here. Grafana's model of the JSON: schema version 41, that of 11.6
and 12 (older and newer ones migrate it). `tests/unit/test_dashboards.py` holds it against Grafana's published types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]
Kind = Literal["timeseries", "stat", "bargauge", "heatmap", "table", "text"]

SCHEMA_VERSION = 41
COLUMNS = 24
TAG = "job-dispatcher"
SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}

Steps = tuple[tuple[float | None, str], ...]
#: Colours of what means the same everywhere, by the name of its series.
COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "ended failed": "red",
    "timed_out": "orange",
    "ended timed_out": "orange",
    "crashed": "dark-red",
    "cancelled": "purple",
    "expired": "yellow",
    "duplicate": "blue",
    "snoozed": "light-blue",
    "to be tried again": "yellow",
    "critical": "red",
    "high": "orange",
    "normal": "green",
    "low": "blue",
    "background": "purple",
}
#: Colours from a value on; None is the lowest.
PLAIN: Steps = ((None, "blue"),)


def above(warning: float, critical: float | None = None) -> Steps:
    """Green, yellow from one value on, red from another."""
    steps: Steps = ((None, "green"), (warning, "yellow" if critical is not None else "red"))
    return steps if critical is None else (*steps, (critical, "red"))


def below(warning: float, critical: float) -> Steps:
    """Red, yellow from the lower value on, green from the upper."""
    return ((None, "red"), (critical, "yellow"), (warning, "green"))


@dataclass(frozen=True)
class Query:
    """One question to Prometheus; ``legend`` names its series (in a table: its column), labels in ``{{…}}``."""

    expr: str
    legend: str = ""
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel. ``unit`` is Grafana's name of it; ``width`` is in columns, of which there are 24, ``height`` in rows.

    A table has a row for each set of labels, and a column for each label and each query.
    """

    title: str
    says: str
    asks: Sequence[Query]
    kind: Kind = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    steps: Steps = PLAIN
    stacked: bool = False
    least: float | None = 0
    most: float | None = None
    decimals: int | None = None
    #: The labels that a table has columns of, and what these are called.
    columns: Mapping[str, str] = field(default_factory=dict)
    #: What series are called instead of what their legend makes of their labels.
    names: Mapping[str, str] = field(default_factory=dict)
    #: The dashboard that says more.
    to: str = ""
    text: str = ""


@dataclass(frozen=True)
class Row:
    """Panels under a heading, placed from left to right."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Variable:
    """A choice at the top: the values of a label of a metric."""

    name: str
    label: str
    query: str
    says: str
    #: Which part of the values is taken; all of it where empty.
    regex: str = ""


@dataclass(frozen=True)
class Dashboard:
    """One dashboard; ``name`` is its file's and, behind the tag, its uid."""

    name: str
    title: str
    says: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = field(default_factory=tuple)
    since: str = "now-3h"

    @property
    def uid(self) -> str:
        """Its address in Grafana, which never changes."""
        return f"{TAG}-{self.name}"

    def json(self) -> Json:
        """What Grafana reads."""
        return {
            "uid": self.uid,
            "title": f"Job Dispatcher / {self.title}",
            "description": self.says,
            "tags": [TAG],
            "schemaVersion": SCHEMA_VERSION,
            "editable": True,
            "graphTooltip": 1,  # the time under the cursor is marked in every panel
            "timezone": "browser",
            "refresh": "30s",
            "time": {"from": self.since, "to": "now"},
            "timepicker": {"refresh_intervals": ["5s", "10s", "30s", "1m", "5m", "15m", "1h"]},
            "templating": {"list": [_source_variable(), *map(_variable, self.variables)]},
            "annotations": {"list": [_firing()]},
            "links": [_others()],
            "panels": _placed(self.rows),
        }


def _source_variable() -> Json:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "hide": 0,
        "regex": "",
    }


def _variable(variable: Variable) -> Json:
    return {
        "name": variable.name,
        "label": variable.label,
        "description": variable.says,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": variable.query, "refId": f"variable-{variable.name}"},
        "definition": variable.query,
        "refresh": 2,  # when the time range changes: values come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",  # series without the label too
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "regex": variable.regex,
    }


def _firing() -> Json:
    return {
        "name": "Alerts",
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "datasource": SOURCE,
        "expr": FIRING,
        "titleFormat": "{{alertname}}",
        "step": "30s",
    }


#: Our alerts that fire.
FIRING = 'ALERTS{alertstate="firing", alertname=~"Dispatcher.*"}'


def _others() -> Json:
    return {
        "title": "Job Dispatcher",
        "type": "dashboards",
        "tags": [TAG],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "The other dashboards, with the same choices and time",
        "url": "",
    }


def _placed(rows: Iterable[Row]) -> list[Json]:
    """Rows one below the other; in each, lines of panels that are exactly full."""
    made: list[Json] = []
    y = 0
    for row in rows:
        made.append({"type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": _at(0, y, 24, 1)})
        x, y, tall = 0, y + 1, 0
        for panel in row.panels:
            made.append(_panel(panel) | {"gridPos": _at(x, y, panel.width, panel.height)})
            x, tall = x + panel.width, max(tall, panel.height)
            if x >= COLUMNS:
                x, y, tall = 0, y + tall, 0
        if x:
            raise ValueError(f"{row.title}: the last line has {x} of {COLUMNS} columns")
    return made


def _at(x: int, y: int, w: int, h: int) -> Json:
    return {"x": x, "y": y, "w": w, "h": h}


def _panel(panel: Panel) -> Json:
    common: Json = {"type": panel.kind, "title": panel.title, "description": panel.says, "datasource": SOURCE}
    if panel.kind == "text":
        return common | {"options": {"mode": "markdown", "content": panel.text}}
    made = common | {
        "targets": [_target(panel, query, chr(ord("A") + n)) for n, query in enumerate(panel.asks)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _OPTIONS[panel.kind],
    }
    if panel.kind == "table":
        made["transformations"] = _columns(panel)
    if panel.to:
        made["links"] = [{"title": panel.to.capitalize(), "url": link(panel.to), "targetBlank": False}]
    return made


def link(name: str) -> str:
    """The address of another dashboard, with the same time and choices."""
    return f"/d/{TAG}-{name}?${{__url_time_range}}&${{__all_variables}}"


def _target(panel: Panel, query: Query, ref: str) -> Json:
    now = panel.kind in {"table", "bargauge"}
    return {
        "refId": ref,
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "format": {"table": "table", "heatmap": "heatmap"}.get(panel.kind, "time_series"),
        "instant": now,
        "range": not now,
    }


def _defaults(panel: Panel) -> Json:
    made: Json = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in panel.steps]},
        "custom": _CUSTOM.get(panel.kind, {}),
    }
    if panel.kind == "timeseries":
        made["custom"] = made["custom"] | {
            "fillOpacity": 70 if panel.stacked else 8,
            "lineWidth": 0 if panel.stacked else 1,  # of a stack, 0 on top would draw a line around all of it
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "off" if panel.steps == PLAIN else "dashed"},
        }
    given = {"min": panel.least, "max": panel.most, "decimals": panel.decimals}
    return made | {name: value for name, value in given.items() if value is not None}


def _overrides(panel: Panel) -> list[Json]:
    """Units of a table's columns; names and colours of series."""
    if panel.kind == "table":
        return [_override(query.legend, "unit", query.unit or panel.unit) for query in panel.asks]
    made = [_override(name, "displayName", other) for name, other in panel.names.items()]
    if panel.kind == "timeseries":
        fixed = {name: {"mode": "fixed", "fixedColor": color} for name, color in COLOURS.items()}
        made += [_override(name, "color", color) for name, color in fixed.items() if _may_be(panel, name)]
    return made


def _override(name: str, what: str, value: Any) -> Json:
    return {"matcher": {"id": "byName", "options": name}, "properties": [{"id": what, "value": value}]}


def _may_be(panel: Panel, name: str) -> bool:
    """Whether a series of the panel may have that name: as it stands, or as the value of one label."""
    return any(_LEGENDS.get(query.legend, lambda n, legend=query.legend: n == legend)(name) for query in panel.asks)


def _one_of(*names: str) -> Callable[[str], bool]:
    return lambda name: name in names


_PRIORITIES = ("critical", "high", "normal", "low", "background")
_ENDS = ("succeeded", "failed", "timed_out", "crashed", "cancelled", "expired", "duplicate", "snoozed")
#: What the legends of a single label may show.
_LEGENDS: dict[str, Callable[[str], bool]] = {
    "{{priority}}": _one_of(*_PRIORITIES),
    "{{state}}": _one_of(*_ENDS),
    "{{outcome}}": _one_of(*_ENDS),
    "ended {{state}}": _one_of("ended failed", "ended timed_out"),
}


def _columns(panel: Panel) -> list[Json]:
    """One table of all queries' answers: a row for each value of the label, a column for each query."""
    if len(panel.asks) == 1:
        names = {"Value": panel.asks[0].legend}
    else:
        names = {f"Value #{chr(ord('A') + n)}": query.legend for n, query in enumerate(panel.asks)}
    renamed = names | dict(panel.columns)
    order = {name: place for place, name in enumerate([*panel.columns, *names])}
    return [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": renamed}},
    ]


_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_CUSTOM: dict[Kind, Json] = {
    "timeseries": {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "showPoints": "never",
        "spanNulls": False,
    },
    "table": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True},
}
_OPTIONS: dict[Kind, Json] = {
    "timeseries": {
        "legend": {
            "showLegend": True,
            "displayMode": "table",
            "placement": "bottom",
            "calcs": ["lastNotNull", "max"],
            "sortBy": "Max",
            "sortDesc": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": _LAST,
        "colorMode": "background",
        "graphMode": "area",
        "textMode": "auto",
        "justifyMode": "auto",
        "orientation": "auto",
    },
    "bargauge": {
        "reduceOptions": _LAST,
        "displayMode": "basic",
        "orientation": "horizontal",
        "showUnfilled": True,
        "valueMode": "color",
    },
    "heatmap": {
        "calculate": False,
        "yAxis": {"axisPlacement": "left", "unit": "s"},
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange"},
        "cellGap": 1,
        "tooltip": {"mode": "single", "yHistogram": True},
        "legend": {"show": True},
        "filterValues": {"le": 1e-9},
        "showValue": "never",
    },
    "table": {"showHeader": True, "cellHeight": "sm"},
}

"""What Grafana asks Prometheus for a dashboard's file: its variables filled in, as Grafana does it.

It reads the file as it is shipped, not what it was made from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
_LABEL_VALUES = re.compile(r"label_values\((?P<series>.+), (?P<label>\w+)\)")


@dataclass(frozen=True)
class Question:
    """One query of a panel; at once (a table, a bar) or for each step of the time shown."""

    panel: str
    expr: str
    instant: bool


@dataclass(frozen=True)
class Filling:
    """What stands for a dashboard's variables; times are in seconds.

    Args:
        scrape: how often Prometheus scrapes, which Grafana's data source is told.
        step: between two points of a graph.
        shown: the length of the time shown.
        choices: values chosen of each variable; none: All, which is ``.*`` in our dashboards.
    """

    scrape: float
    step: float
    shown: float
    choices: Mapping[str, Sequence[str]]

    def fill(self, expr: str) -> str:
        """The query as Prometheus gets it; ValueError where a variable is left."""
        interval = max(self.step + self.scrape, 4 * self.scrape)  # Grafana's definition of $__rate_interval
        known = {
            "__rate_interval": f"{interval:.0f}s",
            "__range_s": f"{self.shown:.0f}",
            "__range": f"{self.shown:.0f}s",
        } | {name: _regex(values) for name, values in self.choices.items()}
        for name in sorted(known, key=len, reverse=True):
            expr = expr.replace(f"${name}", known[name])
        if re.search(r"\$(?!\d)", expr):  # $1 is label_replace's
            raise ValueError(f"a variable without a value: {expr}")
        return expr


def _regex(values: Sequence[str]) -> str:
    """All, one, or several, as in a condition of the kind ``=~``."""
    if not values:
        return ".*"
    escaped = [re.escape(value).replace("\\", "\\\\").replace("\\\\-", "-") for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def panels(dashboard: Json) -> Iterator[Json]:
    """The panels that ask something."""
    return (panel for panel in dashboard["panels"] if panel.get("targets"))


def questions(dashboard: Json) -> Iterator[Question]:
    """Every query of every panel, not yet filled in."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield Question(panel["title"], target["expr"], target["instant"])


def variables(dashboard: Json) -> Iterator[tuple[str, str, str, str]]:
    """Name, series, label and pattern of each variable whose values are those of a label."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found = _LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert found is not None, variable["query"]
            yield variable["name"], found["series"], found["label"], variable["regex"]


def captured(values: Iterable[str], pattern: str) -> list[str]:
    """The values that a variable's pattern (``/…(…)…/``) takes out of a label's values; all of them without one."""
    if not pattern:
        return sorted(values)
    found = [re.search(pattern.strip("/"), value) for value in values]
    return sorted({match.group(1) for match in found if match})


def names(dashboard: Json) -> list[str]:
    """Names of the variables that queries may use."""
    return [variable["name"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]

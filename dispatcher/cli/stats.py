"""``dispatcher stats``: statistics from the job documents."""

from __future__ import annotations

from typing import Any

import click

from dispatcher.cli import output
from dispatcher.cli.session import run_operation
from dispatcher.core import statistics
from schemas import JobState


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def stats(as_json: bool) -> None:
    """Counts by state, with waiting and running times, by type, priority and app."""
    report = statistics.report(run_operation(lambda operations: operations.statistics.cells()))
    if as_json:
        output.emit_json(report)
        return
    states = [state for state in JobState if report["total"].get(state)]
    for title in ("by_type", "by_priority", "by_app"):
        _table(title.replace("_", " "), report[title], report["starts"][title], [str(state) for state in states])
    total = ", ".join(f"{report['total'][state]} {state}" for state in states) or "no jobs yet"
    output.say(f"total: {total}; {report['total']['retries']} retries, {report['starts']['total']} starts")


def _table(title: str, groups: dict[str, Any], starts: dict[str, int], states: list[str]) -> None:
    columns = [
        title,
        *(f">{state}" for state in states),
        ">retries",
        ">starts",
        ">wait p50",
        ">p99",
        ">run p50",
        ">p99",
    ]
    rows = []
    for name, group in groups.items():
        wait, run = group["wait_ms"], group["run_ms"]
        rows.append(
            (
                name or "(no valid type)",
                *(group.get(state, 0) for state in states),
                group["retries"],
                starts[name],
                *(output.duration(ms) for ms in (wait["p50"], wait["p99"], run["p50"], run["p99"])),
            )
        )
    output.table(None, columns, rows)

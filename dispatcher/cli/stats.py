"""``dispatcher stats``: statistics from the job documents."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from dispatcher.cli import output
from dispatcher.cli.session import run_operation
from dispatcher.core import statistics
from schemas import JobState

_TOTALS = (">retries", ">starts")
_TIMES = (">wait p50", ">wait p99", ">run p50", ">run p99")


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
    """One table; where the terminal is too narrow for it, one of counts, a state a line, and one of times."""
    names = [name or "(no valid type)" for name in groups]
    counts = [[group.get(state, 0) for state in states] for group in groups.values()]
    totals = [[group["retries"], starts[name]] for name, group in groups.items()]
    times = [_times(group) for group in groups.values()]
    wide = [title, *(f">{state}" for state in states), *_TOTALS, *_TIMES]
    rows = [
        [name, *count, *total, *time] for name, count, total, time in zip(names, counts, totals, times, strict=True)
    ]
    if output.fits(wide, rows):
        output.table(None, wide, rows)
        return
    told = [  # as Text: of other cells each is one line
        Text("\n".join(f"{number} {state}" for number, state in zip(count, states, strict=True) if number))
        for count in counts
    ]
    output.table(
        None,
        [title, "jobs", *_TOTALS],
        [[name, text, *total] for name, text, total in zip(names, told, totals, strict=True)],
    )
    output.table(None, [title, *_TIMES], [[name, *time] for name, time in zip(names, times, strict=True)])


def _times(group: dict[str, Any]) -> list[str]:
    wait, run = group["wait_ms"], group["run_ms"]
    return [output.duration(ms) for ms in (wait["p50"], wait["p99"], run["p50"], run["p99"])]

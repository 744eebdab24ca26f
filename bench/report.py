"""The figures as tables, and as one JSON document."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.celery_side import Tuning
from bench.compare import WITH_IDS, WITHOUT_IDS, Run
from bench.timing import Timing

#: What we hold ourselves to: times Celery's rate, and milliseconds.
TIMES_CELERY = 4.0
#: Part of the rate of jobs without ids that jobs with ids are to have.
OF_RATE_WITH_IDS = 0.8
LATE_P99 = {"retry late at 200 retries/s": 50.0, "retry late, 1,000 failing at once": 150.0}
_ROLES = ("publisher", "intake", "worker", "recorder", "scheduler", "RabbitMQ", "MongoDB")


def summary(runs: Sequence[Run], timings: Sequence[Timing], tuning: Tuning) -> dict[str, Any]:
    """Everything, as one document."""
    return {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "celery": asdict(tuning),
        "runs": [{**asdict(run), "rate": run.rate} for run in runs],
        "sides": {side: _side(runs, side) for side in dict.fromkeys(run.side for run in runs)},
        "ratio": ratio(runs),
        "ids_ratio": ratio(runs, WITH_IDS, WITHOUT_IDS),
        "timings": [asdict(timing) for timing in timings],
    }


def _side(runs: Sequence[Run], side: str) -> dict[str, Any]:
    own = [run for run in runs if run.side == side]
    rates = [run.rate for run in own]
    return {
        "rate": {"median": median(rates), "min": min(rates), "max": max(rates)},
        "cpu_per_1000": {role: median(run.cpu_per_1000[role] for run in own) for role in own[0].cpu_per_1000},
    }


def ratio(runs: Sequence[Run], one: str = "ours", other: str = "Celery") -> dict[str, float] | None:
    """Of one side to the other: of the medians, and of the neighbouring runs, which share the machine's mood."""
    ones = [run.rate for run in runs if run.side == one]
    others = [run.rate for run in runs if run.side == other]
    if not ones or not others:
        return None
    pairs = [a / b for a, b in zip(ones, others, strict=True)]
    return {"median": median(ones) / median(others), "min": min(pairs), "max": max(pairs)}


def show(result: dict[str, Any], console: Console) -> None:
    """Print the tables."""
    if result["sides"]:
        console.print(_rates(result))
        console.print(_cpu(result))
    if result["timings"]:
        console.print(_timings(result))


def _rates(result: dict[str, Any]) -> Table:
    table = Table("", "median", "lowest", "highest", title="Publisher to finished with history, jobs a second")
    for side, figures in result["sides"].items():
        rate = figures["rate"]
        table.add_row(side, *(f"{rate[name]:,.0f}" for name in ("median", "min", "max")))
    if found := result["ratio"]:
        fine = _mark(found["median"] >= TIMES_CELERY)
        table.add_row("times Celery", *(f"{found[name]:.2f}" for name in ("median", "min", "max")), end_section=True)
        table.caption = f"bar: at least {TIMES_CELERY:g} times Celery {fine}"
    if found := result["ids_ratio"]:
        fine = _mark(found["median"] >= OF_RATE_WITH_IDS)
        table.add_row("with ids, part", *(f"{found[name]:.2f}" for name in ("median", "min", "max")), end_section=True)
        table.caption = f"bar: with ids at least {OF_RATE_WITH_IDS:g} of the rate without {fine}"
    return table


def _cpu(result: dict[str, Any]) -> Table:
    sides = result["sides"]
    table = Table("process", *sides, title="CPU seconds per 1,000 jobs (medians)")
    for role in _ROLES:
        values = [figures["cpu_per_1000"].get(role) for figures in sides.values()]
        if any(value is not None for value in values):
            table.add_row(role, *("" if value is None else f"{value:.2f}" for value in values))
    totals = [sum(figures["cpu_per_1000"].values()) for figures in sides.values()]
    table.add_section()
    table.add_row("all", *(f"{total:.2f}" for total in totals))
    return table


def _timings(result: dict[str, Any]) -> Table:
    table = Table("ours", "jobs", "least", "p50", "p99", "most", "ran again", "bar", title="Milliseconds")
    for timing in result["timings"]:
        figures = (f"{timing[name]:.1f}" for name in ("min", "p50", "p99", "max"))
        table.add_row(timing["what"], f"{timing['jobs']:,}", *figures, str(timing["extra"]), _bar(timing))
    return table


def _bar(timing: dict[str, Any]) -> str:
    most = LATE_P99.get(timing["what"])
    if most is None:
        return ""
    return f"never early, p99 < {most:g} {_mark(timing['min'] >= 0 and timing['p99'] < most)}"


def _mark(fine: bool) -> str:
    return "[green]met[/green]" if fine else "[red]missed[/red]"


def write(result: dict[str, Any], path: Path) -> None:
    """Write the document."""
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

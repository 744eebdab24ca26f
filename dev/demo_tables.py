"""The demo's tables, each read from the job documents in MongoDB."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.table import Table

PRIORITIES = ("critical", "high", "normal", "low", "background")
#: Backoff of demo.flaky (the default policy) and demo.hopeless (base 0.5 s), in seconds, by the attempt that failed.
BACKOFF = {"demo.flaky": {1: 1.0, 2: 2.0, 3: 4.0}, "demo.hopeless": {1: 0.5}}
STYLES = {
    "succeeded": "green",
    "failed": "red",
    "timed_out": "red",
    "rejected": "red",
    "cancelled": "magenta",
}


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def outcome_table(db: Any) -> Table:
    """How many jobs of each type ended in which state."""
    pipeline = [{"$group": {"_id": {"type": "$type", "state": "$state"}, "n": {"$sum": 1}}}]
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for row in db.jobs.aggregate(pipeline):
        counts[row["_id"]["type"] or "(no valid type)"][row["_id"]["state"]] = row["n"]
    states = sorted({state for by_state in counts.values() for state in by_state}, key=list(STYLES).index)
    table = _table("Outcomes by type", "type", *(f"[{STYLES[state]}]{state}[/]" for state in states))
    for kind in sorted(counts):
        table.add_row(kind, *(str(counts[kind].get(state, "")) for state in states))
    return table


def retry_table(db: Any) -> Table:
    """The delay between the end of an attempt and the start of the next, beside the backoff that was asked for."""
    waits: dict[tuple[str, int], list[float]] = defaultdict(list)
    for job in db.jobs.find({"type": {"$in": list(BACKOFF)}}, {"type": 1, "attempts": 1}):
        for earlier, later in zip(job["attempts"], job["attempts"][1:], strict=False):
            seconds = (later["started_at"] - earlier["finished_at"]).total_seconds()
            waits[job["type"], earlier["n"]].append(seconds)
    table = _table("Retry delays as measured", "retry", "backoff", "retries", "earliest", "median", "latest")
    for (kind, n), measured in sorted(waits.items()):
        backoff = BACKOFF[kind][n]
        shown = (f"{seconds:.3f} s" for seconds in (min(measured), percentile(measured, 50), max(measured)))
        table.add_row(f"{kind}, after attempt {n}", f"{backoff:g} s", str(len(measured)), *shown)
    return table


def latency_table(db: Any) -> Table:
    """From acceptance to the first start, by priority (all jobs were published at once)."""
    waits: dict[str, list[float]] = defaultdict(list)
    for job in db.jobs.find({"wait_ms": {"$exists": True}}, {"priority": 1, "wait_ms": 1}):
        waits[job["priority"]].append(job["wait_ms"])
    table = _table("Acceptance to start", "priority", "jobs", "p50", "p95", "p99")
    for priority in PRIORITIES:
        measured = waits[priority]
        if measured:
            shown = (f"{percentile(measured, p):.0f} ms" for p in (50, 95, 99))
            table.add_row(priority, str(len(measured)), *shown)
    return table


def percentile(values: Sequence[float], p: int) -> float:
    """Nearest rank."""
    return sorted(values)[max(math.ceil(len(values) * p / 100) - 1, 0)]

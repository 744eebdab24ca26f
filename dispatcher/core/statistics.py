"""Statistics from the job documents alone.

MongoDB counts documents into *cells* (type, priority, app, state) with histograms of wait and run times; this module
adds cells up and reads percentiles. Histogram buckets grow by 2%, so a percentile is exact to about 1%.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Ratio between neighbouring histogram buckets.
GROWTH = 1.02
#: Bucket of times below one millisecond.
ZERO_BUCKET = -1
PERCENTILES = (50, 95, 99)


@dataclass(slots=True)
class Cell:
    """Counts of the documents of one (type, priority, app): states, retries, starts, histograms {bucket: count}."""

    type: str
    priority: str | None
    app: str
    states: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    starts: int = 0
    wait: Counter[int] = field(default_factory=Counter)
    run: Counter[int] = field(default_factory=Counter)
    breached: int = 0

    def add(self, other: Cell) -> None:
        """Add another cell's counts."""
        self.states += other.states
        self.retries += other.retries
        self.starts += other.starts
        self.breached += other.breached
        self.wait += other.wait
        self.run += other.run


def bucket(ms: float) -> int:
    """The histogram bucket of a time in milliseconds."""
    return ZERO_BUCKET if ms < 1 else round(math.log(ms) / math.log(GROWTH))


def bucket_ms(index: int) -> float:
    """The time in milliseconds that a bucket stands for."""
    return 0.0 if index == ZERO_BUCKET else round(GROWTH**index, 1)


def percentiles(histogram: Mapping[int, int]) -> dict[str, float | None]:
    """``p50``, ``p95`` and ``p99`` in milliseconds (nearest rank); None where nothing was measured."""
    total = sum(histogram.values())
    result: dict[str, float | None] = {f"p{p}": None for p in PERCENTILES}
    if not total:
        return result
    ranks = {f"p{p}": math.ceil(total * p / 100) for p in PERCENTILES}
    seen = 0
    for index in sorted(histogram):
        seen += histogram[index]
        for name, rank in ranks.items():
            if result[name] is None and seen >= rank:
                result[name] = bucket_ms(index)
    return result


def report(cells: Iterable[Cell]) -> dict[str, Any]:
    """The document of ``stats --json``.

    ``starts`` counts executions that began, ``breached`` jobs that finished after their deadline, apart from states.
    """
    cells = list(cells)
    groups = {f"by_{name}": _grouped(cells, name) for name in ("type", "priority", "app")}
    total = _sum(cells)
    breached = {by: {name: cell.breached for name, cell in group.items()} for by, group in groups.items()}
    starts = {by: {name: cell.starts for name, cell in group.items()} for by, group in groups.items()}
    return {
        "total": _counts(total),
        **{by: {name: _full(cell) for name, cell in group.items()} for by, group in groups.items()},
        "starts": {"total": total.starts, **starts},
        "breached": {"total": total.breached, **breached},
    }


def _sum(cells: Iterable[Cell]) -> Cell:
    total = Cell("", None, "")
    for cell in cells:
        total.add(cell)
    return total


def _grouped(cells: Iterable[Cell], by: str) -> dict[str, Cell]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        name = getattr(cell, by)
        if name is not None:
            groups.setdefault(name, []).append(cell)
    return {name: _sum(groups[name]) for name in sorted(groups)}


def _counts(cell: Cell) -> dict[str, Any]:
    return {**{state: cell.states[state] for state in sorted(cell.states)}, "retries": cell.retries}


def _full(cell: Cell) -> dict[str, Any]:
    return {**_counts(cell), "wait_ms": percentiles(cell.wait), "run_ms": percentiles(cell.run)}

"""What happened between two moments of a run: jobs published and started a second, and how long they waited."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from tests.faults.executions import Execution

HEADER = "phase       seconds  published/s  started/s   wait in ms: p50      p99      max"
#: Part of the rate of publishes that is kept up where jobs run on.
KEPT_UP = 0.95
_QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def measure(
    moments: Mapping[str, float], end: float, attempted: Mapping[str, float], executions: Sequence[Execution]
) -> list[dict[str, Any]]:
    """A table's rows.

    Args:
        moments: when each phase begins, in their order, in seconds since the epoch; those that begin after the end,
            or when the next does, are left out.
        end: when the last of them ends.
        attempted: when each job was published; executions of others do not count.
    """
    begins = [min(began, end) for began in moments.values()]
    return [
        {"phase": name} | _phase(attempted, executions, began, ended)
        for name, (began, ended) in zip(moments, pairwise([*begins, end]), strict=True)
        if ended > began
    ]


def _phase(
    attempted: Mapping[str, float], executions: Sequence[Execution], began: float, ended: float
) -> dict[str, Any]:
    inside = [x for x in executions if x.job in attempted and began <= x.started < ended]
    waits = sorted(x.started - attempted[x.job] for x in inside) or [math.nan]
    seconds = ended - began
    return {
        "seconds": round(seconds, 1),
        "published_a_second": round(sum(began <= at < ended for at in attempted.values()) / seconds, 1),
        "started_a_second": round(len(inside) / seconds, 1),
        "wait_ms": {name: round(waits[int(q * (len(waits) - 1))] * 1000, 1) for name, q in _QUANTILES.items()},
    }


def kept_up(phase: Mapping[str, Any]) -> bool:
    """Whether jobs started as fast as they were published."""
    return bool(phase["started_a_second"] >= KEPT_UP * phase["published_a_second"])


def show(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table for people."""
    lines = [
        f"{row['phase']:11}{row['seconds']:8}{row['published_a_second']:13}{row['started_a_second']:11}"
        f"{row['wait_ms']['p50']:18}{row['wait_ms']['p99']:9}{row['wait_ms']['max']:9}"
        for row in rows
    ]
    return "\n".join([HEADER, *lines])

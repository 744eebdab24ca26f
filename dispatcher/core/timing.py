"""A job's times: when it is due, until when it may start, and where it waits meanwhile.

A delay of at most a minute is spent in the delay ladder. What is due later waits in MongoDB, where it can be listed,
moved and cancelled; it enters the ladder when its time is near.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from dispatcher.core import ladder
from dispatcher.core.topology import GROUPS, Names, work_key
from schemas import JobRequest, WorkMessage
from schemas.job import MAX_DELAY_SECONDS, MAX_MILLIS

#: Longest time that a client's delay spends in the ladder, in milliseconds.
LADDER_MS = 60_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_time(text: str) -> int | None:
    """An RFC 3339 time with its offset as milliseconds since the epoch, rounded up; None where it is none."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        return None
    date, minute, second, fraction, offset = found.groups()
    leap = second == "60"  # RFC 3339 has it, Python has not
    try:
        whole = datetime.fromisoformat(f"{date}T{minute}:{'59' if leap else second}{offset.upper()}")
    except ValueError:
        return None
    seconds = (whole - _EPOCH) // timedelta(seconds=1) + leap
    ms = seconds * 1000 + math.ceil(float(fraction or 0) * 1000 - 1e-6)
    return ms if ms <= MAX_MILLIS else None


def after(now: int, seconds: float | None) -> int | None:
    """So many seconds from now, rounded up to a millisecond; at most what a date can say."""
    if seconds is None:
        return None
    return min(now + math.ceil(min(seconds * 1000 - 1e-6, MAX_MILLIS)), MAX_MILLIS)


def due(request: JobRequest, now: int) -> int | None:
    """When a job asks to start; None for now. The past means now.

    Raises:
        ValueError: the time is no time, or too far ahead; the sentence says what it must be.
    """
    at = after(now, request.delay)
    if request.run_at is not None:
        at = parse_time(request.run_at)
        if at is None:
            raise ValueError("must be an RFC 3339 time with its offset, such as 2030-01-31T18:00:00+01:00")
        if at > now + MAX_DELAY_SECONDS * 1000:
            raise ValueError("must be at most 1 year (31,536,000 s) ahead")
    return at if at is not None and at > now else None


def has_expired(work: WorkMessage, now: int) -> bool:
    """Whether a step must not start any more: its time to start is over, or will be when it is due."""
    return work.expires_at is not None and max(now, work.due_at or 0) >= work.expires_at


def wakes_at(work: WorkMessage) -> int:
    """When somebody must look at a job that waits: it is due then, or has expired."""
    due_at = work.accepted_at if work.due_at is None else work.due_at
    return due_at if work.expires_at is None else min(due_at, work.expires_at)


class Route(NamedTuple):
    """Where a step is published; ``stay_ms`` is how long it stays in the first queue of the delay ladder."""

    exchange: str
    routing_key: str
    stay_ms: int | None = None


def route(
    names: Names,
    lane: str,
    priority: str,
    due_at: int | None,
    now: int,
    partition: int | None = None,
    longest: float = LADDER_MS,
) -> Route:
    """Where a step that is due then waits: in its queue, in the delay ladder, or for the scheduler.

    ``partition``: of a step that waits for the others of its group, once it is due (`dispatcher.core.grouping`);
    ``longest``: milliseconds that may be spent in the ladder.
    """
    left = 0 if due_at is None else due_at - now
    if left > longest:
        return Route("", names.scheduled)
    if left > 0:
        way = ladder.enter(left / 1000, *((lane, priority) if partition is None else (GROUPS, str(partition))))
        return Route(names.delays, way.routing_key, way.stay_ms)
    return Route(names.work, work_key(lane, priority)) if partition is None else Route("", names.group(partition))

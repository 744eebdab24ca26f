"""The job that has waited the longest, by lane and priority, and the one that is overdue for the longest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from dispatcher.edges.mongo.client import Database, from_date
from schemas import PRIORITIES, JobState

#: So many of the first accepted are looked at: one that waited for its time has waited since that.
FIRST = 20
#: Longest time that the server may take, in milliseconds.
LONGEST_MS = 2_000


async def oldest_queued(database: Database, lanes: Iterable[str]) -> dict[tuple[str, str], int | None]:
    """When the longest waiting job in state ``queued`` was accepted, or due; None where none waits.

    Runs that were started by hand are left out: when they were is not in the document.

    Raises:
        DatabaseError: MongoDB is away.
    """
    keys = [(lane, priority) for lane in lanes for priority in PRIORITIES]
    return dict(zip(keys, await asyncio.gather(*(_oldest(database, *key) for key in keys)), strict=True))


async def overdue_since(database: Database, lanes: Iterable[str]) -> dict[tuple[str, str], int | None]:
    """By lane and state (``scheduled``, ``retrying``): when the first job that waits for its time is, or was, due.

    A job is in that state until its next execution begins. So one that was due long ago is either still on its way to a
    work queue (in MongoDB, in the delay ladder, in ``stray.v1``), or in one and no worker takes it, or its start is not
    in history yet. None where no job waits for a time.

    Raises:
        DatabaseError: MongoDB is away.
    """
    keys = [(lane, str(state)) for lane in lanes for state in (JobState.SCHEDULED, JobState.RETRYING)]
    return dict(zip(keys, await asyncio.gather(*(_first_due(database, *key) for key in keys)), strict=True))


async def _first_due(database: Database, lane: str, state: str) -> int | None:
    where = {"lane": lane, "state": state, "due_at": {"$exists": True}}
    cursor = database.db["jobs"].find(where, {"due_at": 1}, max_time_ms=LONGEST_MS).sort("due_at", 1).limit(1)
    return next((from_date(stored["due_at"]) for stored in await cursor.to_list(1)), None)


async def _oldest(database: Database, lane: str, priority: str) -> int | None:
    where = {"state": str(JobState.QUEUED), "lane": lane, "priority": priority, "run": 1}
    cursor = database.db["jobs"].find(where, {"accepted_at": 1, "due_at": 1}, max_time_ms=LONGEST_MS)
    since = [_since(stored) async for stored in cursor.sort("accepted_at", 1).limit(FIRST)]
    return min(since, default=None)


def _since(stored: dict[str, Any]) -> int:
    return max(from_date(stored["accepted_at"]) or 0, from_date(stored.get("due_at")) or 0)

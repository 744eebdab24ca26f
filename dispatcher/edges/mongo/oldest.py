"""The job that has waited the longest, by lane and priority."""

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


async def _oldest(database: Database, lane: str, priority: str) -> int | None:
    where = {"state": str(JobState.QUEUED), "lane": lane, "priority": priority, "run": 1}
    cursor = database.db["jobs"].find(where, {"accepted_at": 1, "due_at": 1}, max_time_ms=LONGEST_MS)
    since = [_since(stored) async for stored in cursor.sort("accepted_at", 1).limit(FIRST)]
    return min(since, default=None)


def _since(stored: dict[str, Any]) -> int:
    return max(from_date(stored["accepted_at"]) or 0, from_date(stored.get("due_at")) or 0)

"""What runs now and what came lately, by lane and priority."""

from __future__ import annotations

from typing import Any

from dispatcher.edges.mongo.client import Database, to_date
from schemas import JobState

#: Longest time that the server may take for one answer, in milliseconds.
LONGEST_MS = 2_000


async def running(database: Database) -> dict[tuple[str, str, str], int]:
    """Jobs that history calls running, by lane, priority and the worker of the last attempt.

    Raises:
        DatabaseError: MongoDB is away.
    """
    key = {"lane": "$lane", "priority": "$priority", "worker": {"$last": "$attempts.worker"}}
    rows = database.db["jobs"].aggregate(
        [{"$match": {"state": str(JobState.RUNNING)}}, {"$group": {"_id": key, "n": {"$sum": 1}}}],
        maxTimeMS=LONGEST_MS,
    )
    return {
        (row["_id"]["lane"], row["_id"]["priority"], str(row["_id"].get("worker", "?"))): row["n"] async for row in rows
    }


async def accepted_between(database: Database, since: int, until: int) -> dict[tuple[str, str], int]:
    """Jobs accepted in a time, by lane and priority; refused messages have none.

    Raises:
        DatabaseError: MongoDB is away.
    """
    bounds: dict[str, Any] = {"$gte": to_date(since), "$lt": to_date(until)}
    rows = database.db["jobs"].aggregate(
        [
            {"$match": {"accepted_at": bounds, "lane": {"$ne": None}}},
            {"$group": {"_id": {"lane": "$lane", "priority": "$priority"}, "n": {"$sum": 1}}},
        ],
        maxTimeMS=LONGEST_MS,
    )
    return {(row["_id"]["lane"], row["_id"]["priority"]): row["n"] async for row in rows}

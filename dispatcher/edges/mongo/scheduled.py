"""The collection ``scheduled``: jobs that are due in more than a minute, until a scheduler has released them.

Whoever releases a job claims it first; a claim is good for a while by MongoDB's own clock. A job of which a claim was
not good long enough may have been published, and says so to the next who claims it. A released job stays for a day,
without its body, so that a message of it that comes again is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bson.datetime_ms import DatetimeMS
from pymongo import InsertOne
from pymongo.errors import BulkWriteError

from dispatcher.core.history import document_id
from dispatcher.core.timing import wakes_at
from dispatcher.edges.mongo.client import Database
from schemas import WorkMessage

WAITING, RELEASED = "waiting", "released"
#: How long a claim is good, in seconds.
LEASE = 5.0
#: Most bytes of bodies in one claim, unless it is one job.
MAX_CLAIM_BYTES = 8 << 20

_DUPLICATE_KEY = 11000


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job to release; ``again`` where it may have been published before."""

    id: str
    body: bytes
    again: bool


class ScheduledStore:
    """Keeps, claims and marks jobs that wait for their time."""

    def __init__(self, database: Database) -> None:
        self._scheduled = database.db["scheduled"]

    async def insert(self, works: Sequence[tuple[WorkMessage, bytes]]) -> None:
        """Keep these jobs, each with its encoded message; one that is or was here already stays as it is.

        Raises:
            DatabaseError: not all are known to be kept; call again with the same.
        """
        try:
            await self._scheduled.bulk_write([InsertOne(_document(*work)) for work in works], ordered=False)
        except BulkWriteError as error:
            problems = error.details.get("writeErrors", ())
            if error.details.get("writeConcernErrors") or any(p["code"] != _DUPLICATE_KEY for p in problems):
                raise

    async def claim(self, token: str, until: int, limit: int) -> list[Claimed]:
        """Claim jobs that wake up until then, the first ones first, for the length of a lease.

        Args:
            token: names this claim; it must not have been used before.
            until: milliseconds since the epoch.
            limit: most jobs.
        """
        over = {"$expr": {"$lt": ["$claimed_at", {"$subtract": ["$$NOW", round(LEASE * 1000)]}]}}
        free = {"state": WAITING, "$or": [{"claim": None}, over]}
        found = self._scheduled.find({**free, "wake_at": {"$lte": DatetimeMS(until)}}, {"size": 1})
        ids = _portion([(row["_id"], row["size"]) async for row in found.sort("wake_at", 1).limit(limit)])
        if not ids:
            return []
        claims = {"$add": ["$claims", 1]}
        update = [{"$set": {"claim": token, "claimed_at": "$$NOW", "claims": claims}}]
        await self._scheduled.update_many({**free, "_id": {"$in": ids}}, update)
        mine = self._scheduled.find({"_id": {"$in": ids}, "claim": token}, {"body": 1, "claims": 1})
        claimed = [Claimed(row["_id"], bytes(row["body"]), row["claims"] > 1) async for row in mine]
        order = {job: index for index, job in enumerate(ids)}
        return sorted(claimed, key=lambda job: order[job.id])

    async def renew(self, token: str) -> None:
        """Make a claim good for the length of a lease from now, where nobody else has claimed the jobs."""
        await self._scheduled.update_many({"claim": token}, [{"$set": {"claimed_at": "$$NOW"}}])

    async def mark_released(self, token: str, ids: Sequence[str]) -> None:
        """These jobs, claimed with this token, are published."""
        update: list[dict[str, Any]] = [
            {"$set": {"state": RELEASED, "released_at": "$$NOW"}},
            {"$unset": ["body", "claim", "claimed_at"]},
        ]
        await self._scheduled.update_many({"_id": {"$in": list(ids)}, "claim": token}, update)

    async def get(self, app: str, job_id: str) -> WorkMessage | None:
        """The message of a job that waits and is not claimed."""
        query = {"_id": document_id(app, job_id), "state": WAITING, "claim": None}
        stored = await self._scheduled.find_one(query)
        return WorkMessage.decode(bytes(stored["body"])) if stored else None

    async def states(self, ids: Sequence[str]) -> dict[str, str]:
        """The states of these jobs (``waiting`` or ``released``), those that are or were here."""
        cursor = self._scheduled.find({"_id": {"$in": list(ids)}}, {"state": 1})
        return {stored["_id"]: stored["state"] async for stored in cursor}

    async def replace(self, old: WorkMessage, new: WorkMessage) -> bool:
        """Put another step in the place of one that waits and was never claimed; whether it was still there."""
        fields = _document(new, new.encode())
        query = {"_id": fields.pop("_id"), "state": WAITING, "claim": None, "run": old.run, "seq": old.seq}
        result = await self._scheduled.update_one(query, {"$set": fields})
        return bool(result.matched_count)


def _portion(found: Sequence[tuple[str, int]]) -> list[str]:
    """The first of these jobs, as many as a claim may hold in bytes, at least one."""
    ids: list[str] = []
    total = 0
    for job, size in found:
        total += size
        if ids and total > MAX_CLAIM_BYTES:
            break
        ids.append(job)
    return ids


def _document(work: WorkMessage, body: bytes) -> dict[str, Any]:
    return {
        "_id": document_id(work.app, work.id),
        "v": 1,
        "app": work.app,
        "id": work.id,
        "run": work.run,
        "seq": work.seq,
        "type": work.type,
        "lane": work.lane,
        "priority": work.priority,
        "due_at": DatetimeMS(work.due_at or work.accepted_at),
        "wake_at": DatetimeMS(wakes_at(work)),
        "state": WAITING,
        "claim": None,
        "claims": 0,
        "size": len(body),
        "body": body,
    }

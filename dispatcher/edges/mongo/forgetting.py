"""Deleting finished jobs from history, batch by batch, so that statistics go on to say what the documents say.

As the recorder does, the minutes of the documents are marked dirty before they are deleted; a TTL index would delete
them behind the statistics' back. A crash leaves minutes marked whose documents are still there, which costs a count.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from pymongo import DeleteOne

from dispatcher.core.filters import JobFilter
from dispatcher.core.lifecycle import FINAL
from dispatcher.edges.mongo.client import Database, from_date, to_date
from dispatcher.edges.mongo.jobs import query_of
from dispatcher.edges.mongo.scheduled import WAITING
from dispatcher.edges.mongo.stats import LONGEST_WRITE_MS, StatisticsStore, minute_of
from schemas import JobState

#: Documents deleted at a time.
BATCH = 1_000

_FINISHED = sorted(map(str, FINAL))
_JOBS = sorted(str(state) for state in FINAL if state is not JobState.REJECTED)


class Forgetting:
    """Finds and deletes finished jobs."""

    def __init__(self, database: Database) -> None:
        self._jobs = database.db["jobs"]
        self._scheduled = database.db["scheduled"]
        self._ids, self._keys = database.db["claims"], database.db["unique_keys"]
        self._stats = StatisticsStore(database)

    async def types(self) -> AsyncIterator[str]:
        """Every type that has documents, one look into the index for each: clients may choose a great many."""
        found = await self._jobs.find_one({}, {"type": 1}, sort=[("type", 1)])
        while found is not None:
            yield found["type"]
            found = await self._jobs.find_one({"type": {"$gt": found["type"]}}, {"type": 1}, sort=[("type", 1)])

    async def forget_type(self, job_type: str, before: int) -> int:
        """Delete jobs of a type that ended before a time; at most a batch, returns how many."""
        return await self._forget({"type": job_type, **_ended(_JOBS, before)})

    async def forget_refusals(self, before: int) -> int:
        """Delete refusals from before a time; at most a batch, returns how many."""
        return await self._forget(_ended([str(JobState.REJECTED)], before))

    async def erase(self, where: JobFilter | str) -> int:
        """Delete the finished among the jobs meant, by filter or document id; at most a batch, returns how many.

        Their ids and unique keys are free then.
        """
        return await self._forget({**_meant(where), "state": {"$in": _FINISHED}}, keys=True)

    async def count(self, where: JobFilter | str) -> tuple[int, int]:
        """How many of the jobs that are meant are finished, and how many are not."""
        meant = _meant(where)
        finished = await self._jobs.count_documents({**meant, "state": {"$in": _FINISHED}})
        return finished, await self._jobs.count_documents({**meant, "state": {"$nin": _FINISHED}})

    async def _forget(self, query: Mapping[str, Any], *, keys: bool = False) -> int:
        """The query is asked again with the deletion: a job that began a new run meanwhile stays."""
        fields = dict.fromkeys(("accepted_at", "run", "app", "id"), 1)
        cursor = self._jobs.find(query, fields).sort("accepted_at", 1).limit(BATCH)
        found = {stored["_id"]: stored async for stored in cursor}
        if not found:
            return 0
        began = time.monotonic()
        minutes = [minute_of(from_date(stored["accepted_at"]) or 0) for stored in found.values()]
        await self._stats.mark_dirty(minutes)
        await self._forget_waiting({job: stored.get("run", 1) for job, stored in found.items()})
        # else a message with such an id would be told to be that of a job which nobody knows
        await self._ids.delete_many({"_id": {"$in": list(found)}})
        if keys:
            await self._forget_keys(found)
        result = await self._jobs.delete_many({**query, "_id": {"$in": list(found)}})
        if time.monotonic() - began > LONGEST_WRITE_MS / 1000:
            await self._stats.mark_dirty(minutes)
        deleted: int = result.deleted_count
        return deleted

    async def _forget_keys(self, jobs: Mapping[str, Mapping[str, Any]]) -> None:
        for app in {stored["app"] for stored in jobs.values()}:
            ids = [stored["id"] for stored in jobs.values() if stored["app"] == app]
            await self._keys.delete_many({"app": app, "job": {"$in": ids}})

    async def _forget_waiting(self, runs: Mapping[str, int]) -> None:
        """A job that was cancelled before its time has its message there until then; one of a later run stays."""
        waiting = self._scheduled.find({"_id": {"$in": list(runs)}, "state": WAITING}, {"run": 1})
        over = [
            DeleteOne({"_id": stored["_id"], "run": stored["run"], "state": WAITING})
            async for stored in waiting
            if stored["run"] <= runs[stored["_id"]]
        ]
        if over:
            await self._scheduled.bulk_write(over, ordered=False)


def _ended(states: list[str], before: int) -> dict[str, Any]:
    # accepted before it ended: the time that the index has bounds the time that counts
    return {
        "state": {"$in": states} if len(states) > 1 else states[0],
        "accepted_at": {"$lt": to_date(before)},
        "finished_at": {"$lt": to_date(before)},
    }


def _meant(where: JobFilter | str) -> dict[str, Any]:
    return {"_id": where} if isinstance(where, str) else query_of(where)

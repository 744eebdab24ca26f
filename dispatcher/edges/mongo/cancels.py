"""The collection ``cancels``: tombstones of runs that operators cancelled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bson.datetime_ms import DatetimeMS
from pymongo import UpdateOne

from dispatcher.core.cancelling import Tombstone
from dispatcher.edges.mongo.client import Database, to_date

#: A change that the server dated a little earlier than one already seen is looked for this far back.
OVERLAP_MS = 5_000
#: Tombstones looked at in one batch when they are cleared.
BATCH = 1_000
#: For how long one that no worker met outlives its job's document.
UNMET_MS = 31 * 86_400_000


class CancelStore:
    """Reads and writes tombstones."""

    def __init__(self, database: Database) -> None:
        self._cancels = database.db["cancels"]
        self._jobs = database.db["jobs"]
        self._scheduled = database.db["scheduled"]

    async def put(self, tombstone: Tombstone, at: int) -> None:
        """Write one, for good once this returns; the majority has it then. Doing it again changes nothing."""
        await self._cancels.update_one(
            {"_id": tombstone.job},
            {
                "$max": {"run": tombstone.run},
                "$set": {"reason": tombstone.reason, "at": to_date(at)},
                "$unset": {"met_at": ""},
                "$currentDate": {"updated_at": True},
            },
            upsert=True,
        )

    async def unschedule(self, tombstone: Tombstone) -> bool:
        """Take the job out of those that wait for their time in MongoDB; whether it was there, claimed by nobody.

        What a scheduler has claimed already it releases, and a worker meets it.
        """
        waiting = {"_id": tombstone.job, "run": {"$lte": tombstone.run}, "state": "waiting", "claim": None}
        update = {"$set": {"state": "cancelled"}, "$unset": {"body": ""}, "$currentDate": {"released_at": True}}
        result = await self._scheduled.update_one(waiting, update)
        return bool(result.matched_count)

    async def changed_since(self, mark: int | None) -> tuple[list[Tombstone], int | None]:
        """Tombstones written since the mark of the previous call (None: all), and the mark for the next."""
        query = {} if mark is None else {"updated_at": {"$gte": DatetimeMS(mark - OVERLAP_MS)}}
        found: list[Tombstone] = []
        async for stored in self._cancels.find(query, {"run": 1, "reason": 1, "updated_at": 1}):
            found.append(Tombstone(stored["_id"], stored["run"], stored["reason"]))
            mark = max(mark or 0, int(stored["updated_at"]))
        return found, mark

    async def met(self, tombstones: Iterable[Tombstone]) -> None:
        """Workers met the steps of these runs, and settled them."""
        updates = [
            UpdateOne({"_id": t.job, "run": t.run, "met_at": None}, {"$currentDate": {"met_at": True}})
            for t in tombstones
        ]
        if updates:
            await self._cancels.bulk_write(updates, ordered=False)

    async def clear(self, now: int, after_ms: int) -> int:
        """Remove what nobody needs any more; returns how many.

        That is what a worker met ``after_ms`` ago, and what nobody met in a month though its job's document is gone.
        One that nobody met stays while the document does: the step may still wait in a queue.
        """
        done = await self._cancels.delete_many({"met_at": {"$lt": DatetimeMS(now - after_ms)}})
        removed: int = done.deleted_count
        old: dict[str, Any] = {"at": {"$lt": DatetimeMS(now - UNMET_MS)}}
        after = ""
        while batch := [
            stored["_id"]
            async for stored in self._cancels.find({**old, "_id": {"$gt": after}}, {"_id": 1}).sort("_id").limit(BATCH)
        ]:
            after = batch[-1]
            known = {stored["_id"] async for stored in self._jobs.find({"_id": {"$in": batch}}, {"_id": 1})}
            gone = [job for job in batch if job not in known]
            if gone:
                removed += (await self._cancels.delete_many({**old, "_id": {"$in": gone}})).deleted_count
        return removed

"""The collection ``key_usage``: how often each key was used, and when last.

Apart from ``api_keys``, so that counting changes no key, and no intake has to read keys again because one was used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pymongo import UpdateOne

from dispatcher.core.usage import Usage
from dispatcher.edges.mongo.client import Database, from_date, to_date


class UsageStore:
    """Adds and reads uses."""

    def __init__(self, database: Database) -> None:
        self._usage = database.db["key_usage"]

    async def add(self, usages: Sequence[Usage]) -> None:
        """Add to what is there, in one write for all keys.

        One whose outcome is unknown is made again, and may count twice: the counts show use, they are no account.
        """
        if usages:
            await self._usage.bulk_write([_update(usage) for usage in usages], ordered=False)

    async def get(self, ids: Iterable[str]) -> dict[str, Usage]:
        """What is known of these keys; one that was never used is not there."""
        found = {}
        async for stored in self._usage.find({"_id": {"$in": list(ids)}}):
            found[stored["_id"]] = Usage(
                stored["_id"],
                stored.get("app", ""),
                stored.get("accepted", 0),
                stored.get("refused", 0),
                from_date(stored.get("last_used_at")) or 0,
            )
        return found


def _update(usage: Usage) -> UpdateOne:
    return UpdateOne(
        {"_id": usage.key_id},
        {
            "$setOnInsert": {"app": usage.app},
            "$inc": {"accepted": usage.accepted, "refused": usage.refused},
            "$max": {"last_used_at": to_date(usage.last_used_at)},
        },
        upsert=True,
    )

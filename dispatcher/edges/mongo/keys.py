"""The collection ``api_keys``. Only the SHA-256 of a key is stored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bson.datetime_ms import DatetimeMS

from dispatcher.core.keys import KeyRecord
from dispatcher.edges import log
from dispatcher.edges.mongo.client import Database, from_date, to_date

_logger = log.get("keys")

#: A change that the server dated a little earlier than one already seen is looked for this far back.
OVERLAP_MS = 10_000


class KeyStore:
    """Reads and writes key records."""

    def __init__(self, database: Database) -> None:
        self._keys = database.db["api_keys"]

    async def create(self, record: KeyRecord) -> None:
        """Store a new key."""
        fields = {
            "app": record.app,
            "hash": record.hash,
            "types": list(record.types),
            "lanes": list(record.lanes),
            "max_priority": record.max_priority,
            "max_bytes": record.max_bytes,
            "expires_at": to_date(record.expires_at),
            "created_at": to_date(record.created_at),
            "revoked_at": None,
            "replaces": record.replaces,
            "replaced_by": None,
        }
        # the server's clock dates the change, so that every intake's next look finds it
        await self._keys.update_one(
            {"_id": record.id}, {"$setOnInsert": fields, "$currentDate": {"updated_at": True}}, upsert=True
        )

    async def retire(self, record: KeyRecord) -> bool:
        """Store what a rotation changed: until when the old key is accepted, and its successor.

        The end is only ever brought forward, whatever another command does meanwhile. False where one has revoked it.
        """
        ends = to_date(record.expires_at)
        # null, which stands for no end, is less than any date
        sooner = {"$cond": [{"$eq": ["$expires_at", None]}, ends, {"$min": ["$expires_at", ends]}]}
        changed = {"expires_at": sooner, "replaced_by": record.replaced_by, "lifetime": record.lifetime}
        query = {"_id": record.id, "revoked_at": None}
        result = await self._keys.update_one(query, [{"$set": changed | {"updated_at": "$$NOW"}}])
        return bool(result.matched_count)

    async def revoke(self, key_id: str) -> KeyRecord | None:
        """Revoke for good; None where there is no such key. Doing it again changes nothing."""
        await self._keys.update_one(
            {"_id": key_id, "revoked_at": None}, {"$currentDate": {"revoked_at": True, "updated_at": True}}
        )
        return (await self.get([key_id])).get(key_id)

    async def get(self, ids: Iterable[str]) -> dict[str, KeyRecord]:
        """The records of these ids, those that exist."""
        cursor = self._keys.find({"_id": {"$in": list(ids)}})
        return {record.id: record async for stored in cursor if (record := _record(stored))}

    async def all(self, app: str | None = None) -> list[KeyRecord]:
        """All keys, the oldest first."""
        cursor = self._keys.find({"app": app} if app else {}).sort("created_at", 1)
        return [record async for stored in cursor if (record := _record(stored))]

    async def apps(self) -> list[str]:
        """Every app that has or had a key."""
        names: list[str] = await self._keys.distinct("app")
        return names

    async def changed_since(self, mark: int | None) -> tuple[list[KeyRecord], int | None]:
        """Keys changed since the mark of the previous call (None: all keys), and the mark for the next."""
        query = {} if mark is None else {"updated_at": {"$gte": DatetimeMS(mark - OVERLAP_MS)}}
        records: list[KeyRecord] = []
        async for stored in self._keys.find(query):
            if record := _record(stored):
                records.append(record)
                mark = max(mark or 0, int(stored["updated_at"]))
        return records, mark


def _record(stored: dict[str, Any]) -> KeyRecord | None:
    """The record, or None for a document that is not one: it must not stop the others from being read."""
    try:
        int(stored["updated_at"])
        return KeyRecord(
            id=stored["_id"],
            app=stored["app"],
            hash=stored["hash"],
            created_at=int(stored["created_at"]),
            types=tuple(stored["types"]),
            lanes=tuple(stored["lanes"]),
            max_priority=stored["max_priority"],
            max_bytes=stored["max_bytes"],
            expires_at=from_date(stored["expires_at"]),
            revoked=stored["revoked_at"] is not None,
            replaces=stored.get("replaces"),
            replaced_by=stored.get("replaced_by"),
            lifetime=_lifetime(stored),
        )
    except (KeyError, TypeError, ValueError) as error:
        _logger.error("a document in api_keys is no key", id=str(stored["_id"]), error=type(error).__name__)
        return None


def _lifetime(stored: dict[str, Any]) -> int | None:
    """For how long the key was made; documents of earlier versions say it by their times."""
    if "lifetime" in stored:
        return None if stored["lifetime"] is None else int(stored["lifetime"])
    return None if stored["expires_at"] is None else int(stored["expires_at"]) - int(stored["created_at"])

"""The collection ``audit``: who changed what, and when.

An entry is written before its change, and closed after it. So there is no change without its entry, whatever is
killed in between; an entry that was never closed (``outcome`` null) says that the change may or may not have been
made, because the one who made it died or lost MongoDB. One document holds it all, so that a standalone MongoDB does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bson.datetime_ms import DatetimeMS
from pymongo import DESCENDING

from dispatcher.core.keys import without_keys
from dispatcher.edges import clock
from dispatcher.edges.mongo.client import Database, DatabaseAway


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries; None: any. ``since`` is in milliseconds since the epoch; ``key``: the new one's too."""

    app: str | None = None
    action: str | None = None
    since: int | None = None
    key: str | None = None

    def query(self) -> dict[str, Any]:
        """As MongoDB has it."""
        query: dict[str, Any] = {
            name: value for name, value in (("app", self.app), ("action", self.action)) if value is not None
        }
        if self.key is not None:
            query["$or"] = [{"key_id": self.key}, {"details.replaced_by": self.key}]
        if self.since is not None:
            query["at"] = {"$gte": DatetimeMS(self.since)}
        return query


class AuditStore:
    """Writes and reads the audit."""

    def __init__(self, database: Database) -> None:
        self._entries = database.db["audit"]

    @asynccontextmanager
    async def entry(
        self, action: str, *, by: str, app: str | None = None, key_id: str | None = None, **details: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Around a change: ``async with audit.entry("key.revoked", by=whoami(), app=app) as details: …``.

        What is put into ``details`` inside is written when the change is made. Keys are taken out of them; nothing
        else is, so give no payload. Without this entry in MongoDB the change does not begin.

        Raises:
            DatabaseError: the entry cannot be written.
        """
        entry_id = clock.new_id()
        fields = {"at": DatetimeMS(clock.now_ms()), "action": action, "app": app, "key_id": key_id, "by": by}
        await self._entries.insert_one(
            {"_id": entry_id, **fields, "details": without_keys(details), "outcome": None, "closed_at": None}
        )
        try:
            yield details
        except DatabaseAway:
            raise  # nobody knows whether the change was made: the entry says so by staying open
        except Exception:
            await self._close(entry_id, "failed", details)
            raise
        await self._close(entry_id, "done", details)

    async def _close(self, entry_id: str, outcome: str, details: Mapping[str, Any]) -> None:
        closed = {"outcome": outcome, "closed_at": DatetimeMS(clock.now_ms()), "details": without_keys(dict(details))}
        await self._entries.update_one({"_id": entry_id}, {"$set": closed})

    async def search(self, which: AuditFilter, limit: int) -> list[dict[str, Any]]:
        """Entries, the latest first; times as milliseconds since the epoch."""
        cursor = self._entries.find(which.query()).sort([("at", DESCENDING), ("_id", DESCENDING)]).limit(limit)
        return [_shown(stored) async for stored in cursor]


def _shown(stored: dict[str, Any]) -> dict[str, Any]:
    shown = {"id": str(stored.pop("_id")), **stored}
    for name in ("at", "closed_at"):
        if shown.get(name) is not None:
            shown[name] = int(shown[name])
    return shown

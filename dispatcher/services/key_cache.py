"""The API keys in memory: all of them, refreshed twice a second, so that no message waits for the database.

A revoked key is refused within a refresh. While MongoDB is away, known keys go on for a grace period; after that,
and for keys never seen, nobody can say, and their messages wait in the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable

from dispatcher.core.keys import KeyRecord
from dispatcher.edges import log, metrics
from dispatcher.edges.mongo import DatabaseError, KeyStore

_logger = log.get("keys")

#: An id that the database did not know is not asked for again for this long, in seconds.
UNKNOWN_FOR = 1.0
#: At most so many unknown ids are remembered; garbage must not fill the memory.
MAX_UNKNOWN = 10_000


class KeysAway(Exception):
    """Nobody can say whether the key is good: MongoDB cannot be asked."""


class NotLoaded(Exception):
    """The key is not in memory; `KeyCache.load` asks the database for it."""


class KeyCache:
    """Key records by id."""

    def __init__(self, store: KeyStore, *, refresh: float, grace: float) -> None:
        self._store = store
        self._refresh = refresh
        self._grace = grace
        self._records: dict[str, KeyRecord] = {}
        self._unknown: dict[str, float] = {}
        self._mark: int | None = None
        self._fresh_at: float | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether the keys were read recently enough to judge by them."""
        return self._fresh_at is not None and time.monotonic() - self._fresh_at <= max(5.0, 4 * self._refresh)

    def start(self) -> None:
        """Begin to read the keys, in the background."""
        self._task = asyncio.create_task(self._run(), name="keys")

    async def stop(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def records(self) -> Collection[KeyRecord]:
        """All keys in memory."""
        return self._records.values()

    def get(self, key_id: str) -> KeyRecord | None:
        """The record, or None for an id that does not exist.

        Raises:
            NotLoaded: the id is not in memory, or nothing is yet.
            KeysAway: the keys were last read longer ago than the grace period.
        """
        if self._fresh_at is None:
            raise NotLoaded
        if time.monotonic() - self._fresh_at > self._grace:
            _found("away")
            raise KeysAway
        record = self._records.get(key_id)
        if record is not None:
            _found("hit")
            return record
        until = self._unknown.get(key_id)
        if until is not None and until > time.monotonic():
            _found("unknown")
            return None
        _found("miss")
        raise NotLoaded

    async def load(self, key_ids: Iterable[str]) -> None:
        """Ask the database for ids that are not in memory.

        Raises:
            KeysAway: it cannot be asked.
        """
        ids = set(key_ids)
        try:
            if self._fresh_at is None:
                await self._read()
            found = await self._store.get(ids)
        except DatabaseError as error:
            raise KeysAway from error
        self._records.update(found)
        metrics.key_size.set(len(self._records))
        if len(self._unknown) > MAX_UNKNOWN:
            self._unknown.clear()
        until = time.monotonic() + UNKNOWN_FOR
        self._unknown.update(dict.fromkeys(ids - found.keys(), until))

    async def _read(self) -> None:
        began = time.monotonic()
        changed, self._mark = await self._store.changed_since(self._mark)
        self._records.update((record.id, record) for record in changed)
        self._fresh_at = began

    async def _run(self) -> None:
        while True:
            try:
                await self._read()
            except DatabaseError as error:
                _logger.warning("cannot read API keys", error=type(error).__name__)
            metrics.key_age.set(time.monotonic() - self._fresh_at if self._fresh_at is not None else 0)
            metrics.key_size.set(len(self._records))
            await asyncio.sleep(self._refresh)


def _found(what: str) -> None:
    metrics.of(metrics.key_lookups, what).inc()

"""What intake notices of the keys that are used: counts and last use, ends that come near, floods of bad keys.

Uses are gathered in memory and written every two seconds, all in one write; no message waits for it. While MongoDB is
away they are kept, one entry a key, and written later. What a killed intake had not written is lost, and a write
whose outcome is unknown is made again: the counts show which keys are used, they are no account.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from dispatcher.core.keys import KeyRecord
from dispatcher.core.labels import MAX_LABELS
from dispatcher.core.refusals import Code
from dispatcher.core.usage import DAY_MS, Reminders, Surge, Tally, expiring
from dispatcher.edges import clock, log, meters, metrics
from dispatcher.edges.mongo import DatabaseError, UsageStore

_logger = log.get("keys")

#: Seconds between two writes.
WRITE_EVERY = 2.0
#: Seconds that the last write gets at a stop.
STOP_GRACE = 5.0
#: Refusals that say that a key is bad.
BAD_KEY = frozenset({Code.MISSING_KEY, Code.MALFORMED_KEY, Code.UNKNOWN_KEY, Code.REVOKED_KEY, Code.EXPIRED_KEY})


class KeyWatch:
    """Counts uses of keys; see the module."""

    def __init__(self, store: UsageStore, records: Callable[[], Iterable[KeyRecord]], warn_days: float) -> None:
        self._store = store
        self._records = records
        self._within = warn_days * DAY_MS
        self._tally = Tally()
        self._used: dict[str, KeyRecord] = {}
        self._reminders = Reminders(self._within)
        self._surge = Surge()
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Begin to write, in the background."""
        self._task = asyncio.create_task(self._run(), name="key usage")

    async def stop(self) -> None:
        """Write what was gathered, if MongoDB answers soon.

        A write under way is waited for: cancelled, its outcome would be unknown, and it would be made twice.
        """
        self._stopping.set()
        try:
            async with asyncio.timeout(STOP_GRACE):
                if self._task is not None:
                    await self._task
                await self._write()
        except TimeoutError:
            _logger.warning("the last uses of API keys were not written: MongoDB does not answer")

    def accepted(self, record: KeyRecord) -> None:
        """A job was accepted with this key."""
        self._used[record.id] = record
        self._tally.count(record.id, record.app, clock.now_ms(), accepted=1)

    def refused(self, record: KeyRecord) -> None:
        """A message with this key and its right secret was refused."""
        self._tally.count(record.id, record.app, clock.now_ms(), refused=1)

    def refusal(self, code: Code) -> None:
        """Any message was refused; many bad keys are spoken of, once a minute."""
        if code in BAD_KEY and (counts := self._surge.add(code, clock.now_ms())):
            _logger.warning("many messages have a bad API key", within="10 s", **counts)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), WRITE_EVERY)
            try:
                self._look_ahead()
                await self._write()
            except Exception:
                _logger.exception("cannot watch API keys")

    async def _write(self) -> None:
        usages = self._tally.take()
        try:
            await self._store.add(usages)
        except BaseException as error:
            self._tally.put_back(usages)
            if not isinstance(error, DatabaseError):
                raise
            _logger.warning("cannot write uses of API keys; kept for later", error=type(error).__name__)

    def _look_ahead(self) -> None:
        now = clock.now_ms()
        count, first = expiring(self._records(), now, self._within)
        metrics.keys_expiring.set(count)
        metrics.key_first_expiry.set(min(first.values(), default=float("inf")) / 1000)
        soonest = sorted(first, key=first.__getitem__)[:MAX_LABELS]
        metrics.show(metrics.app_key_expiry, {(app,): first[app] / 1000 for app in soonest})
        meters.know_apps({record.app for record in self._records()})
        used, self._used = self._used, {}
        for key in self._reminders.due(used.values(), now):
            left = f"{((key.expires_at or now) - now) / DAY_MS:.1f} days"
            fix = f"dispatcher keys rotate {key.id}" if key.replaced_by is None else f"use key {key.replaced_by}"
            _logger.warning("an API key in use expires soon", app=key.app, key=key.id, left=left, fix=fix)

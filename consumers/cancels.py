"""The tombstones in a worker's memory: all of them, refreshed four times a second.

They are loaded before consuming begins. While MongoDB is away jobs run on, by what was known last. As long as it
answers, no step starts on knowledge older than `FRESH`, whatever held this process up: what an operator cancelled
longer ago than that never starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from dispatcher.core.cancelling import FRESH, REFRESH, Tombstone, Tombstones
from dispatcher.edges import log
from dispatcher.edges.mongo import CancelStore, DatabaseError
from schemas import WorkMessage

_logger = log.get("worker")

#: Longest wait for the first load before the worker begins without it, and for one answer, in seconds.
FIRST_LOAD, READ_TIMEOUT = 2.0, 1.0
#: Longest wait for all tombstones, and the time after which they are all read anew, to forget what was removed.
LOAD_TIMEOUT, RELOAD = 20.0, 600.0


class Cancels:
    """The cancelled runs that one worker knows of.

    Args:
        store: where they are.
        heard: called with each that is new.
    """

    def __init__(self, store: CancelStore, heard: Callable[[Tombstone], None]) -> None:
        self._store = store
        self._heard = heard
        self._known = Tombstones()
        self._met: dict[str, Tombstone] = {}
        self._mark: int | None = None
        self._fresh_at = self._loaded_at = float("-inf")
        self._away = True
        self._looked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load them; MongoDB may be away, then they are loaded when it is back."""
        self._task = asyncio.create_task(self._run(), name="cancels")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._looked.wait(), FIRST_LOAD)
        if self._fresh_at == float("-inf"):
            _logger.warning("cannot read which jobs are cancelled; jobs run without it until MongoDB answers")

    async def stop(self) -> None:
        """Read no more, and tell what was met."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            with contextlib.suppress(DatabaseError, TimeoutError):
                await asyncio.wait_for(self._tell_met(), READ_TIMEOUT)

    async def up_to_date(self) -> None:
        """Wait until what is known is fresh enough to start a step by; not while MongoDB does not answer."""
        while not self._away and time.monotonic() - self._fresh_at > FRESH:
            self._looked.clear()
            await self._looked.wait()

    def of(self, work: WorkMessage) -> Tombstone | None:
        """The tombstone that stops this step, if there is one."""
        return self._known.of(work.app, work.id, work.run)

    def settled(self, work: WorkMessage) -> None:
        """A step is settled; if a tombstone stopped it, that has done its work."""
        if (tombstone := self.of(work)) is not None:
            self._met[tombstone.job] = tombstone

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
                self._away = False
            except (DatabaseError, TimeoutError) as error:
                if not self._away:
                    _logger.warning("cannot read which jobs are cancelled", error=type(error).__name__)
                self._away = True
            except Exception:
                _logger.exception("cannot read which jobs are cancelled")
                self._away = True
            self._looked.set()
            await asyncio.sleep(REFRESH)

    async def _look(self) -> None:
        began = time.monotonic()
        everything = self._mark is None or began - self._loaded_at > RELOAD
        async with asyncio.timeout(LOAD_TIMEOUT if everything else READ_TIMEOUT):
            found, self._mark = await self._store.changed_since(None if everything else self._mark)
            await self._tell_met()
        new = self._known.learn(found)
        if everything:
            self._known, self._loaded_at = Tombstones(found), began
        self._fresh_at = began
        for tombstone in new:
            self._heard(tombstone)

    async def _tell_met(self) -> None:
        met, self._met = self._met, {}
        try:
            await self._store.met(met.values())
        except BaseException:
            self._met = met | self._met
            raise

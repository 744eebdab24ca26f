"""Uses of keys are written once, also when intake stops in the middle of a write."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from dispatcher.core.usage import Usage
from dispatcher.edges.mongo import UsageStore
from dispatcher.services import key_watch
from dispatcher.services.key_watch import KeyWatch


class SlowStore:
    """Takes a write, and answers when it is told to."""

    def __init__(self) -> None:
        self.written: list[Usage] = []
        self.begun, self.answer = asyncio.Event(), asyncio.Event()

    async def add(self, usages: list[Usage]) -> None:
        self.written += usages
        self.begun.set()
        await self.answer.wait()


async def test_a_write_under_way_at_a_stop_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled, it would be made again, although MongoDB may have made it."""
    monkeypatch.setattr(key_watch, "WRITE_EVERY", 0.01)
    store = SlowStore()
    watch = KeyWatch(cast("UsageStore", store), list, 14)
    watch._tally.count("k1", "shop", 1, accepted=7)
    watch.start()
    await store.begun.wait()
    stopping = asyncio.create_task(watch.stop())
    await asyncio.sleep(0)  # it waits now
    store.answer.set()
    await stopping
    assert [usage.accepted for usage in store.written] == [7]


async def test_what_was_gathered_is_written_at_a_stop() -> None:
    """Without waiting for the next write's time."""
    store = SlowStore()
    store.answer.set()
    watch = KeyWatch(cast("UsageStore", store), list, 14)
    watch.start()
    watch._tally.count("k1", "shop", 1, refused=2)
    await watch.stop()
    assert [usage.refused for usage in store.written] == [2]


async def test_a_database_that_does_not_answer_holds_no_stop_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The uses are lost then: they are no account."""
    monkeypatch.setattr(key_watch, "STOP_GRACE", 0.05)
    store = SlowStore()
    watch = KeyWatch(cast("UsageStore", store), list, 14)
    watch.start()
    watch._tally.count("k1", "shop", 1, accepted=1)
    await watch.stop()
    assert store.begun.is_set()

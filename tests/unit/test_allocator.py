"""Free memory goes back to the system, in every service."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from config import load_settings
from dispatcher.edges import allocator
from dispatcher.services import host
from tests.soak.memory import memory

MIB = 1 << 20


def test_what_a_thread_freed_goes_back() -> None:
    """glibc keeps it by itself, since something at the arena's end is still in use."""
    kept: list[str] = []

    def work() -> None:
        texts = ["x" * 1_000 + str(number) for number in range(100_000)]
        kept.append(texts[-1])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    before = memory(os.getpid()).rss
    allocator.give_back()
    assert before - memory(os.getpid()).rss > 50 * MIB


async def test_a_service_gives_back_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again, until it stops."""
    given, stop, times = asyncio.Event(), asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def give_back() -> None:
        times.append(1)
        if len(times) == 3:
            loop.call_soon_threadsafe(given.set)

    monkeypatch.setattr(allocator, "give_back", give_back)
    monkeypatch.setattr(host, "GIVE_BACK_EVERY", 0.001)
    serving = asyncio.create_task(host.serve(load_settings({}), [], stop))
    await asyncio.wait_for(given.wait(), 20)
    stop.set()
    await serving
    count = len(times)
    await asyncio.sleep(0.02)
    assert len(times) <= count + 1

"""Handlers of the soak: quick ones, ones that wait to be let go, and ones that return a hundred megabytes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from consumers import Context, Registry, Retry, Snooze

#: Names, in a worker's environment, the file that lets the held jobs go once it is there.
RELEASE_VARIABLE = "TEST_SOAK_RELEASE"
HUGE = 100_000_000
#: So slow that a worker does not make a backlog shorter, and so quick that a slot is free now and then.
HELD = 20

jobs = Registry()


@jobs.handler("soak.plain")
async def plain(payload: dict[str, Any]) -> int:
    """Is done at once."""
    return 1


@jobs.handler("soak.delayed")
@jobs.handler("soak.flaky")
async def flaky(payload: dict[str, Any], ctx: Context) -> int:
    """Fails once; the message says how long to wait then."""
    if ctx.attempt == 1:
        raise ConnectionError("not yet")
    return ctx.attempt


@jobs.handler("soak.hopeless", retry=Retry(max_attempts=1))
def hopeless(payload: dict[str, Any]) -> None:
    """Always fails, in a thread."""
    raise ValueError("never")


@jobs.handler("soak.snooze")
async def snooze(payload: dict[str, Any], ctx: Context) -> None:
    """Puts itself off for ever: half of the time."""
    if os.urandom(1)[0] & 1:
        raise Snooze(0.5)


@jobs.handler("soak.held")
async def held(payload: dict[str, Any]) -> int:
    """Waits until all of its type are let go, at most `HELD` seconds; not all of them equally long."""
    release = Path(os.environ[RELEASE_VARIABLE])
    for _ in range(1 + payload["number"] % HELD):
        if release.exists():
            break
        await asyncio.sleep(1)
    return 1


@jobs.handler("soak.huge.loop")
async def huge_loop(payload: dict[str, Any]) -> str:
    """Returns far more than is recorded, in the event loop."""
    return "x" * HUGE


@jobs.handler("soak.huge.thread")
def huge_thread(payload: dict[str, Any]) -> list[str]:
    """The same, nested, in a thread."""
    return ["x" * 1_000 + str(number) for number in range(HUGE // 1_000)]


@jobs.handler("soak.huge.process", isolate="process")
def huge_process(payload: dict[str, Any]) -> str:
    """The same in a process of its own."""
    return "x" * HUGE

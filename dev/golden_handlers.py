"""Handlers of dev.golden: each ends its attempt in another way."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from consumers import Cancel, Context, Registry, Retry, Snooze

jobs = Registry()
#: Seconds that what comes back stays in the delay ladder: longer than the capture takes.
LATER = 120.0


@jobs.handler("golden.works")
async def works(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Says how far it is, and returns something."""
    ctx.progress(1, 2, "half of it")
    return {"done": True, "count": 2, "part": 0.5}


@jobs.handler("golden.fails", retry=Retry(max_attempts=2, base=LATER))
async def fails(payload: dict[str, Any]) -> None:
    """Is tried again later."""
    raise ConnectionError("the other side hung up")


@jobs.handler("golden.dead", retry=Retry(max_attempts=1))
async def dead(payload: dict[str, Any]) -> None:
    """Fails for good."""
    raise ValueError("never")


@jobs.handler("golden.slow", timeout=0.1, retry=Retry(max_attempts=1))
async def slow(payload: dict[str, Any]) -> None:
    """Runs out of time."""
    await asyncio.sleep(3600)


@jobs.handler("golden.snoozes")
async def snoozes(payload: dict[str, Any]) -> None:
    """Is put off."""
    raise Snooze(LATER)


@jobs.handler("golden.cancels")
async def cancels(payload: dict[str, Any]) -> None:
    """Ends itself."""
    raise Cancel("nothing to do")


@jobs.handler("golden.dies", isolate="process", retry=Retry(max_attempts=2, base=LATER))
def dies(payload: dict[str, Any]) -> None:
    """Kills its process, and is tried again later as a suspect."""
    os.kill(os.getpid(), signal.SIGKILL)


@jobs.handler("golden.batch")
async def batch(payloads: list[dict[str, Any]]) -> list[str]:
    """Gets several at once."""
    return ["one"] * len(payloads)

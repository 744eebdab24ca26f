"""Handlers that the measurements run: ``dispatcher worker bench.handlers:jobs``."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from consumers import Context, Registry

jobs = Registry()


@jobs.handler("bench.tiny")
async def tiny(payload: dict[str, Any]) -> dict[str, Any]:
    """Next to no work, like the task in `bench.celery_app`."""
    return {"ok": True, "number": payload["number"]}


@jobs.handler("bench.stamp")
async def stamp(payload: dict[str, Any]) -> dict[str, Any]:
    """Says when it started, finer than history's milliseconds."""
    return {"started_ns": time.time_ns()}


@jobs.handler("bench.flaky")
async def flaky(payload: dict[str, Any], ctx: Context) -> None:
    """Fails the first time: at once, or at the time ``fail_at`` (seconds since the epoch)."""
    if ctx.attempt > 1:
        return
    await asyncio.sleep(max(payload.get("fail_at", 0) - time.time(), 0))
    raise ConnectionError("the first attempt fails")

"""The handlers whose queues are shown."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from consumers import Context, Registry, Retry

jobs = Registry()

_LONG = 3600.0


@jobs.handler("order.confirm")
async def confirm(payload: dict[str, Any], ctx: Context) -> None:
    """Is done in no time."""


@jobs.handler("catalog.sync")
async def sync(payload: dict[str, Any], ctx: Context) -> None:
    """Takes a second and a half: what is published faster waits."""
    await asyncio.sleep(1.5)


@jobs.handler("report.build", timeout=_LONG)
async def build(payload: dict[str, Any], ctx: Context) -> None:
    """Runs as long as anybody looks."""
    await asyncio.sleep(_LONG)


@jobs.handler("warehouse.notify")
async def notify(payload: dict[str, Any], ctx: Context) -> None:
    """Fails; its message says when it is tried again."""
    raise ConnectionError("the warehouse does not answer")


@jobs.handler("invoice.charge", retry=Retry(max_attempts=1))
async def charge(payload: dict[str, Any], ctx: Context) -> None:
    """Fails for good."""
    raise ValueError("no such account")


@jobs.handler("image.resize", timeout=_LONG)
async def resize(payload: dict[str, Any], ctx: Context) -> None:
    """Kills its worker, until it runs in a process of its own."""
    if "consumers.child" not in sys.modules:
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(_LONG)

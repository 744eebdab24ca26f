"""Handlers of an installation such as one sees it: short and long ones, one that depends on what may be away."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from consumers import BatchContext, Context, Registry, Retry, Snooze

jobs = Registry()


@jobs.handler("email.send", timeout=10)
async def email(payload: dict[str, Any]) -> None:
    """Tens of milliseconds."""
    await asyncio.sleep(random.lognormvariate(-3.4, 0.5))


@jobs.handler("newsletter.send", timeout=10)
async def newsletter(payload: dict[str, Any]) -> None:
    """Longer, and many at once."""
    await asyncio.sleep(random.uniform(0.1, 0.3))


@jobs.handler("invoice.render", timeout=10, retry=Retry(max_attempts=3, base=1))
async def invoice(payload: dict[str, Any]) -> None:
    """Some hundred milliseconds; one in fifty fails."""
    await asyncio.sleep(random.lognormvariate(-1.2, 0.4))
    if random.random() < 0.02:
        raise ValueError("a font is missing")


@jobs.handler("image.resize", timeout=10)
def image(payload: dict[str, Any]) -> None:
    """In a thread."""
    time.sleep(random.uniform(0.1, 0.3))


@jobs.handler("crm.sync", timeout=5, retry=Retry(max_attempts=4, base=2, on=(ConnectionError,)))
async def crm(payload: dict[str, Any]) -> None:
    """Fails, nearly always, for as long as the other side is away."""
    await asyncio.sleep(random.uniform(0.05, 0.15))
    if time.time() < payload.get("away_until", 0) and random.random() < 0.9:
        raise ConnectionError("the CRM does not answer")


@jobs.handler("report.build", timeout=4, retry=Retry(max_attempts=2, base=4))
async def report(payload: dict[str, Any]) -> None:
    """Seconds; a few run out of time."""
    await asyncio.sleep(random.triangular(1, 4.6, 2))


@jobs.handler("reminder.send")
async def reminder(payload: dict[str, Any], ctx: Context) -> None:
    """One in three is put off once more."""
    if random.random() < 0.3:
        raise Snooze(random.uniform(2, 10))


@jobs.handler("digest.add")
async def digest(members: list[dict[str, Any]], ctx: BatchContext) -> None:
    """Members of a group, together."""
    await asyncio.sleep(0.02 * len(members))

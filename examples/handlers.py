"""Handlers of the demo, one for each way in which a job can end. Run them with:

dispatcher worker examples.handlers:jobs
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pydantic import BaseModel

from consumers import Cancel, Context, Registry, Retry, Snooze
from examples import combined, expiry, groups, ids, priorities, retries, unique

jobs = Registry()


class Email(BaseModel):
    """What ``email.send`` takes; a payload that does not fit fails the job without a retry."""

    to: str
    subject: str = ""


class Receipt(BaseModel):
    """What it returns, kept in the job's history."""

    to: str
    attempt: int


@jobs.handler("email.send", timeout=30, retry=Retry(max_attempts=5, on=(ConnectionError,)))
async def send(payload: Email, ctx: Context) -> Receipt:
    """An async handler with a payload model."""
    await asyncio.sleep(0.01)
    return Receipt(to=payload.to, attempt=ctx.attempt)


@jobs.handler("demo.echo")
async def echo(payload: dict[str, Any]) -> dict[str, Any]:
    """Returns its payload."""
    return payload


@jobs.handler("demo.sleep")
async def sleep(payload: dict[str, Any]) -> None:
    """Waits for ``seconds``."""
    await asyncio.sleep(payload.get("seconds", 1))


@jobs.handler("demo.flaky")
async def flaky(payload: dict[str, Any], ctx: Context) -> str:
    """Fails ``failures`` times, then succeeds."""
    if ctx.attempt <= payload.get("failures", 1):
        raise ConnectionError("the other side hung up")
    return f"succeeded at attempt {ctx.attempt}"


@jobs.handler("demo.hopeless", retry=Retry(max_attempts=2, base=0.5))
async def hopeless(payload: dict[str, Any]) -> None:
    """Always fails."""
    raise ValueError("this never works")


@jobs.handler("demo.slow", timeout=0.5, retry=Retry(max_attempts=1))
async def slow(payload: dict[str, Any]) -> None:
    """Runs out of time."""
    await asyncio.sleep(60)


@jobs.handler("demo.snooze")
async def snooze(payload: dict[str, Any], ctx: Context) -> str:
    """Puts itself off until the time in ``until`` (seconds since the epoch), without spending an attempt."""
    left = payload.get("until", 0) - time.time()
    if left > 0:
        raise Snooze(min(left, 1.0))
    return f"done at attempt {ctx.attempt}"


@jobs.handler("demo.cancel")
async def cancel(payload: dict[str, Any]) -> None:
    """Ends its own job."""
    raise Cancel("nothing left to do")


@jobs.handler("demo.thread")
def in_a_thread(payload: dict[str, Any], ctx: Context) -> str:
    """A sync handler runs in a thread; a long one looks at ``ctx.cancelled``."""
    deadline = time.monotonic() + payload.get("seconds", 0.05)
    while time.monotonic() < deadline and not ctx.cancelled:
        time.sleep(0.01)
    return "slept"


@jobs.handler("demo.process", timeout=20, isolate="process")
def in_a_process(payload: dict[str, Any], ctx: Context) -> int:
    """Heavy work in a child process, which is killed at the timeout."""
    return sum(i * i for i in range(payload.get("n", 1_000)))


#: One worker serves the other examples too.
jobs.include(
    ids.jobs, unique.jobs, groups.jobs, priorities.jobs, retries.jobs, expiry.jobs, combined.jobs,
)  # fmt: skip

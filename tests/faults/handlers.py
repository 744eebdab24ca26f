"""Handlers that write every start and end to a file outside the system, whatever becomes of their process."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from consumers import Context, Registry, Retry, Snooze

jobs = Registry()

#: One line per start or end; lines this short are written whole by O_APPEND.
LEDGER_VARIABLE = "TEST_LEDGER"


def note(ctx: Context, what: str) -> None:
    """Write one line."""
    line = json.dumps({"id": ctx.id, "run": ctx.run, "n": ctx.attempt, "execution": ctx.execution, "what": what})
    descriptor = os.open(os.environ[LEDGER_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


@jobs.handler("chaos.plain")
async def plain(payload: dict[str, Any], ctx: Context) -> int:
    """Works for some milliseconds."""
    note(ctx, "start")
    await asyncio.sleep(payload["ms"] / 1000)
    note(ctx, "end")
    return ctx.attempt


@jobs.handler("chaos.flaky", retry=Retry(base=0.25))
async def flaky(payload: dict[str, Any], ctx: Context) -> int:
    """Fails at its first attempts."""
    note(ctx, "start")
    if ctx.attempt <= payload["failures"]:
        note(ctx, "end")
        raise ConnectionError("not yet")
    note(ctx, "end")
    return ctx.attempt


@jobs.handler("chaos.hopeless", retry=Retry(max_attempts=2, base=0.25))
async def hopeless(payload: dict[str, Any], ctx: Context) -> None:
    """Always fails."""
    note(ctx, "start")
    note(ctx, "end")
    raise ValueError("never")


@jobs.handler("chaos.slow", timeout=0.3, retry=Retry(max_attempts=1))
async def slow(payload: dict[str, Any], ctx: Context) -> None:
    """Runs out of time."""
    note(ctx, "start")
    try:
        await asyncio.sleep(30)
    finally:
        note(ctx, "end")


@jobs.handler("chaos.snooze")
async def snooze(payload: dict[str, Any], ctx: Context) -> None:
    """Puts itself off now and then (one execution in two, by its random id)."""
    note(ctx, "start")
    note(ctx, "end")
    if int(ctx.execution[-1], 16) % 2:
        raise Snooze(0.25)

"""Handlers of `make upgrade`, for whatever version imports them: those of `make chaos`, and some more kinds."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import Any

from consumers import Context, Registry
from tests.faults.handlers import jobs, note


@jobs.handler("chaos.child", isolate="process")
def child(payload: dict[str, Any], ctx: Context) -> int:
    """Works for ``ms`` milliseconds in a child process."""
    return _work(payload, ctx)


@jobs.handler("chaos.thread")
def thread(payload: dict[str, Any], ctx: Context) -> int:
    """Works for ``ms`` milliseconds in a thread."""
    return _work(payload, ctx)


def _work(payload: dict[str, Any], ctx: Context) -> int:
    note(payload, ctx, "start")
    time.sleep(payload["ms"] / 1000)
    note(payload, ctx, "end")
    return ctx.attempt


async def group(payloads: list[dict[str, Any]], ctx: Any) -> list[Any]:
    """Works for as long as its longest member; those that say so fail their first attempt alone."""
    # to wait in a group is a step, and no snooze
    steps = [(p | {"seq": member.attempt}, member) for p, member in zip(payloads, ctx.members, strict=True)]
    for payload, member in steps:
        note(payload, member, "start")
    await asyncio.sleep(max(payload["ms"] for payload in payloads) / 1000)
    for payload, member in steps:
        note(payload, member, "end")
    return [ValueError("once") if p.get("failures", 0) >= m.attempt else None for p, m in steps]


if "batch" in inspect.signature(Registry.handler).parameters:  # a version before groups has no such handlers
    jobs.handler("chaos.group")(group)

__all__ = ["jobs"]

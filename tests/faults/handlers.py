"""Handlers that write every start and end to a file outside the system, whatever becomes of their process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consumers import Context, Registry, Retry, Snooze
from schemas import WorkMessage
from tests.faults.executions import LEDGER_VARIABLE, read_executions

jobs = Registry()


def _telling(decode: Callable[[bytes], WorkMessage]) -> Callable[[bytes], WorkMessage]:
    """Put the number of a step in its run, from 1, into its payload.

    A handler is not told it otherwise, and without it nobody could say whether a job that snoozes was executed once
    too often. The payload reaches a handler wherever it runs, in a child process too.
    """

    def told(body: bytes) -> WorkMessage:
        work = decode(body)
        work.payload["seq"] = work.seq
        return work

    return told


# in a worker's process and its children alone: this module is loaded as their handlers, and imported nowhere else
WorkMessage.decode = _telling(WorkMessage.decode)  # type: ignore[method-assign, assignment]


def snoozes_before(payload: dict[str, Any], ctx: Context) -> int:
    """How often the job was put off before this execution: each step of a run is an attempt or a snooze."""
    return int(payload["seq"]) - ctx.attempt


def worker_pid() -> int:
    """The worker's process, from itself or from a child of it."""
    return os.getppid() if in_child() else os.getpid()


def in_child() -> bool:
    """Whether this is a child process of a worker."""
    return "consumers.child" in sys.modules


def note(payload: dict[str, Any], ctx: Context, what: str) -> None:
    """Write one line: which step, in which worker, when (seconds since the epoch)."""
    job = payload.get("name", ctx.id)
    step = {"id": job, "run": ctx.run, "n": ctx.attempt, "k": snoozes_before(payload, ctx), "child": in_child()}
    line = json.dumps(step | {"execution": ctx.execution, "what": what, "at": time.time(), "worker": worker_pid()})
    descriptor = os.open(os.environ[LEDGER_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


async def _work(payload: dict[str, Any], ctx: Context) -> None:
    note(payload, ctx, "start")
    await asyncio.sleep(payload["ms"] / 1000)
    note(payload, ctx, "end")


@jobs.handler("chaos.plain")
async def plain(payload: dict[str, Any], ctx: Context) -> int:
    """Works for ``ms`` milliseconds."""
    await _work(payload, ctx)
    return ctx.attempt


@jobs.handler("chaos.flaky")
@jobs.handler("chaos.delayed")
async def flaky(payload: dict[str, Any], ctx: Context) -> int:
    """Fails at its first ``failures`` attempts; the message says how long to wait between them."""
    await _work(payload, ctx)
    if ctx.attempt <= payload["failures"]:
        raise ConnectionError("not yet")
    return ctx.attempt


@jobs.handler("chaos.hopeless", retry=Retry(max_attempts=2, base=0.25))
async def hopeless(payload: dict[str, Any], ctx: Context) -> None:
    """Always fails."""
    await _work(payload, ctx)
    raise ValueError("never")


@jobs.handler("chaos.slow", timeout=0.3, retry=Retry(max_attempts=1))
async def slow(payload: dict[str, Any], ctx: Context) -> None:
    """Runs out of time."""
    note(payload, ctx, "start")
    try:
        await asyncio.sleep(3600)
    finally:
        note(payload, ctx, "end")


@jobs.handler("chaos.snooze")
async def snooze(payload: dict[str, Any], ctx: Context) -> None:
    """Puts itself off ``snoozes`` times for ``seconds``, counted by its step, so that a repeated one is the same."""
    await _work(payload, ctx)
    if snoozes_before(payload, ctx) < payload["snoozes"]:
        raise Snooze(payload["seconds"])


@jobs.handler("chaos.hops")
async def hops(payload: dict[str, Any], ctx: Context) -> None:
    """Is put off once for each hop: for so many seconds, or (None) by a failure and the message's own policy."""
    await _work(payload, ctx)
    step = int(payload["seq"]) - 1
    if step < len(payload["hops"]):
        if (seconds := payload["hops"][step]) is None:
            raise ConnectionError("not yet")
        raise Snooze(seconds)


@jobs.handler("chaos.poison")
async def poison(payload: dict[str, Any], ctx: Context) -> None:
    """Kills its process, every time."""
    note(payload, ctx, "start")
    os.kill(os.getpid(), signal.SIGKILL)


def executed_before(ctx: Context) -> int:
    """How often the job was executed before, in whatever process."""
    return sum(execution.job == ctx.id for execution in read_executions(Path(os.environ[LEDGER_VARIABLE])))


@jobs.handler("chaos.once")
async def once(payload: dict[str, Any], ctx: Context) -> None:
    """Fails the first time that the job is executed at all."""
    before = executed_before(ctx)
    await _work(payload, ctx)
    if not before:
        raise ConnectionError("the first time")


@jobs.handler("chaos.rerun", retry=Retry(max_attempts=1))
async def rerun(payload: dict[str, Any], ctx: Context) -> None:
    """Fails in its first run, and whenever it is executed again after it succeeded."""
    before = executed_before(ctx)
    await _work(payload, ctx)
    if ctx.run == 1 or before > 1:
        raise ConnectionError("not now")

"""Handlers that the executor's tests run in child processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from consumers import BatchContext, Cancel, Context, Registry, Snooze

#: What names them to a child process.
TARGET = "tests.unit.child_handlers:jobs"

jobs = Registry()


@dataclass
class Order:
    """A payload that the child validates for itself."""

    number: int


class OrderError(LookupError):
    """An exception of a handler project."""


class Nap(Snooze):
    """A subclass that does not call its base's constructor."""

    def __init__(self) -> None:
        pass


RAISED: dict[str, BaseException] = {
    "snooze": Snooze(7),
    "cancel": Cancel("why"),
    "error": OrderError("no such order"),
    "group": ExceptionGroup("two", [OrderError("no such order"), ConnectionResetError("gone")]),
    "cancel with an error": Cancel(OrderError("gone")),
    "bare snooze": Nap(),
    "interrupt": KeyboardInterrupt(),
}


@jobs.handler("pid", isolate="process")
def pid(payload: dict[str, Any]) -> int:
    """Says which process it is."""
    return os.getpid()


@jobs.handler("order", isolate="process")
def order(payload: Order, ctx: Context) -> dict[str, Any]:
    """Shows what arrived."""
    trace = ctx.trace.traceparent if ctx.trace else None
    return {"number": payload.number, "attempt": ctx.attempt, "tags": ctx.tags, "id": ctx.id, "trace": trace}


@jobs.handler("order.async", isolate="process")
async def order_async(payload: Order) -> int:
    """An async function in a child."""
    return payload.number + 1


@jobs.handler("steer", isolate="process")
def steer(payload: dict[str, Any]) -> Any:
    """Leaves in the way that it is told."""
    if (error := RAISED.get(payload["how"])) is not None:
        raise error
    match payload["how"]:
        case "unstorable":
            return object()
        case "large":
            return "x" * 5_000
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            sys.exit(3)
    return None


@jobs.handler("hang", isolate="process")
def hang(payload: dict[str, Any]) -> None:
    """Starts a process of its own and never ends."""
    with subprocess.Popen(["sleep", "120"]) as grandchild, open(payload["file"], "w") as file:  # noqa: PTH123
        file.write(str(grandchild.pid))
        file.flush()
        time.sleep(120)


@jobs.handler("loop.pid")
async def loop_pid(payload: dict[str, Any]) -> int:
    """Says in which process the loop runs."""
    return os.getpid()


@jobs.handler("thread.pid")
def thread_pid(payload: dict[str, Any]) -> int:
    """Says in which process the thread runs."""
    return os.getpid()


@jobs.handler("loop.kill")
async def loop_kill(payload: dict[str, Any]) -> None:
    """Kills its process."""
    os.kill(os.getpid(), signal.SIGKILL)


@jobs.handler("progress", isolate="process")
def progress(payload: dict[str, Any], ctx: Context) -> None:
    """Reports often, and a thread of it goes on when it has ended."""
    for done in range(50):
        ctx.progress(done, 50, f"step {done}")
    threading.Timer(0.2, ctx.progress, (99,)).start()


@jobs.handler("logs", isolate="process")
def logs(payload: dict[str, Any], ctx: Context) -> None:
    """Writes a line at each level."""
    ctx.log.info("from the child", number=7)
    ctx.log.debug("too much detail")


@dataclass
class Task:
    """One payload of a batch: how it is to end, and how the whole batch, as the first payload says."""

    number: int
    end: str = "result"
    whole: str = "each"


def _entry(task: Task, ctx: BatchContext, place: int) -> Any:
    if task.end in RAISED:
        return RAISED[task.end]
    if task.end in ("unstorable", "large"):
        return object() if task.end == "unstorable" else "x" * 5_000
    return {"number": task.number, "batch": ctx.id, "member": ctx.members[place].id, "of": len(ctx.members)}


def batch(tasks: list[Task], ctx: BatchContext) -> Any:
    """What the batch handlers below do."""
    entries = [_entry(task, ctx, place) for place, task in enumerate(tasks)]
    match whole := tasks[0].whole:
        case "none":
            return None
        case "tuple":
            return tuple(entries)
        case "short":
            return entries[1:]
        case "dict":
            return {"a": 1}
        case "exit":
            os._exit(3)
        case "progress":
            ctx.progress(1, 2, "half way")
            ctx.members[1].progress(2, 2, "the second is done")
        case "log":
            ctx.log.info("from a batch", number=7)
    if whole in RAISED:
        raise RAISED[whole]
    return entries


@jobs.handler("batch.async")
async def batch_async(tasks: list[Task], ctx: BatchContext) -> Any:
    """In the loop."""
    if tasks[0].whole == "hang":
        await asyncio.sleep(60)
    return batch(tasks, ctx)


@jobs.handler("batch.thread")
def batch_thread(tasks: list[Task], ctx: BatchContext) -> Any:
    """In a thread."""
    end = time.monotonic() + 60
    while tasks[0].whole == "hang" and time.monotonic() < end and not ctx.cancelled:
        time.sleep(0.005)
    return batch(tasks, ctx)


@jobs.handler("batch.process", isolate="process")
def batch_process(tasks: list[Task], ctx: BatchContext) -> Any:
    """In a child process."""
    if tasks[0].whole == "hang":
        time.sleep(60)
    return batch(tasks, ctx)


@jobs.handler("batch.size", isolate="process")
def batch_size(payloads: list[dict[str, Any]]) -> list[int]:
    """Takes any payloads, and no context."""
    return [len(payload["text"]) for payload in payloads]

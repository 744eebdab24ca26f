"""Retries: what is tried again, how often and when; what is not; and a job that puts itself off."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from consumers import Context, Registry, Retry, Snooze
from examples.shop import Job, Shop, attempts, show

jobs = Registry()


@jobs.handler("example.call", retry=Retry(max_attempts=4, base=0.25, factor=2, on=(ConnectionError,)))
async def call(payload: dict[str, Any], ctx: Context) -> str:
    """Call somebody who may be away, or who opens later."""
    if (left := payload.get("opens_at", 0) - time.time()) > 0:
        raise Snooze(left)  # spends no attempt
    if ctx.attempt <= payload.get("away", 0):
        raise ConnectionError("nobody answers")
    if payload.get("wrong"):
        raise ValueError("no such number")  # `on` does not name it: another attempt would not help
    return f"answered at attempt {ctx.attempt}"


def pauses(job: Job) -> str:
    """Seconds from the end of each execution to the start of the next."""
    ends = [datetime.fromisoformat(attempt["finished_at"]) for attempt in job["attempts"]]
    starts = [datetime.fromisoformat(attempt["started_at"]) for attempt in job["attempts"]]
    return ", ".join(f"{(b - a).total_seconds():.1f}" for a, b in zip(ends, starts[1:], strict=False)) or "-"


def main() -> None:
    """Four calls."""
    with Shop() as shop:
        shop.publish("example.call", {"to": "ann", "away": 2})
        shop.publish("example.call", {"to": "bob", "away": 9}, retry={"max_attempts": 2})
        shop.publish("example.call", {"to": "nobody", "wrong": True})
        shop.publish("example.call", {"to": "the shop", "opens_at": time.time() + 1})
        found = shop.jobs(4)
    show(
        found,
        to=lambda job: job["payload"]["to"],
        state=lambda job: job["state"],
        attempts=attempts,
        pauses=pauses,
        result=lambda job: job.get("result") or job["error"]["message"],
    )


if __name__ == "__main__":
    main()

"""The publisher's process: an application that uses our Client. Started by the benchmark, which says when.

    python -m bench.publisher PLAN COUNT RATE

PLAN is tiny, anonymous (the same without ids), stamp, retries or burst; RATE is jobs a second, 0 for as fast as the
broker confirms. The broker, the prefix and the key come from the environment. It prints ``ready``, waits for a line,
and prints two monotonic times: just before the first publish, and after the last confirm.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pydantic_core
import uvloop

from bench.work import payload
from dispatcher import Client
from dispatcher.edges.amqp import Outgoing

#: Publishes waiting for their confirm at once.
IN_FLIGHT = 500
#: Backoffs of the plan ``retries``, in seconds: one, one, two and two hops of the ladder.
BACKOFFS = (0.5, 1.0, 1.5, 2.25)
#: Backoff of the plan ``burst``, and how long after the start of publishing all its jobs fail, in seconds.
BURST_BACKOFF = 1.0
BURST_AFTER = 4.0

Job = tuple[str, dict[str, Any], dict[str, Any]]


def _retry(backoff: float) -> dict[str, Any]:
    return {"max_attempts": 2, "base": backoff, "factor": 1, "jitter": 0}


def _plans() -> dict[str, Callable[[int], Job]]:
    fail_at = time.time() + BURST_AFTER
    return {
        "tiny": lambda number: ("bench.tiny", payload(number), {}),
        "anonymous": lambda number: ("bench.tiny", payload(number), {"id": None}),
        "stamp": lambda number: ("bench.stamp", {**payload(number), "sent_ns": time.time_ns()}, {}),
        "retries": lambda number: (
            "bench.flaky",
            payload(number),
            {"retry": _retry(BACKOFFS[number % len(BACKOFFS)])},
        ),
        "burst": lambda number: (
            "bench.flaky",
            {**payload(number), "fail_at": fail_at},
            {"retry": _retry(BURST_BACKOFF)},
        ),
    }


async def _publish(client: Client, job_type: str, body: dict[str, Any], fields: dict[str, Any]) -> None:
    """One job; without an id where the fields say so, which our Client does not do."""
    if "id" not in fields:
        await client.publish(job_type, body, **fields)
        return
    message = Outgoing(client._jobs, job_type, pydantic_core.to_json({"payload": body}), client._headers)
    await client._send("", message)


async def _flood(client: Client, job: Callable[[int], Job], count: int) -> None:
    """As fast as confirms come, with a bounded number in flight."""
    numbers: Iterator[int] = iter(range(count))

    async def publish() -> None:
        for number in numbers:
            job_type, body, fields = job(number)
            await _publish(client, job_type, body, fields)

    await asyncio.gather(*(publish() for _ in range(IN_FLIGHT)))


async def _paced(client: Client, job: Callable[[int], Job], count: int, rate: float) -> None:
    """Evenly spaced; a publish never waits for the one before it."""
    began = time.monotonic()
    tasks = []
    for number in range(count):
        await asyncio.sleep(max(began + number / rate - time.monotonic(), 0))
        job_type, body, fields = job(number)
        tasks.append(asyncio.create_task(_publish(client, job_type, body, fields)))
    await asyncio.gather(*tasks)


async def _main(plan: str, count: int, rate: float) -> None:
    environment = os.environ
    url, prefix = environment["DISPATCHER_AMQP__URL"], environment["DISPATCHER_AMQP__PREFIX"]
    async with Client(url, environment["DISPATCHER_API_KEY"], prefix=prefix) as client:
        await client.publish("bench.stamp", {"sent_ns": 0})  # connected now, and the path is warm
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        job = _plans()[plan]
        began = time.monotonic()
        await (_paced(client, job, count, rate) if rate else _flood(client, job, count))
        print(began, time.monotonic(), flush=True)
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))

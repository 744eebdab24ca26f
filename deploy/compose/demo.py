"""The demo's application: publishes jobs of all sorts to the handlers of examples/, until it is stopped.

Needs AMQP_URL, and DEMO_KEY_FILE with the API key in it. DEMO_JOBS_PER_SECOND says how many.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from dispatcher import Client

#: Touched after each answer: the container's health check looks at it.
ANSWERED = Path("/tmp/answered")  # noqa: S108
PRIORITIES = ("critical", "high", "normal", "low", "background")

Job = tuple[str, dict[str, Any], dict[str, Any]]


def any_job(chance: random.Random, number: int) -> Job:
    """Type, payload and other fields of a job; most succeed."""
    now = time.time()
    month = f"{number // 20}"
    kinds: list[tuple[int, Job]] = [
        (30, ("email.send", {"to": f"user{number}@example.org"}, {"tags": ["welcome"]})),
        (20, ("demo.echo", {"n": number}, {"priority": chance.choice(PRIORITIES)})),
        (10, ("demo.flaky", {"failures": chance.randint(1, 3)}, {})),
        (10, ("example.letters", {"to": f"user{number}@example.org"}, {"group": {"key": "post", "max_wait": 5}})),
        (5, ("demo.thread", {"seconds": 0.2}, {})),
        (5, ("demo.process", {"n": 200_000}, {})),
        (5, ("demo.snooze", {"until": now + 5}, {})),
        (3, ("demo.echo", {}, {"delay": chance.choice([2, 30, 90])})),
        (3, ("example.report", {"month": month}, {"unique": {"key": f"report-{month}", "for": 60}})),
        (2, ("example.offer", {}, {"delay": 2, "expires": 1})),
        (2, ("demo.slow", {}, {"deadline": 0.2})),
        (2, ("demo.hopeless", {}, {})),
        (2, ("demo.cancel", {}, {})),
        (1, ("demo.echo", {}, {"priority": "urgent"})),  # refused
    ]
    return chance.choices([job for _, job in kinds], [weight for weight, _ in kinds])[0]


async def publish(client: Client, job: Job) -> None:
    """Publish one job, and wait for intake's answer."""
    kind, payload, fields = job
    receipt = await client.submit(kind, payload, **fields)
    ANSWERED.touch()  # noqa: ASYNC240  # in memory
    if not receipt.accepted:
        print(f"demo: {kind} was refused: {receipt.code}: {receipt.message}", flush=True)


async def main(key: str) -> None:
    """Publish at a steady rate, until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    pause = 1 / float(os.environ.get("DEMO_JOBS_PER_SECOND", "5"))
    chance, number = random.Random(), 0
    under_way: set[asyncio.Task[None]] = set()
    async with Client(os.environ["AMQP_URL"], key) as client:
        print("demo: publishing", flush=True)
        while not stop.is_set():
            number += 1
            task = asyncio.create_task(publish(client, any_job(chance, number)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            await asyncio.sleep(pause)
    print(f"demo: published {number} jobs", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(os.environ["DEMO_KEY_FILE"]).read_text(encoding="utf-8").strip()))

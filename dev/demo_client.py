"""The demo's client app, a process of its own: publishes a few hundred jobs of every fate.

python -m dev.demo_client AMQP_URL PREFIX      (the API key comes in DISPATCHER_API_KEY)
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

from dispatcher import Client

PRIORITIES = ("critical", "high", "normal", "low", "background")

#: The job whose timeline the demo shows at the end.
SHOWN_JOB = "demo-flaky-3-0"

Job = tuple[str, dict[str, Any], dict[str, Any]]


def jobs() -> list[Job]:
    """Type, payload and other fields of each job."""
    made: list[Job] = []
    for i in range(100):
        made.append(("email.send", {"to": f"user{i}@example.org", "subject": "Welcome"}, {}))
    for i in range(100):
        made.append(("demo.echo", {"n": i}, {"priority": PRIORITIES[i % 5]}))
    for failures in (1, 2, 3):
        for i in range(20):
            made.append(("demo.flaky", {"failures": failures}, {"id": f"demo-flaky-{failures}-{i}"}))
    made += [("demo.hopeless", {}, {}) for _ in range(15)]
    made += [("demo.slow", {}, {}) for _ in range(10)]
    made += [("demo.snooze", {"until": time.time() + 4}, {}) for _ in range(10)]
    made += [("demo.cancel", {}, {}) for _ in range(5)]
    made += [("demo.thread", {"seconds": 0.1}, {}) for _ in range(20)]
    made += [("demo.process", {"n": 100_000}, {}) for _ in range(5)]
    # and some that intake refuses
    made += [
        ("demo.echo", {}, {"prority": "high"}),
        ("demo.echo", {}, {"timeout": 0}),
        ("Not A Type", {}, {}),
    ]
    return made


async def main(url: str, prefix: str) -> None:
    """Publish everything at once; prints one JSON document."""
    wanted = jobs()
    async with Client(url, os.environ["DISPATCHER_API_KEY"], prefix=prefix) as client:
        began = time.perf_counter()
        await asyncio.gather(*(client.publish(kind, payload, **fields) for kind, payload, fields in wanted))
        seconds = time.perf_counter() - began
    print(json.dumps({"published": len(wanted), "seconds": round(seconds, 3)}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))

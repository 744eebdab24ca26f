"""What the examples share: an application that publishes jobs and looks at what became of them."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dispatcher import Client
from dispatcher.client import Receipt

#: States in which a job is over.
FINAL = {"succeeded", "failed", "timed_out", "cancelled", "expired", "rejected", "duplicate"}
#: Longest wait for jobs to be over, in seconds.
PATIENCE = 60.0

Job = dict[str, Any]


class Shop:
    """An application: ``with Shop() as shop: shop.publish(…)``.

    Each run tags its jobs with a name of its own, by which it finds them again.
    """

    def __init__(self) -> None:
        try:
            url, key = os.environ["AMQP_URL"], os.environ["DISPATCHER_API_KEY"]
        except KeyError as missing:
            raise SystemExit(f"{missing.args[0]} is not set: see examples/README.md") from None
        self._client = Client(url, key, prefix=os.environ.get("DISPATCHER_AMQP__PREFIX", ""))
        self.run = f"run-{uuid.uuid4().hex[:8]}"

    def __enter__(self) -> Shop:
        self._client.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._client.__exit__(*error)

    def publish(self, job_type: str, payload: Any = None, **fields: Any) -> Receipt:
        """Publish a job and wait for intake's answer; a refusal ends the example."""
        receipt = self._client.submit_sync(job_type, payload, tags=[self.run], **fields)
        if not receipt.accepted:
            raise SystemExit(f"refused: {receipt.code}: {receipt.message}")
        return receipt

    def jobs(self, count: int, ready: Callable[[Job], bool] = lambda job: True) -> list[Job]:
        """The jobs of this run, the first accepted first, once there are so many, all of them over and ready."""
        deadline = time.monotonic() + PATIENCE
        while True:
            listed = _dispatcher("jobs", "list", "--tag", self.run, "--limit", "1000")
            if len(listed) == count and all(job["state"] in FINAL for job in listed):
                with ThreadPoolExecutor() as pool:
                    jobs = list(pool.map(lambda job: _dispatcher("jobs", "show", f"{job['app']}:{job['id']}"), listed))
                if all(map(ready, jobs)):
                    return jobs[::-1]
            if time.monotonic() > deadline:
                raise SystemExit(f"not over after {PATIENCE:g} s: is a worker with the examples' handlers running?")
            time.sleep(0.2)


def _dispatcher(*arguments: str) -> Any:
    """What a command prints with ``--json``: history, as any script would get it."""
    return json.loads(subprocess.run(["dispatcher", *arguments, "--json"], check=True, capture_output=True).stdout)


def show(jobs: Sequence[Job], **columns: Callable[[Job], Any]) -> None:
    """Print a table of jobs: a column for each function, under its name."""
    rows = [tuple(columns), *(tuple(str(column(job)) for column in columns.values()) for job in jobs)]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def attempts(job: Job) -> str:
    """How a job's attempts ended, in a few words."""
    return ", ".join(f"{attempt['n']} {attempt['outcome']}" for attempt in job["attempts"]) or "none"

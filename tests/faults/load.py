"""Publishing a plan at a steady rate, with confirms, noting of each job what the publisher knows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dispatcher import Client
from dispatcher.client import PublishFailed
from tests.faults.plan import Job


@dataclass
class Published:
    """What the publisher knows, by id: the job, when it was attempted (seconds since the epoch), and what came."""

    jobs: dict[str, Job] = field(default_factory=dict)
    attempted: dict[str, float] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    #: No confirm came in time: it may be published or not.
    unknown: set[str] = field(default_factory=set)
    #: Messages with the id of one that was sent before, as far as they were confirmed.
    sent_again: int = 0


class Load:
    """A plan to be published at so many jobs a second; `published` grows meanwhile."""

    def __init__(self, client: Client, plan: Sequence[Job], rate: float) -> None:
        self._client = client
        self._plan = plan
        self._rate = rate
        self.published = Published()
        #: Set: nothing more of the plan is published.
        self.over = asyncio.Event()

    @property
    def seconds(self) -> float:
        """How long publishing takes at least."""
        return len(self._plan) / self._rate

    @property
    def published_again(self) -> int:
        """Publishes that the client sent again because it never heard of them."""
        publisher = self._client._publisher
        return publisher.unknown if publisher is not None else 0

    async def publish(self) -> None:
        """Publish the plan, or until `over`, however long the broker is away.

        Returns when of each job something is known.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            for index, job in enumerate(self._plan):
                if (wait := began + index / self._rate - loop.time()) > 0:
                    await asyncio.sleep(wait)
                if self.over.is_set():
                    return
                if not self._wants(job):
                    continue
                group.create_task(self.one(job))
                if job.again is not None:
                    group.create_task(self._again(job, job.again))

    def _wants(self, job: Job) -> bool:
        """Whether a job of the plan is to be published now; else it is left out."""
        return True

    async def one(self, job: Job) -> None:
        """Publish one job, of the plan or besides it."""
        published = self.published
        published.jobs[job.id] = job
        published.attempted[job.id] = time.time()
        try:
            await self._send(job)
        except PublishFailed:
            published.unknown.add(job.id)
        else:
            published.acknowledged.add(job.id)

    async def _again(self, job: Job, after: float) -> None:
        """Send the same message once more, as somebody who had no answer."""
        await asyncio.sleep(after)
        with contextlib.suppress(PublishFailed):
            await self._send(job)
            self.published.acknowledged.add(job.id)
            self.published.sent_again += 1

    async def _send(self, job: Job) -> None:
        fields = {"priority": job.priority, **job.fields}
        if not job.anonymous:
            await self._client.publish(job.type, dict(job.payload), id=job.id, **fields)
            return
        message = self._client._message(job.type, dict(job.payload), job.id, fields)
        body = {name: value for name, value in json.loads(message.body).items() if name != "id"}
        await self._client._send(job.id, replace(message, body=json.dumps(body).encode()))

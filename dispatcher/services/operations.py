"""What operators do by hand to jobs: start a new run from history, or from the parked message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pydantic_core
from pydantic import ValidationError

from config import Settings
from dispatcher.core.dead_groups import DeadGroups
from dispatcher.core.errors import DispatcherError
from dispatcher.core.filters import JobFilter
from dispatcher.core.history import Document
from dispatcher.core.lifecycle import PARKED, RERUNNABLE
from dispatcher.core.nearest import nearest
from dispatcher.core.outcome import new_run
from dispatcher.core.topology import Names, work_key
from dispatcher.edges import clock
from dispatcher.edges.amqp import Outgoing, Publisher, rotate
from dispatcher.edges.mongo import (
    AuditStore,
    CancelStore,
    Database,
    Forgetting,
    JobStore,
    KeyStore,
    ScheduledStore,
    StatisticsStore,
    UsageStore,
    clock_ahead,
)
from schemas import Event, JobState, Rerun, WorkMessage
from schemas.events import about, encode_batches

#: How many of the last jobs are looked through for an id that was meant.
RECENT = 1_000


class OperationError(DispatcherError):
    """It cannot be done; the sentence says why and what can."""


@dataclass(frozen=True, slots=True)
class Step:
    """The first step of a new run: its message, and the event of it."""

    work: WorkMessage
    message: Outgoing
    event: Rerun


class Operations:
    """Operators' actions on one installation. Connect the publisher before an action that publishes."""

    def __init__(self, settings: Settings) -> None:
        amqp = settings.amqp
        self.lanes = settings.lanes
        self.database = settings.mongo.database
        self.max_body_bytes = settings.intake.max_body_bytes
        self.names = Names(amqp.prefix)
        self.url = amqp.url.get_secret_value()
        self._database = Database(settings.mongo.url.get_secret_value(), settings.mongo.database)
        self.jobs = JobStore(self._database)
        self.keys = KeyStore(self._database)
        self.usage = UsageStore(self._database)
        self.audit = AuditStore(self._database)
        self.cancels = CancelStore(self._database)
        self.scheduled = ScheduledStore(self._database)
        self.statistics = StatisticsStore(self._database)
        self.forgetting = Forgetting(self._database)
        self.publisher = Publisher(self.url, "operations", timeout=amqp.publish_timeout)

    def close(self) -> None:
        """Close the database's connections."""
        self._database.close()

    async def clock_ahead(self) -> tuple[float, float]:
        """By how many seconds our clock is ahead of the database server's, and how far off that may be."""
        return await clock_ahead(self._database)

    async def find(self, job_id: str, app: str | None = None, *, hint: bool = True) -> Document:
        """One job, by id or ``app:id``; with ``hint``, the error names the recent job whose id is nearest.

        Raises:
            OperationError: there is none, or several apps have that id.
        """
        if app is None and ":" in job_id:
            app, _, job_id = job_id.partition(":")
        apps = [app] if app else sorted({*await self.keys.apps(), *await self.jobs.apps()})
        found = await self.jobs.find_by_id(apps, job_id)
        if not found:
            meant = await self._meant(job_id, apps) if hint else ""
            raise OperationError(f"no job {job_id} in history (yet){meant or '; see: dispatcher jobs list'}")
        if len(found) > 1:
            names = ", ".join(doc["app"] for doc in found)
            raise OperationError(f"several apps have a job {job_id} ({names}); name one with --app")
        return found[0]

    async def _meant(self, job_id: str, apps: Iterable[str]) -> str:
        recent = {job: f"{app}:{job}" for app, job in reversed(await self.jobs.recent_ids(apps, RECENT)) if job}
        meant = nearest(job_id, recent)
        return f"; did you mean {recent[meant]}?" if meant else ""

    async def dead(self, where: JobFilter, limit: int) -> list[Document]:
        """Jobs that ended failed or timed out, the last accepted first."""
        return await self.jobs.search(dead_ones(where), limit)

    async def dead_groups(self, where: JobFilter) -> DeadGroups:
        """The same, every one of them, put together by the fingerprint of their error."""
        groups = DeadGroups()
        async for doc in self.jobs.scan(dead_ones(where), without=("payload", "attempts")):
            groups.add(doc)
        return groups

    async def retry(self, doc: Document) -> int:
        """Start a new run of a finished job from its document; returns the run's number.

        Raises:
            OperationError: the job is not finished, or its payload was not recorded.
        """
        if JobState(doc["state"]) not in RERUNNABLE:
            raise OperationError(f"job {doc['id']} is {doc['state']}: only a finished job can be retried")
        if "payload" not in doc:
            raise OperationError(
                f"the payload of job {doc['id']} is not in history, so it cannot be run again from there; "
                f"a dead job's message has it: dispatcher dead replay {doc['id']}"
            )
        if doc.get("redacted"):
            raise OperationError(
                f"fields of the payload of job {doc['id']} were redacted, so it cannot be run again from history; "
                "a dead job's message is whole: dispatcher dead replay " + doc["id"]
            )
        step = self.step(new_run(work_of(doc)), "retry")
        await self._publish([step.message])
        await self._publish(self.told([step]))
        return step.work.run

    async def replay(self, doc: Document) -> int:
        """Start a new run of a dead job from its parked message, which it replaces; returns the run's number.

        Raises:
            OperationError: the job is not dead, or its message is gone.
        """
        if JobState(doc["state"]) not in PARKED:
            raise OperationError(f"job {doc['id']} is {doc['state']}, not dead: there is nothing to replay")
        queue, plan = self.names.parked(doc["lane"]), _One(self, doc)
        done = await rotate(self.url, queue, self.publisher, plan)
        if done.unroutable:
            raise OperationError("a queue is missing: run `dispatcher topology apply`; nothing was taken out")
        if plan.step is None:
            raise OperationError(
                f"job {doc['id']} is no longer in {queue}; "
                f"start it from history with: dispatcher jobs retry {doc['id']}"
            )
        return plan.step.work.run

    def step(self, work: WorkMessage, by: Literal["retry", "replay"]) -> Step:
        """The first step of a new run, to be published before `told`."""
        message = Outgoing(self.names.work, work_key(work.lane, work.priority), work.encode())
        return Step(work, message, Rerun(**about(work), at=clock.now_ms(), by=by))

    def told(self, steps: Iterable[Step]) -> list[Outgoing]:
        """What tells history of steps that are confirmed.

        Before that it must not hear of them: a job of which it does is no longer dead, and could not be replayed.
        """
        return [Outgoing("", self.names.history, body) for body in encode_batches(step.event for step in steps)]

    def lanes_of(self, where: JobFilter) -> tuple[str, ...]:
        """The lanes that a filter means.

        Raises:
            OperationError: there is no such lane.
        """
        if where.lane is None:
            return self.lanes
        if where.lane not in self.lanes:
            raise OperationError(f"no lane {where.lane!r}; there are: {', '.join(self.lanes)}")
        return (where.lane,)

    async def tell(self, event: Event) -> None:
        """Publish an event of a job, and no message with it."""
        await self._publish([Outgoing("", self.names.history, body) for body in encode_batches([event])])

    async def _publish(self, messages: Sequence[Outgoing]) -> None:
        if await self.publisher.publish(messages):
            raise OperationError("a queue is missing: run `dispatcher topology apply`")


class _One:
    """The plan of a rotation for one dead job."""

    def __init__(self, operations: Operations, doc: Document) -> None:
        self._operations = operations
        self._doc = doc
        self.step: Step | None = None

    async def choose(self, bodies: Sequence[bytes]) -> Sequence[Outgoing | bool]:
        """Its message becomes the first step of a new run."""
        return [self._choice(parked_work(body)) for body in bodies]

    def _choice(self, work: WorkMessage | None) -> Outgoing | bool:
        if work is None or work.key != (self._doc["app"], self._doc["id"]):
            return True
        if work.run < self._doc["run"] or self.step is not None:
            return False  # left over from an earlier run, or a second copy
        self.step = self._operations.step(new_run(work), "replay")
        return self.step.message

    def follow(self, replaced: Sequence[int]) -> Sequence[Outgoing]:
        """The event of the new run."""
        return self._operations.told([self.step]) if replaced and self.step is not None else []

    def enough(self) -> bool:
        """Never: further copies are to be found too."""
        return False


def dead_ones(where: JobFilter) -> JobFilter:
    """The filter, with the states of dead jobs."""
    return replace(where, states=tuple(sorted(str(state) for state in PARKED)))


def work_of(doc: Document) -> WorkMessage:
    """The work message that a document stands for, but for its expiry, which a run by hand does not have."""
    fields: dict[str, Any] = {
        name: doc[name]
        for name in (
            "app",
            "id",
            "run",
            "type",
            "lane",
            "priority",
            "accepted_at",
            "deadline_at",
            "payload",
            "tags",
            "timeout",
            "retry",
            "trace",
        )
        if name in doc
    }
    return WorkMessage.model_validate_json(_json(fields))


def _json(fields: dict[str, Any]) -> bytes:
    return pydantic_core.to_json(fields)


def parked_work(body: bytes) -> WorkMessage | None:
    """The work message in a parked one; None where it is none."""
    try:
        return WorkMessage.decode(body)
    except ValidationError:
        return None

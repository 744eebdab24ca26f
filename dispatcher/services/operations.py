"""What operators do by hand to jobs: start a new run from history, or from the parked message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import pydantic_core
from pydantic import ValidationError

from config import Settings
from dispatcher.core.dead_groups import DeadGroups
from dispatcher.core.errors import DispatcherError
from dispatcher.core.filters import JobFilter
from dispatcher.core.history import Document
from dispatcher.core.lifecycle import PARKED, RERUNNABLE
from dispatcher.core.outcome import new_run
from dispatcher.core.topology import Names, work_key
from dispatcher.edges import clock
from dispatcher.edges.amqp import Outgoing, Publisher, rotate
from dispatcher.edges.mongo import AuditStore, CancelStore, Database, JobStore, KeyStore, StatisticsStore, UsageStore
from schemas import Event, JobState, Rerun, WorkMessage
from schemas.events import about, encode_batches


class OperationError(DispatcherError):
    """It cannot be done; the sentence says why and what can."""


class Operations:
    """Operators' actions on one installation. Connect the publisher before an action that publishes."""

    def __init__(self, settings: Settings) -> None:
        amqp = settings.amqp
        self._settings = settings
        self._names = Names(amqp.prefix)
        self._url = amqp.url.get_secret_value()
        self._database = Database(settings.mongo.url.get_secret_value(), settings.mongo.database)
        self.jobs = JobStore(self._database)
        self.keys = KeyStore(self._database)
        self.usage = UsageStore(self._database)
        self.audit = AuditStore(self._database)
        self.cancels = CancelStore(self._database)
        self.statistics = StatisticsStore(self._database)
        self.publisher = Publisher(self._url, "operations", timeout=amqp.publish_timeout)

    def close(self) -> None:
        """Close the database's connections."""
        self._database.close()

    async def find(self, job_id: str, app: str | None = None) -> Document:
        """One job, by id or ``app:id``.

        Raises:
            OperationError: there is none, or several apps have that id.
        """
        if app is None and ":" in job_id:
            app, _, job_id = job_id.partition(":")
        apps = [app] if app else sorted({*await self.keys.apps(), *await self.jobs.apps()})
        found = await self.jobs.find_by_id(apps, job_id)
        if not found:
            raise OperationError(f"no job {job_id} in history (yet); see: dispatcher jobs list")
        if len(found) > 1:
            names = ", ".join(doc["app"] for doc in found)
            raise OperationError(f"several apps have a job {job_id} ({names}); name one with --app")
        return found[0]

    async def dead(self, where: JobFilter, limit: int) -> list[Document]:
        """Jobs that ended failed or timed out, the last accepted first."""
        return await self.jobs.search(dead_ones(where), limit)

    async def dead_groups(self, where: JobFilter) -> DeadGroups:
        """The same, every one of them, put together by the fingerprint of their error."""
        groups = DeadGroups()
        async for doc in self.jobs.scan(dead_ones(where), without=("attempts",)):
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
        work = new_run(work_of(doc))
        await self._publish(self._first_step(work, "retry"))
        return work.run

    async def replay(self, doc: Document) -> int:
        """Start a new run of a dead job from its parked message, which it replaces; returns the run's number.

        Raises:
            OperationError: the job is not dead, or its message is gone.
        """
        if JobState(doc["state"]) not in PARKED:
            raise OperationError(f"job {doc['id']} is {doc['state']}, not dead: there is nothing to replay")
        runs: list[int] = []

        def replace(body: bytes) -> Sequence[Outgoing] | None:
            work = _parked(body)
            if work is None or work.key != (doc["app"], doc["id"]):
                return None
            if work.run < doc["run"] or runs:
                return ()  # left over from an earlier run, or a second copy
            step = new_run(work)
            runs.append(step.run)
            return self._first_step(step, "replay")

        await rotate(self._url, self._names.parked(doc["lane"]), self.publisher, replace)
        if not runs:
            raise OperationError(
                f"job {doc['id']} is no longer in {self._names.parked(doc['lane'])}; "
                f"start it from history with: dispatcher jobs retry {doc['id']}"
            )
        return runs[0]

    def _first_step(self, work: WorkMessage, by: Literal["retry", "replay"]) -> list[Outgoing]:
        event = Rerun(**about(work), at=clock.now_ms(), by=by)
        step = Outgoing(self._names.work, work_key(work.lane, work.priority), work.encode())
        return [step, *(Outgoing("", self._names.history, body) for body in encode_batches([event]))]

    async def tell(self, event: Event) -> None:
        """Publish an event of a job, and no message with it."""
        await self._publish([Outgoing("", self._names.history, body) for body in encode_batches([event])])

    async def _publish(self, messages: Sequence[Outgoing]) -> None:
        if await self.publisher.publish(messages):
            raise OperationError("a queue is missing: run `dispatcher topology apply`")


def dead_ones(where: JobFilter) -> JobFilter:
    """The filter, with the states of dead jobs."""
    return replace(where, states=tuple(sorted(str(state) for state in PARKED)))


def work_of(doc: Document) -> WorkMessage:
    """The work message that a document stands for."""
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


def _parked(body: bytes) -> WorkMessage | None:
    try:
        return WorkMessage.decode(body)
    except ValidationError:
        return None

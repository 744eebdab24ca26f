"""Publishing anew the steps of jobs that history calls unfinished and no broker holds: what a lost broker took along.

Nobody can ask a broker for one job, so it is done only while every service is stopped and the queues on a job's way are
empty: then no unfinished job is anywhere but in history. What is published says that it may exist already, so whoever
gets it asks the other workers and history first. After a kill in the middle the queues hold what was published;
``force`` goes on there, and what is published twice is settled once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from config import Settings
from dispatcher.core import ladder
from dispatcher.core.filters import JobFilter
from dispatcher.core.grouping import partition_of
from dispatcher.core.history import Document
from dispatcher.core.lifecycle import FINAL
from dispatcher.core.timing import LADDER_MS, route
from dispatcher.core.topology import Names, build
from dispatcher.edges import clock
from dispatcher.edges.amqp import Count, Outgoing, QueueCounts, marked_again, routed
from dispatcher.edges.mongo.scheduled import WAITING
from dispatcher.services.operations import OperationError, Operations, work_of
from dispatcher.services.replaying import Bulk, Progress, in_batches
from schemas import GroupSpec, JobState, Outcome, WorkMessage

UNFINISHED = frozenset(JobState) - FINAL
#: Outcomes that spend an attempt and are followed by another.
_SPENT = {str(Outcome.FAILED), str(Outcome.TIMED_OUT), str(Outcome.CRASHED)}


def unfinished(where: JobFilter) -> JobFilter:
    """The filter, with the states of jobs that have not ended."""
    return replace(where, states=tuple(sorted(str(state) for state in UNFINISHED)))


def present_step(doc: Document) -> WorkMessage | None:
    """The step that an unfinished job waits for, or runs; None where history lacks (part of) its payload.

    Args:
        doc: the job's document, its times in milliseconds since the epoch.
    """
    if "payload" not in doc or doc.get("redacted"):
        return None
    attempts = [attempt for attempt in doc["attempts"] if attempt["run"] == doc["run"]]
    spent = max((attempt["n"] for attempt in attempts if attempt["outcome"] in _SPENT), default=0)
    gathers = "group" in doc and "batch" not in doc and not attempts
    update = {
        "seq": max(doc["seq"], 1),
        "n": spent + 1,
        "due_at": doc.get("due_at"),
        "expires_at": doc.get("expires_at") if doc["run"] == 1 else None,
        "suspect": any(attempt["outcome"] == Outcome.CRASHED for attempt in attempts),
        "group": GroupSpec(**doc["group"]) if gathers else None,
    }
    return work_of(doc).model_copy(update=update)


async def check_stopped(settings: Settings, force: bool) -> None:
    """Make sure that no service runs and that no queue on a job's way, nor history's, holds a message.

    Args:
        force: messages there are fine.

    Raises:
        OperationError: it is not so; the sentence says what to do.
        BrokerError: the broker is away.
    """
    names = Names(settings.amqp.prefix)
    asked = QueueCounts(settings.amqp.url.get_secret_value(), "republish", settings.amqp.heartbeat)
    try:
        counts = await asked.read(queue.name for queue in build(names, settings.lanes).queues)
    finally:
        await asked.close()
    aside = {names.rejected, names.unrecorded, names.intake, names.intake_deferred, names.intake_dead, names.unrouted}
    _refuse(counts, aside | {names.parked(lane) for lane in settings.lanes}, force)


def _refuse(counts: dict[str, Count | None], aside: set[str], force: bool) -> None:
    there = {name: count for name, count in counts.items() if count is not None}
    if len(there) < len(counts):
        raise OperationError("a queue is missing: run `dispatcher topology apply`")
    if consumed := [name for name, count in there.items() if count.consumers]:
        raise OperationError(f"{consumed[0]} has consumers: stop every service and worker first; nothing was published")
    if not force and (full := [name for name, count in there.items() if count.ready and name not in aside]):
        raise OperationError(
            f"{full[0]} holds {there[full[0]].ready} messages: start everything, with worker.ask_history_first, until "
            "it is empty, and stop them again (or --force; docs/backup.md says when); nothing was published"
        )


async def republish_matching(
    operations: Operations, where: JobFilter, limit: int | None, stop: Callable[[], bool], progress: Progress
) -> Bulk:
    """Publish the present step of every unfinished job that the filter finds and that does not wait in MongoDB.

    Raises:
        MongoError: the database was lost. What was published stays so.
    """
    where = unfinished(where)
    found = operations.jobs.scan(where, without=())
    total = await operations.jobs.count(where)
    return await in_batches(found, total, partial(_republish, operations), limit, stop, progress)


async def _republish(operations: Operations, batch: Sequence[Document], bulk: Bulk) -> None:
    kept = await operations.scheduled.states([doc["_id"] for doc in batch])
    lost = [doc for doc in batch if kept.get(doc["_id"]) != WAITING]
    steps = [(work, doc["_id"] in kept) for doc in lost if (work := present_step(doc)) is not None]
    now = clock.now_ms()
    messages = [_message(operations.names, work, released, now) for work, released in steps]
    returned = set(await operations.publisher.publish(messages))
    bulk.looked_at += len(batch)
    bulk.impossible += len(lost) - len(steps) + len(returned)
    for index, (work, _) in enumerate(steps):
        if index not in returned:
            bulk.started += 1
            bulk.by_lane[work.lane] = bulk.by_lane.get(work.lane, 0) + 1


def _message(names: Names, work: WorkMessage, released: bool, now: int) -> Outgoing:
    """Its way: only what never was in MongoDB's ``scheduled`` may go there, since what was is taken for known."""
    longest = LADDER_MS if work.seq == 1 and not released else ladder.MAX_DELAY * 1000
    to = route(names, work.lane, work.priority, work.due_at, now, partition_of(work), longest)
    return marked_again(routed(to, work.encode(), work.headers))

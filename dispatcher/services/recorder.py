"""The recorder: events from ``history.v1`` become job documents in MongoDB, in bulk.

Event messages are acknowledged once their documents are written to the majority. A ``kill -9`` before that delivers
them again, and merging them again changes nothing. While MongoDB is away nothing is held: the events wait in the
broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import ValidationError

from config import Settings
from dispatcher.core.dated import ERROR_HEADER
from dispatcher.core.gathering import Gathering, Group, portions
from dispatcher.core.topology import Names, build
from dispatcher.edges import clock, log, meters, metrics
from dispatcher.edges.amqp import Consumer, Delivery, Outgoing, Publisher, Subscription, declare_again
from dispatcher.edges.mongo import Database, DatabaseError, DatabaseWatch, JobStore, StatisticsStore, Unstorable
from dispatcher.edges.mongo.stats import LONGEST_WRITE_MS, minute_of
from schemas import Event, EventBatch, Refused
from schemas.events import encode_batches, told_at

_logger = log.get("recorder")

#: So many events in one window mean load: the next one gathers for longer.
BUSY_EVENTS = 10
#: Pause between two looks for a database that is away, in seconds.
AWAY_PAUSE = 1.0
#: Event messages held at a time have at most so many bytes (or are one). Decoded they are several times as large, and
#: a full prefetch of them, which MongoDB's return after an absence brings, would be a gigabyte.
MAX_HELD_BYTES = 16 << 20


@dataclass(slots=True, eq=False)
class _Message:
    """A delivered message, and how many of its events are not written yet."""

    delivery: Delivery
    pending: int


Jobs = list[Group[_Message]]


class UnrecordedQueueMissing(Exception):
    """Events that cannot be stored have nowhere to go; they stay in history."""


class Recorder:
    """The recorder service."""

    name = "recorder"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = Names(settings.amqp.prefix)
        self._database = Database(settings.mongo.url.get_secret_value(), settings.mongo.database)
        self._jobs = JobStore(self._database)
        self._stats = StatisticsStore(self._database)
        self._publisher = Publisher(
            settings.amqp.url.get_secret_value(),
            "recorder",
            timeout=settings.amqp.publish_timeout,
            heartbeat=settings.amqp.heartbeat,
            meter=meters.PublishMeter("recorder"),
        )
        self._consumer = self._new_consumer()
        self._gathering: Gathering[_Message] = Gathering()
        self._poison: list[tuple[Delivery, str]] = []
        self._marks: list[Delivery] = []
        self._arrived = asyncio.Event()
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._watch = DatabaseWatch(self._database)
        self._task: asyncio.Task[None] | None = None

    def _new_consumer(self) -> Consumer:
        url = self._settings.amqp.url.get_secret_value()
        return Consumer(
            url,
            "recorder",
            [Subscription(self._names.history, self._settings.recorder.prefetch)],
            self._take,
            heartbeat=self._settings.amqp.heartbeat,
            on_missing=partial(declare_again, url, build(self._names, self._settings.lanes)),
            max_held_bytes=MAX_HELD_BYTES,
        )

    def checks(self) -> dict[str, bool]:
        """Broker, database and consumer."""
        return {
            "publisher": self._publisher.ready,
            "consumer": self._consumer.ready,
            "database": self._watch.fine,
        }

    async def start(self) -> None:
        """Begin to work; RabbitMQ and MongoDB may be away."""
        self._watch.start()
        await self._publisher.start()
        self._task = asyncio.create_task(self._run(), name="recorder")

    async def stop(self) -> None:
        """Write what was taken, then close."""
        self._stopping = True
        await self._consumer.stop()
        self._arrived.set()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), 10)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._consumer.close()
        await self._publisher.close()
        await self._watch.stop()
        self._database.close()

    def _take(self, delivery: Delivery) -> None:
        self._idle.clear()
        self._arrived.set()
        try:
            events = EventBatch.decode(delivery.body).events
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            self._poison.append((delivery, f"not a batch of events: {first['msg']}"))
            return
        message, now = _Message(delivery, len(events)), time.monotonic()
        for event in events:
            self._gathering.add(message, event, now)
        if not events:
            self._marks.append(delivery)

    async def _run(self) -> None:
        while True:
            await self._wait_for_database()
            await self._consumer.start()
            try:
                await self._record_until_away()
            except DatabaseError as error:
                _logger.warning("MongoDB is away; events wait in the broker", error=type(error).__name__)
            except UnrecordedQueueMissing as error:
                _logger.error(str(error))
                await asyncio.sleep(AWAY_PAUSE)
            finally:
                # unacknowledged messages go back to the queue with the connection
                await self._consumer.close()
            self._gathering.clear()
            self._poison.clear()
            self._marks.clear()
            self._idle.set()
            self._consumer = self._new_consumer()

    async def _wait_for_database(self) -> None:
        while True:
            try:
                await self._database.ping()
                return
            except DatabaseError as error:
                _logger.warning("cannot reach MongoDB", error=type(error).__name__)
                await asyncio.sleep(AWAY_PAUSE)

    async def _record_until_away(self) -> None:
        window, busy = self._settings.recorder.window, False
        while True:
            await self._arrived.wait()
            await asyncio.sleep(window if busy else window / 5)
            self._arrived.clear()
            await self._park_poison()
            marks, self._marks = self._marks, []
            hold = self._settings.recorder.hold if busy and not self._stopping and not marks else 0.0
            jobs = self._gathering.take(time.monotonic(), hold)
            busy = sum(len(job.events) for job in jobs) >= BUSY_EVENTS
            for portion in portions(jobs, self._settings.recorder.max_events):
                await self._write_or_isolate(portion)
            await self._answer(marks)
            await self._consumer.flush()
            if len(self._gathering) or self._marks:
                self._arrived.set()
            else:
                self._idle.set()

    async def _answer(self, marks: Sequence[Delivery]) -> None:
        """What was published before these marks is written. Workers wait to hear it; what gets lost they ask again."""
        for mark in marks:
            if mark.reply_to and mark.reply_to.startswith(self._names.peers):
                await self._publisher.send(Outgoing("", mark.reply_to, b"", correlation_id=mark.correlation_id))
            self._consumer.done(mark)

    async def _write_or_isolate(self, jobs: Jobs) -> None:
        """Write jobs; if our own code fails on them, one by one, and what still fails is parked."""
        try:
            refused = await self._write(jobs)
        except DatabaseError:
            raise
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    await self._write_or_isolate([job])
                return
            _logger.exception("events cannot be merged")
            refused = [Unstorable(jobs[0].events, f"cannot be merged: {type(error).__name__}")]
        await self._park_unstorable(refused)
        for job in jobs:
            for message in job.sources:
                message.pending -= 1
                if not message.pending:
                    self._consumer.done(message.delivery)

    async def _write(self, jobs: Jobs) -> list[Unstorable]:
        began = time.perf_counter()
        events = [event for job in jobs for event in job.events]
        minutes = {minute_of(_accepted_at(event)) for event in events}
        marked_at = clock.now_ms()
        await self._stats.mark_dirty(minutes)
        refused = await self._jobs.record({job.id: job.events for job in jobs})
        if clock.now_ms() - marked_at > LONGEST_WRITE_MS:
            # this process stood still, or MongoDB was slow: a minute may have been put together without what is written
            await self._stats.mark_dirty(minutes)
        metrics.event_lag.observe(max(clock.now_ms() - min(map(told_at, events)), 0) / 1000)
        metrics.record_seconds.observe(time.perf_counter() - began)
        metrics.record_events.observe(len(events))
        metrics.recorded.inc(len(events))
        return refused

    async def _park_unstorable(self, refused: Sequence[Unstorable]) -> None:
        messages = []
        for item in refused:
            metrics.unrecorded.inc(len(item.events))
            _logger.error("MongoDB refuses a document", reason=item.reason, app=item.events[0].app)
            for body in encode_batches(item.events):
                messages.append(Outgoing("", self._names.unrecorded, body, {ERROR_HEADER: item.reason}))
        await self._publish_unrecorded(messages)

    async def _park_poison(self) -> None:
        poison, self._poison = self._poison, []
        if not poison:
            return
        messages = [Outgoing("", self._names.unrecorded, d.body, {ERROR_HEADER: reason}) for d, reason in poison]
        await self._publish_unrecorded(messages)
        for delivery, reason in poison:
            metrics.unrecorded.inc()
            _logger.error("message in history is not ours", reason=reason)
            self._consumer.done(delivery)
        await self._consumer.flush()

    async def _publish_unrecorded(self, messages: Sequence[Outgoing]) -> None:
        if await self._publisher.publish(messages):
            raise UnrecordedQueueMissing("the queue unrecorded.v1 is missing: run `dispatcher topology apply`")


def _accepted_at(event: Event) -> int:
    return event.at if isinstance(event, Refused) else event.accepted_at

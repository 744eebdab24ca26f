"""The agenda: jobs with long delays, from ``scheduled.v1`` into MongoDB, and from there into the delay ladder.

What happens at a ``kill -9``:

- before the insert, or after it and before the acknowledgement: the message is delivered again; what is or was in the
  collection already is not inserted twice;
- after a claim: once that is over, another scheduler claims the job, well before it is due;
- after the publish, before the mark: likewise, and the job is published a second time, marked, so that the worker which
  gets it asks the others and history first.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from functools import partial

from pydantic import ValidationError

from config import Settings
from dispatcher.core.dated import not_work
from dispatcher.core.grouping import partition_of
from dispatcher.core.timing import has_expired, route
from dispatcher.core.topology import Names, build
from dispatcher.edges import clock, log, metrics
from dispatcher.edges.amqp import (
    Consumer,
    Delivery,
    Outgoing,
    Publisher,
    Subscription,
    declare_again,
    marked_again,
    routed,
)
from dispatcher.edges.mongo import Database, DatabaseError, ScheduledStore
from dispatcher.edges.mongo.scheduled import LEASE, Claimed
from schemas import Event, JobState, Moved, WorkMessage
from schemas.events import about, encode_batches

_logger = log.get("scheduler")

#: Messages of ``scheduled.v1`` held at a time, and bytes of them.
PREFETCH = 1_000
MAX_HELD_BYTES = 16 << 20
#: How long before its time a job enters the ladder, in seconds: so that others can take over what a dead scheduler
#: claimed, and that many at once are all on their way in time.
LEAD = 20.0
#: Jobs in one batch, and batches under way at once.
BATCH = 1_000
BATCHES = 2
#: Pause between two looks for what is due, and for a database that is away, in seconds.
TICK, AWAY_PAUSE = 0.5, 1.0
#: Longest wait of a stop for what is being kept, in seconds.
FINISH = 3.0


class Agenda:
    """Keeps and releases jobs with long delays. Any number may run.

    Args:
        settings, database, publisher: the scheduler's.
    """

    def __init__(self, settings: Settings, database: Database, publisher: Publisher) -> None:
        self._settings = settings
        self._names = Names(settings.amqp.prefix)
        self._database = database
        self._store = ScheduledStore(database)
        self._publisher = publisher
        self._consumer = self._new_consumer()
        self._taken: list[Delivery] = []
        self._arrived = asyncio.Event()
        self._claiming = asyncio.Lock()
        #: Held while messages are kept and acknowledged.
        self._keeping = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    def _new_consumer(self) -> Consumer:
        url = self._settings.amqp.url.get_secret_value()
        return Consumer(
            url,
            "agenda",
            [Subscription(self._names.scheduled, PREFETCH)],
            self._take,
            heartbeat=self._settings.amqp.heartbeat,
            on_missing=partial(declare_again, url, build(self._names, self._settings.lanes)),
            max_held_bytes=MAX_HELD_BYTES,
        )

    @property
    def ready(self) -> bool:
        """Whether jobs with long delays are taken."""
        return self._consumer.ready

    def start(self) -> None:
        """Begin to work, in the background."""
        self._tasks.append(asyncio.create_task(self._keep(), name="agenda"))
        self._tasks += [asyncio.create_task(self._release(), name="releases") for _ in range(BATCHES)]

    async def stop(self) -> None:
        """Stop, once what is being kept is acknowledged.

        What else was taken comes again; what is claimed is another scheduler's soon.
        """
        await self._consumer.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH), self._keeping:
                pass
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._consumer.close()

    def _take(self, delivery: Delivery) -> None:
        self._taken.append(delivery)
        self._arrived.set()

    async def _keep(self) -> None:
        while True:
            await self._wait_for_database()
            await self._consumer.start()
            try:
                await self._keep_until_away()
            except DatabaseError as error:
                _logger.warning("MongoDB is away; long delays wait in the broker", error=type(error).__name__)
            except Exception:
                _logger.exception("jobs with long delays cannot be kept")
            # nothing is held meanwhile: what is unacknowledged for long costs the channel
            await self._consumer.close()
            self._taken.clear()
            self._consumer = self._new_consumer()
            await asyncio.sleep(AWAY_PAUSE)

    async def _wait_for_database(self) -> None:
        while True:
            with contextlib.suppress(DatabaseError):
                await self._database.ping()
                return
            await asyncio.sleep(AWAY_PAUSE)

    async def _keep_until_away(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            taken, self._taken = self._taken, []
            async with self._keeping:
                await self._keep_these(taken)

    async def _keep_these(self, taken: Sequence[Delivery]) -> None:
        works: list[tuple[WorkMessage, bytes]] = []
        for delivery in taken:
            try:
                works.append((WorkMessage.decode(delivery.body), delivery.body))
            except ValidationError:
                await self._park(delivery)
        if works:
            await self._store.insert(works)
        for delivery in taken:
            self._consumer.done(delivery)
        await self._consumer.flush()

    async def _park(self, delivery: Delivery) -> None:
        _logger.error("a message among the scheduled jobs is not ours")
        headers = not_work(clock.now_ms())
        await self._publish([Outgoing("", self._names.parked("default"), delivery.body, headers)])

    async def _release(self) -> None:
        while True:
            try:
                while await self._release_some():
                    pass
            except DatabaseError as error:
                _logger.warning("jobs with long delays wait for MongoDB", error=type(error).__name__)
            except Exception:
                _logger.exception("jobs with long delays cannot be released")
            await asyncio.sleep(TICK)

    async def _release_some(self) -> bool:
        """Release a batch; whether there may be more."""
        if not self._publisher.ready:
            return False
        token = clock.new_id()
        async with self._claiming:  # the batches of one process do not compete
            began = time.monotonic()
            claimed = await self._store.claim(token, clock.now_ms() + round(LEAD * 1000), BATCH)
        if claimed and await self._published(token, claimed, began):
            await self._store.mark_released(token, [job.id for job in claimed])
            metrics.released.inc(len(claimed))
        return bool(claimed)

    async def _published(self, token: str, claimed: Sequence[Claimed], began: float) -> bool:
        """Publish what was claimed, unless so much of the claim's time is gone that others might do it too."""
        messages = self._messages(claimed)
        if time.monotonic() - began > LEASE / 2 or not self._publisher.ready:
            _logger.warning("a claim of jobs was not good long enough", jobs=len(claimed))
            return False
        publishing = asyncio.ensure_future(self._publish(messages))
        try:
            # a broker that is slow must not be given the same jobs by another scheduler too
            while not (await asyncio.wait([publishing], timeout=LEASE / 4))[0]:
                with contextlib.suppress(DatabaseError):
                    await self._store.renew(token)
            await publishing
        finally:
            publishing.cancel()
        return True

    def _messages(self, claimed: Sequence[Claimed]) -> list[Outgoing]:
        """The steps of these jobs, and what history hears of those that came too late to start."""
        messages: list[Outgoing] = []
        events: list[Event] = []
        now = clock.now_ms()
        for job in claimed:
            work = WorkMessage.decode(job.body)
            if has_expired(work, now):
                events.append(Moved(**about(work), at=now, state=JobState.EXPIRED))
                continue
            # nothing goes from here to `scheduled.v1`, where it would be taken for a message that came again
            to = route(self._names, work.lane, work.priority, work.due_at, now, partition_of(work))
            message = routed(to, job.body, work.headers)
            messages.append(marked_again(message) if job.again else message)
        return messages + [Outgoing("", self._names.history, body) for body in encode_batches(events)]

    async def _publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish all; where a queue is missing, declare it and try again."""
        left = list(messages)
        while left:
            returned = await self._publisher.publish(left)
            left = [left[index] for index in returned]
            if left:
                _logger.error("no queue took a message", routing_key=left[0].routing_key)
                url = self._settings.amqp.url.get_secret_value()
                await declare_again(url, build(self._names, self._settings.lanes))
                await asyncio.sleep(AWAY_PAUSE)

"""The scheduler: what is periodic, and what strayed.

It puts together the statistics of quiet minutes, measures what waits (`Depths`), deletes what is older than its
retention (`Retention`), keeps and releases jobs with long delays (`Agenda`), and brings back messages in
``stray.v1``: steps of jobs that left the delay ladder for a work queue that is not there, or that the broker took out
of one. Two may run.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Sequence
from functools import partial

from pydantic import ValidationError

from config import Settings
from dispatcher.core.dated import dated, not_work
from dispatcher.core.grouping import partition_of
from dispatcher.core.timing import has_expired, route
from dispatcher.core.topology import Names, build
from dispatcher.edges import clock, log, meters, metrics
from dispatcher.edges.amqp import (
    Consumer,
    Delivery,
    Outbox,
    Outgoing,
    Publisher,
    Subscription,
    declare_again,
    routed,
)
from dispatcher.edges.mongo import Database, DatabaseError, DatabaseWatch, StatisticsStore
from dispatcher.services.agenda import Agenda
from dispatcher.services.depths import Depths
from dispatcher.services.retention import Retention
from dispatcher.services.tombstones import Sweep
from schemas import ErrorInfo, JobState, Moved, WorkMessage, read_steps
from schemas.events import about

_logger = log.get("scheduler")


class Scheduler:
    """The scheduler service."""

    name = "scheduler"

    def __init__(self, settings: Settings) -> None:
        amqp, url = settings.amqp, settings.amqp.url.get_secret_value()
        self._settings = settings
        self._names = names = Names(amqp.prefix)
        self._database = Database(settings.mongo.url.get_secret_value(), settings.mongo.database)
        self._stats = StatisticsStore(self._database)
        meter = meters.PublishMeter("scheduler")
        self._publisher = Publisher(
            url, "scheduler", timeout=amqp.publish_timeout, heartbeat=amqp.heartbeat, meter=meter
        )
        redeclare = partial(declare_again, url, build(names, settings.lanes))
        self._consumer = Consumer(
            url,
            "scheduler",
            [Subscription(names.stray, 100)],
            self._bring_back,
            heartbeat=amqp.heartbeat,
            on_missing=redeclare,
        )
        self._outbox = Outbox(self._publisher, names.history, self._consumer.flush, redeclare)
        self._watch = DatabaseWatch(self._database)
        self._depths = Depths(settings, self._database)
        self._sweep = Sweep(self._database)
        self._retention = Retention(settings, self._database)
        self._agenda = Agenda(settings, self._database, self._publisher)
        self._task: asyncio.Task[None] | None = None

    def checks(self) -> dict[str, bool]:
        """Broker, database and consumer."""
        return {
            "publisher": self._publisher.ready,
            "consumer": self._consumer.ready,
            "agenda": self._agenda.ready,
            "database": self._watch.fine,
        }

    async def start(self) -> None:
        """Begin to work; RabbitMQ and MongoDB may be away."""
        self._watch.start()
        await self._publisher.start()
        self._outbox.start()
        await self._consumer.start()
        self._task = asyncio.create_task(self._roll_up(), name="statistics")
        self._depths.start()
        self._sweep.start()
        self._retention.start()
        self._agenda.start()

    async def stop(self) -> None:
        """Finish what was taken, then close."""
        await self._retention.stop()
        await self._depths.stop()
        await self._sweep.stop()
        await self._agenda.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._consumer.stop()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._outbox.drain(), 10)
        await self._consumer.flush()
        await self._outbox.close()
        await self._consumer.close()
        await self._publisher.close()
        await self._watch.stop()
        self._database.close()

    async def _roll_up(self) -> None:
        marked = False
        while True:
            try:
                if not marked:
                    await self._stats.mark_old()
                    marked = True
                metrics.rolled_up.inc(await self._stats.roll_up(self._settings.scheduler.rollup_quiet))
            except DatabaseError as error:
                _logger.warning("cannot put statistics together", error=type(error).__name__)
            except Exception:
                _logger.exception("cannot put statistics together")
            await asyncio.sleep(self._settings.scheduler.rollup_interval)

    def _bring_back(self, delivery: Delivery) -> None:
        """A step goes back to its work queue, or is parked where its lane is gone from the configuration."""

        def settled() -> None:
            self._consumer.done(delivery)

        try:
            works = read_steps(delivery.body)
        except ValidationError:
            headers = not_work(clock.now_ms())
            self._outbox.add([Outgoing("", self._names.parked("default"), delivery.body, headers)], [], settled)
            return
        work, now = works[0], clock.now_ms()
        _logger.warning("bringing a job back", app=work.app, job=work.id, run=work.run, attempt=work.n)
        if work.lane not in self._settings.lanes:
            self._park(works, settled)
        elif len(works) == 1 and has_expired(work, now):
            self._outbox.add([], [Moved(**about(work), at=now, state=JobState.EXPIRED)], settled)
        else:
            # it need not be the first step of its job, so the ladder has it, however long it is to wait
            to = route(self._names, work.lane, work.priority, work.due_at, now, partition_of(work), longest=math.inf)
            self._outbox.add([routed(to, delivery.body, work.headers)], [], settled)

    def _park(self, works: Sequence[WorkMessage], settled: Callable[[], None]) -> None:
        now, lane = clock.now_ms(), works[0].lane
        error = ErrorInfo(type="no_lane", message=f"lane {lane} is no longer in the configuration")
        parked = [work.model_copy(update={"error": error}).encode() for work in works]
        events = [Moved(**about(work), at=now, state=JobState.FAILED, error=error) for work in works]
        messages = [Outgoing("", self._names.parked("default"), body, dated(None, now)) for body in parked]
        self._outbox.add(messages, events, settled)

"""Gathering groups: members wait in ``group.v1.<partition>``, held unacknowledged, until their batch is complete.

Every intake consumes every partition; the broker lets one of them have each (single active consumer), and another when
that one is gone. A batch is published on the connection that delivered its members, so that a dispatcher whose members
are another's by now cannot publish them. What happens at a ``kill -9``, or when the connection is lost:

- before the batch is published: its members are delivered again, in their order, to the dispatcher that has the
  partition next; since they come late, it waits until they have all come;
- after that, before they are acknowledged: likewise, and the next batch that has one of them is marked, so that the
  worker which gets it asks the others, and history, which of its members went on already.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from functools import partial

from pydantic import ValidationError

from config import Settings
from dispatcher.core import ladder
from dispatcher.core.dated import not_work
from dispatcher.core.grouping import Batch, Groups, Member, Reason, group_key
from dispatcher.core.topology import PARTITIONS, Names, build, work_key
from dispatcher.edges import clock, log, meters, metrics
from dispatcher.edges.amqp import (
    BoundPublisher,
    Consumer,
    Delivery,
    Outbox,
    Outgoing,
    Subscription,
    declare_again,
    marked_again,
)
from schemas import GroupSpec, JobState, Moved, WorkMessage, join_batch

_logger = log.get("groups")


class Grouping:
    """Gathers the groups whose partitions the broker gives to this process."""

    def __init__(self, settings: Settings) -> None:
        amqp, url = settings.amqp, settings.amqp.url.get_secret_value()
        self._names = names = Names(amqp.prefix)
        self._partitions = {names.group(number): number for number in range(PARTITIONS)}
        self._groups = Groups(settings.intake.group_members, settings.intake.group_bytes)
        redeclare = partial(declare_again, url, build(names, settings.lanes))
        self._consumer = Consumer(
            url,
            "groups",
            [Subscription(queue, settings.intake.group_members) for queue in self._partitions],
            self._take,
            heartbeat=amqp.heartbeat,
            on_missing=redeclare,
            on_lost=self._groups.clear,
        )
        self._publisher = BoundPublisher(
            self._consumer, timeout=amqp.publish_timeout, meter=meters.PublishMeter("intake")
        )
        self._outbox = Outbox(self._publisher, names.history, self._consumer.flush, redeclare)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._stopping = False

    def checks(self) -> dict[str, bool]:
        """Whether the partitions are consumed, and every batch finds its queue."""
        return {"groups": self._consumer.ready and not self._outbox.stuck}

    async def start(self) -> None:
        """Begin to gather; RabbitMQ may be away."""
        metrics.groups_open.set_function(lambda: len(self._groups))
        metrics.group_members.set_function(lambda: self._groups.members)
        metrics.group_bytes.set_function(lambda: self._groups.size)
        metrics.group_age.set_function(lambda: self._groups.oldest(time.monotonic()))
        self._outbox.start()
        await self._consumer.start()

    async def stop(self) -> None:
        """Publish what is complete, then close: what waits is delivered to another dispatcher.

        It goes on to consume until then: another one would get later members before those that wait here.
        """
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._outbox.drain(), 10)
        await self._consumer.flush()
        await self._outbox.close()
        await self._consumer.close()

    def _take(self, delivery: Delivery) -> None:
        try:
            work = WorkMessage.decode(delivery.body)
        except ValidationError:
            self._park(delivery)
            return
        if early := ladder.remaining_ms(delivery.routing_key, work.due_at, clock.now_ms()):
            asyncio.get_running_loop().call_later(early / 1000, self._gather, delivery, work)
        else:
            self._gather(delivery, work)

    def _gather(self, delivery: Delivery, work: WorkMessage) -> None:
        """Put a member into its group; one on which that fails goes on alone, and takes no other with it."""
        if self._stopping or not self._consumer.holds(delivery):
            return
        try:
            if work.group is not None:
                self._add(delivery, work, work.group)
                return
        except Exception as error:
            _logger.exception("a member cannot be gathered", app=work.app, job=work.id, error=type(error).__name__)
        self._publish_alone(delivery, work)

    def _add(self, delivery: Delivery, work: WorkMessage, spec: GroupSpec) -> None:
        since = work.accepted_at if work.due_at is None else work.due_at
        alone = work.model_copy(update={"group": None, "seq": work.seq + 1})
        member = Member(work.id, work.run, work.seq, work.accepted_at, alone.encode(), [delivery], again=delivery.again)
        age = max(clock.now_ms() - since, 0) / 1000
        key, partition = group_key(work, spec), self._partitions[delivery.queue]
        batches = self._groups.add(partition, key, spec, member, age, time.monotonic())
        delivery.body = b""  # the member stands for it
        self._flush(batches)
        self._set_timer()

    def _set_timer(self) -> None:
        """Look again when the next wait is over."""
        at = self._groups.next_at()
        if at == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = None if at is None else loop.call_later(max(at - time.monotonic(), 0.0), self._wait_is_over)
        self._timer_at = at

    def _wait_is_over(self) -> None:
        self._timer = self._timer_at = None
        self._flush(self._groups.due(time.monotonic()))
        self._set_timer()

    def _flush(self, batches: Iterable[Batch]) -> None:
        for group, reason in batches:
            members = list(group.members.values())
            first = members[0].deliveries[0]
            if not self._consumer.holds(first):
                continue
            self._count(reason, len(members))
            key, batch, now = group.key, clock.new_id(), clock.now_ms()
            body = join_batch(batch, (member.body for member in members))
            message = Outgoing(self._names.work, work_key(key.lane, key.priority), body)
            if any(member.again for member in members):
                message = marked_again(message)
            events = [
                Moved(
                    app=key.app,
                    id=member.id,
                    run=member.run,
                    seq=member.seq,
                    type=key.type,
                    lane=key.lane,
                    priority=key.priority,
                    accepted_at=member.accepted_at,
                    at=now,
                    state=JobState.QUEUED,
                    batch=batch,
                )
                for member in members
            ]
            deliveries = [delivery for member in members for delivery in member.deliveries]
            self._outbox.add([message], events, partial(self._done, deliveries), void=partial(self._lost, first))

    def _count(self, reason: Reason, members: int) -> None:
        metrics.of(metrics.group_flushes, reason).inc()
        metrics.group_sizes.observe(members)

    def _publish_alone(self, delivery: Delivery, work: WorkMessage) -> None:
        message = Outgoing(self._names.work, work_key(work.lane, work.priority), delivery.body, work.headers)
        if delivery.again:
            message = marked_again(message)
        self._outbox.add([message], [], partial(self._done, [delivery]), void=partial(self._lost, delivery))

    def _park(self, delivery: Delivery) -> None:
        _logger.error("a message among the members of groups is not ours", queue=delivery.queue)
        message = Outgoing("", self._names.parked("default"), delivery.body, not_work(clock.now_ms()))
        self._outbox.add([message], [], partial(self._done, [delivery]), void=partial(self._lost, delivery))

    def _lost(self, delivery: Delivery) -> bool:
        return not self._consumer.holds(delivery)

    def _done(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            self._consumer.done(delivery)

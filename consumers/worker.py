"""The worker: takes steps from the work queues of its lanes and runs their handlers.

A delivery is acknowledged once the broker has confirmed what follows from it: the next step in the delay ladder or
the parked message, and its event. What happens at a ``kill -9``:

- while the handler runs: the step is delivered again and runs again, with the same attempt number;
- after the confirm, before the acknowledgement: the step is delivered again; history says that its run went on,
  and it is dropped;
- again and again: the step goes to ``suspect.v1.<lane>``, whose steps run in child processes. A child that dies is an
  attempt with outcome ``crashed``; a step that a dying worker merely held runs as if nothing had been.

What is delivered again waits until it is known that no other worker has it (`consumers.doubts`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Collection, Iterable, Sequence
from functools import partial

from pydantic import ValidationError

from config import Settings
from consumers.attempts import Attempts
from consumers.doubts import Doubts, answer_to, doubt
from consumers.history import History
from consumers.holding import Holding, Known
from consumers.passing_on import PassingOn
from consumers.read_ahead import HELD, ReadAhead
from consumers.registry import Registry
from consumers.standstill import Standstill
from consumers.steps import Step, StepKey, read_step
from dispatcher.core import ladder
from dispatcher.core.selection import ReadyJobs
from dispatcher.core.topology import Names, build
from dispatcher.edges import clock, log, meters, metrics
from dispatcher.edges.amqp import (
    Consumer,
    Delivery,
    Outbox,
    Peers,
    Publisher,
    Subscription,
    declare_again,
)
from schemas import PRIORITIES
from schemas.events import MARK

_logger = log.get("worker")

#: Suspects held at a time, for each lane; each runs in a process of its own.
SUSPECTS_HELD = 4
#: Heartbeats that a broker waits for, at least, before it gives the messages of a silent connection to others.
BROKER_GIVES_UP = 2
#: Pause before a step on which the worker itself failed goes back to its queue, in seconds.
FAULT_PAUSE = 1.0
#: Longest wait for a recorder that does not answer (it starts, catches up, or waits for MongoDB), and pause before it
#: is asked again, in seconds.
UNRECORDED, ASK_AGAIN = 10.0, 1.0
#: How long history's answer about a step that waited for its time is good, in seconds.
ANSWER_LASTS = 0.1


class Worker:
    """The worker service of one registry."""

    name = "worker"

    def __init__(self, settings: Settings, registry: Registry, target: str) -> None:
        amqp, url = settings.amqp, settings.amqp.url.get_secret_value()
        self._settings = settings
        self._handlers = len(registry)
        self._names = Names(amqp.prefix)
        self.id = f"{socket.gethostname()}-{os.getpid()}"
        self._history = History(settings)
        lanes = settings.worker_lanes
        self._suspects = frozenset(self._names.suspect(lane) for lane in lanes)
        meter = meters.PublishMeter("worker")
        self._publisher = Publisher(url, "worker", timeout=amqp.publish_timeout, heartbeat=amqp.heartbeat, meter=meter)
        redeclare = partial(declare_again, url, build(self._names, settings.lanes))
        self._consumer = Consumer(
            url, "worker", self._subscriptions(), self._take, heartbeat=amqp.heartbeat, on_missing=redeclare
        )
        self._outbox = Outbox(self._publisher, self._names.history, self._consumer.flush, redeclare)
        self._attempts = Attempts(
            settings, registry, target, self.id, self._outbox, self._history.database, self._settle
        )
        self._peers = Peers(url, "worker", self._names.peers, self._answer, heartbeat=amqp.heartbeat)
        self._held = Holding()
        self._passing_on = PassingOn(self._names, self._suspects, self._outbox, self._held, self._done)
        self._doubts = Doubts(
            self._peers,
            self._lost,
            self._held.forget,
            self._held.rivals,
            self._drop_settled,
            self._recorded,
            self._clear,
        )
        self._read_ahead = ReadAhead(self._consumer, self._overdue, self._give_up)
        self._ready: ReadyJobs[Step] = ReadyJobs()
        self._running: set[asyncio.Task[None]] = set()
        self._early: set[asyncio.Task[None]] = set()
        self._blocked: asyncio.Task[None] | None = None
        self._stopping = False
        self._standstill = Standstill(BROKER_GIVES_UP * amqp.heartbeat, self._paused)

    def _subscriptions(self) -> list[Subscription]:
        worker = self._settings.worker
        prefetch = worker.concurrency + worker.read_ahead
        lanes = self._settings.worker_lanes
        work = [self._names.work_queue(lane, priority) for lane in lanes for priority in PRIORITIES]
        return [
            *(Subscription(queue, min(prefetch, 65_535)) for queue in work),
            *(Subscription(queue, SUSPECTS_HELD) for queue in self._suspects),
        ]

    def checks(self) -> dict[str, bool]:
        """Broker, database and consumers (running jobs do not need the database, but operators want to know)."""
        return {
            "publisher": self._publisher.ready,
            "consumer": self._consumer.ready,
            "peers": self._peers.ready,
            "database": self._history.watch.fine,
            "routable": not self._outbox.stuck,
        }

    async def start(self) -> None:
        """Begin to work; RabbitMQ and MongoDB may be away."""
        _logger.info("serving", lanes=list(self._settings.worker_lanes), handlers=self._handlers)
        meters.worker_begins(self._settings.worker_lanes)
        metrics.running.set_function(lambda: len(self._running))
        metrics.held.set_function(lambda: len(self._ready) + len(self._early) + len(self._doubts))
        self._history.watch.start()
        await self._publisher.start()
        self._outbox.start()
        await self._peers.start()
        self._doubts.start()
        await self._attempts.cancels.start()
        await self._consumer.start()
        self._read_ahead.start()
        self._standstill.start()

    async def stop(self) -> None:
        """Let running handlers finish within the grace period; give the rest back without spending an attempt."""
        self._stopping = True
        self._standstill.stop()
        await self._read_ahead.stop()
        if self._blocked is not None:
            self._blocked.cancel()
        await self._consumer.stop()
        if self._early:
            await asyncio.wait(self._early)  # some milliseconds; then they are ready, or dropped
        for step in [*await self._doubts.stop(), *self._ready.clear()]:
            await self._give_back(step)
        if self._running:
            await asyncio.wait(self._running, timeout=self._settings.worker.grace)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._outbox.drain(), 10)
        await self._consumer.flush()
        await self._outbox.close()
        await self._attempts.close()
        await self._consumer.close()
        await self._publisher.close()
        await self._peers.close()
        await self._history.close()

    def _paused(self) -> None:
        """This process stood still: what it holds and does not run may be with another worker by now."""
        self._consumer.drop("this process stood still for longer than the broker waits for heartbeats")
        self._start_ready()

    async def _give_back(self, step: Step) -> None:
        if step.followed:  # it would be nacked now, and acknowledged later
            return
        self._held.forget(step)
        deliveries = step.deliveries.copy()
        if step.is_batch:
            step.deliveries.clear()  # a member that is settled yet must not acknowledge them
        for delivery in deliveries:
            await self._consumer.give_back(delivery)

    def _take(self, delivery: Delivery) -> None:
        if self._settings.worker.ask_history_first:
            delivery = delivery.doubted()
        try:
            step = read_step(delivery)
        except ValidationError:
            self._passing_on.park_poison(delivery)
            return
        if (known := self._held.get(step.key)) is not None:
            known.deliveries.append(delivery)
            known.only = False  # somebody else may have had it in between, and sent the next one
        elif self._held.is_settled(step):
            metrics.stale.inc()
            self._outbox.add([], [], partial(self._consumer.done, delivery))
        else:
            self._take_new(step, delivery)

    def _take_new(self, step: Step, delivery: Delivery) -> None:
        suspect = delivery.queue in self._suspects
        step.only = not delivery.again and not suspect and self._is_only(step, delivery)
        step.alone = suspect or step.work.suspect
        self._held.add(step)
        shared = step.is_batch and (self._held.rivals(step) or bool(self._held.settled_members(step)))
        step.only = step.only and not shared
        step.lighten()
        wait = doubt(delivery, step.only or suspect)
        if wait is None and not shared:
            self._admit(step)
        else:
            self._doubts.add(step, wait or 0.0)

    def _is_only(self, step: Step, delivery: Delivery) -> bool:
        """Whether it is known to be the only step of its run; of a batch, the only one of each of its members."""
        return step.first if step.is_batch else self._attempts.lineage.is_only(step.work, delivery)

    def _admit(self, step: Step) -> None:
        """A step that no other worker has."""
        delivery = step.deliveries[0]
        if delivery.queue in self._suspects:
            self._make_ready(step)
        elif delivery.suspect:
            self._passing_on.set_apart(step)
        elif step.is_batch and not self._attempts.takes_batches(step.work.type):
            self._passing_on.take_apart(step, delivery.queue)
        else:
            self._keep_or_start(step)

    async def _recorded(self) -> None:
        """Wait until history has what was published so far, or until the recorder has taken too long."""
        if await self._peers.ask_consumer(self._names.history, MARK, UNRECORDED, ASK_AGAIN):
            self._history.answered()
        else:
            _logger.warning("the recorder does not answer; history may lack what a dead worker did")

    async def _clear(self, step: Step) -> None:
        """No other worker has this step; what history says of it counts."""
        await self._guarded(step, self._admit_unless_over(step))

    async def _admit_unless_over(self, step: Step) -> None:
        if not await self._dropped(step):
            self._admit(step)

    def _drop(self, step: Step) -> None:
        """Everything that follows from this step is confirmed already."""
        metrics.stale.inc()
        self._outbox.add([], [], partial(self._settle, step))
        step.followed = True

    def _drop_settled(self, step: Step, keys: Sequence[StepKey]) -> None:
        """Another worker settled a step, or these members of a batch."""
        if len(keys) == len(step.members) or not step.is_batch:
            self._drop(step)
            return
        for key in keys:
            self._held.settle(step.members[key])

    def _lost(self, step: Step) -> bool:
        """Whether the broker has given every delivery of the step to somebody anew, or will."""
        return not any(map(self._consumer.holds, step.deliveries))

    def _answer(self, question: bytes) -> bytes | None:
        return answer_to(question, self._peers.id, self._known)

    def _known(self, key: StepKey) -> Known | None:
        """What another worker, to which a step was delivered again, is told of it."""
        if self._held.was_settled(key):
            return Known.SETTLED
        step = self._held.get(key)
        if step is None or (not step.started and self._lost(step)):
            return None
        return Known.IN_DOUBT if step in self._doubts else Known.HELD

    def _done(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            self._consumer.done(delivery)

    def _keep_or_start(self, step: Step) -> None:
        """A step that left the ladder some milliseconds early is kept until it is due, the others may start."""
        key = step.deliveries[0].routing_key
        remaining = ladder.remaining_ms(key, step.work.due_at, clock.now_ms())
        if not remaining:
            self._make_ready(step)
            return
        task = asyncio.create_task(self._guarded(step, self._wait_due(step, remaining / 1000)))
        self._early.add(task)
        task.add_done_callback(self._early.discard)

    async def _wait_due(self, step: Step, seconds: float) -> None:
        due = time.monotonic() + seconds
        if await self._dropped(step):
            return
        while (left := due - time.monotonic()) > 0:  # noqa: ASYNC110 -- no polling: a timer may be a little early
            await asyncio.sleep(left)
        self._make_ready(step)

    def _make_ready(self, step: Step) -> None:
        step.ready_at = time.monotonic()
        self._ready.push(step.work.priority, step)
        self._start_ready()

    def _start_ready(self) -> None:
        if self._stopping or self._standstill.noticed:
            return
        if self._ready and not self._publisher.ready:
            self._start_when_it_can_be_told()
            return
        most = self._settings.worker.concurrency
        while self._ready and len(self._running) < most:
            step = self._ready.pop()
            if self._lost(step):
                self._held.forget(step)
                continue
            step.started = True
            task = asyncio.create_task(self._guarded(step, self._run(step)))
            self._running.add(task)
            task.add_done_callback(self._ended)
        if len(self._running) < most:
            self._read_ahead.place_free()

    def _start_when_it_can_be_told(self) -> None:
        """Start nothing whose end could not be told now: if this process died meanwhile, all of it would run again."""
        if self._blocked is None or self._blocked.done():
            self._blocked = asyncio.create_task(self._publisher.wait_ready())
            self._blocked.add_done_callback(lambda task: None if task.cancelled() else self._start_ready())

    def _overdue(self) -> set[str]:
        """The work queues of steps that have been held ready for long, all places being taken."""
        if len(self._running) < self._settings.worker.concurrency:
            return set()
        since = time.monotonic() - HELD
        return {step.queue for step in self._ready if step.ready_at < since} - self._suspects

    def _give_up(self, queues: Collection[str]) -> None:
        """Publish the steps of these queues that do not run to them anew: another worker may have a place."""
        for step in self._ready.take(lambda step: step.queue in queues):
            self._held.forget(step)  # should it come to this worker again, it is another one, to be settled by itself
            if self._lost(step):
                continue
            self._passing_on.give_up(step)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _logger.error("step failed inside the worker", exc_info=(type(error), error, error.__traceback__))
        self._start_ready()
        self._read_ahead.place_taken(self._ready.highest)

    async def _guarded(self, step: Step, work: Awaitable[None]) -> None:
        """Do something for a step, and give it back where that is cancelled or fails."""
        try:
            await work
        except asyncio.CancelledError:
            await self._give_back(step)
            raise
        except Exception:
            # a fault of ours, not of the handler: the step must not stay here unfinished for good
            _logger.exception("the worker failed on a step", app=step.work.app, job=step.work.id)
            await asyncio.sleep(FAULT_PAUSE)
            await self._give_back(step)

    async def _run(self, step: Step) -> None:
        if not await self._dropped(step):
            step.load()
            await self._attempts.make(step)

    async def _dropped(self, step: Step) -> bool:
        """Whether history says that its run went on without it, so that it was settled without being run."""
        if step.only or time.monotonic() < step.asked_at + ANSWER_LASTS:
            return False
        step.asked_at = time.monotonic()
        for member in self._held.settled_members(step):
            self._held.settle(member)
        parts = list(step.parts)
        past = await asyncio.gather(*(self._history.is_past(part.work) for part in parts))
        over = [part for part, is_past in zip(parts, past, strict=True) if is_past]
        for part in over:
            work = part.work
            _logger.info("dropped: its run went on already", app=work.app, job=work.id, run=work.run, attempt=work.n)
        if len(over) == len(parts):
            self._drop(step)
            return True
        for part in over:
            self._held.settle(part)
        return False

    def _settle(self, step: Step) -> None:
        """Everything that follows from the step is confirmed."""
        for part in step.parts:
            self._attempts.cancels.settled(part.work)
        if self._held.settle(step):
            self._done(step.deliveries)

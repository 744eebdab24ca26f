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
from collections.abc import Awaitable, Collection
from functools import partial

from pydantic import ValidationError

from config import Settings
from consumers.attempts import Attempts
from consumers.doubts import Doubts, Known, answer_to, doubt
from consumers.history import History
from consumers.lineage import Settled
from consumers.read_ahead import HELD, ReadAhead
from consumers.registry import Registry
from consumers.standstill import Standstill
from consumers.steps import Step, StepKey, step_key
from dispatcher.core import ladder
from dispatcher.core.dated import not_work
from dispatcher.core.selection import ReadyJobs
from dispatcher.core.topology import Names, build
from dispatcher.edges import clock, log, metrics
from dispatcher.edges.amqp import (
    Consumer,
    Delivery,
    Outbox,
    Outgoing,
    Peers,
    Publisher,
    Subscription,
    declare_again,
)
from schemas import PRIORITIES, WorkMessage
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
        self._suspect_queues = {self._names.suspect(lane) for lane in settings.worker_lanes}
        meter = metrics.PublishMeter("worker")
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
        self._doubts = Doubts(self._peers, self._lost, self._forget, self._drop, self._recorded, self._clear)
        self._read_ahead = ReadAhead(self._consumer, self._overdue, self._give_up)
        self._ready: ReadyJobs[Step] = ReadyJobs()
        self._steps: dict[StepKey, Step] = {}
        self._settled_steps = Settled()
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
            *(Subscription(queue, SUSPECTS_HELD) for queue in self._suspect_queues),
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
        self._forget(step)
        for delivery in step.deliveries:
            await self._consumer.give_back(delivery)

    def _take(self, delivery: Delivery) -> None:
        try:
            work = WorkMessage.decode(delivery.body)
        except ValidationError:
            self._park_poison(delivery)
            return
        key = step_key(work)
        if key in self._steps:
            known = self._steps[key]
            known.deliveries.append(delivery)
            known.only = False  # somebody else may have had it in between, and sent the next one
        elif self._settled_steps.has(work, delivery.again):
            metrics.stale.inc()
            self._outbox.add([], [], partial(self._consumer.done, delivery))
        else:
            self._take_new(work, delivery)

    def _take_new(self, work: WorkMessage, delivery: Delivery) -> None:
        suspect = delivery.queue in self._suspect_queues
        only = not delivery.again and not suspect and self._attempts.lineage.is_only(work, delivery)
        step = self._steps[step_key(work)] = Step(work, only, suspect or work.suspect, [delivery])
        step.lighten()
        if (wait := doubt(delivery, only or suspect)) is None:
            self._admit(step)
        else:
            self._doubts.add(step, wait)

    def _admit(self, step: Step) -> None:
        """A step that no other worker has."""
        delivery = step.deliveries[0]
        if delivery.queue in self._suspect_queues:
            self._make_ready(step)
        elif delivery.suspect:
            self._set_apart(step)
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

    def _lost(self, step: Step) -> bool:
        """Whether the broker has given every delivery of the step to somebody anew, or will."""
        return not any(map(self._consumer.holds, step.deliveries))

    def _forget(self, step: Step) -> None:
        self._steps.pop(step.key, None)

    def _answer(self, question: bytes) -> bytes | None:
        return answer_to(question, self._peers.id, self._known)

    def _known(self, key: StepKey) -> Known | None:
        """What another worker, to which a step was delivered again, is told of it."""
        if key in self._settled_steps:
            return Known.SETTLED
        step = self._steps.get(key)
        if step is None or (not step.started and self._lost(step)):
            return None
        return Known.IN_DOUBT if step in self._doubts else Known.HELD

    def _set_apart(self, step: Step) -> None:
        """The processes that held this step died again and again, perhaps because of it."""
        work, delivery = step.work, step.deliveries[0]
        _logger.warning("set apart: its workers died", app=work.app, job=work.id, run=work.run, attempt=work.n)
        metrics.of(metrics.suspects, work.lane).inc()
        self._forget(step)  # what comes from the queue of suspects is another delivery, to be settled by itself
        message = Outgoing("", self._names.suspect(self._lane_of(delivery.queue)), delivery.body, work.headers)
        self._outbox.add([message], [], partial(self._done, step.deliveries))

    def _done(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self._consumer.done(delivery)

    def _lane_of(self, queue: str) -> str:
        """The lane of a work queue, or of a queue of suspects."""
        if queue in self._suspect_queues:
            return queue.removeprefix(self._names.suspect(""))
        return queue.removeprefix(self._names.work + ".").rpartition(".")[0]

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

    def _park_poison(self, delivery: Delivery) -> None:
        _logger.error("message in a work queue is not ours", queue=delivery.queue)
        parked = self._names.parked(self._lane_of(delivery.queue))
        headers = not_work(clock.now_ms())
        message = Outgoing("", parked, delivery.body, headers)
        self._outbox.add([message], [], partial(self._consumer.done, delivery))

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
                self._forget(step)
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
        return {step.queue for step in self._ready if step.ready_at < since} - self._suspect_queues

    def _give_up(self, queues: Collection[str]) -> None:
        """Publish the steps of these queues that do not run to them anew: another worker may have a place."""
        for step in self._ready.take(lambda step: step.queue in queues):
            self._forget(step)  # should it come to this worker again, it is another one, to be settled by itself
            if self._lost(step):
                continue
            metrics.of(metrics.given_back, step.work.lane).inc()
            message = Outgoing("", step.queue, step.deliveries[0].body, step.work.headers)
            self._outbox.add([message], [], partial(self._done, step.deliveries))

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
        work = step.work
        if step.only or time.monotonic() < step.asked_at + ANSWER_LASTS:
            return False
        step.asked_at = time.monotonic()
        if not await self._history.is_past(work):
            return False
        _logger.info("dropped: its run went on already", app=work.app, job=work.id, run=work.run, attempt=work.n)
        self._drop(step)
        return True

    def _settle(self, step: Step) -> None:
        """Everything that follows from the step is confirmed."""
        self._forget(step)
        self._settled_steps.add(step.work)
        self._attempts.cancels.settled(step.work)
        self._done(step.deliveries)

"""The worker: takes steps from the work queues of its lanes and runs their handlers.

A delivery is acknowledged once the broker has confirmed what follows from it: its event, and the next step in the
delay ladder or the parked message. What happens at a ``kill -9``:

- while the handler runs: the step is delivered again and runs again, with the same attempt number;
- after the confirm, before the acknowledgement: the step is delivered again; history says that its run went on,
  and it is dropped where that is final;
- again and again: the step goes to ``suspect.v1.<lane>``, whose steps run in child processes. A child that dies is an
  attempt with outcome ``crashed``; a step that a dying worker merely held runs as if nothing had been.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from pydantic import ValidationError

from config import Settings
from consumers.context import Context
from consumers.executor import Executor
from consumers.history import History, StartNotice
from consumers.lineage import Lineage, Settled, StepKey, step_key
from consumers.registry import Handler, Registry
from consumers.standstill import Standstill
from dispatcher.core import ladder, outcome
from dispatcher.core.lifecycle import FINAL
from dispatcher.core.retry import RetryPolicy, resolve
from dispatcher.core.selection import ReadyJobs
from dispatcher.core.topology import Names, build
from dispatcher.edges import clock, log, metrics
from dispatcher.edges.amqp import (
    Consumer,
    Delivery,
    Outbox,
    Outgoing,
    Publisher,
    Subscription,
    declare_again,
)
from dispatcher.edges.children import Child
from schemas import PRIORITIES, Ended, JobState, Moved, Outcome, WorkMessage
from schemas.events import about

_logger = log.get("worker")

ERROR_HEADER = "x-error"
#: A step that came back so often may be what kills its process.
SUSPECT_AFTER = 3
#: Suspects held at a time, for each lane; each runs in a process of its own.
SUSPECTS_HELD = 4
#: Heartbeats that a broker waits for, at least, before it gives the messages of a silent connection to others.
BROKER_GIVES_UP = 2
#: Pause before a step on which the worker itself failed goes back to its queue, in seconds.
FAULT_PAUSE = 1.0
#: How long history's answer about a step that waited for its time is good, in seconds.
ANSWER_LASTS = 0.1


@dataclass(slots=True, eq=False)
class _Step:
    """A step that this worker holds, with every delivery of it (a duplicate joins the first)."""

    work: WorkMessage
    #: Whether no other step of its run can be on its way; else history is asked whether the run is over.
    only: bool
    #: Whether it is run in a child process, since it may kill its process.
    alone: bool = False
    deliveries: list[Delivery] = field(default_factory=list)
    #: When history was last asked about its run, in seconds of the monotonic clock.
    asked_at: float = float("-inf")

    @property
    def key(self) -> StepKey:
        return step_key(self.work)


class Worker:
    """The worker service of one registry."""

    name = "worker"

    def __init__(self, settings: Settings, registry: Registry, target: str) -> None:
        amqp, url = settings.amqp, settings.amqp.url.get_secret_value()
        self._settings = settings
        self._registry = registry
        self._names = Names(amqp.prefix)
        self.id = f"{socket.gethostname()}-{os.getpid()}"
        self._default_policy = RetryPolicy(**settings.retry.model_dump())
        self._executor = Executor(settings.worker.concurrency, target, settings.worker.max_result_bytes)
        self._history = History(settings)
        self._suspect_queues = {self._names.suspect(lane) for lane in settings.worker_lanes}
        self._publisher = Publisher(url, "worker", timeout=amqp.publish_timeout, heartbeat=amqp.heartbeat)
        self._consumer = Consumer(url, "worker", self._subscriptions(), self._take, heartbeat=amqp.heartbeat)
        redeclare = partial(declare_again, url, build(self._names, settings.lanes))
        self._outbox = Outbox(self._publisher, self._names.history, self._consumer.flush, redeclare)
        self._ready: ReadyJobs[_Step] = ReadyJobs()
        self._steps: dict[StepKey, _Step] = {}
        self._lineage = Lineage()
        self._settled_steps = Settled()
        self._running: set[asyncio.Task[None]] = set()
        self._early: set[asyncio.Task[None]] = set()
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
            "database": self._history.watch.fine,
            "routable": not self._outbox.stuck,
        }

    async def start(self) -> None:
        """Begin to work; RabbitMQ and MongoDB may be away."""
        self._history.watch.start()
        await self._publisher.start()
        self._outbox.start()
        await self._consumer.start()
        self._standstill.start()

    async def stop(self) -> None:
        """Let running handlers finish within the grace period; give the rest back without spending an attempt."""
        self._stopping = True
        self._standstill.stop()
        await self._consumer.stop()
        if self._early:
            await asyncio.wait(self._early)  # some milliseconds; then they are ready, or dropped
        for step in self._ready.clear():
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
        await self._executor.close()
        await self._consumer.close()
        await self._publisher.close()
        await self._history.close()

    def _paused(self) -> None:
        """This process stood still: what it holds and does not run may be with another worker by now."""
        self._consumer.drop("this process stood still for longer than the broker waits for heartbeats")
        self._start_ready()

    async def _give_back(self, step: _Step) -> None:
        self._steps.pop(step.key, None)
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
        elif key in self._settled_steps:
            metrics.stale.inc()
            self._outbox.add([], [], partial(self._consumer.done, delivery))
        elif delivery.queue in self._suspect_queues:
            step = self._steps[key] = _Step(work, only=False, alone=True, deliveries=[delivery])
            self._make_ready(step)
        elif delivery.delivery_count >= SUSPECT_AFTER:
            self._set_apart(work, delivery)
        else:
            only = self._lineage.is_only(work, delivery)
            step = self._steps[key] = _Step(work, only, work.suspect, [delivery])
            self._keep_or_start(step)

    def _set_apart(self, work: WorkMessage, delivery: Delivery) -> None:
        """The processes that held this step died again and again, perhaps because of it."""
        _logger.warning("set apart: its workers died", app=work.app, job=work.id, run=work.run, attempt=work.n)
        metrics.of(metrics.suspects, work.lane).inc()
        message = Outgoing("", self._names.suspect(self._lane_of(delivery.queue)), delivery.body, work.headers)
        self._outbox.add([message], [], partial(self._consumer.done, delivery))

    def _lane_of(self, queue: str) -> str:
        """The lane of a work queue, or of a queue of suspects."""
        if queue in self._suspect_queues:
            return queue.removeprefix(self._names.suspect(""))
        return queue.removeprefix(self._names.work + ".").rpartition(".")[0]

    def _keep_or_start(self, step: _Step) -> None:
        """A step that left the ladder some milliseconds early is kept until it is due, the others may start."""
        key = step.deliveries[0].routing_key
        remaining = ladder.remaining_ms(key, step.work.due_at, clock.now_ms())
        if not remaining:
            self._make_ready(step)
            return
        task = asyncio.create_task(self._guarded(step, self._wait_due(step, remaining / 1000)))
        self._early.add(task)
        task.add_done_callback(self._early.discard)

    async def _wait_due(self, step: _Step, seconds: float) -> None:
        due = time.monotonic() + seconds
        if await self._dropped(step):
            return
        while (left := due - time.monotonic()) > 0:  # noqa: ASYNC110 -- no polling: a timer may be a little early
            await asyncio.sleep(left)
        self._make_ready(step)

    def _make_ready(self, step: _Step) -> None:
        self._ready.push(step.work.priority, step)
        self._start_ready()

    def _park_poison(self, delivery: Delivery) -> None:
        _logger.error("message in a work queue is not ours", queue=delivery.queue)
        parked = self._names.parked(self._lane_of(delivery.queue))
        message = Outgoing("", parked, delivery.body, {ERROR_HEADER: "not a work message"})
        self._outbox.add([message], [], partial(self._consumer.done, delivery))

    def _start_ready(self) -> None:
        most = 0 if self._stopping or self._standstill.noticed else self._settings.worker.concurrency
        while self._ready and len(self._running) < most:
            step = self._ready.pop()
            if not any(map(self._consumer.holds, step.deliveries)):
                self._steps.pop(step.key, None)  # the broker gives it to somebody anew
                continue
            task = asyncio.create_task(self._guarded(step, self._decide(step)))
            self._running.add(task)
            task.add_done_callback(self._ended)
        metrics.running.set(len(self._running))
        metrics.held.set(len(self._ready) + len(self._early))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _logger.error("step failed inside the worker", exc_info=(type(error), error, error.__traceback__))
        self._start_ready()

    async def _guarded(self, step: _Step, work: Awaitable[None]) -> None:
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

    async def _decide(self, step: _Step) -> None:
        if await self._dropped(step):
            return
        handler = self._registry.get(step.work.type)
        if handler is None:
            self._without_handler(step)
        elif step.alone or handler.kind == "process":
            async with self._executor.child() as child:
                await self._execute(step, handler, child)
        else:
            await self._execute(step, handler)

    async def _dropped(self, step: _Step) -> bool:
        """Whether history says that its run is over, so that it was settled without being run."""
        work = step.work
        if step.only or time.monotonic() < step.asked_at + ANSWER_LASTS:
            return False
        step.asked_at = time.monotonic()
        if not await self._history.is_final(work):
            return False
        metrics.stale.inc()
        _logger.info("dropped: its run is final already", app=work.app, job=work.id, run=work.run)
        self._outbox.add([], [], self._settled(step))
        return True

    def _without_handler(self, step: _Step) -> None:
        worker, now = self._settings.worker, clock.now_ms()
        following = outcome.without_handler(step.work, now, worker.no_handler_delay, worker.no_handler_limit)
        message = following.message
        assert message is not None
        event = Moved(
            **about(step.work),
            at=now,
            state=following.state,
            due_at=message.due_at if following.delay is not None else None,
            error=message.error,
        )
        if following.state in FINAL:
            metrics.of(metrics.final, step.work.lane, following.state).inc()
        _logger.warning("no handler for this type here", type=step.work.type, app=step.work.app, job=step.work.id)
        self._outbox.add(self._messages(step, following), [event], self._settled(step))

    async def _execute(self, step: _Step, handler: Handler, child: Child | None = None) -> None:
        work = step.work
        context = Context(
            id=work.id,
            app=work.app,
            type=work.type,
            run=work.run,
            attempt=work.n,
            execution=clock.new_id(),
            tags=work.tags,
            trace=work.trace,
        )
        started_at, began = clock.now_ms(), time.perf_counter()
        common = {
            **about(work),
            "n": work.n,
            "execution": context.execution,
            "started_at": started_at,
            "worker": self.id,
        }
        notice = StartNotice(self._outbox, common)
        waited = started_at - (work.due_at if work.due_at is not None else work.accepted_at)
        metrics.of(metrics.wait_seconds, work.lane, work.priority).observe(max(waited, 0) / 1000)
        timeout = work.timeout or handler.timeout or self._settings.worker.timeout
        execution, result = await self._executor.run(handler, work.payload, context, timeout, child)
        metrics.of(metrics.run_seconds, work.lane).observe(time.perf_counter() - began)
        metrics.of(metrics.attempts, work.lane, execution.outcome).inc()
        finished_at = max(clock.now_ms(), started_at)
        policy = resolve(self._default_policy, handler.retry, work.retry)
        following = outcome.after(work, execution, policy, finished_at, clock.chance())
        self._report(work, execution, following)
        event = Ended(
            **common,
            finished_at=finished_at,
            outcome=execution.outcome,
            state=following.state,
            due_at=following.message.due_at if following.message and following.delay is not None else None,
            error=execution.error,
            result=result,
        )
        notice.withdraw()
        delayed = following.delay is not None
        self._outbox.add(self._messages(step, following), [event], self._settled(step), urgent=delayed)

    def _report(self, work: WorkMessage, execution: outcome.Execution, following: outcome.Next) -> None:
        if following.state in FINAL:
            metrics.of(metrics.final, work.lane, following.state).inc()
        elif following.state is JobState.RETRYING:
            metrics.of(metrics.retries, work.lane).inc()
        if execution.outcome in (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CRASHED):
            # history has every attempt; the log need tell only of those that no retry follows
            tell = _logger.warning if following.state in FINAL else _logger.debug
            tell(
                "attempt failed",
                app=work.app,
                job=work.id,
                run=work.run,
                attempt=work.n,
                type=work.type,
                outcome=str(execution.outcome),
                error=execution.error.type if execution.error else None,
                next=str(following.state),
                delay=following.delay,
            )

    def _messages(self, step: _Step, following: outcome.Next) -> Sequence[Outgoing]:
        """The message that carries a job on: into the delay ladder, or to its lane's parked jobs."""
        work = following.message
        if work is None:
            return ()
        if following.delay is None:
            return (Outgoing("", self._names.parked(work.lane), work.encode(), work.headers),)
        if step.only:
            self._lineage.sent(work, step.deliveries[0])
        way = ladder.enter(following.delay, work.lane, work.priority)
        leaves_at = time.monotonic() + way.stay_ms / 1000
        return (Outgoing(self._names.delays, way.routing_key, work.encode(), work.headers, leaves_at=leaves_at),)

    def _settled(self, step: _Step) -> Callable[[], None]:
        def settle() -> None:
            key = step.key
            self._steps.pop(key, None)
            self._settled_steps.add(key)
            for delivery in step.deliveries:
                self._consumer.done(delivery)

        return settle

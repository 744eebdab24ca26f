"""Making an attempt at a step: its handler is run, and what follows from that is put into the outbox.

What follows is published in two turns: first the message that carries the job on, and once the broker has that, the
event that tells of it. So whatever history says has happened, the message that follows from it exists.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from config import Settings
from consumers.cancels import Cancels
from consumers.context import Context
from consumers.executor import Executor
from consumers.failures import recorded
from consumers.history import StartNotice
from consumers.lineage import Lineage
from consumers.progress_notice import ProgressNotice
from consumers.registry import Handler, Registry
from consumers.running import RunningTable
from consumers.seldom import Seldom
from consumers.steps import Step
from dispatcher.core import ladder, outcome
from dispatcher.core.cancelling import Tombstone
from dispatcher.core.dated import dated
from dispatcher.core.lifecycle import FINAL
from dispatcher.core.retry import RetryPolicy, resolve
from dispatcher.core.timing import has_expired
from dispatcher.core.topology import Names
from dispatcher.core.types import TypeTable
from dispatcher.edges import clock, log, metrics
from dispatcher.edges.amqp import Outbox, Outgoing
from dispatcher.edges.children import Child
from dispatcher.edges.mongo import CancelStore, Database
from schemas import Ended, Event, JobState, Moved, Outcome, WorkMessage
from schemas.events import about

_logger = log.get("worker")


class Attempts:
    """Makes the attempts of one worker.

    Args:
        settings, registry: the worker's; ``target`` names the registry to child processes.
        worker: the worker's name in history.
        outbox: where messages and events go.
        database: MongoDB, for what operators cancel.
        settled: called when everything that follows from a step is confirmed.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        target: str,
        worker: str,
        outbox: Outbox,
        database: Database,
        settled: Callable[[Step], None],
    ) -> None:
        self._settings = settings.worker
        self._registry = registry
        self._names = Names(settings.amqp.prefix)
        self._worker = worker
        self._outbox = outbox
        self._settled = settled
        self._types = TypeTable(settings.type_entries)
        #: A type without a handler is spoken of once a minute, however many jobs of it come by.
        self._unhandled = Seldom(60.0)
        self._default_policy = RetryPolicy(**settings.retry.model_dump())
        metrics.types.reserve(handler.type for handler in registry)
        self._executor = Executor(
            settings.worker.concurrency,
            target,
            settings.worker.max_result_bytes,
            (settings.log.level, settings.log.format),
        )
        self._running = RunningTable()
        #: The runs that operators cancelled.
        self.cancels = Cancels(CancelStore(database), self._stop)
        #: The steps that this worker sent into the delay ladder.
        self.lineage = Lineage()

    async def close(self) -> None:
        """Stop what runs handlers."""
        await self.cancels.stop()
        await self._executor.close()

    async def make(self, step: Step) -> None:
        """Make one.

        Raises:
            ChildNotStarted: it needs a child process, and none starts.
            asyncio.CancelledError: the worker stops; nothing follows.
        """
        if await self._ended_by_operator(step):
            return
        handler = self._registry.get(step.work.type)
        if has_expired(step.work, clock.now_ms()):
            self._expire(step)
        elif handler is None:
            self._without_handler(step)
        elif step.alone or handler.kind == "process":
            async with self._executor.child() as child:
                if not await self._ended_by_operator(step):
                    await self._execute(step, handler, child)
        else:
            await self._execute(step, handler)

    async def _ended_by_operator(self, step: Step) -> bool:
        """Whether an operator cancelled the run of this step, which is final then without being run."""
        await self.cancels.up_to_date()
        work = step.work
        if (tombstone := self.cancels.of(work)) is None:
            return False
        _logger.info("not started: cancelled", app=work.app, job=work.id, run=work.run, attempt=work.n)
        metrics.of(metrics.final, work.lane, JobState.CANCELLED).inc()
        event = Moved(**about(work), at=clock.now_ms(), state=JobState.CANCELLED, error=tombstone.error)
        self._follow(step, outcome.Next(JobState.CANCELLED), event)
        return True

    def _stop(self, tombstone: Tombstone) -> None:
        self._running.cancel(tombstone)

    def _expire(self, step: Step) -> None:
        """The step came too late to start."""
        event = Moved(**about(step.work), at=clock.now_ms(), state=JobState.EXPIRED)
        metrics.of(metrics.final, step.work.lane, event.state).inc()
        self._follow(step, outcome.Next(event.state), event)

    def _without_handler(self, step: Step) -> None:
        now = clock.now_ms()
        limits = self._settings.no_handler_delay, self._settings.no_handler_limit
        following = outcome.without_handler(step.work, now, *limits)
        message = following.message
        assert message is not None
        event = Moved(
            **about(step.work),
            at=now,
            state=following.state,
            due_at=message.due_at if following.delay is not None else None,
            error=message.error if following.state in FINAL else outcome.put_off(step.work),
        )
        if following.state in FINAL:
            metrics.of(metrics.final, step.work.lane, following.state).inc()
        if self._unhandled.is_news(step.work.type, time.monotonic()):
            work = step.work
            _logger.warning("no handler for this type here", type=work.type, app=work.app, job=work.id)
        self._follow(step, following, event)

    async def _execute(self, step: Step, handler: Handler, child: Child | None = None) -> None:
        work = step.work
        started_at, began, execution_id = clock.now_ms(), time.perf_counter(), clock.new_id()
        common = {
            **about(work),
            "n": work.n,
            "execution": execution_id,
            "started_at": started_at,
            "worker": self._worker,
        }
        rules = self._types.of(work.type)
        progress = ProgressNotice(self._outbox, common, rules)
        context = Context(
            id=work.id,
            app=work.app,
            type=work.type,
            run=work.run,
            attempt=work.n,
            execution=execution_id,
            tags=work.tags,
            trace=work.trace,
            _tell=progress.tell,
        )
        notice = StartNotice(self._outbox, common)
        waited = started_at - (work.due_at if work.due_at is not None else work.accepted_at)
        metrics.began(work.lane, work.priority, work.type, max(waited, 0) / 1000)
        timeout = work.timeout or handler.timeout or rules.timeout or self._settings.timeout
        try:
            with self._running.entry(work) as stop:
                execution, result = await self._executor.run(handler, work.payload, context, timeout, child, stop)
        finally:
            told = progress.end()
        metrics.ended(work.lane, work.type, execution.outcome, time.perf_counter() - began)
        finished_at = max(clock.now_ms(), started_at)
        policy = resolve(self._default_policy.with_spec(rules.retry), handler.retry, work.retry)
        following = outcome.after(work, execution, policy, finished_at, clock.chance())
        self._report(work, execution, following, finished_at)
        event = Ended(
            **common,
            finished_at=finished_at,
            outcome=execution.outcome,
            state=following.state,
            due_at=following.message.due_at if following.message and following.delay is not None else None,
            error=recorded(execution, rules),
            result=rules.result(result),
        )
        notice.withdraw()
        self._follow(step, following, *told, event)

    def _report(
        self, work: WorkMessage, execution: outcome.Execution, following: outcome.Next, finished_at: int
    ) -> None:
        if following.state in FINAL:
            metrics.of(metrics.final, work.lane, following.state).inc()
            if work.deadline_at is not None and finished_at > work.deadline_at:
                metrics.of(metrics.breached, work.lane).inc()
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

    def _messages(self, step: Step, following: outcome.Next) -> Sequence[Outgoing]:
        """The message that carries a job on: into the delay ladder, or to its lane's parked jobs."""
        work = following.message
        if work is None:
            return ()
        if following.delay is None:
            headers = dated(work.headers, clock.now_ms())
            return (Outgoing("", self._names.parked(work.lane), work.encode(), headers),)
        if step.only:
            self.lineage.sent(work, step.deliveries[0])
        way = ladder.enter(following.delay, work.lane, work.priority)
        leaves_at = time.monotonic() + way.stay_ms / 1000
        return (Outgoing(self._names.delays, way.routing_key, work.encode(), work.headers, leaves_at=leaves_at),)

    def _follow(self, step: Step, following: outcome.Next, *events: Event) -> None:
        messages, urgent = self._messages(step, following), following.delay is not None
        self._outbox.add(messages, events, partial(self._settled, step), urgent=urgent, in_turn=True)
        step.followed = True

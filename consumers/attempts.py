"""Making an attempt at a step: its handler is run, and what follows from that is put into the outbox.

What follows is published in two turns: first the message that carries the job on, and once the broker has that, the
event that tells of it. So whatever history says has happened, the message that follows from it exists.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from config import Settings
from consumers.cancels import Cancels
from consumers.context import Context
from consumers.executor import Executor
from consumers.failures import recorded
from consumers.history import StartNotice
from consumers.lineage import Lineage
from consumers.progress_notice import ProgressNotice
from consumers.registry import Handler, Registry
from consumers.running import MemberStop, RunningTable, Stop
from consumers.seldom import Seldom
from consumers.steps import Step
from dispatcher.core import ladder, outcome
from dispatcher.core.cancelling import Tombstone
from dispatcher.core.dated import dated
from dispatcher.core.lifecycle import FINAL
from dispatcher.core.retry import RetryPolicy, resolve
from dispatcher.core.timing import has_expired
from dispatcher.core.topology import Names
from dispatcher.core.types import TypeRules, TypeTable
from dispatcher.edges import clock, log, meters, metrics
from dispatcher.edges.amqp import Outbox, Outgoing
from dispatcher.edges.children import Child
from dispatcher.edges.mongo import CancelStore, Database
from schemas import Ended, Event, JobState, Moved, Outcome, WorkMessage, join_batch
from schemas.events import about, encode_event

_logger = log.get("worker")


@dataclass(slots=True)
class _Begun:
    """An execution that has begun, and what tells of it; ``common`` are the fields that its events share."""

    step: Step
    common: dict[str, Any]
    context: Context
    progress: ProgressNotice
    notice: StartNotice
    began: float


class _End(NamedTuple):
    """What follows from a step, and the events that tell of it."""

    step: Step
    following: outcome.Next
    events: Sequence[Event | bytes]


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
        meters.types.reserve(handler.type for handler in registry)
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

    def takes_batches(self, job_type: str) -> bool:
        """Whether a batch of this type is to stay together: its handler takes lists, or is another worker's."""
        handler = self._registry.get(job_type)
        return handler is None or handler.batch

    async def make(self, step: Step) -> None:
        """Make one, or those of a batch.

        Raises:
            ChildNotStarted: it needs a child process, and none starts.
            asyncio.CancelledError: the worker stops; nothing follows.
        """
        handler = self._registry.get(step.work.type)
        ended, parts = await self._startable(step.parts)
        if not parts:
            self._follow(step, ended)
        elif handler is None:
            self._without_handler(step, parts, ended)
        elif step.alone or handler.kind == "process":
            async with self._executor.child() as child:
                late, parts = await self._startable(parts)  # it may have taken a while to start
                executed = await self._execute(parts, handler, child) if parts else []
                self._follow(step, [*ended, *late, *executed])
        else:
            self._follow(step, [*ended, *await self._execute(parts, handler)])

    async def _startable(self, parts: Iterable[Step]) -> tuple[list[_End], list[Step]]:
        """The ends of those that are not to be started, and the others."""
        await self.cancels.up_to_date()
        ended: list[_End] = []
        left: list[Step] = []
        for part in parts:
            if (end := self._ended_before(part)) is None:
                left.append(part)
            else:
                ended.append(end)
        return ended, left

    def _ended_before(self, step: Step) -> _End | None:
        """The end of a step that is not to be started: its run was cancelled, or it came too late."""
        work, now = step.work, clock.now_ms()
        if (tombstone := self.cancels.of(work)) is not None:
            _logger.info("not started: cancelled", app=work.app, job=work.id, run=work.run, attempt=work.n)
            state, error = JobState.CANCELLED, tombstone.error
        elif has_expired(work, now):
            state, error = JobState.EXPIRED, None
        else:
            return None
        metrics.of(metrics.final, work.lane, state).inc()
        return _End(step, outcome.Next(state), [Moved(**about(work), at=now, state=state, error=error)])

    def _stop(self, tombstone: Tombstone) -> None:
        self._running.cancel(tombstone)

    def _without_handler(self, step: Step, parts: Sequence[Step], ended: list[_End]) -> None:
        """Put a step off for a worker that has its handler; a batch stays together."""
        work = step.work
        if self._unhandled.is_news(work.type, time.monotonic()):
            _logger.warning("no handler for this type here", type=work.type, app=work.app, job=work.id)
        now = clock.now_ms()
        put_off = [self._unhandled_end(part, now) for part in parts]
        if not (step.is_batch and step.batch) or put_off[0].following.state in FINAL:
            self._follow(step, [*ended, *put_off])
        else:
            self._follow(step, ended)
            self._put_off(step.batch, put_off)

    def _unhandled_end(self, step: Step, now: int) -> _End:
        limits = self._settings.no_handler_delay, self._settings.no_handler_limit
        following = outcome.without_handler(step.work, now, *limits)
        message = following.message
        assert message is not None
        if following.state in FINAL:
            metrics.of(metrics.final, step.work.lane, following.state).inc()
            metrics.of(metrics.unhandled, step.work.lane).inc()
        event = Moved(
            **about(step.work),
            at=now,
            state=following.state,
            due_at=message.due_at if following.delay is not None else None,
            error=message.error if following.state in FINAL else outcome.put_off(step.work),
        )
        return _End(step, following, [event])

    def _put_off(self, batch: str, ends: Sequence[_End]) -> None:
        """Put off what is left of a batch, in one message."""
        following = [end.following.message for end in ends]
        body = join_batch(batch, (message.encode() for message in following if message is not None))
        work, delay = ends[0].step.work, ends[0].following.delay
        assert delay is not None
        way = ladder.enter(delay, work.lane, work.priority)
        leaves_at = time.monotonic() + way.stay_ms / 1000
        message = Outgoing(self._names.delays, way.routing_key, body, leaves_at=leaves_at)

        def settled() -> None:
            for end in ends:
                self._settled(end.step)

        events = [event for end in ends for event in end.events]
        self._outbox.add([message], events, settled, urgent=True, in_turn=True)

    async def _execute(self, parts: Sequence[Step], handler: Handler, child: Child | None = None) -> list[_End]:
        """Run the handler, for one step or for those of a batch together."""
        rules = self._types.of(handler.type)
        begun = [self._begin(part, rules) for part in parts]
        limits = [part.work.timeout or handler.timeout or rules.timeout or self._settings.timeout for part in parts]
        try:
            if handler.batch:
                executed = await self._run_batch(begun, handler, max(limits), child)
            else:
                (one,) = begun
                stop = Stop()
                with self._running.entry(one.step.work, stop):
                    payload = one.step.work.payload
                    executed = [await self._executor.run(handler, payload, one.context, limits[0], child, stop)]
        finally:
            told = [each.progress.end() for each in begun]
        return [
            self._end(each, handler, rules, *how, reports)
            for each, how, reports in zip(begun, executed, told, strict=True)
        ]

    async def _run_batch(
        self, begun: Sequence[_Begun], handler: Handler, timeout: float, child: Child | None
    ) -> list[tuple[outcome.Execution, Any]]:
        whole, stops = Stop(), list[MemberStop]()
        stops += [MemberStop(each.context.cancel, stops, whole) for each in begun]
        with contextlib.ExitStack() as stack:
            for each, stop in zip(begun, stops, strict=True):
                stack.enter_context(self._running.entry(each.step.work, stop))
            payloads, contexts = [each.step.work.payload for each in begun], [each.context for each in begun]
            batch = begun[0].step.batch or ""
            executed = await self._executor.run_batch(handler, payloads, contexts, batch, timeout, child, whole)
        return [
            how if stop.tombstone is None else (outcome.Execution(Outcome.CANCELLED, stop.tombstone.error), None)
            for how, stop in zip(executed, stops, strict=True)
        ]

    def _begin(self, step: Step, rules: TypeRules) -> _Begun:
        work = step.work
        started_at, execution = clock.now_ms(), clock.new_id()
        common = {
            **about(work),
            "n": work.n,
            "execution": execution,
            "started_at": started_at,
            "worker": self._worker,
        }
        progress = ProgressNotice(self._outbox, common, rules)
        if step.batch is not None:
            common["batch"] = step.batch
        context = Context(
            id=work.id,
            app=work.app,
            type=work.type,
            run=work.run,
            attempt=work.n,
            execution=execution,
            tags=work.tags,
            trace=work.trace,
            _tell=progress.tell,
        )
        waited = started_at - (work.due_at if work.due_at is not None else work.accepted_at)
        meters.began(work.lane, work.priority, work.type, max(waited, 0) / 1000)
        return _Begun(step, common, context, progress, StartNotice(self._outbox, common), time.perf_counter())

    def _end(
        self,
        begun: _Begun,
        handler: Handler,
        rules: TypeRules,
        execution: outcome.Execution,
        result: Any,
        told: Sequence[Event],
    ) -> _End:
        work = begun.step.work
        meters.ended(work.lane, work.type, execution.outcome, time.perf_counter() - begun.began)
        finished_at = max(clock.now_ms(), begun.common["started_at"])
        policy = resolve(self._default_policy.with_spec(rules.retry), handler.retry, work.retry)
        following = outcome.after(work, execution, policy, finished_at, clock.chance())
        self._report(work, execution, following, finished_at)
        event = Ended(
            **begun.common,
            finished_at=finished_at,
            outcome=execution.outcome,
            state=following.state,
            due_at=following.message.due_at if following.message and following.delay is not None else None,
            error=recorded(execution, rules),
            result=rules.result(result),
        )
        begun.notice.withdraw()
        # encoded here: a fault in one member's must not leave the batch half followed
        return _End(begun.step, following, [encode_event(each) for each in (*told, event)])

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

    def _follow(self, step: Step, ends: Iterable[_End]) -> None:
        for end in ends:
            messages, urgent = self._messages(end.step, end.following), end.following.delay is not None
            self._outbox.add(messages, end.events, partial(self._settled, end.step), urgent=urgent, in_turn=True)
        step.followed = True

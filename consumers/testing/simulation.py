"""A registry with everything around it, in one process and in virtual time."""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import pydantic_core

from config import Settings, load_settings
from consumers.context import Context
from consumers.executor import Executor
from consumers.failures import recorded
from consumers.progress import Progress
from consumers.registry import Handler, Registry
from consumers.testing.attempt import in_this_process
from consumers.testing.gathering import Gathering, Unit
from consumers.testing.job import SimulatedJob, to_datetime, to_ms
from consumers.testing.logs import LogLine, heard
from consumers.testing.reports import Reports
from consumers.testing.virtual import VirtualLoop, beside_a_loop
from dispatcher.core import outcome
from dispatcher.core.admission import Rules, Submission, admit, encode_work
from dispatcher.core.keys import KeyRecord
from dispatcher.core.lifecycle import FINAL, RERUNNABLE
from dispatcher.core.retry import RetryPolicy, resolve
from dispatcher.core.selection import ReadyJobs
from dispatcher.core.timing import has_expired
from dispatcher.core.types import TypeTable
from dispatcher.edges import clock
from schemas import Ended, Event, JobState, Moved, Progressed, Rerun, Started, WorkMessage
from schemas.events import about

START = datetime(2030, 1, 1, tzinfo=UTC)


class SimulationError(Exception):
    """The simulation cannot go on as asked; the sentence says why."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """An execution that runs."""

    work: WorkMessage
    common: dict[str, Any]
    context: Context
    reports: Reports


class Simulation:
    """Runs the jobs that a test submits as intake, worker, delay ladder and recorder would, but for the waiting.

    Use it in a ``with`` block. ``submit`` admits a job; ``run`` lets time pass until every job is over; ``advance``
    lets so much of it pass. Nothing runs in between. Handlers run as `consumers.testing.run` runs them.

    Args:
        registry: the handlers.
        settings: lanes, limits, retry policy; the defaults where it is None, whatever the environment says.
        start: the time at which it begins, with its zone.
        app: the app whose jobs they are.
        concurrency: handlers that run at once; the setting's where it is None. With 1, jobs run one after another.
        chance: what jitter draws, from 0 (nothing is taken from a delay) up to 1; a number, or a function.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        settings: Settings | None = None,
        start: datetime = START,
        app: str = "test",
        concurrency: int | None = None,
        chance: float | Callable[[], float] = 0.0,
    ) -> None:
        if start.tzinfo is None:
            raise ValueError("start needs a zone: datetime(2030, 1, 1, tzinfo=UTC)")
        self._settings = settings or load_settings({})
        self._registry = registry
        self._start_ms = to_ms(start)
        self._chance = chance if callable(chance) else lambda: chance
        self._key = KeyRecord(id="testing", app=app, hash="", created_at=self._start_ms)
        self._types = TypeTable(self._settings.type_entries)
        self._rules = Rules(frozenset(self._settings.lanes), self._types, self._settings.intake.max_body_bytes)
        self._policy = RetryPolicy(**self._settings.retry.model_dump())
        self._places = concurrency or self._settings.worker.concurrency
        self._executor = Executor(self._places, "", self._settings.worker.max_result_bytes)
        self._loop = VirtualLoop()
        self._loop.clock.busy = lambda: bool(self._running)
        self._jobs: dict[str, SimulatedJob] = {}
        self._steps: dict[str, WorkMessage] = {}  # the latest of each job
        self._batches: dict[str, list[str]] = {}
        self._open: set[str] = set()
        self._parked: dict[str, SimulatedJob] = {}
        self._ready: ReadyJobs[Unit] = ReadyJobs()
        self._gathering = Gathering(self._loop, self._settings, self._flushed)
        self._running: set[asyncio.Task[None]] = set()
        self._runs_left = 0
        self._fault: BaseException | None = None
        self._until_over = False
        weakref.finalize(self, _close, self._loop)

    def submit(self, job_type: str, payload: Any = None, **fields: Any) -> SimulatedJob:
        """Publish a job, which intake admits now.

        Args:
            job_type: the job's type.
            payload: a dict, or anything pydantic writes as a JSON object.
            fields: the message's other fields: ``id``, ``priority``, ``retry``, ``timeout``, ``lane``, ``tags``, ….

        Returns:
            The job; with an ``id`` that there is already the first one, whose content stands.

        Raises:
            Refusal: intake refuses it, with the contract's code as ``code``.
        """
        body = pydantic_core.to_json({**({} if payload is None else {"payload": payload}), **fields})
        admitted = admit(Submission(job_type, body), self._key, self._rules, self._now_ms(), clock.random_bits())
        work = WorkMessage.decode(encode_work(admitted.work))
        if work.id in self._jobs:
            return self._jobs[work.id]
        job = self._jobs[work.id] = SimulatedJob(work.app, work.id)
        job.record(admitted.event)
        self._enqueue(work)
        return job

    def run(self, *, max_executions: int = 10_000) -> None:
        """Let time pass until no job is left that is not over.

        Raises:
            SimulationError: that took too many executions; a job may snooze for ever.
        """
        self._until_over = True
        self._drive(math.inf, max_executions)
        if self._open:
            raise SimulationError(f"{len(self._open)} jobs wait for nothing that will come")

    def advance(self, seconds: float, *, max_executions: int = 1_000_000) -> None:
        """Let so many seconds pass, and run everything that is due up to then, inclusive; 0: what is due now."""
        if seconds < 0:
            raise ValueError("time goes forward only")
        self._until_over = False
        self._drive(seconds, max_executions)

    def retry(self, job: SimulatedJob) -> None:
        """Start a new run of a job that is over, as ``dispatcher jobs retry`` and ``dead replay`` do.

        Raises:
            SimulationError: it is not over.
        """
        if JobState(job.state) not in RERUNNABLE:
            raise SimulationError(f"job {job.id} is {job.state}: only a job that is over can be run again")
        work = outcome.new_run(self._steps[job.id])
        self._parked.pop(job.id, None)
        job.record(Rerun(**about(work), at=self._now_ms(), by="retry"))
        self._enqueue(work)

    @property
    def now(self) -> datetime:
        """The simulation's time."""
        return to_datetime(self._now_ms())

    @property
    def elapsed(self) -> float:
        """Seconds that have passed since its start."""
        return self._loop.time()

    @property
    def jobs(self) -> list[SimulatedJob]:
        """Every job, in the order in which they were submitted."""
        return list(self._jobs.values())

    @property
    def parked(self) -> list[SimulatedJob]:
        """The jobs that ended failed or timed out, in the order in which they did."""
        return list(self._parked.values())

    def close(self) -> None:
        """Cancel what runs and close the loop; doing it again changes nothing."""
        if not self._loop.is_closed():
            beside_a_loop(self._end)

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _now_ms(self) -> int:
        # to the microsecond first: the sum of floats may be a little short of the millisecond that is meant
        return self._start_ms + round(self._loop.time() * 1_000_000) // 1000

    def _end(self) -> None:
        self._ready.clear()
        self._until_over = False

        async def end() -> None:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            await self._executor.close()

        with suppress(RuntimeError):  # the loop stopped: a handler goes on after its cancellation, and waits for ever
            self._loop.run_until_complete(end())
        self._loop.close()

    def _drive(self, seconds: float, max_executions: int) -> None:
        self._runs_left = max_executions
        self._loop.call_soon(self._start_ready)
        with heard(self._heard):
            beside_a_loop(lambda: self._loop.run_for(seconds))
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault

    def _heard(self, line: LogLine) -> None:
        named = line.fields.get("job") or line.fields.get("batch", "")
        for job_id in self._batches.get(named, [named]):  # a job that came alone is its own batch
            if job := self._jobs.get(job_id):
                job.logs.append(line)

    def _enqueue(self, work: WorkMessage) -> None:
        """Have a step start when it is due."""
        self._steps[work.id] = work
        self._open.add(work.id)
        if work.due_at is None or work.due_at <= self._now_ms():
            self._arrive(work)
        else:
            self._loop.call_at((work.due_at - self._start_ms) / 1000, self._come_due, work)

    def _come_due(self, work: WorkMessage) -> None:
        self._arrive(work)
        self._start_ready()

    def _arrive(self, work: WorkMessage) -> None:
        """Have a step wait for a place, or for the others of its group."""
        if not self._gathering.add(work):
            self._ready.push(work.priority, Unit((work,)))

    def _flushed(self, unit: Unit) -> None:
        """A group is complete: its members are jobs by themselves from here on."""
        for work in unit.works:
            self._steps[work.id] = work
            waited = about(work) | {"seq": work.seq - 1}  # the step before this one
            queued = Moved(**waited, at=self._now_ms(), state=JobState.QUEUED, batch=unit.batch)
            self._jobs[work.id].record(queued)
        handler = self._registry.get(unit.type)
        for each in [unit] if handler is not None and handler.batch else unit.apart():
            self._ready.push(each.priority, each)
        if self._loop.is_running():  # while a job is submitted, nothing runs
            self._start_ready()

    def _start_ready(self) -> None:
        while self._ready and len(self._running) < self._places:
            if not self._runs_left:
                self._fail(SimulationError("too many executions; does a job snooze for ever?"))
                return
            self._runs_left -= 1
            task = self._loop.create_task(self._step(self._ready.pop()))
            self._running.add(task)
            task.add_done_callback(self._ended)
        if self._until_over and not self._running and not self._open:
            self._loop.stop()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._fail(error)
        self._start_ready()

    def _fail(self, error: BaseException) -> None:
        self._fault = self._fault or error
        self._loop.stop()

    async def _step(self, unit: Unit) -> None:
        handler, works = self._registry.get(unit.type), []
        for work in unit.works:
            if has_expired(work, self._now_ms()):
                expired = JobState.EXPIRED
                self._follow(outcome.Next(expired), Moved(**about(work), at=self._now_ms(), state=expired))
            elif handler is None:
                self._without_handler(work)
            else:
                works.append(work)
        if handler is not None and works:
            await self._execute(Unit(tuple(works), unit.batch), in_this_process(handler))

    def _without_handler(self, work: WorkMessage) -> None:
        now, worker = self._now_ms(), self._settings.worker
        following = outcome.without_handler(work, now, worker.no_handler_delay, worker.no_handler_limit)
        message = following.message
        assert message is not None
        due_at = message.due_at if following.delay is not None else None
        error = message.error if following.state in FINAL else outcome.put_off(work)
        self._follow(following, Moved(**about(work), at=now, state=following.state, due_at=due_at, error=error))

    async def _execute(self, unit: Unit, handler: Handler) -> None:
        begun = [self._begin(work, unit.batch) for work in unit.works]
        rules = self._types.of(handler.type)
        default = handler.timeout or rules.timeout or self._settings.worker.timeout
        timeout = max(work.timeout or default for work in unit.works)
        payloads, contexts = [work.payload for work in unit.works], [each.context for each in begun]
        try:
            if handler.batch:
                executed = await self._executor.run_batch(handler, payloads, contexts, unit.batch or "", timeout)
            else:
                executed = [await self._executor.run(handler, payloads[0], contexts[0], timeout)]
        finally:
            for each in begun:
                each.reports.end()
        for each, (execution, result) in zip(begun, executed, strict=True):
            self._finish(each, handler, execution, result)

    def _begin(self, work: WorkMessage, batch: str | None) -> _Begun:
        common = about(work) | {
            "n": work.n,
            "execution": clock.new_id(),
            "started_at": self._now_ms(),
            "worker": "simulation",
            "batch": batch,
        }
        reports = Reports(self._loop, lambda progress: self._progressed(common, progress))
        context = Context(
            id=work.id,
            app=work.app,
            type=work.type,
            run=work.run,
            attempt=work.n,
            execution=common["execution"],
            tags=work.tags,
            trace=work.trace,
            _tell=reports.add,
        )
        self._jobs[work.id].record(Started(**common))
        if batch is not None:
            self._batches.setdefault(batch, []).append(work.id)
        return _Begun(work, common, context, reports)

    def _finish(self, begun: _Begun, handler: Handler, execution: outcome.Execution, result: Any) -> None:
        work, finished_at, rules = begun.work, self._now_ms(), self._types.of(handler.type)
        policy = resolve(self._policy.with_spec(rules.retry), handler.retry, work.retry)
        following = outcome.after(work, execution, policy, finished_at, self._chance())
        event = Ended(
            **begun.common,
            finished_at=finished_at,
            outcome=execution.outcome,
            state=following.state,
            due_at=following.message.due_at if following.message and following.delay is not None else None,
            error=recorded(execution, rules),
            result=rules.result(result),
        )
        self._follow(following, event)

    def _progressed(self, common: dict[str, Any], progress: Progress) -> None:
        fields = {name: value for name, value in common.items() if name not in ("started_at", "worker", "batch")}
        message = None if self._types.of(common["type"]).private else progress.message
        event = Progressed(**fields, at=self._now_ms(), done=progress.done, total=progress.total, message=message)
        self._jobs[common["id"]].record(event)

    def _follow(self, following: outcome.Next, event: Event) -> None:
        job = self._jobs[event.id]
        job.record(event)
        if job.final:
            self._open.discard(job.id)
        if following.message is None:
            return
        work = WorkMessage.decode(following.message.encode())
        if following.delay is None:
            self._parked[work.id] = job
        else:
            self._enqueue(work)


def _close(loop: VirtualLoop) -> None:
    if not loop.is_running():
        loop.close()

"""Steps that came again: somebody else may be running them, or may have settled them.

The broker gives a message to another worker as soon as the connection of the one that had it is lost. That one may
live: its handlers run on, and what they bring about is published as soon as it is connected again, which may be
seconds after the other got the message. So a step that comes again is not started at once. When those who live have
had time to come back, the other workers are asked; then the recorder, whether history has what was published so far;
and then history. A step that nobody has, and of which history does not say that its run went on, is run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain

from pydantic import ValidationError

from consumers.holding import Known
from consumers.steps import Step, StepKey
from dispatcher.edges import log
from dispatcher.edges.amqp import Delivery, Peers
from schemas import Answer, Question
from schemas.peers import MAX_ASKED

_logger = log.get("worker")

#: Time that the broker gets to take what a worker wrote before it died, in seconds.
READ = 1.0
#: Time after a reconnect that other workers get to come back too (`link.MAX_PAUSE`, and their set-up), in seconds.
RECONNECTED = 4.0
#: Time after a reconnect for which dead letters may come twice: a broker that was killed publishes those again whose
#: confirm it did not get within `dead_letter_worker_publisher_confirm_timeout` (10 s where it is set as recommended).
REPEATED = 30.0
#: Longest wait for peers that cannot be asked, in seconds since the step was delivered.
PATIENCE = 10.0
#: Time for answers, and between two questions about a step that somebody has, in seconds.
ANSWERS = 0.3
AGAIN = 1.0
#: Seconds between two looks at which steps may be asked about.
TICK = 0.1


def doubt(delivery: Delivery, only: bool) -> float | None:
    """How long to wait before others are asked about a step, in seconds; None where they cannot have it, or hardly.

    Args:
        delivery: the step, just delivered.
        only: whether it is known to be the only one of its run.
    """
    if delivery.again:
        return max(READ, RECONNECTED - delivery.since_reconnect)
    if not only and delivery.since_reconnect < REPEATED:
        return 0.0
    return None


def answer_to(question: bytes, worker: str, known: Callable[[StepKey], Known | None]) -> bytes | None:
    """The answer to a question; None where nothing is known, or it is no question."""
    try:
        asked = Question.model_validate_json(question)
    except ValidationError:
        return None
    found: dict[str, list[int]] = {}
    for index, key in enumerate(asked.steps):
        if (what := known(key)) is not None:
            found.setdefault(what.value, []).append(index)
    if not found:
        return None
    return Answer(worker=worker, **{what: tuple(indexes) for what, indexes in found.items()}).model_dump_json().encode()


def conclude(me: str, count: int, answers: Iterable[bytes]) -> list[Known | None]:
    """What the answers to a question about so many steps say of each: settled, held by another, or free (None).

    Of several workers that are in doubt about the same step, the one with the lowest name has it.
    """
    concluded: list[Known | None] = [None] * count
    for body in answers:
        try:
            answer = Answer.model_validate_json(body)
        except ValidationError:
            continue
        yielding = answer.in_doubt if answer.worker < me else ()
        for index in (*answer.held, *yielding):
            if index < count and concluded[index] is None:
                concluded[index] = Known.HELD
        for index in answer.settled:
            if index < count:
                concluded[index] = Known.SETTLED
    return concluded


class Doubts:
    """The steps in doubt of one worker.

    Args:
        peers: the other workers.
        lost: whether a step is not this worker's any more; the broker has queued it again.
        forget: called with a step that is lost.
        rivals: whether a member of a batch is in other hands of this worker.
        settled: called with a step that another worker settled: with the keys of all its parts, or of some.
        recorded: waits until history has what was published so far, or until that takes too long.
        clear: called with a step that nobody else has; it asks history.
    """

    def __init__(
        self,
        peers: Peers,
        lost: Callable[[Step], bool],
        forget: Callable[[Step], None],
        rivals: Callable[[Step], bool],
        settled: Callable[[Step, Sequence[StepKey]], None],
        recorded: Callable[[], Awaitable[None]],
        clear: Callable[[Step], Awaitable[None]],
    ) -> None:
        self._peers = peers
        self._lost = lost
        self._forget = forget
        self._rivals = rivals
        self._settled = settled
        self._recorded = recorded
        self._clear = clear
        #: When to ask about each, and when it came, in seconds of the monotonic clock.
        self._steps: dict[Step, tuple[float, float]] = {}
        #: Steps that nobody else has, until history is known to have what was published of them.
        self._unrecorded: set[Step] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        self._clearing: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._steps) + len(self._unrecorded) + len(self._clearing)

    def __contains__(self, step: Step) -> bool:
        return step in self._steps

    def start(self) -> None:
        """Begin to ask."""
        self._task = asyncio.create_task(self._run(), name="doubts")

    async def stop(self) -> list[Step]:
        """Ask no more; returns the steps that are left."""
        tasks = [*self._waiting, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._clearing:
            await asyncio.wait(self._clearing)
        left = [*self._steps, *self._unrecorded]
        self._steps.clear()
        self._unrecorded.clear()
        return left

    def add(self, step: Step, wait: float) -> None:
        """Take a step that others may have; they are asked in so many seconds."""
        now = time.monotonic()
        self._steps[step] = (now + wait, now)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            try:
                await self._look()
            except Exception:
                _logger.exception("steps in doubt cannot be asked about")
            if not self._steps:
                self._wake.clear()
            await asyncio.sleep(TICK)

    async def _look(self) -> None:
        for step in [step for step in self._steps if self._lost(step)]:
            del self._steps[step]
            self._forget(step)
        now = time.monotonic()
        due = [
            step
            for step, (at, since) in self._steps.items()
            if at <= now and (self._peers.ready or since + PATIENCE <= now)
        ]
        if due:
            await self._ask(due[:MAX_ASKED])

    async def _ask(self, steps: Sequence[Step]) -> None:
        keys = [key for step in steps for key in step.keys]
        asked = (self._ask_about(keys[at : at + MAX_ASKED]) for at in range(0, len(keys), MAX_ASKED))
        known = dict(zip(keys, chain.from_iterable(await asyncio.gather(*asked)), strict=True))
        again = []
        for step in steps:
            found = {key: known[key] for key in step.keys}
            if Known.HELD in found.values() or self._rivals(step):
                self._steps[step] = (time.monotonic() + AGAIN, self._steps[step][1])
                continue
            del self._steps[step]
            settled = [key for key, what in found.items() if what is Known.SETTLED]
            if settled:
                self._settled(step, settled)
            if len(settled) == len(found):
                continue
            if any(delivery.again for delivery in step.deliveries):
                again.append(step)
            else:
                self._hand_over(step)
        if again:
            self._unrecorded.update(again)
            task = asyncio.create_task(self._hand_over_once_recorded(again))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def _ask_about(self, keys: Sequence[StepKey]) -> list[Known | None]:
        question = Question(steps=tuple(keys)).model_dump_json().encode()
        return conclude(self._peers.id, len(keys), await self._peers.ask(question, ANSWERS))

    async def _hand_over_once_recorded(self, steps: Sequence[Step]) -> None:
        try:
            await self._recorded()
        except Exception:
            _logger.exception("the recorder cannot be asked")
        self._unrecorded.difference_update(steps)
        for step in steps:
            self._hand_over(step)

    def _hand_over(self, step: Step) -> None:
        """Nobody else has this step, and history can tell of it."""
        if self._lost(step):
            self._forget(step)
            return
        task = asyncio.ensure_future(self._clear(step))
        self._clearing.add(task)
        task.add_done_callback(self._clearing.discard)

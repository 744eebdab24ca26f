"""Claiming ids and unique keys for the jobs that intake accepts, many in one write.

A message whose claim cannot be made now is put off: it waits in the broker, out of the way of jobs that need no
claim. That is so while MongoDB is away, and while another message with the same id or key is on its way.

At a ``kill -9`` before the job is published its claim is not done, and the message, which comes again, takes it over;
after that likewise: the job is published a second time, marked, and the worker that gets it asks the others first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from dispatcher.core.claims import Claim, Found, judge_id, judge_key
from dispatcher.core.keys import KeyRecord
from dispatcher.core.verdicts import Job
from dispatcher.edges import clock, log, metrics
from dispatcher.edges.amqp import Delivery
from dispatcher.edges.mongo import ClaimStore, Database, DatabaseError
from schemas import JobState

_logger = log.get("claims")

#: What a job claims: its id, then its unique key.
_CLAIMS: tuple[Callable[[Job], Claim | None], ...] = (lambda job: job.id_claim, lambda job: job.key_claim)
#: Most messages in one round.
BATCH = 500
#: Longest wait for the answers of a round, and pause before MongoDB is asked whether it is back, in seconds.
ANSWER, PAUSE = 3.0, 0.5
#: Seconds between two writes that mark claims done.
MARK_EVERY = 0.02
#: While another message is at it: pause before a look at what became of that, and time after which this one is put
#: off, in seconds.
LOOK_AGAIN, PATIENCE = 0.025, 0.5
#: Seconds that what is left gets at a stop.
STOP_GRACE = 5.0


@dataclass(slots=True, eq=False)
class Pending:
    """An accepted message whose claims are not made yet.

    ``again``: what it becomes may exist already; ``claimed``: its id is its own; ``since`` when it has waited for
    another message, in seconds of the loop.
    """

    delivery: Delivery
    key: KeyRecord
    job: Job
    again: bool
    claimed: bool = False
    since: float | None = None


class Desk(Protocol):
    """Where a message goes on; intake."""

    def holds(self, delivery: Delivery) -> bool:
        """Whether the message is still this intake's."""

    def proceed(self, pending: Pending) -> None:
        """All that it needs is its own."""

    def resent(self, pending: Pending, first: Claim) -> None:
        """Its id is that of another job."""

    def duplicate(self, pending: Pending, of: str) -> None:
        """Its unique key is that of another job, of this id."""

    def put_off(self, pending: Pending) -> None:
        """Nobody can say yet."""

    def failed(self, pending: Pending) -> None:
        """A fault of ours comes with this message."""


class Claiming:
    """Makes the claims of one intake."""

    def __init__(self, database: Database, desk: Desk) -> None:
        self._database = database
        self._store = ClaimStore(database)
        self._desk = desk
        self._waiting: list[Pending] = []
        #: Those for which another message is on its way.
        self._later: list[Pending] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        #: Whether MongoDB answered last.
        self._answers = False
        self._done: list[Claim] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to claim, in the background; MongoDB may be away."""
        self._tasks = [
            asyncio.create_task(each, name=name)
            for name, each in (("claims", self._run()), ("claims done", self._mark()), ("claims away", self._probe()))
        ]

    async def settle(self) -> None:
        """Wait until what was taken is claimed or put off, unless that takes too long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), STOP_GRACE)

    async def stop(self) -> None:
        """Mark what is published, then stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(DatabaseError, TimeoutError):
            await asyncio.wait_for(self._mark_done(), STOP_GRACE)

    def add(self, pending: Pending) -> None:
        """Take a message whose job needs claims; the desk hears what becomes of it."""
        self._idle.clear()
        self._waiting.append(pending)
        self._wake.set()

    def published(self, job: Job) -> None:
        """The broker has confirmed what becomes of this job: its claims are done."""
        self._done += [claim for claim in (job.id_claim, job.key_claim) if claim is not None]

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                await self._round([pending for pending in batch if self._desk.holds(pending.delivery)])
            if not self._later:
                self._idle.set()

    def _wait(self, pending: Pending) -> None:
        """Another message with this id or key is on its way: that is over soon, or the broker keeps this one."""
        loop = asyncio.get_running_loop()
        if pending.since is None:
            pending.since = loop.time()
        if loop.time() - pending.since > PATIENCE:
            pending.again |= pending.claimed  # when it is back, the claim is its own
            self._put_off([pending], "open")
            return
        self._later.append(pending)
        if len(self._later) == 1:
            loop.call_later(LOOK_AGAIN, self._look_again)

    def _look_again(self) -> None:
        self._waiting += self._later
        self._later.clear()
        self._wake.set()

    async def _round(self, batch: list[Pending]) -> None:
        if not self._answers:
            self._put_off(batch, "away")
            return
        left = dict.fromkeys(batch)
        try:
            async with asyncio.timeout(ANSWER):
                await self._claim_keys(await self._claim_ids(batch, left), left)
        except (DatabaseError, TimeoutError) as error:
            _logger.warning("MongoDB is away; jobs that need it wait in the broker", error=type(error).__name__)
            self._answers = False
            tried = {p for claim_of in _CLAIMS for _, p in _first_of_each(batch, claim_of).values()}
            for pending in left:  # a claim that may have been made is this message's own when it is back
                pending.again |= pending.claimed or pending in tried
            self._put_off(list(left), "away")
        except Exception as error:
            _logger.exception("claims cannot be made", error=type(error).__name__, messages=len(left))
            await self._one_by_one(batch, list(left))

    async def _one_by_one(self, batch: list[Pending], left: list[Pending]) -> None:
        """A fault of ours refuses the message that it comes with, and no other of the round."""
        if len(batch) == 1:
            for pending in left:
                self._desk.failed(pending)
            return
        for pending in left:
            pending.again = True
            await self._round([pending])

    def _put_off(self, batch: Sequence[Pending], why: str) -> None:
        for pending in batch:
            metrics.of(metrics.claims, why).inc()
            self._desk.put_off(pending)

    async def _claim_ids(self, batch: Sequence[Pending], left: dict[Pending, None]) -> list[Pending]:
        """Claim the ids; returns those messages whose id is theirs, or that chose none."""
        wanted = _first_of_each([p for p in batch if not p.claimed], _CLAIMS[0])
        claims = [claim for claim, _ in wanted.values()]
        held, recorded = await asyncio.gather(self._store.ids.make(claims), self._store.recorded(list(wanted)))
        fine: list[Pending] = []
        for pending in batch:
            claim = pending.job.id_claim
            if claim is None or pending.claimed:
                fine.append(pending)
                continue
            first: Claim | None = None
            found = Found.OPEN
            if wanted[claim.name][1] is pending:
                found, first = await self._of_id(pending, claim, held, recorded.get(claim.name))
            if found is Found.OURS:
                pending.claimed = True
                fine.append(pending)
                continue
            if first is None or found is Found.OPEN:
                self._wait(pending)
            else:
                metrics.of(metrics.claims, "resent").inc()
                self._desk.resent(pending, first)
            del left[pending]
        return fine

    async def _of_id(
        self, pending: Pending, mine: Claim, held: Mapping[str, Claim | None], recorded: Claim | None
    ) -> tuple[Found, Claim | None]:
        """Whose the id of a message is, and the claim of who has it."""
        if mine.name not in held:
            if recorded is None:
                return Found.OURS, None
            self._done.append(mine)  # of a job that chose no id, or whose claim is gone already
            return Found.TAKEN, recorded
        other = held[mine.name]
        if other is None:
            return Found.OPEN, None
        if recorded is not None and not other.done:
            other = replace(other, done=True)
            self._done.append(other)  # whoever published it could not mark it
        found = judge_id(mine, other, clock.now_ms(), pending.again)
        if found is Found.OURS:
            pending.again = True
            if other.digest != mine.digest and not await self._store.ids.replace(other, mine):
                return Found.OPEN, None
        return found, other

    async def _claim_keys(self, batch: Sequence[Pending], left: dict[Pending, None]) -> None:
        """Claim the unique keys of messages whose ids are theirs, and let each go on."""
        wanted = _first_of_each(batch, _CLAIMS[1])
        held = await self._store.keys.make([claim for claim, _ in wanted.values()])
        states = await self._store.states([claim.document for claim in held.values() if claim is not None])
        for pending in batch:
            found, mine, other = Found.OURS, pending.job.key_claim, None
            if mine is not None:
                found = Found.OPEN
                if wanted[mine.name][1] is pending:
                    found, other = await self._of_key(pending, mine, held, states)
            if found is Found.OURS:
                metrics.of(metrics.claims, "made").inc()
                self._desk.proceed(pending)
            elif other is None or found is Found.OPEN:
                self._wait(pending)
            else:
                metrics.of(metrics.claims, "duplicate").inc()
                self._desk.duplicate(pending, other.job)
            del left[pending]

    async def _of_key(
        self, pending: Pending, mine: Claim, held: Mapping[str, Claim | None], states: Mapping[str, JobState]
    ) -> tuple[Found, Claim | None]:
        """Whose the unique key of a message is, and the claim of who has it."""
        if mine.name not in held:
            return Found.OURS, None
        other = held[mine.name]
        if other is None:
            return Found.OPEN, None
        found = judge_key(mine, other, states.get(other.document), clock.now_ms(), pending.again)
        if found is Found.OURS and other.job != mine.job and not await self._store.keys.replace(other, mine):
            return Found.OPEN, None
        return found, other

    async def _mark(self) -> None:
        while True:
            await asyncio.sleep(MARK_EVERY)
            try:
                await self._mark_done()
            except DatabaseError as error:
                _logger.warning("claims cannot be marked done; kept for later", error=type(error).__name__)
                await asyncio.sleep(PAUSE)
            except Exception:
                _logger.exception("claims cannot be marked done")

    async def _mark_done(self) -> None:
        done, self._done = self._done, []
        ids = [claim for claim in done if claim.expires_at is None]
        keys = [claim for claim in done if claim.expires_at is not None]
        try:
            for claims, those in ((self._store.ids, ids), (self._store.keys, keys)):
                if those:
                    await claims.mark_done(those)
        except BaseException:
            self._done = done + self._done
            raise

    async def _probe(self) -> None:
        """Ask whether MongoDB is back, with nothing that a message would have to wait for."""
        while True:
            if not self._answers:
                with contextlib.suppress(DatabaseError, TimeoutError):
                    async with asyncio.timeout(ANSWER):
                        await self._database.ping()
                    self._answers = True
            await asyncio.sleep(PAUSE)


def _first_of_each(
    batch: Sequence[Pending], claim_of: Callable[[Job], Claim | None]
) -> dict[str, tuple[Claim, Pending]]:
    """By name, the claims to make, with the messages that make them: of several with one name, the first."""
    wanted: dict[str, tuple[Claim, Pending]] = {}
    for pending in batch:
        if (claim := claim_of(pending.job)) is not None:
            wanted.setdefault(claim.name, (claim, pending))
    return wanted

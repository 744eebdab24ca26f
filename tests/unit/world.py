"""One job in a small world of services that die at any moment: intake, workers, the delay ladder, operators.

The decisions are the product's own (`after`, `without_handler`, `new_run`); the world holds only what brokers and
processes hold: deliveries, running handlers, messages on the ladder, parked ones, and the events that were told.
Every step may be delivered again after it was done (its acknowledgement was lost), which forks the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dispatcher.core.lifecycle import FINAL, PARKED
from dispatcher.core.outcome import Execution, Next, after, new_run, without_handler
from dispatcher.core.retry import RetryPolicy
from schemas import Accepted, Ended, ErrorInfo, Event, JobState, Moved, Outcome, Rerun, Started, WorkMessage
from schemas.events import about
from tests.unit.samples import NOW, make_work

ERRORS = (ErrorInfo(type="ValueError", message="no"), ErrorInfo(type="OSError", message="away", traceback="…"))
GOOD = (Outcome.SUCCEEDED, Outcome.SNOOZED)
#: A worker puts a job without a handler off by this long, and gives it up after that long, in seconds.
PUT_OFF, GIVE_UP = 5.0, 8.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A step in a work queue, and the state in which it waits there."""

    work: WorkMessage
    state: JobState
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """An execution that a worker holds, with the delivery it will acknowledge."""

    delivery: Delivery
    execution: str
    started_at: int


@dataclass(slots=True)
class World:
    """Where everything of one job is."""

    policy: RetryPolicy = field(default_factory=lambda: RetryPolicy(max_attempts=3))
    now: int = NOW
    queue: list[Delivery] = field(default_factory=list)
    running: list[Running] = field(default_factory=list)
    ladder: list[Delivery] = field(default_factory=list)
    parked: list[WorkMessage] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)
    started: int = 0
    #: The executions of which history hears.
    executions: set[str] = field(default_factory=set)
    #: Called with every step that follows another: what was executed, from which state, and where it goes.
    watch: Callable[[WorkMessage, JobState, Next], None] = lambda work, state, following: None

    def accept(self) -> None:
        """Intake takes the job in; a second time when its acknowledgement was lost."""
        work = make_work(tags=("t",), accepted_at=self.now)
        self.queue.append(Delivery(work, JobState.QUEUED))
        self.told.append(Accepted(**about(work), key_id="k", payload=work.payload, tags=work.tags))

    def start(self, which: int, tell: bool) -> Running:
        """A worker takes a delivery and runs its handler; a start that a quick end overtakes is never told."""
        delivery = self.queue.pop(which % len(self.queue))
        self.now = max(self.now, delivery.work.due_at or 0)
        self.started += 1
        running = Running(delivery, f"e{self.started}", self.now)
        self.executions.add(running.execution)
        self.running.append(running)
        if tell:
            self.told.append(Started(**self._common(running)))
        return running

    def crash(self, which: int) -> None:
        """The worker dies while the handler runs: the step is delivered again."""
        running = self.running.pop(which % len(self.running))
        if not any(isinstance(e, Started) and e.execution == running.execution for e in self.told):
            self.executions.remove(running.execution)  # nobody ever heard of it
        self._deliver_again(running.delivery)

    def end(self, which: int, outcome: Outcome, acked: bool, execution: Execution | None = None) -> None:
        """An execution ends; the worker may die after its confirms and before its acknowledgement."""
        running = self.running.pop(which % len(self.running))
        work = running.delivery.work
        execution = execution or Execution(outcome, None if outcome in GOOD else ERRORS[which % 2], snooze=2)
        following = after(work, execution, self.policy, self.now, which % 8 / 8)
        self.watch(work, JobState.RUNNING, following)
        self.told.append(
            Ended(
                **self._common(running),
                finished_at=self.now,
                outcome=outcome,
                state=following.state,
                due_at=_due(following),
                error=execution.error,
                result={"by": running.execution} if outcome is Outcome.SUCCEEDED else None,
            )
        )
        self._go_on(running.delivery, following, acked)

    def no_handler(self, which: int, acked: bool) -> None:
        """A worker without the handler gets a delivery."""
        delivery = self.queue.pop(which % len(self.queue))
        work = delivery.work
        self.now = max(self.now, work.due_at or 0)
        following = without_handler(work, self.now, PUT_OFF, GIVE_UP)
        assert following.message is not None
        self.watch(work, delivery.state, following)
        self.told.append(
            Moved(
                **about(work),
                at=self.now,
                state=following.state,
                due_at=_due(following),
                error=following.message.error,
            )
        )
        self._go_on(delivery, following, acked)

    def leave_ladder(self, which: int) -> None:
        """A delay is over."""
        self.queue.append(self.ladder.pop(which % len(self.ladder)))

    def rerun(self, work: WorkMessage) -> WorkMessage:
        """An operator starts the run after that of ``work``, from history or from a parked message."""
        step = new_run(work)
        self.told.append(Rerun(**about(step), at=self.now, by="retry"))
        self.queue.append(Delivery(step, JobState.QUEUED))
        return step

    def _go_on(self, delivery: Delivery, following: Next, acked: bool) -> None:
        message = following.message
        if message is not None and following.delay is not None:
            self.ladder.append(Delivery(message, following.state))
        elif message is not None:
            assert following.state in PARKED
            self.parked.append(message)
        if not acked:
            self._deliver_again(delivery)

    def _deliver_again(self, delivery: Delivery) -> None:
        self.queue.append(replace(delivery, redelivered=True))

    def _common(self, running: Running) -> dict[str, Any]:
        work = running.delivery.work
        return {
            **about(work),
            "n": work.n,
            "execution": running.execution,
            "started_at": running.started_at,
            "worker": "w",
        }


def _due(following: Next) -> int | None:
    return following.message.due_at if following.message and following.delay is not None else None


#: One thing that happens: what, to which of those it may happen to, whether it is acknowledged or told, how it ends.
Act = tuple[str, int, bool, Outcome]
KINDS = ("work", "work", "rerun", "start", "crash", "end", "no_handler", "leave", "wait", "accept")


def played(acts: Sequence[Act], again: bool) -> World:
    """A world in which these acts happened, as far as they could.

    Args:
        acts: what happens, one after the other.
        again: whether intake may take the job in twice.
    """
    world = World()
    world.accept()
    for kind, which, yes, outcome in acts:
        world.now += which
        if kind == "accept" and again:
            world.accept()
        elif kind in ("accept", "work"):
            _work(world, which, yes, outcome)
        elif kind == "rerun" and (last := _ended(world)):
            world.rerun(last)
        elif kind == "wait":
            world.now += 4_000
        elif world.queue:
            _with_a_delivery(world, kind, which, yes)
        if kind == "leave" and world.ladder:
            world.leave_ladder(which)
        elif kind == "crash" and world.running:
            world.crash(which)
        elif kind == "end" and world.running:
            world.end(which, outcome, yes)
    return world


def _work(world: World, which: int, acked: bool, outcome: Outcome) -> None:
    """One whole execution of what waits, on the ladder or in the queue."""
    if world.ladder and not world.queue:
        world.leave_ladder(which)
    if world.queue:
        world.start(which, which % 2 == 0)
        world.end(-1, outcome, acked)


def _with_a_delivery(world: World, kind: str, which: int, yes: bool) -> None:
    """What happens to a step in the work queue."""
    if kind == "start":
        world.start(which, yes)
    elif kind == "no_handler":
        world.no_handler(which, yes)


def _ended(world: World) -> WorkMessage | None:
    """A step of the last run, if that run was told to have ended."""
    last = max(event.run for event in world.told)  # type: ignore[union-attr]
    if any(getattr(event, "state", None) in FINAL and event.run == last for event in world.told):  # type: ignore[union-attr]
        return make_work(tags=("t",), run=last)
    return None

"""A job's whole life as a state machine: intake, workers, ladder and operators, with a crash at every point.

Beside the product stands a model that is small enough to be believed: which runs are closed, and by what.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dispatcher.core.history import Document, merge
from dispatcher.core.lifecycle import FINAL, RERUNNABLE, STATES, is_past
from dispatcher.core.outcome import Execution, Next
from dispatcher.core.retry import RetryPolicy
from dispatcher.services.operations import work_of
from schemas import Ended, Event, JobState, Moved, Outcome, Refused, Started, WorkMessage
from tests.unit.world import ERRORS, GOOD, World

WHICH = st.integers(0, 20)


def reached_within_a_run() -> dict[JobState, set[JobState]]:
    """Where the table leads from each state, in any number of steps, without a new run."""
    ways = {state: set() if state in FINAL else set(rule.to) for state, rule in STATES.items()}
    for middle in JobState:
        for state in JobState:
            if middle in ways[state]:
                ways[state] |= ways[middle]
    return ways


REACHED = reached_within_a_run()


class JobMachine(RuleBasedStateMachine):
    """The world, the recorder's document, and what must hold between the two."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(watch=self.follows)
        self.document: Document | None = None
        self.unrecorded: list[Event] = []
        self.seen = 0
        #: The model: the first recorded end of each run, as (state, time).
        self.closed: dict[int, tuple[str, int]] = {}
        self.latest = 1
        #: How far each run is known to have come, as (step, whether it runs).
        self.furthest: dict[int, tuple[int, bool]] = {}
        self.recorded: list[Event] = []

    @initialize(attempts=st.sampled_from([3, 2, 1, 4]), jitter=st.sampled_from([0.0, 1.0]))
    def policy(self, attempts: int, jitter: float) -> None:
        """A policy, and intake takes the job in."""
        self.world.policy = RetryPolicy(max_attempts=attempts, jitter=jitter, never=("Hopeless",))
        self.world.accept()

    # ---- what happens

    @rule()
    def intake_again(self) -> None:
        """Intake died before its acknowledgement: the same message makes the job again."""
        self.world.now += 3
        self.world.accept()

    @precondition(lambda self: self.world.queue)
    @rule(which=WHICH, tell=st.booleans())
    def start(self, which: int, tell: bool) -> None:
        """A worker takes a step, and drops it where history says that its run is over."""
        delivery = self.world.queue[which % len(self.world.queue)]
        if self.over(delivery.work):
            self.world.queue.remove(delivery)
            return
        assert JobState.RUNNING in STATES[delivery.state].to
        assert delivery.work.n <= self.world.policy.max_attempts
        self.world.start(which, tell)

    @precondition(lambda self: self.world.running)
    @rule(which=WHICH)
    def crash(self, which: int) -> None:
        """A worker is killed while the handler runs."""
        self.world.crash(which)

    @precondition(lambda self: self.world.running)
    @rule(which=WHICH, wait=st.integers(0, 9_000), outcome=st.sampled_from(Outcome), acked=st.booleans())
    def end(self, which: int, wait: int, outcome: Outcome, acked: bool) -> None:
        """A handler ends in any way; the worker may be killed before it acknowledges."""
        self.world.now += wait
        self.world.end(which, outcome, acked)

    @precondition(lambda self: self.world.running)
    @rule(which=WHICH, names=st.sampled_from([("Hopeless", "Exception"), ()]), acked=st.booleans())
    def fail_for_good(self, which: int, names: tuple[str, ...], acked: bool) -> None:
        """A failure that no retry follows, whatever is left of the attempts."""
        execution = Execution(Outcome.FAILED, ERRORS[0], names, retryable=bool(names))
        before = len(self.world.parked)
        self.world.end(which, Outcome.FAILED, acked, execution)
        assert len(self.world.parked) == before + 1

    @rule(count=st.integers(1, 5), outcome=st.sampled_from(Outcome), acked=st.booleans())
    def work(self, count: int, outcome: Outcome, acked: bool) -> None:
        """Some attempts in a row, through the ladder, so that the later ones come about too."""
        for _ in range(count):
            if self.world.ladder:
                self.world.leave_ladder(0)
            if self.world.queue:
                self.start(-1, True)
            if self.world.running:
                self.world.end(-1, outcome, acked)

    @precondition(lambda self: self.world.queue)
    @rule(which=WHICH, wait=st.integers(0, 9_000), acked=st.booleans())
    def no_handler(self, which: int, wait: int, acked: bool) -> None:
        """A worker that does not know the type gets the step."""
        self.world.now += wait
        self.world.no_handler(which, acked)

    @precondition(lambda self: self.world.ladder)
    @rule(which=WHICH)
    def leave_ladder(self, which: int) -> None:
        """A delay is over."""
        self.world.leave_ladder(which)

    @rule(data=st.data())
    def record(self, data: st.DataObject) -> None:
        """The recorder takes some events in any order; those whose acknowledgement is lost come again."""
        self.hear()
        if not self.unrecorded:
            return
        batch = data.draw(st.lists(st.sampled_from(range(len(self.unrecorded))), min_size=1, unique=True))
        again = data.draw(st.sets(st.sampled_from(batch)))
        self.merge([self.unrecorded[i] for i in batch])
        self.unrecorded = [e for i, e in enumerate(self.unrecorded) if i in again or i not in batch]

    @precondition(lambda self: self.document is not None and self.document["state"] in RERUNNABLE)
    @rule()
    def retry_from_history(self) -> None:
        """`jobs retry`: the next run, made of the document."""
        assert self.document is not None
        assert JobState.QUEUED in STATES[JobState(self.document["state"])].to
        if "payload" in self.document:
            self.begins_anew(work_of(self.document))

    @precondition(lambda self: self.world.parked)
    @rule(which=WHICH)
    def replay(self, which: int) -> None:
        """`dead replay`: the next run, made of the parked message, unless it is left over from an earlier run."""
        work = self.world.parked.pop(which % len(self.world.parked))
        if self.document is not None and work.run >= self.document["run"]:
            self.begins_anew(work)

    def begins_anew(self, work: WorkMessage) -> None:
        """A new run starts at the first attempt and the first step, with nothing of the last one."""
        step = self.world.rerun(work)
        assert (step.run, step.n, step.seq) == (work.run + 1, 1, 1)
        assert (step.due_at, step.unhandled_since, step.error) == (None, None, None)
        assert (step.key, step.payload, step.tags) == (work.key, work.payload, work.tags)

    # ---- what must hold

    def over(self, work: WorkMessage) -> bool:
        """What history tells a worker about a step."""
        doc = self.document
        return doc is not None and is_past(work.run, work.seq, doc["run"], doc["seq"], JobState(doc["state"]))

    def follows(self, work: WorkMessage, state: JobState, following: Next) -> None:
        """The table knows every move; the step grows by one, the attempt by one after a failure alone."""
        assert following.state in STATES[state].to
        step, error = following.message, following.state in (JobState.FAILED, JobState.TIMED_OUT)
        assert (step is None) is (following.state in FINAL and not error)
        if step is None:
            return
        assert step.run == work.run
        assert (following.delay is None) is error
        assert step.seq == work.seq + (not error)
        assert step.n == work.n + (following.state is JobState.RETRYING)
        assert step.n <= self.world.policy.max_attempts
        if following.delay is not None:
            assert step.due_at is not None
            assert self.world.now <= step.due_at

    def hear(self) -> None:
        """What was told since is for the recorder."""
        self.unrecorded += self.world.told[self.seen :]
        self.seen = len(self.world.told)

    def merge(self, events: list[Event]) -> None:
        """Record events; the model learns of them one by one."""
        old = self.document
        self.document = merge(old, events)
        self.recorded += events
        for event in events:
            assert not isinstance(event, Refused)
            self.latest = max(self.latest, event.run)
            later = isinstance(event, Ended | Moved) and event.state not in FINAL
            place = (event.seq + later, isinstance(event, Started))
            self.furthest[event.run] = max(self.furthest.get(event.run, place), place)
            if getattr(event, "state", None) in FINAL:
                at = getattr(event, "finished_at", None) or event.at  # type: ignore[union-attr]
                self.closed.setdefault(event.run, (event.state, at))  # type: ignore[union-attr]
        if old is not None:
            assert self.document["run"] >= old["run"]
            before, now = JobState(old["state"]), JobState(self.document["state"])
            assert now == before or now in REACHED[before] or self.document["run"] > old["run"]
        assert merge(self.document, events) == self.document

    @invariant()
    def the_first_recorded_end_of_a_run_stands(self) -> None:
        """The document is in the latest run: ended by that run's first end, or else at its furthest step."""
        if self.document is None:
            return
        assert self.document["run"] == self.latest
        stands = (self.document["state"], self.document["finished_at"])
        if self.latest in self.closed:
            assert stands == self.closed[self.latest]
        else:
            assert self.document["finished_at"] is None
            assert self.document["state"] not in FINAL
            assert (self.document["seq"], self.document["state"] == "running") == self.furthest[self.latest]

    @invariant()
    def attempts_are_in_order_and_no_more_than_allowed(self) -> None:
        """One entry an execution; a fork repeats a number, and never passes the policy's."""
        if self.document is None:
            return
        attempts = self.document["attempts"]
        order = [(a["run"], a["n"], a["started_at"]) for a in attempts]
        assert order == sorted(order)
        found = Counter(a["execution"] for a in attempts)
        assert set(found.values()) <= {1}
        assert found.keys() <= self.world.executions
        assert all(1 <= a["n"] <= self.world.policy.max_attempts for a in attempts)
        ended = {e.execution: e.outcome for e in self.recorded if isinstance(e, Ended)}
        assert {a["execution"]: a["outcome"] for a in attempts if a["outcome"]} == ended

    def teardown(self) -> None:
        """Everything comes to an end: no step is stuck, every execution is in history, nothing is undone."""
        world = self.world
        for _ in range(1_000):
            if world.running:
                world.end(0, Outcome.SUCCEEDED, True)
            elif world.ladder:
                world.leave_ladder(0)
            elif world.queue:
                world.start(0, False)
            else:
                break
        assert (world.running, world.ladder, world.queue) == ([], [], [])
        self.hear()
        if not self.unrecorded and self.document is None:
            return
        self.merge([*self.unrecorded, *world.told])
        self.the_first_recorded_end_of_a_run_stands()
        self.attempts_are_in_order_and_no_more_than_allowed()
        assert self.document is not None
        assert self.document["state"] in FINAL
        assert {a["execution"] for a in self.document["attempts"]} == world.executions
        failed = [a for a in self.document["attempts"] if a["outcome"] and a["outcome"] not in GOOD]
        assert all("error" in a for a in failed)
        # in whatever pieces it was recorded, the document is that of its events
        assert self.document == merge(None, self.recorded)


TestJob = JobMachine.TestCase
TestJob.settings = settings(max_examples=100, stateful_step_count=30)

"""Gathering a job's events: nothing is kept longer than allowed, nothing is lost or given twice."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dispatcher.core.gathering import Gathering, Group, portions
from schemas import Accepted, Ended, Event, JobState, Outcome, Started

ABOUT = {"app": "shop", "type": "a.b", "lane": "default", "priority": "normal", "accepted_at": 1}
RUNNING = {"n": 1, "execution": "e", "started_at": 2, "worker": "w"}


def accepted(job: str) -> Event:
    """A job's beginning."""
    return Accepted(**ABOUT, id=job, key_id="k", payload={})


def started(job: str) -> Event:
    """Still no more than a beginning."""
    return Started(**ABOUT, **RUNNING, id=job)


def ended(job: str) -> Event:
    """More than a beginning."""
    return Ended(**ABOUT, **RUNNING, id=job, finished_at=3, outcome=Outcome.SUCCEEDED, state=JobState.SUCCEEDED)


def test_a_beginning_is_held_and_then_given() -> None:
    """Until its end comes, or until it was held long enough."""
    gathering: Gathering[str] = Gathering()
    gathering.add("m1", accepted("a"), 10.0)
    gathering.add("m1", accepted("b"), 10.0)
    gathering.add("m2", started("a"), 10.5)
    assert gathering.take(10.9, hold=1.0) == []
    gathering.add("m3", ended("b"), 10.9)
    (b,) = gathering.take(10.9, hold=1.0)
    assert (b.id, b.sources) == ("shop:b", ["m1", "m3"])
    (a,) = gathering.take(11.0, hold=1.0)
    assert (a.id, [type(e) for e in a.events]) == ("shop:a", [Accepted, Started])
    assert len(gathering) == 0


def test_nothing_is_held_when_it_is_quiet() -> None:
    """A hold of nothing gives everything at once."""
    gathering: Gathering[int] = Gathering()
    gathering.add(1, accepted("a"), 5.0)
    assert len(gathering.take(5.0, hold=0.0)) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([accepted, started, ended]), st.booleans())))
def test_every_event_is_given_once(steps: list[tuple[str, object, bool]]) -> None:
    """Whatever the order, what was added is taken out exactly once, with the message that brought it."""
    gathering: Gathering[int] = Gathering()
    added, taken, now = [], [], 0.0
    for number, (job, make, take) in enumerate(steps):
        event = make(job)  # type: ignore[operator]
        gathering.add(number, event, now)
        added.append((number, event))
        now += 0.3
        if take:
            taken += gathering.take(now, hold=1.0)
    taken += gathering.take(now, hold=0.0)
    given_out = [pair for group in taken for pair in zip(group.sources, group.events, strict=True)]
    assert sorted(given_out, key=lambda pair: pair[0]) == added


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([accepted, started, ended]), st.integers(0, 9))),
    st.integers(0, 12),
)
@example([("a", ended, 1), ("a", started, 0)], 12)
def test_a_job_is_held_as_long_as_only_its_beginning_is_known_and_no_longer(
    steps: list[tuple[str, object, int]], hold: int
) -> None:
    """Against a plain table: what is given is done or was held long enough, and nothing else is kept."""
    gathering: Gathering[int] = Gathering()
    waiting: dict[str, tuple[int, bool]] = {}
    now = 0
    for job, make, wait in steps:
        gathering.add(now, make(job), now)  # type: ignore[operator]
        since, done = waiting.get(job, (now, False))
        waiting[job] = (since, done or make is ended)
        now += wait
        if wait % 2:
            continue
        due = {job for job, (since, done) in waiting.items() if done or now - since >= hold}
        assert {group.id for group in gathering.take(now, hold)} == {f"shop:{job}" for job in due}
        waiting = {job: known for job, known in waiting.items() if job not in due}
        assert len(gathering) == len(waiting)
    gathering.clear()
    assert gathering.take(now, 0) == []
    assert len(gathering) == 0


@given(st.lists(st.integers(1, 9), max_size=30), st.integers(1, 10))
def test_portions_keep_the_limit(sizes: list[int], limit: int) -> None:
    """No portion holds more events than allowed, but for one group that is larger by itself."""
    groups = [Group(str(i), 0.0, [ended("a")] * size, [0] * size) for i, size in enumerate(sizes)]
    made = list(portions(groups, limit))
    assert [g for portion in made for g in portion] == groups
    assert all(len(p) == 1 or sum(len(g.events) for g in p) <= limit for p in made)

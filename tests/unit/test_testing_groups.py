"""Simulations with groups: members wait for one another, in virtual time, and are jobs by themselves again then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers import BatchContext, Registry
from consumers.testing import SimulatedJob, Simulation

jobs = Registry()


@jobs.handler("post")
async def post(letters: list[dict[str, Any]], ctx: BatchContext) -> list[Any]:
    """Takes 3 seconds; fails those to nobody as long as they are not alone."""
    ctx.log.info("posting")
    ctx.progress(len(letters))
    await asyncio.sleep(3)
    together = len(letters) > 1
    return [
        LookupError("unknown") if together and letter.get("to") == "nobody" else [ctx.id, len(letters)]
        for letter in letters
    ]


@jobs.handler("lone")
async def lone(payload: dict[str, Any]) -> str:
    """Takes one payload."""
    await asyncio.sleep(1)
    return "alone"


@jobs.handler("slow", timeout=5)
async def slow(letters: list[dict[str, Any]]) -> None:
    """Takes an hour."""
    await asyncio.sleep(3_600)


def member(sim: Simulation, *, key: str = "k", size: int = 3, wait: float = 10, to: str = "", **fields: Any) -> Any:
    """Submit a member of a group."""
    group = {"key": key, "max_size": size, "max_wait": wait}
    return sim.submit(fields.pop("type", "post"), {"to": to}, group=group, **fields)


def sizes(members: list[SimulatedJob]) -> list[int]:
    """How many each was one of."""
    return [job.result[1] for job in members]


def test_a_full_group_starts_at_once() -> None:
    """Its members are one execution each, of one batch; the next opens another group."""
    with Simulation(jobs) as sim:
        four = [member(sim) for _ in range(4)]
        sim.advance(3)
        assert [job.state for job in four] == ["succeeded"] * 3 + ["buffered"]
        assert sizes(four[:3]) == [3] * 3
        (batch,) = {job.document["batch"] for job in four[:3]}
        assert {job.result[0] for job in four[:3]} == {batch}
        assert [[attempt["batch"] for attempt in job.attempts] for job in four[:3]] == [[batch]] * 3
        assert [job.document["progress"]["done"] for job in four[:3]] == [3] * 3
        assert [[line.event for line in job.logs] for job in four] == [["posting"]] * 3 + [[]]
        sim.run()
        assert (sizes(four)[3], sim.elapsed) == (1, 13)


def test_a_group_waits_from_its_first_member_on() -> None:
    """As long as that said; what came first holds."""
    with Simulation(jobs) as sim:
        first = member(sim)
        sim.advance(4)
        second = member(sim, wait=1, size=2)
        sim.advance(5.9)
        assert [job.state for job in (first, second)] == ["buffered"] * 2
        sim.advance(0.1)
        assert [job.state for job in (first, second)] == ["running"] * 2
        sim.run()
        assert (sizes([first, second]), sim.elapsed) == ([2, 2], 13)


def test_what_has_another_key_type_or_priority_is_another_group() -> None:
    """And a job without a group waits for none."""
    with Simulation(jobs) as sim:
        apart = [member(sim), member(sim, key="other"), member(sim, priority="high"), sim.submit("post")]
        sim.run()
        assert sizes(apart) == [1] * 4
        assert apart[3].result[0] == apart[3].id


def test_a_member_that_fails_is_tried_again_alone() -> None:
    """As a list of one, and its siblings are not run again."""
    with Simulation(jobs) as sim:
        nobody, ann = member(sim, to="nobody", size=2, retry={"base": 10}), member(sim, size=2)
        sim.run()
        assert (nobody.outcomes, nobody.result) == (["failed", "succeeded"], [nobody.id, 1])
        assert ["batch" in attempt for attempt in nobody.attempts] == [True, False]
        assert (ann.outcomes, sizes([ann]), sim.elapsed) == (["succeeded"], [2], 3 + 10 + 3)


def test_a_member_that_fails_for_good_is_parked_and_run_again_alone() -> None:
    """Its new run is in no group."""
    with Simulation(jobs) as sim:
        nobody, _ = member(sim, to="nobody", size=2, retry={"max_attempts": 1}), member(sim, size=2)
        sim.run()
        assert sim.parked == [nobody]
        sim.retry(nobody)
        sim.advance(3)
        assert (nobody.state, nobody.result) == ("succeeded", [nobody.id, 1])


def test_a_handler_of_one_payload_gets_them_one_by_one() -> None:
    """Though they come together; each takes a place."""
    with Simulation(jobs, concurrency=2) as sim:
        members = [member(sim, type="lone") for _ in range(3)]
        sim.run()
        assert [job.result for job in members] == ["alone"] * 3
        assert len({job.attempts[0]["batch"] for job in members}) == 1
        assert sim.elapsed == 2


def test_a_batch_takes_one_place() -> None:
    """Whatever it holds; the next waits for that."""
    with Simulation(jobs, concurrency=1) as sim:
        members = [member(sim, size=2) for _ in range(4)]
        sim.run()
        assert (sizes(members), sim.elapsed) == ([2] * 4, 6)


def test_a_delayed_member_joins_when_it_is_due() -> None:
    """And waits from then on."""
    with Simulation(jobs) as sim:
        late, early = member(sim, delay=5, size=2, wait=20), member(sim, size=9, wait=4)
        sim.advance(4.5)
        assert (late.state, early.state) == ("scheduled", "running")
        sim.advance(1)
        third = member(sim, size=9)
        sim.advance(0)
        assert (late.state, third.state) == ("running", "running")
        sim.run()
        assert sizes([late, early, third]) == [2, 1, 2]


def test_a_member_that_expires_while_it_waits_is_not_in_the_list() -> None:
    """The others are."""
    with Simulation(jobs) as sim:
        gone, other = member(sim, expires=5), member(sim)
        sim.run()
        assert (gone.state, gone.outcomes) == ("expired", [])
        assert sizes([other]) == [1]


@pytest.mark.parametrize(("timeouts", "seconds"), [((None, None), 5), ((7, None), 7), ((1, 2), 2)])
def test_a_batch_may_take_as_long_as_any_of_its_members(timeouts: tuple[Any, ...], seconds: float) -> None:
    """The message's timeout, or the handler's."""
    with Simulation(jobs) as sim:
        fields = [{} if timeout is None else {"timeout": timeout} for timeout in timeouts]
        members = [member(sim, type="slow", size=2, retry={"max_attempts": 1}, **each) for each in fields]
        sim.run()
        assert [job.state for job in members] == ["timed_out"] * 2
        assert sim.elapsed == seconds


def test_a_group_without_a_handler_fails_as_its_members_do() -> None:
    """After ten minutes."""
    with Simulation(jobs) as sim:
        members = [member(sim, type="none.such", size=2) for _ in range(2)]
        sim.run()
        assert [job.error and job.error["type"] for job in members] == ["no_handler"] * 2
        assert sim.elapsed == 600


@given(st.lists(st.tuples(st.floats(0, 9), st.sampled_from("ab"), st.integers(1, 4), st.floats(0.1, 30)), max_size=25))
def test_no_member_is_lost_and_none_waits_for_longer_than_its_group(
    steps: list[tuple[float, str, int, float]],
) -> None:
    """Whenever they come; no batch is larger than its first member allows."""
    with Simulation(jobs) as sim:
        members = []
        for pause, key, size, wait in steps:
            sim.advance(pause)
            members.append((member(sim, key=key, size=size, wait=wait), size, wait, sim.now))
        sim.run()
        batches: dict[str, list[tuple[SimulatedJob, int, float, Any]]] = {}
        for each in members:
            assert (each[0].state, each[0].outcomes) == ("succeeded", ["succeeded"])
            batches.setdefault(each[0].result[0], []).append(each)
        for batch in batches.values():
            first, size, wait, opened = batch[0]
            waited = (first.attempts[0]["started_at"] - opened).total_seconds()
            assert sizes([first]) == [len(batch)]
            assert len(batch) <= size
            assert waited < wait + 0.002
            assert len(batch) == size or waited > wait - 0.002

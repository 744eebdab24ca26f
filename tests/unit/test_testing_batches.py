"""`consumers.testing` with batch handlers: one attempt at several jobs, and simulations."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from pydantic import BaseModel

from config import load_settings
from consumers import BatchContext, Registry, Snooze
from consumers.testing import Simulation, run, run_batch

jobs = Registry()


class Letter(BaseModel):
    """One payload."""

    to: str


@jobs.handler("post", timeout=30)
async def post(letters: list[Letter], ctx: BatchContext) -> list[Any]:
    """Fails those to nobody and puts off those to the queen at the first attempt."""
    ctx.log.info("posting", letters=len(letters))
    ctx.members[0].log.debug("the first")
    ctx.progress(1, 2)
    await asyncio.sleep(3)
    first = all(member.attempt == 1 for member in ctx.members)
    endings: dict[str, Any] = {"nobody": LookupError("unknown"), "queen": Snooze(60)} if first else {}
    return [endings.get(letter.to, [letter.to, ctx.id, len(letters)]) for letter in letters]


@jobs.handler("post.isolated", isolate="process")
def isolated(letters: list[dict[str, Any]], ctx: BatchContext) -> list[Any]:
    """Runs in the test's process."""
    time.sleep(0.001)
    return [[ctx.cancelled, [member.id for member in ctx.members], member.run, member.tags] for member in ctx.members]


@jobs.handler("slow", timeout=5)
async def slow(letters: list[Letter]) -> None:
    """Takes an hour."""
    await asyncio.sleep(3_600)


@jobs.handler("lone")
async def lone(payload: Letter) -> None:
    """Takes one payload."""


def test_an_attempt_for_each_job_of_a_batch() -> None:
    """In their order, each with its own ending; one that does not fit is not handed over."""
    payloads = [Letter(to="ann"), {"to": "nobody"}, {"for": "bob"}, {"to": "queen"}]
    ann, nobody, wrong, queen = run_batch(jobs, "post", payloads)
    assert (ann.outcome, ann.result, ann.seconds) == ("succeeded", ["ann", "batch-1", 3], 3)
    assert (nobody.outcome, nobody.retryable, nobody.error and nobody.error.message) == ("failed", True, "unknown")
    assert (wrong.outcome, wrong.retryable, "ValidationError" in wrong.error_names) == ("failed", False, True)
    assert (queen.outcome, queen.snooze) == ("snoozed", 60)
    assert run_batch(jobs, "post", []) == []


def test_what_is_heard_of_a_batch_is_heard_of_every_job() -> None:
    """Its lines and its progress; those of one job are that job's."""
    first, second = run_batch(jobs, "post", [{"to": "ann"}, {"to": "bob"}], batch="b7", app="shop")
    assert [line.event for line in first.logs] == ["posting", "the first"]
    (line,) = second.logs
    assert line.fields == {"app": "shop", "batch": "b7", "members": 2, "letters": 2}
    assert [(said.done, said.total) for said in second.progress] == [(1, 2)]


def test_what_the_contexts_say_is_given() -> None:
    """To every member; an isolated one runs here."""
    for given in (False, True):
        made = run_batch(jobs, "post.isolated", [None, {"a": 1}], run=2, tags=("x",), cancelled=given)
        assert [attempt.result for attempt in made] == [[given, ["job-1", "job-2"], 2, ["x"]]] * 2
    made = run_batch(jobs, "slow", [{"to": "ann"}] * 2)
    assert [(attempt.outcome, attempt.seconds) for attempt in made] == [("timed_out", 5)] * 2
    assert run_batch(jobs, "slow", [{"to": "ann"}], timeout=7)[0].seconds == 7
    private = load_settings({"DISPATCHER_TYPES": '{"post": {"record_result": false}}'})
    assert run_batch(jobs, "post", [{"to": "ann"}], settings=private)[0].result is None


def test_only_a_batch_handler_takes_several() -> None:
    """Each error says what to do."""
    with pytest.raises(TypeError, match='handler of "lone" takes one payload: use run'):
        run_batch(jobs, "lone", [{"to": "ann"}])
    with pytest.raises(LookupError, match='did you mean "post"'):
        run_batch(jobs, "pots", [])


def test_a_job_alone_is_a_list_of_one() -> None:
    """For `run`, and in a simulation with what follows; its lines are found by its own id."""
    assert run(jobs, "post", {"to": "ann"}).result == ["ann", "job-1", 1]
    with Simulation(jobs) as sim:
        ann, nobody = (sim.submit("post", {"to": to}, id=to, retry={"base": 10}) for to in ("ann", "nobody"))
        sim.run()
        assert (ann.outcomes, ann.result) == (["succeeded"], ["ann", "ann", 1])
        assert (nobody.outcomes, nobody.result) == (["failed", "succeeded"], ["nobody", "nobody", 1])
        assert [line.event for line in nobody.logs] == ["posting", "the first"] * 2
        assert sim.elapsed == 3 + 10 + 3

"""`consumers.testing`: handlers and their retries without a broker, in virtual time."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from config import load_settings
from consumers import Cancel, Context, Registry, Snooze
from consumers.testing import Refusal, Simulation, SimulationError, run

jobs = Registry()
START = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)


class Email(BaseModel):
    """What ``email.send`` takes."""

    to: str


@jobs.handler("email.send", timeout=30)
async def send(payload: Email, ctx: Context) -> dict[str, Any]:
    """Succeeds, and logs."""
    ctx.log.info("sending", to=payload.to)
    ctx.log.debug("details")
    return {"to": payload.to, "attempt": ctx.attempt, "id": ctx.id, "app": ctx.app, "run": ctx.run}


@jobs.handler("sleep", timeout=7_200)
async def sleep(payload: dict[str, Any]) -> None:
    """Takes ``seconds``."""
    await asyncio.sleep(payload["seconds"])


@jobs.handler("flaky")
async def flaky(payload: dict[str, Any], ctx: Context) -> int:
    """Fails ``failures`` times."""
    if ctx.attempt <= payload["failures"]:
        raise ConnectionError("hung up")
    return ctx.attempt


@jobs.handler("thread")
def in_a_thread(payload: dict[str, Any], ctx: Context) -> list[Any]:
    """Says where it ran."""
    time.sleep(0.02)
    return [threading.current_thread() is not threading.main_thread(), ctx.cancelled]


@jobs.handler("process", isolate="process")
def isolated(payload: dict[str, Any]) -> str:
    """Runs in the test's process."""
    return "here"


@jobs.handler("process.async", isolate="process")
async def isolated_async(payload: dict[str, Any]) -> str:
    """The same, async."""
    await asyncio.sleep(3)
    return "here too"


@jobs.handler("snooze")
async def snooze(payload: dict[str, Any]) -> None:
    """Puts itself off for ever."""
    raise Snooze(60)


@jobs.handler("cancel")
async def cancel(payload: dict[str, Any]) -> None:
    """Ends itself."""
    raise Cancel("nothing to do")


@jobs.handler("unstorable")
async def unstorable(payload: dict[str, Any]) -> object:
    """Returns what is no JSON."""
    return object()


@jobs.handler("to.thread", timeout=1)
async def to_thread(payload: dict[str, Any]) -> None:
    """Waits for a thread of its own."""
    await asyncio.to_thread(time.sleep, 0.05)


@jobs.handler("progress")
async def progress(payload: dict[str, Any], ctx: Context) -> None:
    """Says how far it is."""
    ctx.progress(1, 2)
    await asyncio.sleep(10)
    ctx.progress(2, 2, "done")


@jobs.handler("progress.thread")
def progress_in_a_thread(payload: dict[str, Any], ctx: Context) -> None:
    """The same in a thread."""
    ctx.progress(7)


ORDER: list[str] = []


@jobs.handler("ordered")
async def ordered(payload: dict[str, Any]) -> None:
    """Notes that it started."""
    ORDER.append(payload["name"])


def test_one_attempt_says_all_that_a_test_asks() -> None:
    """Result, outcome, and the lines of ctx.log at every level."""
    attempt = run(jobs, "email.send", {"to": "ann"}, attempt=3, id="j", app="shop", run=2)
    assert attempt.outcome == "succeeded"
    assert attempt.result == {"to": "ann", "attempt": 3, "id": "j", "app": "shop", "run": 2}
    assert attempt.error is None
    assert [(line.level, line.event) for line in attempt.logs] == [("info", "sending"), ("debug", "details")]
    assert attempt.logs[0].fields["to"] == "ann"


def test_a_payload_is_validated_and_a_model_may_be_given() -> None:
    """One that does not fit fails without a retry, as in the worker."""
    wrong = run(jobs, "email.send", {"too": "ann"})
    assert (wrong.outcome, wrong.retryable) == ("failed", False)
    assert wrong.error is not None
    assert wrong.error.type == "ValidationError"
    assert run(jobs, "email.send", Email(to="ann")).outcome == "succeeded"


def test_sleeping_costs_nothing_and_a_timeout_fires_at_once() -> None:
    """An hour of sleep, and a timeout of half an hour, in less than a second."""
    began = time.monotonic()
    slept = run(jobs, "sleep", {"seconds": 3_600})
    assert (slept.outcome, slept.seconds) == ("succeeded", 3_600)
    late = run(jobs, "sleep", {"seconds": 3_600}, timeout=1_800)
    assert (late.outcome, late.seconds) == ("timed_out", 1_800)
    assert "TimeoutError" in late.error_names
    assert time.monotonic() - began < 30


def test_every_kind_of_handler_runs_and_every_way_to_end_is_an_outcome() -> None:
    """Threads, isolated handlers, Snooze, Cancel, a result that cannot be kept."""
    assert run(jobs, "thread").result == [True, False]
    assert run(jobs, "thread", cancelled=True).result == [True, True]
    assert run(jobs, "process").result == "here"
    isolated_one = run(jobs, "process.async")
    assert (isolated_one.result, isolated_one.seconds) == ("here too", 3)
    assert run(jobs, "snooze").snooze == 60
    ended = run(jobs, "cancel")
    assert ended.outcome == "cancelled"
    assert ended.error is not None
    assert ended.error.message == "nothing to do"
    bad = run(jobs, "unstorable")
    assert (bad.outcome, bad.retryable) == ("failed", False)


def test_a_thread_takes_no_virtual_time() -> None:
    """While a thread works, no timeout of the loop may fire."""
    attempt = run(jobs, "to.thread")
    assert (attempt.outcome, attempt.seconds) == ("succeeded", 0)


def test_an_exception_is_named_along_its_bases() -> None:
    """By short and by full name."""
    failed = run(jobs, "flaky", {"failures": 1})
    assert failed.outcome == "failed"
    assert {"ConnectionError", "OSError", "builtins.OSError", "Exception"} <= set(failed.error_names)
    assert failed.error is not None
    assert "hung up" in (failed.error.traceback or "")


def test_an_unknown_type_names_the_nearest() -> None:
    """A mistake of the test, not an outcome."""
    with pytest.raises(LookupError, match=r'did you mean "email\.send"'):
        run(jobs, "email.sent")


def test_retries_come_after_1_2_and_4_seconds() -> None:
    """Attempts, their times, the document, and how much time passed."""
    with Simulation(jobs, start=START) as sim:
        job = sim.submit("flaky", {"failures": 3}, id="f-1", tags=["a"])
        assert (job.state, job.outcomes) == ("queued", [])
        sim.run()
        assert job.state == "succeeded"
        assert job.outcomes == ["failed", "failed", "failed", "succeeded"]
        assert [(a["started_at"] - START).total_seconds() for a in job.attempts] == [0, 1, 3, 7]
        assert job.result == 4
        assert sim.elapsed == 7
        assert sim.now == START + timedelta(seconds=7)
        document = job.document
        assert document["_id"] == "test:f-1"
        assert document["accepted_at"] == START
        assert document["finished_at"] == START + timedelta(seconds=7)
        assert document["retries"] == 3
        assert document["tags"] == ["a"]
        assert "RETRYING" not in document["state"]


def test_time_advances_as_far_as_it_is_told() -> None:
    """A job can be looked at between its attempts, and while it runs."""
    with Simulation(jobs, start=START) as sim:
        job = sim.submit("flaky", {"failures": 9}, retry={"max_attempts": 2, "base": 10})
        sim.advance(0)
        assert (job.state, job.due_at) == ("retrying", START + timedelta(seconds=10))
        sim.advance(9.999)
        assert job.outcomes == ["failed"]
        assert sim.parked == []
        sim.advance(0.001)
        assert (job.state, job.outcomes) == ("failed", ["failed", "failed"])
        assert sim.parked == [job]
        slow = sim.submit("sleep", {"seconds": 100})
        sim.advance(50)
        assert (slow.state, slow.outcomes) == ("running", [None])
        sim.advance(50)
        assert slow.state == "succeeded"


def test_a_new_run_begins_with_its_first_attempt() -> None:
    """As `dead replay` starts it; a job that is not over has no other run."""
    with Simulation(jobs) as sim:
        job = sim.submit("flaky", {"failures": 9}, retry={"max_attempts": 1})
        with pytest.raises(SimulationError, match="queued"):
            sim.retry(job)
        sim.run()
        sim.retry(job)
        assert (job.state, sim.parked) == ("queued", [])
        sim.run()
        assert [(a["run"], a["n"]) for a in job.attempts] == [(1, 1), (2, 1)]
        assert sim.parked == [job]


def test_jitter_draws_what_the_test_says() -> None:
    """With a chance of 0.5 and a jitter of 1, half of the delay is left."""
    with Simulation(jobs, chance=0.5) as sim:
        sim.submit("flaky", {"failures": 1}, retry={"base": 8, "jitter": 1})
        sim.run()
        assert sim.elapsed == 4


def test_a_type_without_a_handler_fails_after_ten_minutes() -> None:
    """As the contract says: put off, no attempt spent, parked with error type no_handler."""
    with Simulation(jobs) as sim:
        job = sim.submit("nobody.home")
        sim.advance(0)
        assert job.state == "scheduled"
        sim.run()
        assert (job.state, job.outcomes, sim.parked) == ("failed", [], [job])
        assert job.error is not None
        assert job.error["type"] == "no_handler"
        assert sim.elapsed == 600


def test_messages_are_refused_as_intake_refuses_them() -> None:
    """By the contract's codes; a second message with an id makes no job."""
    with Simulation(jobs, settings=load_settings({"DISPATCHER_LANES": '["default", "slow"]'})) as sim:
        for fields, code in (
            ({"payloud": {}}, "unknown_field"),
            ({"lane": "nowhere"}, "unknown_lane"),
            ({"priority": "urgent"}, "invalid_field"),
        ):
            with pytest.raises(Refusal) as refused:
                sim.submit("email.send", {"to": "ann"}, **fields)
            assert refused.value.code == code
        first = sim.submit("email.send", {"to": "ann"}, id="one", lane="slow")
        assert sim.submit("email.send", {"to": "bob"}, id="one") is first
        sim.run()
        assert len(first.attempts) == 1
        assert sim.jobs == [first]


def test_higher_priorities_start_first() -> None:
    """With one place, in the worker's order."""
    ORDER.clear()
    with Simulation(jobs, concurrency=1) as sim:
        for name in ("low", "normal", "critical"):
            sim.submit("ordered", {"name": name}, priority=name)
        sim.run()
    assert ORDER == ["critical", "normal", "low"]


def test_a_job_that_never_ends_is_no_hang() -> None:
    """The number of executions has a bound."""
    with Simulation(jobs) as sim:
        job = sim.submit("snooze")
        with pytest.raises(SimulationError, match="snooze"):
            sim.run(max_executions=50)
        assert len(job.attempts) == 50
        assert {a["n"] for a in job.attempts} == {1}


async def test_everything_works_inside_an_async_test() -> None:
    """Though a loop runs here already."""
    assert run(jobs, "sleep", {"seconds": 10}).seconds == 10
    with Simulation(jobs) as sim:
        job = sim.submit("flaky", {"failures": 1})
        sim.run()
        assert job.state == "succeeded"


async def test_sockets_are_waited_for_in_real_time() -> None:
    """A handler that talks to a server is not timed out before that can answer."""
    registry = Registry()
    listening = socket.create_server(("127.0.0.1", 0))

    @registry.handler("ask", timeout=20)
    async def ask(payload: dict[str, Any]) -> str:
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        try:
            return (await reader.readline()).decode()
        finally:
            writer.close()

    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            time.sleep(0.1)
            connection.sendall(b"hello\n")

    server = threading.Thread(target=answer)
    server.start()
    try:
        attempt = run(registry, "ask")
    finally:
        server.join()
        listening.close()
    assert (attempt.outcome, attempt.result) == ("succeeded", "hello\n")


def test_no_connection_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither to a broker nor to a database: whatever would connect fails the test."""

    def refuse(*_: object) -> None:
        raise AssertionError("it connects")

    for name in ("connect", "connect_ex", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    assert run(jobs, "email.send", {"to": "ann"}).outcome == "succeeded"
    with Simulation(jobs) as sim:
        job = sim.submit("flaky", {"failures": 1})
        sim.run()
        assert job.state == "succeeded"


def test_a_simulation_that_is_left_unclosed_leaves_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    """Its loop is closed with it; one that runs a job at its end cancels it."""
    sim = Simulation(jobs)
    sim.submit("sleep", {"seconds": 1})
    sim.run()
    del sim
    gc.collect()
    with Simulation(jobs) as other:
        slow = other.submit("sleep", {"seconds": 100})
        other.advance(1)
    assert slow.state == "running"
    assert [str(warning.message) for warning in recwarn if "VirtualLoop" in str(warning.message)] == []


def test_a_document_is_json_but_for_its_times() -> None:
    """What stands in it could stand in MongoDB."""
    with Simulation(jobs) as sim:
        job = sim.submit("email.send", {"to": "ann"}, timeout=5, retry={"on": ["OSError"]})
        sim.run()
        document = json.loads(json.dumps(job.document, default=str))
    assert document["payload"] == {"to": "ann"}
    assert document["retry"] == {"on": ["OSError"]}
    assert [line.event for line in job.logs] == ["sending", "details"]


def test_progress_is_kept() -> None:
    """Every report of one attempt; in a document the latest, while the handler runs too."""
    assert [(p.done, p.total, p.message) for p in run(jobs, "progress").progress] == [(1, 2, None), (2, 2, "done")]
    with Simulation(jobs, start=START) as sim:
        job = sim.submit("progress")
        thread = sim.submit("progress.thread")
        sim.advance(5)
        assert (job.state, job.document["progress"]["done"]) == ("running", 1)
        sim.run()
        assert job.document["progress"]["message"] == "done"
        assert job.document["progress"]["at"] == START + timedelta(seconds=10)
        assert thread.document["progress"]["done"] == 7


def test_a_start_without_a_zone_is_refused() -> None:
    """A local time would mean another moment on another machine."""
    with pytest.raises(ValueError, match="zone"):
        Simulation(jobs, start=datetime(2030, 1, 1))  # noqa: DTZ001

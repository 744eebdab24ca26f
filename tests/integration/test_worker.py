"""The worker on real servers: every outcome, from publish to history."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from consumers import Cancel, Context, Registry, Retry, Snooze
from consumers.attempts import Attempts
from consumers.worker import Worker
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import run_services
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration

jobs = Registry()


@jobs.handler("w.echo")
async def echo(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the payload."""
    return payload


@jobs.handler("w.flaky", retry=Retry(base=0.125, factor=1))
async def flaky(payload: dict[str, Any], ctx: Context) -> int:
    """Fail until the attempt that the payload names."""
    if ctx.attempt < payload["succeeds_at"]:
        raise ConnectionError("not yet")
    return ctx.attempt


@jobs.handler("w.picky", retry=Retry(base=0.125, on=(OSError,), never=(FileNotFoundError,)))
async def picky(payload: dict[str, Any]) -> None:
    """Raise what the payload names."""
    raise {"os": ConnectionError, "value": ValueError, "file": FileNotFoundError}[payload["raises"]]("as asked")


@jobs.handler("w.slow", timeout=0.2, retry=Retry(max_attempts=2, base=0.125))
async def slow(payload: dict[str, Any]) -> None:
    """Run out of time."""
    await asyncio.sleep(30)


@jobs.handler("w.snooze")
async def snooze(payload: dict[str, Any], ctx: Context) -> int:
    """Put itself off until a time."""
    if time.time() < payload["until"]:
        raise Snooze(0.25)
    return ctx.attempt


@jobs.handler("w.cancel")
async def cancel(payload: dict[str, Any]) -> None:
    """End itself."""
    raise Cancel("no longer needed")


@jobs.handler("w.thread")
def in_thread(payload: dict[str, Any], ctx: Context) -> str:
    """A sync handler."""
    time.sleep(0.02)
    return f"{ctx.app}:{ctx.id}"


@jobs.handler("w.big")
async def big(payload: dict[str, Any]) -> str:
    """Return more than is recorded."""
    return "x" * 1_000_000


@jobs.handler("w.exit", retry=Retry(max_attempts=1))
async def leave(payload: dict[str, Any]) -> None:
    """Raise what would end a process."""
    raise SystemExit(3)


@pytest_asyncio.fixture
async def shop(installed: Installation) -> AsyncIterator[tuple[Installation, str]]:
    """Intake, worker and recorder running, and a key of app ``shop``."""
    key = await installed.create_key()
    settings = installed.settings
    worker = Worker(settings, jobs, "tests.integration.test_worker:jobs")
    async with run_services(Intake(settings), Recorder(settings), worker):
        yield installed, key


Shop = tuple[Installation, str]


def outcomes(document: dict[str, Any]) -> list[tuple[int, int, str]]:
    """(run, n, outcome) of each attempt."""
    return [(a["run"], a["n"], a["outcome"]) for a in document["attempts"]]


async def test_success_is_recorded_with_its_result(shop: Shop) -> None:
    """A payload with hostile names and a 63-bit integer comes back from history exactly."""
    installation, key = shop
    payload = {"x": "$state", "a.b": 1, "$ne": 2, "n": 2**62, "deep": {"$where": [1.5, None, "é"]}, "": 0}
    installation.publish("w.echo", {"id": "exact", "payload": payload, "tags": ["a", "b"]}, key)
    document = await installation.finished("exact")
    assert document["state"] == "succeeded"
    assert document["payload"] == payload == document["result"]
    assert type(document["payload"]["n"]) is not float
    assert document["tags"] == ["a", "b"]
    assert document["app"] == "shop"
    assert document["run"] == 1
    assert outcomes(document) == [(1, 1, "succeeded")]
    attempt = document["attempts"][0]
    assert document["accepted_at"] <= attempt["started_at"] <= attempt["finished_at"] == document["finished_at"]
    assert attempt["execution"]
    assert attempt["worker"].endswith(str(os.getpid()))


async def test_failures_are_retried_until_success(shop: Shop) -> None:
    """Each attempt is an entry, and retries are counted."""
    installation, key = shop
    installation.publish("w.flaky", {"id": "third", "payload": {"succeeds_at": 3}}, key)
    document = await installation.finished("third")
    assert document["state"] == "succeeded"
    assert outcomes(document) == [(1, 1, "failed"), (1, 2, "failed"), (1, 3, "succeeded")]
    assert document["attempts"][0]["error"]["type"] == "ConnectionError"
    assert document["retries"] == 2


async def test_default_backoff_is_never_early(shop: Shop) -> None:
    """The message's retry fields beat the handler's; delays of 1/8, 1/4, 1/2 s are kept."""
    installation, key = shop
    retry = {"base": 0.125, "factor": 2, "max_attempts": 4}
    installation.publish("w.flaky", {"id": "backoff", "payload": {"succeeds_at": 4}, "retry": retry}, key)
    document = await installation.finished("backoff")
    ends = document["attempts"]
    waits = [(b["started_at"] - a["finished_at"]).total_seconds() for a, b in itertools.pairwise(ends)]
    assert len(waits) == 3
    for wait, wanted in zip(waits, (0.125, 0.25, 0.5), strict=True):
        assert wanted <= wait < wanted + 10  # a busy machine is late, never early


async def test_used_up_attempts_end_failed_and_parked(shop: Shop) -> None:
    """The parked message carries the error and can be read."""
    installation, key = shop
    installation.drain(installation.names.parked("default"))
    retry = {"max_attempts": 2, "base": 0.125}
    installation.publish("w.flaky", {"id": "dead", "payload": {"succeeds_at": 9}, "retry": retry}, key)
    document = await installation.finished("dead")
    assert document["state"] == "failed"
    assert document["error"]["type"] == "ConnectionError"
    assert "Traceback" in document["attempts"][1]["error"]["traceback"]
    parked = installation.drain(installation.names.parked("default"))
    assert len(parked) == 1
    assert b'"ConnectionError"' in parked[0][1]


@pytest.mark.parametrize(("raises", "attempts"), [("os", 5), ("value", 1), ("file", 1)])
async def test_on_and_never_match_along_the_bases(shop: Shop, raises: str, attempts: int) -> None:
    """ConnectionError is an OSError and retried; FileNotFoundError is one too, but never wins."""
    installation, key = shop
    retry = {"factor": 1, "base": 0.125}
    installation.publish("w.picky", {"id": f"picky-{raises}", "payload": {"raises": raises}, "retry": retry}, key)
    document = await installation.finished(f"picky-{raises}")
    assert document["state"] == "failed"
    assert len(document["attempts"]) == attempts


async def test_timeout_is_retried_and_ends_timed_out(shop: Shop) -> None:
    """A timeout counts as a TimeoutError; the last one makes the job timed_out."""
    installation, key = shop
    installation.publish("w.slow", {"id": "slow"}, key)
    document = await installation.finished("slow")
    assert document["state"] == "timed_out"
    assert outcomes(document) == [(1, 1, "timed_out"), (1, 2, "timed_out")]
    assert document["error"]["type"] == "TimeoutError"


async def test_timeout_of_the_message_beats_the_handlers(shop: Shop) -> None:
    """The message's timeout applies to a handler that has none."""
    installation, key = shop
    installation.publish("w.snooze", {"id": "own-timeout", "payload": {"until": time.time() + 1}, "timeout": 5.5}, key)
    document = await installation.finished("own-timeout")
    assert document["timeout"] == 5.5


async def test_snooze_spends_no_attempt(shop: Shop) -> None:
    """Every snooze is an entry with the attempt that it would have spent."""
    installation, key = shop
    installation.publish("w.snooze", {"id": "snoozed", "payload": {"until": time.time() + 0.6}}, key)
    document = await installation.finished("snoozed")
    assert document["result"] == 1
    assert document["state"] == "succeeded"
    assert {a["n"] for a in document["attempts"]} == {1}
    assert [a["outcome"] for a in document["attempts"]][-1] == "succeeded"
    assert document["attempts"][0]["outcome"] == "snoozed"


async def test_cancel_ends_the_job(shop: Shop) -> None:
    """It is final, with its reason, and not parked."""
    installation, key = shop
    installation.publish("w.cancel", {"id": "cancelled"}, key)
    document = await installation.finished("cancelled")
    assert document["state"] == "cancelled"
    assert document["error"]["message"] == "no longer needed"


async def test_sync_handlers_run_in_threads(shop: Shop) -> None:
    """Their context tells them which job they serve."""
    installation, key = shop
    installation.publish("w.thread", {"id": "threaded"}, key)
    assert (await installation.finished("threaded"))["result"] == "shop:threaded"


async def test_too_large_a_result_fails_without_retry(shop: Shop) -> None:
    """The error names the setting."""
    installation, key = shop
    installation.publish("w.big", {"id": "big"}, key)
    document = await installation.finished("big")
    assert document["state"] == "failed"
    assert len(document["attempts"]) == 1
    assert "worker.max_result_bytes" in document["error"]["message"]


async def test_system_exit_ends_the_job_not_the_worker(shop: Shop) -> None:
    """The next job runs in the same worker."""
    installation, key = shop
    installation.publish("w.exit", {"id": "leaves"}, key)
    assert (await installation.finished("leaves"))["error"]["type"] == "SystemExit"
    installation.publish("w.echo", {"id": "after-exit"}, key)
    assert (await installation.finished("after-exit"))["state"] == "succeeded"


async def test_poison_in_a_work_queue_is_parked(shop: Shop) -> None:
    """Bytes that are no work message leave the queue for ``parked``, and the worker goes on."""
    installation, _ = shop
    installation.drain(installation.names.parked("default"))
    installation.publish(installation.names.work_queue("default", "normal"), b"\xff not ours", exchange="")
    parked = await eventually(lambda: installation.drain(installation.names.parked("default")), "it is parked")
    ((headers, body),) = parked
    assert (headers.keys(), headers["x-error"], body) == ({"x-error", "x-at"}, "not a work message", b"\xff not ours")


async def test_trace_context_reaches_history(shop: Shop) -> None:
    """W3C trace headers are carried through; no other header is."""
    installation, key = shop
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"traceparent": parent, "tracestate": "a=b", "x-other": "gone"}
    installation.publish("w.echo", {"id": "traced"}, key, headers=headers)
    document = await installation.finished("traced")
    assert document["trace"] == {"traceparent": parent, "tracestate": "a=b"}
    assert "gone" not in str(document)


async def test_every_priority_and_lane_is_served(shop: Shop) -> None:
    """Five priorities in two lanes."""
    installation, key = shop
    wanted = [(lane, p) for lane in ("default", "bulk") for p in ("critical", "high", "normal", "low", "background")]
    for lane, priority in wanted:
        installation.publish("w.echo", {"id": f"{lane}-{priority}", "lane": lane, "priority": priority}, key)
    for lane, priority in wanted:
        document = await installation.finished(f"{lane}-{priority}")
        assert (document["lane"], document["priority"]) == (lane, priority)


async def test_a_fault_of_the_worker_does_not_keep_the_job(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step on which the worker itself fails goes back to its queue and runs."""
    installation, key = shop
    real, failures = Attempts.make, []

    async def failing_once(self: Attempts, step: Any) -> None:
        if not failures:
            failures.append(step)
            raise RuntimeError("a fault of ours")
        await real(self, step)

    monkeypatch.setattr(Attempts, "make", failing_once)
    installation.publish("w.echo", {"id": "after-fault"}, key)
    document = await installation.finished("after-fault")
    assert failures
    assert outcomes(document) == [(1, 1, "succeeded")]

"""Delays, expiry and deadlines, from the client's message to history."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumers import Registry
from consumers.worker import Worker
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import run_services
from tests.processes import invoked
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration

jobs = Registry()


@jobs.handler("time.plain")
async def plain(payload: dict[str, Any]) -> None:
    """Take as long as the payload says."""
    await asyncio.sleep(payload.get("seconds", 0))


@jobs.handler("time.broken")
async def broken(payload: dict[str, Any]) -> None:
    """Fail always."""
    raise ConnectionError("not today")


def a_worker(installation: Installation) -> Worker:
    """A worker of this module's handlers."""
    return Worker(installation.settings, jobs, "tests.integration.test_time:jobs")


def state_and_run(installation: Installation, job_id: str) -> tuple[str, int]:
    """Where a job stands."""
    document = installation.job(job_id) or {}
    return document["state"], document["run"]


async def test_a_short_delay_is_spent_in_the_ladder(installed: Installation) -> None:
    """Until it is due the job is `scheduled`; its wait counts from the time for which it was asked."""
    key = await installed.create_key()
    settings = installed.settings
    at = datetime.now(UTC) + timedelta(seconds=2)
    async with run_services(Intake(settings), Recorder(settings), a_worker(installed)):
        messages = [("time.plain", {"id": "s-delay", "delay": 2})]
        messages.append(("time.plain", {"id": "s-at", "run_at": at.isoformat()}))
        messages.append(("time.plain", {"id": "s-past", "run_at": "2001-01-01T00:00:00+01:00"}))
        installed.publish_many(messages, key)
        waiting = await eventually(lambda: installed.job("s-delay"), "the job is in history")
        assert (waiting["state"], waiting["due_at"]) == ("scheduled", waiting["run_at"])
        for job in ("s-delay", "s-at"):
            done = await installed.finished(job)
            assert done["attempts"][0]["started_at"] >= done["run_at"], job
            lateness = done["attempts"][0]["started_at"] - done["run_at"]
            assert done["wait_ms"] == round(lateness / timedelta(milliseconds=1))
        assert "run_at" not in await installed.finished("s-past")


async def test_a_job_that_comes_too_late_ends_expired(installed: Installation) -> None:
    """Before its first start, before a retry, and where it would be due only later; it is not parked."""
    key = await installed.create_key()
    settings = installed.settings
    async with run_services(Intake(settings), Recorder(settings)):
        installed.publish_many(
            [
                ("time.plain", {"id": "e-queued", "expires": 0.2}),
                ("time.plain", {"id": "e-delayed", "delay": 0.5, "expires": 0.4}),
                ("time.broken", {"id": "e-retry", "expires": 5, "retry": {"base": 6, "jitter": 0}}),
                ("time.plain", {"id": "e-fine", "expires": 600}),
            ],
            key,
        )
        queued = await eventually(lambda: installed.job("e-queued"), "the job is in history")
        assert queued["state"] == "queued"
        await eventually(lambda: datetime.now(UTC) > queued["expires_at"], "its time is over")
        async with run_services(a_worker(installed)):
            for job, attempts in (("e-queued", 0), ("e-delayed", 0), ("e-retry", 1)):
                done = await installed.finished(job)
                assert (done["state"], len(done["attempts"])) == ("expired", attempts), job
                assert done["finished_at"] is not None
            assert (await installed.finished("e-fine"))["state"] == "succeeded"
            assert (await invoked(installed, "jobs", "retry", "e-queued")).code == 0
            by_hand = ("succeeded", 2)  # its time is over still, but whoever starts it by hand wants it to run
            await eventually(lambda: state_and_run(installed, "e-queued") == by_hand, "it runs all the same")
    assert installed.depth(installed.names.parked("default")) == 0


async def test_a_deadline_is_measured_and_not_enforced(installed: Installation) -> None:
    """A job that takes longer ends as it would have, marked."""
    key = await installed.create_key()
    settings = installed.settings
    async with run_services(Intake(settings), Recorder(settings), a_worker(installed)):
        late = {"id": "d-late", "deadline": 0.1, "payload": {"seconds": 0.3}}
        installed.publish_many([("time.plain", late), ("time.plain", {"id": "d-fine", "deadline": 60})], key)
        done = await installed.finished("d-late")
        assert (done["state"], done["breached"]) == ("succeeded", True)
        assert "breached" not in await installed.finished("d-fine")
        waits = ["publish", "time.plain", "--id", "d-waits", "--delay", "50", "--deadline", "0.01", "--json"]
        assert (await invoked(installed, *waits, env={"DISPATCHER_API_KEY": key})).json["status"] == "accepted"
        await eventually(lambda: installed.job("d-waits"), "the job is in history")
        listed = (await invoked(installed, "jobs", "list", "--breached", "--type", "time.plain", "--json")).json
        assert sorted(doc["id"] for doc in listed) == ["d-late", "d-waits"]
        assert "due" in (await invoked(installed, "jobs", "list", "--state", "scheduled")).out
        stats = (await invoked(installed, "stats", "--json")).json
        assert (stats["breached"]["total"], stats["breached"]["by_app"]["shop"]) == (1, 1)

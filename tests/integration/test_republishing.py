"""A broker was lost or restored: what history calls unfinished is published anew, and what has ended does not run."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from config import Settings
from consumers import BatchContext, Context, Registry
from consumers.worker import Worker
from dispatcher import Client, composition
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from dispatcher.services.scheduler import Scheduler
from tests.conftest import make_settings, run_services
from tests.processes import invoke, invoked
from tests.support import Installation, eventually, finished_job
from tests.unit.samples import make_work

pytestmark = pytest.mark.integration

jobs = Registry()
#: How often each job was started.
ran: Counter[str] = Counter()


@jobs.handler("lost.plain")
async def plain(payload: dict[str, Any], ctx: Context) -> None:
    """Counts, and fails where it is told to."""
    ran[ctx.id] += 1
    if ctx.attempt <= payload.get("failures", 0):
        raise ConnectionError("not yet")


@jobs.handler("lost.member")
async def members(payload: list[dict[str, Any]], ctx: BatchContext) -> None:
    """Counts the members."""
    ran.update(member.id for member in ctx.members)


def a_worker(settings: Settings) -> Worker:
    """A worker of this module's handlers."""
    return Worker(settings, jobs, "tests.integration.test_republishing:jobs")


def lose(installation: Installation) -> int:
    """Take everything out of every queue, as a broker without its disk has it; returns how many messages."""
    queues = composition.topology_of(installation.settings).queues
    return sum(len(installation.drain(queue.name)) for queue in queues)


def states(installation: Installation) -> dict[str, str]:
    """The states of all jobs by id."""
    return {doc["id"]: doc["state"] for doc in installation.db.jobs.find({}, {"id": 1, "state": 1})}


def ended(installation: Installation) -> set[str]:
    """The jobs that succeeded."""
    return {job for job, state in states(installation).items() if state == "succeeded"}


LOST = {"retried", "delayed", "member-0", "member-1", "member-2"}


async def publish(client: Client) -> None:
    """Jobs of every kind."""
    for number in range(20):
        await client.publish("lost.plain", {}, id=f"plain-{number}", priority=("high", "low")[number % 2])
    await client.publish("lost.plain", {"failures": 1}, id="retried", retry={"base": 3600})
    await client.publish("lost.plain", {}, id="delayed", delay=30)
    await client.publish("lost.plain", {}, id="next-week", delay=604_800)
    for number in range(3):
        await client.publish("lost.member", {}, id=f"member-{number}", group={"key": "g", "max_wait": 900})


async def test_what_the_broker_lost_runs(installed: Installation) -> None:
    """Jobs of every kind are accepted and lost: each ends, once; what waits in MongoDB is not published."""
    settings = installed.settings
    async with (
        run_services(Intake(settings), Recorder(settings), Scheduler(settings)),
        Client(installed.amqp_url, await installed.create_key(), prefix=installed.names.prefix) as client,
    ):
        await publish(client)
        await eventually(lambda: len(states(installed)) == 26, "all are in history")
        await eventually(lambda: installed.db.scheduled.count_documents({}) == 1, "one waits in MongoDB")
        async with run_services(a_worker(settings)):
            await eventually(lambda: states(installed)["retried"] == "retrying", "one waits for an hour")
            await eventually(lambda: len(ended(installed)) == 20, "the plain ones ended")
            said = await refused(installed)
            assert "has consumers: stop every service and worker first" in said
    lose(installed)
    # an hour later
    installed.db.jobs.update_many({"id": {"$in": sorted(LOST)}}, {"$currentDate": {"due_at": True}})
    installed.db.jobs.update_many({"group": {"$exists": True}}, {"$set": {"group.max_wait": 1.0}})
    done = (await invoked(installed, "jobs", "republish", "--all", "--yes", "--json")).json
    assert (done["started"], done["looked_at"], done["impossible"]) == (5, 6, 0)
    async with run_services(Intake(settings), Recorder(settings), a_worker(settings)):
        for job in LOST:
            assert (await installed.finished(job))["state"] == "succeeded"
    assert ran == Counter(dict.fromkeys(states(installed), 1) | {"retried": 2, "next-week": 0})
    assert states(installed)["next-week"] == "scheduled"


async def refused(installation: Installation) -> str:
    """What the command says where it does nothing."""
    finished = await asyncio.to_thread(invoke, installation, "jobs", "republish", "--all", "--yes")
    assert finished.code == 1, finished.err
    return finished.err


async def test_messages_are_not_lost(installed: Installation) -> None:
    """While a work queue holds a message nothing is published, unless it is said."""
    lose(installed)
    work = make_work(id="there", type="lost.plain")
    installed.publish_many([(installed.names.work_queue("default", "normal"), work.encode())], exchange="")
    said = await refused(installed)
    assert "work.v1.default.normal holds 1 messages" in said
    await invoked(installed, "jobs", "republish", "--type", "no.such", "--force", "--yes")
    assert lose(installed) == 1


@pytest.mark.parametrize("first", [True, False])
async def test_a_restored_step_of_a_job_that_ended(installed: Installation, first: bool) -> None:
    """A worker that asks history first drops it; another one cannot know, and runs it."""
    job = f"ended-{first}"
    settings = make_settings(
        DISPATCHER_AMQP__PREFIX=installed.names.prefix,
        DISPATCHER_MONGO__DATABASE=installed.settings.mongo.database,
        DISPATCHER_WORKER__ASK_HISTORY_FIRST=str(first).lower(),
    )
    installed.publish_many([(installed.names.history, finished_job(job, "lost.plain"))], exchange="")
    async with run_services(Recorder(settings), a_worker(settings)):
        await installed.finished(job)
        marker = make_work(id=f"marker-{first}", type="lost.plain")
        steps = [make_work(id=job, type="lost.plain"), marker]
        queue = installed.names.work_queue("default", "normal")
        installed.publish_many([(queue, step.encode()) for step in steps], exchange="")
        await installed.finished(marker.id)
        await eventually(lambda: ran[marker.id] == 1, "what came after it ran")
    assert ran[job] == (0 if first else 1)

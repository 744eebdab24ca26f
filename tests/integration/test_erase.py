"""``dispatcher jobs erase`` on real servers: of whom it is told to, everything finished goes, and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from config import Settings
from consumers import Registry, Retry
from consumers.worker import Worker
from dispatcher.edges.mongo import Database, StatisticsStore
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import make_settings, run_services
from tests.processes import command
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration

jobs = Registry()


@jobs.handler("e.good")
async def good(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the payload."""
    return payload


@jobs.handler("e.bad", retry=Retry(max_attempts=1))
async def bad(payload: dict[str, Any]) -> None:
    """Fail with it."""
    raise ValueError(payload["who"])


@pytest.fixture
def settings() -> Settings:
    """An installation for each test."""
    return make_settings()


@pytest.fixture
def installed(settings: Settings) -> Any:
    """With its topology."""
    installation = Installation(settings)
    installation.apply()
    yield installation
    installation.remove()


async def fill(installed: Installation) -> None:
    """Two apps with a good, a dead and a refused job each, and one of the first that waits."""
    settings = installed.settings
    worker = Worker(settings, jobs, "tests.integration.test_erase:jobs")
    async with run_services(Intake(settings), Recorder(settings), worker):
        for app in ("ann", "bob"):
            key = await installed.create_key(app)
            for job_type in ("e.good", "e.bad"):
                installed.publish(job_type, {"id": job_type, "payload": {"who": f"data of {app}"}}, key)
            installed.publish("e.good", {"id": "no", "wrong": 1, "payload": {"who": f"data of {app}"}}, key)
        for app in ("ann", "bob"):
            for job_type in ("e.good", "e.bad"):
                await installed.finished(job_type, app)
        await eventually(lambda: installed.db.jobs.count_documents({"state": "rejected"}) == 2, "both refusals")
    async with run_services(Intake(settings), Recorder(settings)):
        key = await installed.create_key("ann")
        installed.publish("e.good", {"id": "waits", "payload": {"who": "data of ann"}}, key)
        await eventually(lambda: installed.job("waits", "ann"), "it is recorded")


def stored(installed: Installation) -> Counter[str]:
    """Documents by app."""
    return Counter(doc["app"] for doc in installed.db.jobs.find())


def held(installed: Installation, queue: str, app: str) -> int:
    """How many messages of a queue speak of an app's data; they are taken out."""
    return sum(f"data of {app}".encode() in body for _, body in installed.drain(queue))


async def erased(installed: Installation, *arguments: str) -> Any:
    """What the command says that it did."""
    ended = await command(installed, "jobs", "erase", *arguments, "--json")
    assert ended.code == 0, ended.err
    return ended.json


async def test_an_app_is_erased_everywhere(installed: Installation) -> None:
    """Documents, parked and refused messages; what waits stays, and so does everything of others."""
    await fill(installed)
    expected = {"history": 3, "parked": 1, "rejected": 1, "unfinished": 1}
    # as a cancelled job, a waiting one, and one that history shows as finished while a new run begins to wait have them
    rows = [("e.good", 1), ("waits", 1), ("e.bad", 2)]
    waiting = {"app": "ann", "state": "waiting", "body": b"data of ann"}
    installed.db.scheduled.insert_many([waiting | {"_id": f"ann:{n}", "id": n, "run": run} for n, run in rows])
    before = stored(installed)
    assert await erased(installed, "--app", "ann", "--dry-run") == expected | {"dry_run": True}
    assert stored(installed) == before == {"ann": 4, "bob": 3}
    assert await erased(installed, "--app", "ann", "--yes") == expected | {"dry_run": False}
    assert stored(installed) == {"ann": 1, "bob": 3}
    assert installed.job("waits", "ann")
    assert {row["id"] for row in installed.db.scheduled.find()} == {"waits", "e.bad"}
    installed.db.scheduled.delete_many({})
    queues = [installed.names.parked("default"), installed.names.rejected]
    await eventually(lambda: [installed.depth(queue) for queue in queues] == [1, 1], "the rest is put back")
    for queue in queues:
        assert installed.depth(queue) == 1
        messages = installed.drain(queue)
        assert b"data of bob" in messages[0][1]
    database = Database(installed.settings.mongo.url.get_secret_value(), installed.settings.mongo.database)
    said: Counter[str] = Counter()
    for cell in await StatisticsStore(database).cells():
        said.update(cell.states)
    database.close()
    assert +said == Counter(doc["state"] for doc in installed.db.jobs.find())
    (entry,) = installed.db.audit.find({"action": "jobs.erased"})
    assert (entry["app"], entry["outcome"], entry["details"]["history"]) == ("ann", "done", 3)
    again = {"history": 0, "parked": 0, "rejected": 0, "unfinished": 1, "dry_run": False}
    assert await erased(installed, "--app", "ann", "--yes") == again


async def test_one_job_a_type_and_a_time(installed: Installation) -> None:
    """By id with its parked message; by type, where rejected is left alone; by time; one that waits is refused."""
    await fill(installed)
    one = {"history": 1, "parked": 1, "rejected": 0, "unfinished": 0, "dry_run": False}
    assert await erased(installed, "ann:e.bad", "--yes") == one
    refused = await command(installed, "jobs", "erase", "waits", "--app", "ann", "--yes")
    assert refused.code == 1
    assert "jobs cancel" in refused.err
    assert installed.job("waits", "ann")
    none = {"history": 0, "parked": 0, "rejected": 0, "unfinished": 0, "dry_run": False}
    assert await erased(installed, "--app", "bob", "--before", "1h", "--yes") == none
    typed = await erased(installed, "--app", "bob", "--type", "e.*", "--yes")
    assert typed == {"history": 3, "parked": 1, "rejected": 0, "unfinished": 0, "dry_run": False}
    refusal = await erased(installed, "bob:no", "--yes")
    assert refusal == none | {"rejected": 1}
    await eventually(lambda: installed.depth(installed.names.rejected) == 1, "the rest is put back")
    assert held(installed, installed.names.rejected, "ann") == 1
    assert json.dumps(list(installed.db.jobs.find()), default=str).count("data of bob") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--app APP"),
        (["job-1"], "APP:ID"),
        (["a:b", "--type", "x"], "not both"),
        (["--app", "a", "--type", "a*"], "--type"),
        (["--app", "a", "--before", "soon"], "--before"),
        (["--app", "ann"], "--dry-run"),
    ],
)
async def test_it_does_not_erase_by_mistake(installed: Installation, arguments: list[str], said: str) -> None:
    """Whose must be said, and --yes where nobody can be asked; exit code 2."""
    ended = await command(installed, "jobs", "erase", *arguments)
    assert ended.code == 2
    assert said in ended.err

"""Types in configuration on real servers: what holds for a type, and what of its jobs is in no history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from config import Settings
from consumers import Cancel, Context, Registry, Retry
from consumers.worker import Worker
from dispatcher.edges.mongo import explained
from dispatcher.services.intake import Intake
from dispatcher.services.operations import OperationError, Operations
from dispatcher.services.recorder import Recorder
from tests.conftest import make_settings, run_services
from tests.processes import command
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration

SECRET = "4111-1111-1111-1111"
TYPES = {
    "card.*": {"redact": ["number", "owner.*"], "retry": {"max_attempts": 2, "base": 0.125}},
    "card.quiet": {"record_payload": False, "record_result": False},
    "slow.*": {"lane": "bulk", "timeout": 0.3, "retry": {"max_attempts": 3, "base": 0.125}},
}

jobs = Registry()


class Card(BaseModel):
    """A payload of which the number must not be recorded."""

    number: str
    year: int
    owner: dict[str, str] = {}


@jobs.handler("card.pay")
async def pay(payload: Card) -> dict[str, Any]:
    """Return all of it."""
    return {"number": payload.number, "year": payload.year, "echo": [payload.model_dump()]}


@jobs.handler("card.quiet")
async def quiet(payload: dict[str, Any]) -> dict[str, Any]:
    """Return what it got."""
    return payload


@jobs.handler("card.fail")
async def fail(payload: Card) -> None:
    """Say what must not be recorded."""
    raise ValueError(f"card {payload.number} is not valid")


@jobs.handler("card.apart", isolate="process")
def apart(payload: Card) -> None:
    """The same in a child process."""
    raise ValueError(f"card {payload.number} is not valid")


@jobs.handler("card.cancel")
async def cancel(payload: Card) -> None:
    """Give a reason that repeats it."""
    raise Cancel(f"card {payload.number} is no longer needed")


@jobs.handler("slow.own", timeout=20)
async def own_timeout(payload: dict[str, Any], ctx: Context) -> str:
    """Take longer than the type's timeout, but not than its own."""
    await asyncio.sleep(payload["seconds"])
    return "done"


@jobs.handler("slow.job", retry=Retry(max_attempts=2))
async def slow(payload: dict[str, Any]) -> None:
    """Take longer than the type's timeout."""
    await asyncio.sleep(payload["seconds"])


@pytest.fixture(scope="module")
def settings() -> Settings:
    """With types."""
    return make_settings(DISPATCHER_TYPES=json.dumps(TYPES))


def services(installed: Installation) -> list[Any]:
    """All that a job needs."""
    settings = installed.settings
    return [Intake(settings), Recorder(settings), Worker(settings, jobs, "tests.integration.test_types:jobs")]


@pytest.fixture
def secretive(installed: Installation) -> Iterator[Installation]:
    """Nothing left over from another test."""
    for lane in installed.settings.lanes:
        installed.drain(installed.names.parked(lane))
    yield installed
    for name in installed.db.list_collection_names():
        for document in installed.db[name].find():
            assert SECRET not in str(document)


def card() -> dict[str, Any]:
    """A payload with what must not be recorded."""
    return {"number": SECRET, "year": 2030, "owner": {"name": f"Ann {SECRET}"}}


async def test_redacted_fields_are_in_no_document(secretive: Installation) -> None:
    """Neither of the payload nor of the result; the handler had them, and the rest is recorded."""
    key = await secretive.create_key()
    async with run_services(*services(secretive)):
        secretive.publish("card.pay", {"id": "pay", "payload": card()}, key)
        doc = await secretive.finished("pay")
    shown = {"number": "[redacted]", "year": 2030, "owner": {"name": "[redacted]"}}
    assert (doc["payload"], doc["redacted"]) == (shown, True)
    assert doc["result"] == {"number": "[redacted]", "year": 2030, "echo": [shown]}


async def test_nothing_redacted_is_in_the_queue_of_history(secretive: Installation) -> None:
    """The event is without it before it leaves intake; the work message has it."""
    key = await secretive.create_key()
    async with run_services(Intake(secretive.settings)):
        secretive.publish("card.pay", {"id": "event", "payload": card()}, key)
        secretive.publish("card.quiet", {"id": "event2", "payload": card()}, key)
        found: list[tuple[dict[str, Any], bytes]] = []

        def both() -> bool:
            found.extend(secretive.drain(secretive.names.history))
            return sum(body.count(b'"accepted"') for _, body in found) == 2

        await eventually(both, "both events")
    assert all(SECRET.encode() not in body for _, body in found)
    works = secretive.drain(secretive.names.work_queue("default", "normal"))
    assert [json.loads(body)["payload"] for _, body in works] == [card(), card()]


async def test_what_is_not_recorded_is_absent(secretive: Installation) -> None:
    """The document says so; it cannot be run again from history."""
    key = await secretive.create_key()
    async with run_services(*services(secretive)):
        secretive.publish("card.quiet", {"id": "quiet", "payload": card()}, key)
        doc = await secretive.finished("quiet")
    assert "payload" not in doc
    assert (doc["payload_omitted"], doc["result"]) == (True, None)
    ended = await command(secretive, "jobs", "retry", "shop:quiet")
    assert ended.code == 1
    assert "is not in history" in ended.err


@pytest.mark.parametrize("job_type", ["card.fail", "card.apart", "card.cancel"])
async def test_the_text_of_an_error_is_not_recorded(secretive: Installation, job_type: str) -> None:
    """Only its name is: the text may repeat what the handler was given."""
    key = await secretive.create_key()
    async with run_services(*services(secretive)):
        secretive.publish(job_type, {"id": job_type, "payload": card()}, key)
        doc = await secretive.finished(job_type)
    assert doc["error"]["type"] == ("Cancel" if job_type == "card.cancel" else "ValueError")
    assert doc["error"]["message"].startswith("not recorded")
    assert len(doc["attempts"]) == (1 if job_type == "card.cancel" else 2)


async def test_a_payload_that_does_not_fit_is_not_repeated(secretive: Installation) -> None:
    """Pydantic's message shows the input."""
    key = await secretive.create_key()
    async with run_services(*services(secretive)):
        secretive.publish("card.pay", {"id": "unfit", "payload": {"number": [SECRET], "year": "soon"}}, key)
        doc = await secretive.finished("unfit")
    assert (doc["state"], doc["error"]["type"]) == ("failed", "ValidationError")


async def test_a_dead_job_is_replayed_whole_and_not_retried_from_history(secretive: Installation) -> None:
    """Its parked message has the payload; retry says where to go."""
    key = await secretive.create_key()
    async with run_services(*services(secretive)):
        secretive.publish("card.fail", {"id": "dead", "payload": card()}, key)
        doc = await secretive.finished("dead")
        operations = Operations(secretive.settings)
        with explained(""), pytest.raises(OperationError, match="dead replay dead"):
            await operations.retry(await operations.find("dead", "shop"))
        operations.close()
        ended = await command(secretive, "dead", "replay", "shop:dead")
        assert ended.code == 0, ended.err
        doc = await eventually(
            lambda: secretive.db.jobs.find_one({"_id": "shop:dead", "run": 2, "state": "failed"}), "it ran again"
        )
    assert doc["error"]["type"] == "ValueError"
    ((_, body),) = secretive.drain(secretive.names.parked("default"))
    assert json.loads(body)["payload"] == card()


async def test_what_a_type_says_stands_behind_message_and_handler(secretive: Installation) -> None:
    """Lane, timeout and retry, field by field."""
    key = await secretive.create_key()
    async with run_services(*services(secretive)):
        secretive.publish("slow.job", {"id": "typed", "payload": {"seconds": 30}}, key)
        secretive.publish(
            "slow.job", {"id": "message", "payload": {"seconds": 1}, "lane": "default", "timeout": 20}, key
        )
        secretive.publish("slow.own", {"id": "handler", "payload": {"seconds": 1}}, key)
        typed, message, handler = [await secretive.finished(job) for job in ("typed", "message", "handler")]
    assert (typed["lane"], typed["state"], len(typed["attempts"])) == ("bulk", "timed_out", 2)
    assert "0.3 s" in typed["error"]["message"]
    waited = typed["attempts"][1]["started_at"] - typed["attempts"][0]["finished_at"]
    assert waited.total_seconds() < 1, "the base is the type's 0.125 s, not the default's 1 s"
    assert (message["lane"], message["state"]) == ("default", "succeeded")
    assert (handler["lane"], handler["state"]) == ("bulk", "succeeded")

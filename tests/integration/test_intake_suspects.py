"""Messages that were there each time when intake died: judged in a child process, and otherwise like all others.

Here only the child has the fault that kills: an intake that parsed such a message itself would accept it.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pika
import pytest
import pytest_asyncio

from dispatcher.services import intake_suspects
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import make_settings, run_services
from tests.faults import deadly
from tests.support import Installation, eventually
from tests.sweep import Taken, take

pytestmark = pytest.mark.integration

KILLER = b'{"id":"killer","payload":{"a":"' + deadly.PARSED + b'"}}'
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _deadly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children have the fault."""
    monkeypatch.setattr(intake_suspects, "CHILD_MODULE", deadly.MODULE)


@pytest_asyncio.fixture
async def emptied(installed: Installation) -> AsyncIterator[Installation]:
    """Nothing of an earlier test is left in the queues that a test looks at."""
    yield installed
    for queue in (installed.names.rejected, installed.names.work_queue("default", "normal")):
        installed.drain(queue)


async def came_back(installation: Installation, queue: str, count: int, times: int = 3) -> None:
    """So many messages of a queue were held by a process that died, so many times."""
    for _ in range(times):
        await eventually(lambda: installation.depth(queue) == count, "they are in the queue")
        with installation.channel() as channel:
            for _ in range(count):
                assert channel.basic_get(queue)[0] is not None
    await eventually(lambda: installation.depth(queue) == count, "they are back in the queue")


async def taken(installation: Installation, queue: str, count: int) -> list[Taken]:
    """Wait for so many messages of a queue, and take them out."""
    found: list[Taken] = []

    def enough() -> bool:
        found.extend(take(installation, queue))
        return len(found) >= count

    await eventually(enough, f"{count} messages in {queue}")
    assert len(found) == count
    return found


async def test_each_becomes_what_it_would_have_become(emptied: Installation) -> None:
    """Jobs with what belongs to them, refusals with their codes and no key; the one that kills is refused."""
    key = await emptied.create_key(app="apart")
    names = emptied.names
    emptied.publish("s.good", {"id": "good"}, key, headers={"traceparent": PARENT, "x-other": "gone"})
    emptied.publish("s.killer", KILLER, key)
    emptied.publish("s.bad", {"payload": {"k": key}}, key)
    emptied.publish("s.bad", {"payload": {"k": key}}, "jd_wrong")
    emptied.publish("s.bad", {"payload": {"k": key}})
    await came_back(emptied, names.intake, 5)
    async with run_services(Intake(emptied.settings), Recorder(emptied.settings)):
        (job,) = await taken(emptied, names.work_queue("default", "normal"), 1)
        refused = await taken(emptied, names.rejected, 4)
        query = {"app": "apart", "state": "rejected"}
        await eventually(lambda: emptied.db.jobs.count_documents(query) == 2, "both with a key are in history")
    assert (json.loads(job.body)["id"], job.headers) == ("good", {"traceparent": PARENT})
    reasons = [message.headers["x-rejected-reason"].partition(":")[0] for message in refused]
    assert sorted(reasons) == ["crashed_intake", "invalid_field", "malformed_key", "missing_key"]
    assert not any(message.holds(key[-36:]) for message in refused)


async def test_the_client_is_answered(emptied: Installation) -> None:
    """Accepted, or rejected with the code, as for every message."""
    key = await emptied.create_key()
    with emptied.channel() as channel:
        channel.confirm_delivery()
        reply_to = channel.queue_declare("", exclusive=True).method.queue
        for number, body in enumerate((b'{"id":"answered"}', KILLER)):
            sent = pika.BasicProperties(
                delivery_mode=2, headers={"x-api-key": key}, reply_to=reply_to, correlation_id=str(number)
            )
            channel.basic_publish(emptied.names.jobs, "s.answer", body, sent)
        await came_back(emptied, emptied.names.intake, 2)
        answers: dict[str, Any] = {}

        def arrived() -> bool:
            method, properties, body = channel.basic_get(reply_to, auto_ack=True)
            if method is not None:
                answers[properties.correlation_id] = json.loads(body)
            return len(answers) == 2

        async with run_services(Intake(emptied.settings)):
            await eventually(arrived, "both are answered")
    assert answers["0"] == {"id": "answered", "status": "accepted"}
    assert (answers["1"]["status"], answers["1"]["error"]["code"]) == ("rejected", "crashed_intake")


@pytest.mark.parametrize("exchange", ["unrouted", "intake_dead"])
async def test_strays_are_looked_at_by_the_child_too(emptied: Installation, exchange: str) -> None:
    """They are refused in any case; one that kills whoever looks for keys in it is not shown."""
    queue = getattr(emptied.names, exchange)
    bodies = [b'{"id":"stray"}', b'{"id":"' + deadly.SEEN + b'"}']
    for body in bodies:
        emptied.publish("s.stray", body, exchange=queue)
    await came_back(emptied, queue, 2)
    async with run_services(Intake(emptied.settings)):
        refused = await taken(emptied, emptied.names.rejected, 2)
    assert [message.body for message in refused] == [bodies[0], b""]
    assert all(message.headers["x-rejected-reason"].startswith("crashed_intake: ") for message in refused)
    assert refused[1].headers["x-original-size"] == len(bodies[1])


async def test_without_a_database_they_are_put_off_like_others(emptied: Installation) -> None:
    """Their keys cannot be judged; later they are, and become what they are."""
    key = await emptied.create_key(app="later")
    away = make_settings(
        DISPATCHER_AMQP__PREFIX=emptied.settings.amqp.prefix, DISPATCHER_MONGO__URL="mongodb://127.0.0.1:9/"
    )
    emptied.publish("s.later", {"id": "later"}, key)
    await came_back(emptied, emptied.names.intake, 1)
    intake = Intake(away)
    await intake.start()
    try:
        await eventually(lambda: emptied.depth(emptied.names.intake_deferred) == 1, "it is put off")
    finally:
        await intake.stop()
    async with run_services(Intake(emptied.settings)):
        (job,) = await taken(emptied, emptied.names.work_queue("default", "normal"), 1)
    assert json.loads(job.body)["id"] == "later"


async def test_500_innocents_take_seconds_and_a_stop_in_their_midst_loses_none(emptied: Installation) -> None:
    """One child judges them all; what a stopped intake had not judged is in the queue again."""
    key = await emptied.create_key()
    names = emptied.names
    ids = [f"innocent-{number}" for number in range(500)]
    emptied.publish_many([("s.innocent", {"id": job}) for job in ids], key)
    await came_back(emptied, names.intake, 500)
    queue = names.work_queue("default", "normal")
    began = time.monotonic()
    async with run_services(Intake(emptied.settings)):
        await eventually(lambda: emptied.depth(queue) > 0, "the first are jobs", every=0.001)
    async with run_services(Intake(emptied.settings)):
        await eventually(lambda: emptied.depth(queue) >= 500, "all are jobs")
    assert time.monotonic() - began < 30
    found = [json.loads(message.body)["id"] for message in take(emptied, queue)]
    assert set(found) == set(ids)

"""Prefetch counts messages, not bytes: what a service holds at once has a bound in bytes all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice, repeat

import pytest

from dispatcher import Client
from dispatcher.core.admission import Rules, Submission, admit
from dispatcher.core.keys import KeyRecord
from dispatcher.core.types import TypeTable
from dispatcher.edges import clock
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from schemas import Event
from schemas.events import encode_batches
from tests.conftest import make_settings, run_services
from tests.processes import ServiceProcess
from tests.soak import memory
from tests.soak.checks import huge_problems
from tests.support import Installation, eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

MIB = 1 << 20
#: Nobody listens there.
AWAY = "mongodb://127.0.0.1:1"


@pytest.fixture
def own() -> Iterator[Installation]:
    """An installation of this test's own."""
    installation = Installation(make_settings())
    installation.apply()
    yield installation
    installation.remove()


@asynccontextmanager
async def started(installation: Installation, *command: str, **env: str) -> AsyncIterator[int]:
    """A service; gives its process id."""
    async with ServiceProcess(installation, *command, env=env) as process:
        yield process.process.pid


async def test_of_a_message_that_is_too_large_intake_keeps_the_beginning(own: Installation) -> None:
    """Forty messages of 16 MiB, the most that RabbitMQ takes, wait for MongoDB, which is away: refused, and cut."""
    key = await own.create_key()
    body = b'{"payload": {"text": "' + b"x" * (16 * MIB - 25) + b'"}}'
    assert len(body) == 16 * MIB
    own.publish_many(repeat(("big.job", body), 40), key)
    async with started(own, "run", "intake", DISPATCHER_MONGO__URL=AWAY) as pid:
        refused = await own.rejected(40)
        peak = memory.memory(pid).peak
    print(f"peak {peak / MIB:.0f} MiB")
    assert {headers["x-rejected-reason"].partition(":")[0] for headers, _ in refused} == {"too_large"}
    assert {headers["x-original-size"] for headers, _ in refused} == {16 * MIB}
    assert {body[:22] for _, body in refused} == {body[:22]}
    assert {len(body) for _, body in refused} == {65_536}
    assert peak < 160 * MIB, peak / MIB


async def test_intake_holds_a_bounded_number_of_bytes(own: Installation) -> None:
    """Six hundred jobs as large as they may be: what it holds of them, and what is made of that, stays small."""
    key = await own.create_key()
    most = own.settings.intake.max_body_bytes
    body = b'{"payload": {"text": "' + b"x" * (most - 25) + b'"}}'
    own.publish_many(repeat(("large.job", body), 600), key)
    async with started(own, "run", "intake") as pid:
        queue = own.names.work_queue("default", "normal")
        await eventually(lambda: own.depth(queue) == 600, "all are admitted", timeout=300, every=0.5)
        peak = memory.memory(pid).peak
    print(f"peak {peak / MIB:.0f} MiB")
    assert peak < 480 * MIB, peak / MIB


def accepted(count: int, text: str) -> list[Event]:
    """Events of jobs with a large payload."""
    key = KeyRecord(id="k", app="shop", hash=b"", created_at=0)
    rules = Rules(frozenset({"default"}), TypeTable(), 1 << 20)
    submission = Submission("large.job", b'{"payload": {"text": "' + text.encode() + b'"}}')
    return [admit(submission, key, rules, clock.now_ms(), clock.random_bits()).event for _ in range(count)]


async def test_the_recorder_holds_a_bounded_number_of_bytes(own: Installation) -> None:
    """Two hundred batches of a mebibyte, as MongoDB's return finds them."""
    events = accepted(800, "x" * 250_000)
    batches = list(encode_batches(events))
    assert len(batches) == 200
    own.publish_many([(own.names.history, batch) for batch in batches], exchange="")
    async with started(own, "run", "recorder") as pid:
        await eventually(lambda: own.db.jobs.estimated_document_count() == 800, "all are recorded", timeout=300)
        peak = memory.memory(pid).peak
    print(f"peak {peak / MIB:.0f} MiB")
    assert peak < 240 * MIB, peak / MIB


@pytest.mark.long
async def test_twenty_thousand_open_groups_take_a_bounded_memory(own: Installation) -> None:
    """One small member each: all of them are gathered, none is flushed under pressure."""
    key = await own.create_key()
    async with ServiceProcess(own, "run", "intake") as process:
        pid = process.process.pid
        await process.ready()
        before = memory.memory(pid).rss
        async with Client(own.amqp_url, key, prefix=own.settings.amqp.prefix) as client:
            groups = ({"key": f"key-{number}", "max_wait": 60.0} for number in range(20_000))
            for some in iter(lambda: list(islice(groups, 500)), []):
                await asyncio.gather(*(client.publish("gathered", group=group) for group in some))
        await eventually(lambda: _gathers(process, 20_000), "all are open", timeout=120, every=0.5)
        grown = memory.memory(pid).peak - before
    print(f"grown by {grown / MIB:.0f} MiB")
    assert own.depth(own.names.work_queue("default", "normal")) == 0
    assert grown < 80 * MIB, grown / MIB


async def _gathers(process: ServiceProcess, count: int) -> bool:
    _, text = await process.get("/metrics")
    return f"dispatcher_groups_open {float(count)}" in text


async def test_large_members_are_flushed_before_they_take_much(own: Installation) -> None:
    """A thousand of 200 KiB, each in a group of its own that could wait for long: the largest go under pressure."""
    key = await own.create_key()
    text = "x" * (200 << 10)
    bodies = ({"payload": {"text": text}, "group": {"key": str(number), "max_wait": 900.0}} for number in range(1_000))
    async with started(own, "run", "intake") as pid:
        await asyncio.to_thread(own.publish_many, (("gathered", body) for body in bodies), key)
        queue = own.names.work_queue("default", "normal")
        await eventually(lambda: own.depth(queue) >= 670, "most are flushed", timeout=300, every=0.5)
        peak = memory.memory(pid).peak
    print(f"peak {peak / MIB:.0f} MiB")
    assert peak < 480 * MIB, peak / MIB


@pytest.mark.long
async def test_a_result_of_100_mb_is_refused_and_gone(own: Installation) -> None:
    """In the loop, a thread, a process: one failed attempt, a clear error, neighbours that run on, memory back."""
    key = await own.create_key()
    beside = [f"beside-{number}" for number in range(30)]
    async with (
        run_services(Intake(own.settings), Recorder(own.settings)),
        started(own, "worker", "tests.soak.handlers:jobs") as pid,
    ):
        own.publish("soak.plain", {"id": "first"}, key)
        await own.finished("first")
        before = memory.memory(pid).rss
        for kind in ("loop", "thread", "process"):
            jobs = [(f"soak.huge.{kind}", {"id": f"{kind}-{n}"}) for n in range(2)]
            own.publish_many([*jobs, *(("soak.plain", {"id": f"{kind}-{b}"}) for b in beside)], key)
            around = [await own.finished(f"{kind}-{b}") for b in beside]
            for _, job in jobs:
                assert huge_problems(await own.finished(job["id"], timeout=120), around) == []
        assert memory.descendants(pid), "the child that made one lives on"
        await eventually(lambda: memory.memory(pid).rss < before + 24 * MIB, "memory is given back", timeout=90)

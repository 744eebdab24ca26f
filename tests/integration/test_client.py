"""The Python client: many in flight, receipts, a broker that is away, a connection that is cut."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import pytest_asyncio

from dispatcher import Client
from dispatcher.client import PublishFailed, Receipt
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import run_services
from tests.processes import ServiceProcess
from tests.proxy import Proxy
from tests.support import Installation, eventually

pytestmark = pytest.mark.integration

Shop = tuple[Installation, str]


@pytest_asyncio.fixture
async def shop(installed: Installation) -> AsyncIterator[Shop]:
    """Intake and recorder running, and a key."""
    key = await installed.create_key()
    async with run_services(Intake(installed.settings), Recorder(installed.settings)):
        yield installed, key


def client(installation: Installation, key: str, url: str | None = None, timeout: float = 20) -> Client:
    """A client of the installation."""
    return Client(url or installation.amqp_url, key, prefix=installation.settings.amqp.prefix, timeout=timeout)


async def accepted(installation: Installation, job_ids: Iterable[str]) -> None:
    """Wait until every one of these jobs is a document."""
    wanted = [f"shop:{job_id}" for job_id in job_ids]
    query = {"_id": {"$in": wanted}, "state": "queued"}
    await eventually(lambda: installation.db.jobs.count_documents(query) == len(wanted), "all are in history")


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_thousands_in_flight_keep_their_ids(shop: Shop) -> None:
    """2,000 at once: each call returns the id that it gave, and all are accepted under it."""
    installation, key = shop
    ids = [f"many-{number}" for number in range(2_000)]
    async with client(installation, key) as publishing:
        given = await asyncio.gather(*(publishing.publish("c.many", {"n": n}, id=i) for n, i in enumerate(ids)))
    assert given == ids
    await accepted(installation, ids)
    for number in (0, 999, 1_999):
        assert (installation.job(f"many-{number}") or {})["payload"] == {"n": number}


async def test_an_id_is_made_where_none_is_given(shop: Shop) -> None:
    """A UUIDv7, which is what intake records."""
    installation, key = shop
    async with client(installation, key) as publishing:
        job_id = await publishing.publish("c.one")
    assert uuid.UUID(job_id).version == 7
    await accepted(installation, [job_id])


async def test_receipts_tell_accepted_from_refused(shop: Shop) -> None:
    """Many at once, each with the answer to its own question."""
    installation, key = shop
    async with client(installation, key) as submitting:
        answers = await asyncio.gather(
            *(submitting.submit("c.two", id=f"r-{n}", priority="low" if n % 2 else "urgent") for n in range(200))
        )
        stranger = await submitting.submit("C.Two")
    for number, answer in enumerate(answers):
        if number % 2:
            assert answer == Receipt(f"r-{number}", accepted=True)
        else:
            assert (answer.accepted, answer.code) == (False, "invalid_field")
            assert answer.id != f"r-{number}"
            assert answer.message
    assert stranger.code == "bad_type"
    async with client(installation, key[:-1] + "!") as submitting:
        assert (await submitting.submit("c.two")).code == "malformed_key"


async def test_without_intake_submit_times_out_and_the_job_stands(installed: Installation) -> None:
    """The job is published; only the answer is missing."""
    key = await installed.create_key()
    async with client(installed, key) as submitting:
        with pytest.raises(TimeoutError):
            await submitting.submit("c.three", id="unanswered", wait=0.3)
    async with run_services(Intake(installed.settings), Recorder(installed.settings)):
        await accepted(installed, ["unanswered"])


async def test_sync_code_publishes_from_many_threads(installed: Installation) -> None:
    """One client, eight threads, hundreds of jobs; and a whole list at once."""
    key = await installed.create_key()

    def work() -> list[str]:
        with client(installed, key) as publishing, ThreadPoolExecutor(8) as pool:
            one_by_one = list(pool.map(lambda n: publishing.publish_sync("c.sync", {"n": n}, id=f"s-{n}"), range(200)))
            receipt = publishing.submit_sync("c.sync", id="s-receipt")
            refused = publishing.submit_sync("c.sync", lane="nowhere")
            at_once = publishing.publish_many_sync([("c.sync", {"n": n}) for n in range(500)], priority="low")
        assert one_by_one == [f"s-{n}" for n in range(200)]
        assert receipt == Receipt("s-receipt", accepted=True)
        assert refused.code == "unknown_lane"
        assert len(set(at_once)) == 500
        return one_by_one + at_once

    async with ServiceProcess(installed, "up") as service:
        await service.ready()
        await accepted(installed, await asyncio.to_thread(work))


async def test_a_broker_that_is_not_there_is_named_within_the_timeout(installed: Installation) -> None:
    """PublishFailed, with the address and the job's id, when it was promised; leaving the block adds no wait."""
    port = closed_port()
    began = time.monotonic()
    with pytest.raises(PublishFailed, match=f"127.0.0.1:{port}") as failed:
        async with client(installed, "key", f"amqp://user:hush@127.0.0.1:{port}/", timeout=1) as publishing:
            await publishing.publish("c.none", id="nowhere")
    assert time.monotonic() - began < 5
    assert failed.value.job_id == "nowhere"
    assert "nowhere" in str(failed.value)
    assert "hush" not in str(failed.value)


async def test_a_broker_that_says_nothing_is_named_too(installed: Installation) -> None:
    """It takes the connection and is silent; async and sync alike."""
    async with Proxy.before(installed.amqp_url) as proxy:
        proxy.stall()
        url = proxy.url(installed.amqp_url)
        with pytest.raises(PublishFailed, match=f"127.0.0.1:{proxy.port}"):
            async with client(installed, "key", url, timeout=0.5) as publishing:
                await publishing.publish("c.none")

        def work() -> None:
            with client(installed, "key", url, timeout=0.5) as publishing:
                publishing.publish_sync("c.none")

        with pytest.raises(PublishFailed, match=f"127.0.0.1:{proxy.port}"):
            await asyncio.to_thread(work)


async def test_a_missing_topology_is_said(installed: Installation) -> None:
    """A wrong prefix, or a topology that nobody applied: the error says which exchange and what to run."""
    key = await installed.create_key()
    wrong = Client(installed.amqp_url, key, prefix="no-such-installation.", timeout=4)
    with pytest.raises(PublishFailed, match=r"no-such-installation\.jobs.*topology apply"):
        async with wrong as publishing:
            await publishing.publish("c.none")


async def test_closing_never_hangs(installed: Installation) -> None:
    """Closed at any moment of a reconnect (its exchange is missing, so it reconnects all the time), it ends.

    It leaves no task behind that cannot be cancelled, which would hold up the end of its program.
    """
    before = asyncio.all_tasks()

    async def give_up(number: int) -> None:
        lost = Client(installed.amqp_url, "key", prefix="no-such-installation.", timeout=0.2 + number / 80)
        with pytest.raises(PublishFailed):
            async with lost as publishing:
                await publishing.publish("c.none")

    await asyncio.wait_for(asyncio.gather(*map(give_up, range(40))), 30)
    left = asyncio.all_tasks() - before
    for task in left:
        task.cancel()
    if left:
        _, left = await asyncio.wait(left, timeout=30)
    assert not left, [repr(task)[:200] for task in left]


async def test_a_job_that_cannot_be_sent_harms_no_other(shop: Shop) -> None:
    """A type or body longer than RabbitMQ takes, a payload that is no JSON: an error at once, for that job alone."""
    installation, key = shop
    ids = [f"innocent-{number}" for number in range(20)]
    async with client(installation, key, timeout=5) as publishing:
        began = time.monotonic()
        given = await asyncio.gather(
            *(publishing.publish("c.four", id=job_id) for job_id in ids),
            publishing.publish("x" * 256),
            publishing.publish("c.four", {"not": "\ud800"}),
            publishing.publish("c.four", object()),
            publishing.publish("c.four", {"large": "x" * (16 << 20)}),
            return_exceptions=True,
        )
        assert time.monotonic() - began < 4
    assert given[:20] == ids
    assert all(isinstance(error, ValueError) for error in given[20:])
    await accepted(installation, ids)


async def test_close_waits_for_what_is_in_flight(shop: Shop) -> None:
    """Publishes that nobody awaited yet are confirmed when the block is left."""
    installation, key = shop
    ids = [f"flying-{number}" for number in range(300)]
    async with client(installation, key) as publishing:
        tasks = [asyncio.create_task(publishing.publish("c.five", id=job_id)) for job_id in ids]
        await asyncio.sleep(0)  # they have begun
    assert await asyncio.gather(*tasks) == ids
    await accepted(installation, ids)


async def test_a_client_is_used_inside_its_block(installed: Installation) -> None:
    """Before and after, the error says so."""
    outside = client(installed, "key")
    with pytest.raises(RuntimeError, match="with block"):
        await outside.publish("c.six")
    with pytest.raises(RuntimeError, match="with block"):
        outside.publish_sync("c.six")


async def test_a_cut_connection_loses_nothing(shop: Shop) -> None:
    """Cut three times in the middle, and refused until it knocks again: every id is accepted, as one document."""
    installation, key = shop
    ids = [f"cut-{number}" for number in range(900)]
    tasks: list[asyncio.Task[str]] = []
    async with (
        Proxy.before(installation.amqp_url) as proxy,
        client(installation, key, proxy.url(installation.amqp_url)) as publishing,
    ):
        for part in range(3):
            batch = [asyncio.create_task(publishing.publish("c.cut", id=job_id)) for job_id in ids[part::3]]
            await eventually(partial(_begun, batch), "it is under way", every=0.001)
            proxy.refusing, taken = True, proxy.taken
            assert proxy.cut() >= 1
            await eventually(lambda taken=taken: proxy.taken > taken, "it knocks again")
            proxy.refusing = False
            tasks += batch
        assert sorted(await asyncio.gather(*tasks)) == sorted(ids)
    await accepted(installation, ids)
    assert installation.db.jobs.count_documents({"type": "c.cut"}) == len(ids)


def _begun(tasks: list[asyncio.Task[str]]) -> bool:
    return any(task.done() for task in tasks)


async def test_receipts_survive_a_cut(shop: Shop) -> None:
    """The address for answers belongs to a connection; after a cut the client asks with its new one."""
    installation, key = shop
    async with (
        Proxy.before(installation.amqp_url) as proxy,
        client(installation, key, proxy.url(installation.amqp_url)) as submitting,
    ):
        assert (await submitting.submit("c.again", id="before")).accepted
        proxy.cut()
        assert (await submitting.submit("c.again", id="after")).accepted
    await accepted(installation, ["before", "after"])

"""Services as processes: probes, metrics, an orderly end, and a start while the servers are away."""

from __future__ import annotations

import asyncio
import json
import signal
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import make_settings
from tests.processes import ServiceProcess
from tests.support import Installation, eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

COMMANDS = {
    "intake": ("run", "intake"),
    "recorder": ("run", "recorder"),
    "scheduler": ("run", "scheduler"),
    "worker": ("worker", "examples.handlers:jobs"),
    "up": ("up", "--worker", "examples.handlers:jobs"),
}
AWAY = {"DISPATCHER_AMQP__URL": "amqp://guest:hush@127.0.0.1:9/", "DISPATCHER_MONGO__URL": "mongodb://127.0.0.1:9/"}

Fleet = dict[str, ServiceProcess]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fleet(installed: Installation) -> AsyncIterator[Fleet]:
    """Every command that serves, as a process each."""
    made = {name: ServiceProcess(installed, *command) for name, command in COMMANDS.items()}
    try:
        await asyncio.gather(*(service.__aenter__() for service in made.values()))
        yield made
    finally:
        await asyncio.gather(*(service.__aexit__() for service in made.values() if service.process))


async def test_each_is_alive_and_gets_ready(fleet: Fleet) -> None:
    """/healthz and /readyz say 200, and /readyz names its checks."""
    for name, service in fleet.items():
        await service.ready()
        assert (await service.get("/healthz"))[0] == 200, name
        status, body = await service.get("/readyz")
        checks = json.loads(body)["checks"]
        assert status == 200
        assert checks
        assert all(checks.values()), name
    names = {check.partition(".")[0] for check in json.loads((await fleet["up"].get("/readyz"))[1])["checks"]}
    assert names == {"intake", "recorder", "scheduler", "worker"}


async def test_a_job_goes_through_all_of_them(installed: Installation, fleet: Fleet) -> None:
    """From publish to history, and metrics that parse and count it somewhere."""
    for service in fleet.values():
        await service.ready()
    key = await installed.create_key()
    jobs = [("demo.echo", {"id": f"through-{number}"}) for number in range(20)]
    installed.publish_many([*jobs, ("demo.echo", {"id": "not/good"})], key)
    for _, body in jobs:
        assert (await installed.finished(str(body["id"])))["state"] == "succeeded"
    await eventually(lambda: installed.db.jobs.find_one({"state": "rejected"}), "the bad one is refused")

    async def counted_all() -> dict[str, float] | None:
        """What all services count together, once the recorder has counted the last event, just after its write."""
        counted: dict[str, float] = {}
        for name, service in fleet.items():
            status, text = await service.get("/metrics")
            assert status == 200, name
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    counted[sample.name] = counted.get(sample.name, 0) + sample.value
        return counted if counted["dispatcher_events_recorded_total"] >= 41 else None

    counted = await eventually(counted_all, "41 events are recorded")
    assert counted["dispatcher_jobs_accepted_total"] == 20
    assert counted["dispatcher_jobs_refused_total"] == 1
    assert counted["dispatcher_jobs_final_total"] == 20
    assert counted["dispatcher_attempts_total"] == 20
    assert "through-0" not in (await fleet["up"].get("/metrics"))[1]


async def test_unknown_pages_are_not_found(fleet: Fleet) -> None:
    """404, without a traceback in the log."""
    assert (await fleet["intake"].get("/nothing"))[0] == 404
    assert "Traceback" not in fleet["intake"].output


@pytest.mark.parametrize("name", COMMANDS)
async def test_sigterm_ends_each_in_order(fleet: Fleet, name: str) -> None:
    """Exit code 0 within 5 s, logs that say so, no traceback."""
    service = fleet[name]
    await service.ready()
    assert await service.terminate() == 0
    assert "Traceback" not in service.output
    assert [line["event"] for line in service.lines()][-1] == "stopped"


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "up"])
async def test_started_without_servers_each_waits_and_says_so(installed: Installation, name: str) -> None:
    """It is alive, not ready, names what it cannot reach without the password, and still ends in order."""
    async with ServiceProcess(installed, *COMMANDS[name], env=AWAY) as service:
        line = await service.logged("cannot use RabbitMQ" if name != "recorder" else "cannot reach MongoDB")
        assert line["level"] == "warning"
        await service.logged("127.0.0.1:9")
        assert (await service.get("/healthz"))[0] == 200
        assert (await service.get("/readyz"))[0] == 503
        assert await service.terminate() == 0
        assert "hush" not in service.output
        assert "Traceback" not in service.output


@pytest.mark.parametrize("name", ["intake", "worker"])
async def test_without_a_topology_the_log_says_what_to_run(name: str) -> None:
    """And as soon as somebody ran it, the service is ready by itself."""
    installation = Installation(make_settings(DISPATCHER_AMQP__PREFIX=f"t{uuid.uuid4().hex[:10]}."))
    try:
        async with ServiceProcess(installation, *COMMANDS[name]) as service:
            await service.logged("dispatcher topology apply")
            assert (await service.get("/readyz"))[0] == 503
            await asyncio.to_thread(installation.apply)
            await service.ready()
            service.process.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(service.process.wait(), 5) == 0
            assert "Traceback" not in service.output
    finally:
        installation.remove()


async def test_a_port_that_is_taken_is_named(installed: Installation) -> None:
    """The second service on a port ends with a sentence that names the setting."""
    async with ServiceProcess(installed, "run", "scheduler") as service:
        port = service.url.rpartition(":")[2]
        second = ServiceProcess(installed, "run", "scheduler", env={"DISPATCHER_HTTP__PORT": port})
        with pytest.raises(AssertionError, match=r"http\.port"):
            async with second:
                pass
        assert second.process.returncode == 1

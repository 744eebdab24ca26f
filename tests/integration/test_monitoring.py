"""Prometheus on a real run: it scrapes every service and RabbitMQ's exporter, and what it is asked has answers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.monitoring import Monitored, monitored

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module", name="monitored")
async def one_run(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Monitored]:
    """The run that all tests of this module ask."""
    async with monitored(tmp_path_factory.mktemp("monitored")) as run:
        yield run


async def test_every_target_is_scraped(monitored: Monitored) -> None:
    """The four services, and RabbitMQ's sums and queues."""
    assert {target["labels"]["job"]: target["health"] for target in monitored.prometheus.targets()} == {
        "dispatcher": "up",
        "rabbitmq": "up",
        "rabbitmq-detailed": "up",
    }
    assert monitored.value('count(up{job="dispatcher"} == 1)') == 4
    assert monitored.value("sum(dispatcher_ready == 0)") is None
    assert monitored.value('rabbitmq_detailed_queue_consumers{queue=~".*intake.v1"}') == 1


async def test_what_was_fed_is_counted(monitored: Monitored) -> None:
    """By application, and by what became of it."""
    for app in ("shop", "billing"):
        refused = monitored.value(f'dispatcher_app_refused_total{{app="{app}"}}')
        assert refused == 2 * monitored.waves
        assert monitored.value(f'dispatcher_app_repeated_total{{app="{app}",found="resent"}}') == monitored.waves
        assert monitored.value(f'dispatcher_app_repeated_total{{app="{app}",found="duplicate"}}') == monitored.waves
    for state in ("failed", "timed_out", "cancelled", "expired"):
        assert monitored.value(f'sum(rate(dispatcher_jobs_final_total{{state="{state}"}}[1m]))'), state
    assert monitored.value("dispatcher_jobs_unhandled_total") == 2 * monitored.waves
    days = monitored.value('dispatcher_app_key_expiry_seconds{app="billing"} / 86400')
    assert days is not None
    assert 1.9 < days < 2

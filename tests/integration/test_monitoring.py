"""Prometheus on a real run: it scrapes every service and RabbitMQ's exporter, and what it is asked has answers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dev.dashboards import FOLDER
from dev.dashboards.asked import Filling, Question, captured, names, questions, variables
from tests.monitoring import Monitored, monitored
from tests.processes import ServiceProcess
from tests.support import eventually

# the run is made within the first test
pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

DASHBOARDS = sorted(FOLDER.glob("*.json"))


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


def chosen(run: Monitored, document: dict[str, Any], everything: Filling) -> dict[str, list[str]]:
    """What Grafana offers for each variable of a dashboard."""
    return {
        name: captured(run.prometheus.api(f"label/{label}/values", **{"match[]": everything.fill(series)}), pattern)
        for name, series, label, pattern in variables(document)
    }


def has_number(run: Monitored, question: Question, filling: Filling, until: float) -> bool:
    """Whether the answer has a number: it is neither empty, nor NaN and infinity alone."""
    expr = filling.fill(question.expr)
    if question.instant:
        values = [sample["value"] for sample in run.prometheus.query(expr, until)]
    else:
        series = run.prometheus.query_range(expr, until - filling.shown, until, filling.step)
        values = [value for each in series for value in each["values"]]
    return any(math.isfinite(float(number)) for _, number in values)


@pytest.mark.parametrize("path", DASHBOARDS, ids=[path.stem for path in DASHBOARDS])
async def test_every_panel_of_a_dashboard_has_data(monitored: Monitored, path: Path) -> None:
    """With All chosen of every variable, and with each value by name; every variable has values."""
    document, until = json.loads(path.read_text()), time.time()
    everything = Filling(scrape=1, step=1, shown=until - monitored.since, choices=dict.fromkeys(names(document), ()))
    choices = chosen(monitored, document, everything)
    assert all(choices.values()), choices
    for filling in (everything, dataclasses.replace(everything, choices=choices)):
        empty = [
            f"{question.panel}: {filling.fill(question.expr)}"
            for question in questions(document)
            if not has_number(monitored, question, filling, until)
        ]
        assert empty == []


async def test_every_rule_is_evaluated_and_what_is_recorded_has_numbers(monitored: Monitored) -> None:
    """Without an error, on what a real run shows."""
    rules = monitored.prometheus.rules()
    assert {rule["health"] for rule in rules} == {"ok"}, [rule.get("lastError") for rule in rules]
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    empty = [
        name
        for name in sorted(recorded)
        if not any(math.isfinite(float(each["value"][1])) for each in monitored.prometheus.query(name))
    ]
    assert len(recorded) > 40
    assert empty == []


async def fires(run: Monitored, name: str, **labels: str) -> None:
    """Wait until an alert fires with these labels."""
    await eventually(
        lambda: any(labels.items() <= each.items() for each in run.alerts(name)["firing"]), f"{name} fires", every=0.2
    )


async def ends(run: Monitored, name: str, **labels: str) -> None:
    """Wait until it does no more, and is not about to."""
    await eventually(
        lambda: not any(labels.items() <= each.items() for state in run.alerts(name).values() for each in state),
        f"{name} is over",
        every=0.2,
    )


async def test_alerts_on_what_is_fine_are_silent(monitored: Monitored) -> None:
    """The run has a lane without workers, a type without a handler and a key that ends soon, and nothing else wrong."""
    await fires(monitored, "DispatcherKeyExpiring", app="billing")
    await fires(monitored, "DispatcherNoHandler", lane="default")
    silent = {rule["name"] for rule in monitored.prometheus.rules() if rule["type"] == "alerting"} - {
        "DispatcherKeyExpiring",
        "DispatcherNoHandler",
        "DispatcherWorkNotConsumed",
        # shares of a few jobs, of which many are meant to fail
        "DispatcherAppRefused",
        "DispatcherErrorRate",
        "DispatcherRefusalsSurge",
        "DispatcherStartBudgetBurns",
        "DispatcherStartBudgetDrains",
        "DispatcherOutcomeBudgetBurns",
        "DispatcherOutcomeBudgetDrains",
        # as full as this machine's disk
        "DispatcherBrokerResourcesLow",
    }
    assert len(silent) > 20
    assert [name for name in sorted(silent) if monitored.alerts(name)["firing"]] == []


async def test_a_lane_that_nobody_serves_fires_until_somebody_does(monitored: Monitored) -> None:
    """Jobs of lane bulk have waited since the first wave."""
    waits = {"lane": "bulk", "priority": "background"}
    await fires(monitored, "DispatcherWorkNotConsumed", **waits)
    serves = {"DISPATCHER_WORKER__LANES": '["bulk"]'}
    async with ServiceProcess(monitored.installation, "worker", "examples.handlers:jobs", env=serves):
        await ends(monitored, "DispatcherWorkNotConsumed", **waits)
    assert (await monitored.installation.finished("w1-bulk"))["state"] == "succeeded"


async def test_an_alarm_of_rabbitmq_fires_until_it_is_over(monitored: Monitored) -> None:
    """Its exporter tells of it, and so does the worker that is blocked: it puts a job off again and again."""
    job = {"id": "snoozes", "payload": {"until": time.time() + 3600}}
    await asyncio.to_thread(monitored.installation.publish, "demo.snooze", job, monitored.keys[0])
    await asyncio.to_thread(monitored.rabbit.ctl, "set_vm_memory_high_watermark", "absolute", "1MB", timeout=240)
    try:
        await fires(monitored, "DispatcherBrokerAlarm", job="rabbitmq")
        await fires(monitored, "DispatcherPublishingBlocked", role="worker")
    finally:
        await asyncio.to_thread(monitored.rabbit.ctl, "set_vm_memory_high_watermark", "absolute", "2GB", timeout=240)
    await ends(monitored, "DispatcherBrokerAlarm")
    await ends(monitored, "DispatcherPublishingBlocked")

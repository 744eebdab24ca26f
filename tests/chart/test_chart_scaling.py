"""Scaling: KEDA looks at the queues that the worker consumes, all of them and no other."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config import Settings, load_settings
from consumers import Registry
from consumers.worker import Worker
from dispatcher.core.topology import Names, build
from tests.chart.charts import (
    HPA,
    MINIMAL,
    PRODUCTION,
    SHARED,
    VALUE_FILES,
    Manifest,
    Pod,
    config_of,
    of_kind,
    pods,
    rendered,
)
from tests.chart.test_chart_pods import environment
from tests.support import Installation, eventually


def trigger(scaled: Manifest) -> dict[str, str]:
    """What its one trigger asks for."""
    (only,) = scaled["spec"]["triggers"]
    assert only["type"] == "rabbitmq"
    metadata: dict[str, str] = only["metadata"]
    return metadata


def scaled_workers(values: Path, folder: Path) -> Iterator[tuple[Manifest, Pod, Settings]]:
    """Each ScaledObject with its worker's pod and settings."""
    manifests = rendered(values)
    by_owner = {pod.owner: pod for pod in pods(manifests)}
    for scaled in of_kind(manifests, "ScaledObject").values():
        pod = by_owner["Deployment/" + scaled["spec"]["scaleTargetRef"]["name"]]
        file = folder / "config.yaml"
        file.write_text(config_of(manifests, pod))
        yield scaled, pod, load_settings(environment(pod, file))


@pytest.mark.parametrize("values", [PRODUCTION, SHARED], ids=lambda path: path.stem)
def test_keda_looks_at_the_queues_that_the_worker_consumes(values: Path, tmp_path: Path) -> None:
    """Of all queues of the topology its expression finds those of the worker's own subscriptions."""
    found = list(scaled_workers(values, tmp_path))
    assert found
    for scaled, _, settings in found:
        expression = re.compile(trigger(scaled)["queueName"])
        names = [queue.name for queue in build(Names(settings.amqp.prefix), settings.lanes).queues]
        foreign = [queue.name for queue in build(Names("other."), settings.lanes).queues]
        near = [queue.name for queue in build(Names("euxjobsx"), settings.lanes).queues]
        consumed = {each.queue for each in Worker(settings, Registry(), "a:b")._subscriptions()}
        assert {name for name in names + foreign + near if expression.search(name)} == consumed


@pytest.mark.parametrize("values", [PRODUCTION, SHARED], ids=lambda path: path.stem)
def test_keda_counts_what_runs_too(values: Path, tmp_path: Path) -> None:
    """The sum over all queues, unacknowledged messages included: else a busy worker would be taken away."""
    for scaled, _, settings in scaled_workers(values, tmp_path):
        asked = trigger(scaled)
        assert {name: asked[name] for name in ("protocol", "mode", "operation", "useRegex")} == {
            "protocol": "http",
            "mode": "QueueLength",
            "operation": "sum",
            "useRegex": "true",
        }
        assert asked["excludeUnacknowledged"] == "false"
        assert all(isinstance(value, str) for value in asked.values())  # KEDA takes strings alone
        # six queues a lane, and KEDA refuses an answer of more than one page
        assert int(asked["pageSize"]) >= 6 * len(settings.worker_lanes)
        assert float(asked["value"]) <= settings.worker.concurrency


def test_keda_finds_the_address_in_the_secret() -> None:
    """Of the name and the key that the values say; the virtual host stands in the trigger."""
    for values, secret, key, vhost in (
        (PRODUCTION, "job-dispatcher-servers", "management-url", "/"),
        (SHARED, "jobs-eu-management", "url", "shared"),
    ):
        manifests = rendered(values)
        ((name, authentication),) = of_kind(manifests, "TriggerAuthentication").items()
        assert authentication["spec"] == {"secretTargetRef": [{"parameter": "host", "name": secret, "key": key}]}
        for scaled in of_kind(manifests, "ScaledObject").values():
            assert scaled["spec"]["triggers"][0]["authenticationRef"] == {"name": name}
            assert trigger(scaled)["vhostName"] == vhost


@pytest.mark.parametrize("values", VALUE_FILES, ids=lambda path: path.stem)
def test_one_scaler_or_none(values: Path) -> None:
    """Of a worker; and its Deployment has no number of pods then, which each upgrade would set back."""
    manifests = rendered(values)
    targets = [
        manifest["spec"]["scaleTargetRef"]["name"]
        for kind in ("ScaledObject", "HorizontalPodAutoscaler")
        for manifest in of_kind(manifests, kind).values()
    ]
    assert len(set(targets)) == len(targets)
    assert not (of_kind(manifests, "ScaledObject") and of_kind(manifests, "HorizontalPodAutoscaler"))
    for name, deployment in of_kind(manifests, "Deployment").items():
        assert ("replicas" in deployment["spec"]) is (name not in targets)


def test_without_keda_it_is_the_cpu() -> None:
    """The same switch, another scaler."""
    found = of_kind(rendered(HPA), "HorizontalPodAutoscaler")
    assert found.keys() == {"rel-job-dispatcher-worker-all", "rel-job-dispatcher-worker-images"}
    spec = found["rel-job-dispatcher-worker-images"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 4)
    (metric,) = spec["metrics"]
    assert metric["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}


def _as_keda(expression: str, page_size: str, vhost: str) -> str:
    """The request that KEDA's RabbitMQ scaler makes (getQueueInfoViaHTTP in its source, 2.12 to 2.18)."""
    query = f"page=1&use_regex=true&pagination=false&name={urllib.parse.quote_plus(expression)}&page_size={page_size}"
    return f"/api/queues/{urllib.parse.quote(vhost, safe='')}?{query}"


async def test_the_broker_understands_the_expression(installed: Installation) -> None:
    """The real management API answers it with the worker's queues, in one page, with what waits and what is held."""
    url = os.environ.get("DEV_MANAGEMENT_URL")
    if not url:
        pytest.skip("the servers of this run have no management API")
    sets = f"config.amqp.prefix={installed.settings.amqp.prefix},config.lanes={{default,bulk}},keda.vhost=/"
    asked = trigger(of_kind(rendered(SHARED, "--set", sets), "ScaledObject")["jobs-eu-worker-bulk"])
    path = _as_keda(asked["queueName"], asked["pageSize"], asked["vhostName"])
    queue = installed.names.work_queue("bulk", "high")
    with installed.channel() as channel:
        for number in range(5):
            channel.basic_publish("", queue, b"%d" % number)
        channel.basic_publish("", installed.names.work_queue("default", "high"), b"of another lane")
        assert channel.basic_get(queue)[0] is not None  # held, not acknowledged
        answer = await eventually(lambda: _counted(url, path, 5), "the management API counts five messages")
    worker = installed.settings.worker.model_copy(update={"lanes": ("bulk",)})
    settings = installed.settings.model_copy(update={"worker": worker})
    consumed = {each.queue for each in Worker(settings, Registry(), "a:b")._subscriptions()}
    assert {item["name"] for item in answer["items"]} == consumed
    assert answer["page_count"] == 1


async def _counted(url: str, path: str, messages: int) -> Any:
    import httpx

    async with httpx.AsyncClient(auth=("guest", "guest")) as client:
        answer = (await client.get(url + path)).raise_for_status().json()
    return answer if sum(item.get("messages", 0) for item in answer["items"]) == messages else None


def test_minimal_has_no_scaler() -> None:
    """Scaling is off unless it is asked for."""
    kinds = {manifest["kind"] for manifest in rendered(MINIMAL)}
    assert not kinds & {"ScaledObject", "HorizontalPodAutoscaler", "TriggerAuthentication"}

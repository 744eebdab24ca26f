"""A real installation under that load, and what its Prometheus answers to every question of every dashboard."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from dev.dashboards import FOLDER
from dev.dashboards.asked import Filling, names
from dev.mongo import LocalMongo
from dev.prometheus import LocalPrometheus
from dev.rabbit import LocalRabbit
from dispatcher.edges import clock
from tests.faults.fleet import Fleet
from tests.monitoring import FAMILIES, RULES
from tests.pictures import load
from tests.support import Installation, eventually

MEMBERS = ("scheduler-1", "recorder-1", "intake-1", "intake-2", "worker-1", "worker-2")
#: Seconds between two scrapes, and between two points of a graph.
SCRAPE, STEP = 2, 2
DAY_MS = 86_400_000
SETTINGS = {
    "DISPATCHER_LANES": '["default", "reports"]',
    "DISPATCHER_WORKER__CONCURRENCY": "10",
    "DISPATCHER_WORKER__READ_AHEAD": "10",
    "DISPATCHER_WORKER__NO_HANDLER_LIMIT": "20",
    "DISPATCHER_SCHEDULER__DEPTH_INTERVAL": "2",
    "DISPATCHER_RETENTION__INTERVAL": "60",
}

Answers = dict[str, dict[str, Any]]


async def answers() -> Answers:
    """Run for some minutes, and ask; everything is stopped at the end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _Rabbit(folder / "rabbitmq") as rabbit, LocalMongo(folder / "mongo") as mongo:
            installation = Installation.on(rabbit.url, mongo.url, "pictures", **SETTINGS)
            await asyncio.to_thread(installation.apply)
            async with AsyncExitStack() as stack:
                fleet = Fleet(
                    installation.environment() | SETTINGS, folder, MEMBERS, handlers="tests.pictures.handlers:jobs"
                )
                await stack.enter_async_context(fleet)
                prometheus = stack.enter_context(LocalPrometheus(folder / "prometheus", _config(rabbit, fleet)))
                await eventually(lambda: _all_up(prometheus), "every target is up", every=0.5)
                under_load = load.Load(installation, await _keys(installation))
                await under_load.run(fleet)
                return await asyncio.to_thread(ask, prometheus, under_load.began)


class _Rabbit(LocalRabbit):
    """One that may take its time, on a machine that is busy."""

    def wait_ready(self, timeout: float = 300) -> None:
        super().wait_ready(timeout)


async def _keys(installation: Installation) -> dict[str, str]:
    """One that never ends, one that ends soon, one that ends later."""
    now = clock.now_ms()
    ends = {"shop": None, "billing": now + 2 * DAY_MS, "reports": now + 40 * DAY_MS}
    return {app: await installation.create_key(app, expires_at=end) for app, end in ends.items()}


def _config(rabbit: LocalRabbit, fleet: Fleet) -> dict[str, Any]:
    """Every process has its own name, as a pod has."""
    ours = [
        {"targets": [f"127.0.0.1:{member.port}"], "labels": {"namespace": "jobs", "instance": member.name}}
        for member in fleet.members.values()
    ]
    theirs = [{"targets": [rabbit.prometheus_target], "labels": {"instance": "rabbitmq-0"}}]
    return {
        "global": {"scrape_interval": f"{SCRAPE}s", "evaluation_interval": f"{SCRAPE}s"},
        "rule_files": [str(path) for path in sorted(RULES.glob("*.yaml"))],
        "scrape_configs": [
            {"job_name": "dispatcher", "static_configs": ours},
            {"job_name": "rabbitmq", "static_configs": theirs},
            {
                "job_name": "rabbitmq-detailed",
                "metrics_path": "/metrics/detailed",
                "params": {"family": FAMILIES},
                "static_configs": theirs,
            },
        ],
    }


def _all_up(prometheus: LocalPrometheus) -> bool:
    return bool(prometheus.targets()) and all(target["health"] == "up" for target in prometheus.targets())


def ask(prometheus: LocalPrometheus, since: float) -> Answers:
    """For each dashboard the answers to each target of each panel, by the panel's place in the file."""
    until = time.time()
    found: Answers = {}
    for path in FOLDER.glob("*.json"):
        document = json.loads(path.read_text())
        filling = Filling(SCRAPE, STEP, until - since, dict.fromkeys(names(document), ()))
        found[path.stem] = {
            str(place): [_answer(prometheus, target, filling, until) for target in panel.get("targets", [])]
            for place, panel in enumerate(document["panels"])
        }
    return found


def _answer(prometheus: LocalPrometheus, target: Any, filling: Filling, until: float) -> list[dict[str, Any]]:
    expr = filling.fill(target["expr"])
    if target["instant"]:
        return [sample | {"values": [sample["value"]]} for sample in prometheus.query(expr, until)]
    return prometheus.query_range(expr, until - filling.shown, until, filling.step)

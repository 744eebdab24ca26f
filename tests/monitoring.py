"""A monitored run: a RabbitMQ with its exporter, every service as a process, and a Prometheus that scrapes them all.

Whoever asks Prometheus something in a test, of alert rules or of dashboards, asks the one of this run: put such tests
into ``tests/integration/test_monitoring.py``, whose fixture ``monitored`` makes the run once for all of them, and use

- ``run.prometheus.query(…)`` and ``query_range(…)``;
- ``run.feed(…)`` for one more wave of jobs of every kind; two were fed, some seconds apart, before the first test, so
  that every rate that can be above 0 is;
- ``run.services["worker"]``, ``run.rabbit`` and ``run.installation`` to bring about what an alert is for.

Prometheus scrapes every second; the rule files of ``helm/files/rules`` are loaded as they are, but for each alert's
``for``, which `HOLD` replaces.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from dev.prometheus import LocalPrometheus
from dev.rabbit import LocalRabbit
from dispatcher.edges import clock
from tests.processes import ServiceProcess
from tests.support import Installation, eventually

RULES = Path(__file__).parent.parent / "helm" / "files" / "rules"
#: What every alert's ``for`` becomes here.
HOLD = "2s"
#: The families of RabbitMQ's exporter that tell of each queue by itself, without a series for each channel.
FAMILIES = ["queue_coarse_metrics", "queue_consumer_count"]
COMMANDS = {
    "intake": ("run", "intake"),
    "recorder": ("run", "recorder"),
    "scheduler": ("run", "scheduler"),
    "worker": ("worker", "examples.handlers:jobs"),
}
#: Depths are looked at often, and a job without a handler fails at once.
QUICK = {
    "DISPATCHER_SCHEDULER__DEPTH_INTERVAL": "0.5",
    "DISPATCHER_WORKER__LANES": '["default"]',
    "DISPATCHER_WORKER__NO_HANDLER_LIMIT": "0.1",
    "DISPATCHER_WORKER__NO_HANDLER_DELAY": "0.2",
}


@dataclass
class Monitored:
    """What runs; see the module."""

    rabbit: LocalRabbit
    installation: Installation
    services: dict[str, ServiceProcess]
    prometheus: LocalPrometheus
    #: API keys of two applications; that of the second ends in two days.
    keys: list[str]
    waves: int = field(default=0)
    #: When Prometheus began, in seconds since 1970.
    since: float = field(default_factory=time.time)

    async def feed(self) -> None:
        """Publish a wave of jobs of every kind and wait until those that end have ended."""
        self.waves += 1
        installation, wave = self.installation, f"w{self.waves}"
        for key, app in zip(self.keys, ("shop", "billing"), strict=True):
            await asyncio.to_thread(installation.publish_many, list(_jobs(wave)), key)
            await asyncio.to_thread(installation.publish_many, list(_refused(wave)), key)
            for job_id in ("echo-9", "flaky", "hopeless", "slow", "cancelled", "unhandled", "expired"):
                await installation.finished(f"{wave}-{job_id}", app)
        await asyncio.to_thread(installation.publish, "demo.echo", {}, self.keys[0][:-1] + "?")

    async def scraped(self) -> None:
        """Wait until every target was scraped and every rule evaluated after now."""
        since = time.time()
        wanted = f"count(timestamp(up) > {since}) == count(up)"
        await eventually(lambda: self.prometheus.query(wanted), "every target was scraped", every=0.2)
        await eventually(
            lambda: all(_evaluated(rule, since) for rule in self.prometheus.rules()), "rules were evaluated", every=0.2
        )

    def value(self, expression: str) -> float | None:
        """The one number that an expression gives, or None where it gives nothing."""
        found = self.prometheus.query(expression)
        assert len(found) <= 1, f"{expression} gives {len(found)} series"
        return float(found[0]["value"][1]) if found else None

    def alerts(self, name: str) -> dict[str, list[dict[str, str]]]:
        """The labels of an alert's instances, by state: ``pending`` and ``firing``."""
        states: dict[str, list[dict[str, str]]] = {"pending": [], "firing": []}
        for alert in self.prometheus.api("alerts")["alerts"]:
            if alert["labels"]["alertname"] == name:
                states[alert["state"]].append(alert["labels"])
        return states


@asynccontextmanager
async def monitored(folder: Path) -> AsyncIterator[Monitored]:
    """Start everything, feed two waves, and let Prometheus see each; everything is stopped at the end."""
    async with AsyncExitStack() as stack:
        rabbit = LocalRabbit(folder / "rabbitmq")
        stack.callback(rabbit.kill)
        await asyncio.to_thread(rabbit.start)
        await asyncio.to_thread(rabbit.wait_ready, 180)
        mongo_url = os.environ["DISPATCHER_MONGO__URL"]
        lanes = {"DISPATCHER_LANES": '["default", "bulk"]'}
        installation = Installation.on(rabbit.url, mongo_url, "monitored", **lanes)
        await asyncio.to_thread(installation.apply)
        stack.callback(installation.mongo.close)
        stack.callback(installation.mongo.drop_database, installation.settings.mongo.database)
        keys = [
            await installation.create_key("shop"),
            await installation.create_key("billing", expires_at=clock.now_ms() + 2 * 86_400_000),
        ]
        services = await _started(installation, stack)
        prometheus = LocalPrometheus(folder / "prometheus", _config(folder, rabbit, services))
        stack.callback(prometheus.kill)
        await asyncio.to_thread(prometheus.__enter__)
        run = Monitored(rabbit, installation, services, prometheus, keys)
        for _ in range(2):
            await run.feed()
            await run.scraped()
        yield run


async def _started(installation: Installation, stack: AsyncExitStack) -> dict[str, ServiceProcess]:
    services = {name: ServiceProcess(installation, *command, env=QUICK) for name, command in COMMANDS.items()}
    await asyncio.gather(*(stack.enter_async_context(service) for service in services.values()))
    for service in services.values():
        await service.ready()
    return services


def _config(folder: Path, rabbit: LocalRabbit, services: dict[str, ServiceProcess]) -> dict[str, Any]:
    """As docs/alerts.md has it, but for the intervals."""
    targets = [service.url.removeprefix("http://") for service in services.values()]
    of_rabbit = [{"targets": [rabbit.prometheus_target]}]
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in _rules(folder)],
        "scrape_configs": [
            {"job_name": "dispatcher", "static_configs": [{"targets": targets, "labels": {"namespace": "jobs"}}]},
            {"job_name": "rabbitmq", "static_configs": of_rabbit},
            {
                "job_name": "rabbitmq-detailed",
                "metrics_path": "/metrics/detailed",
                "params": {"family": FAMILIES},
                "static_configs": of_rabbit,
            },
        ],
    }


def _rules(folder: Path) -> Iterator[Path]:
    """The rule files, with a short ``for``."""
    for path in sorted(RULES.glob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        for group in document["groups"]:
            for rule in group["rules"]:
                if "for" in rule:
                    rule["for"] = HOLD
        copy = folder / path.name
        copy.write_text(yaml.safe_dump(document))
        yield copy


def _evaluated(rule: dict[str, Any], since: float) -> bool:
    return datetime.fromisoformat(rule["lastEvaluation"][:19] + "+00:00").timestamp() > since


def _jobs(wave: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """One or more of every kind."""
    priorities = ("critical", "high", "normal", "low", "background")
    for number in range(10):
        yield "demo.echo", {"id": f"{wave}-echo-{number}", "priority": priorities[number % 5]}
    yield "demo.echo", {"id": f"{wave}-echo-0"}  # sent again
    for _ in range(2):  # the second one is a duplicate
        yield "demo.echo", {"unique": {"key": wave, "for": 60}}
    yield "demo.flaky", {"id": f"{wave}-flaky", "payload": {"failures": 1}, "retry": {"base": 0.25}}
    yield "demo.flaky", {"id": f"{wave}-later", "payload": {"failures": 9}, "retry": {"base": 600}}
    yield "demo.hopeless", {"id": f"{wave}-hopeless", "retry": {"base": 0.125}}
    yield "demo.slow", {"id": f"{wave}-slow", "deadline": 0.1}
    yield "demo.cancel", {"id": f"{wave}-cancelled"}
    yield "demo.unknown", {"id": f"{wave}-unhandled"}
    yield "demo.echo", {"id": f"{wave}-expired", "expires": 0.5, "delay": 1}
    yield "demo.echo", {"id": f"{wave}-tomorrow", "delay": 86_400}
    yield "demo.echo", {"id": f"{wave}-bulk", "lane": "bulk", "priority": "background"}
    for _ in range(3):
        yield "demo.echo", {"group": {"key": wave, "max_size": 3, "max_wait": 5}}


def _refused(wave: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "demo.echo", {"payloud": {}}
    yield "demo.echo", {"lane": "nowhere"}

"""A key's secret goes no further than intake, wherever a client puts it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.processes import ServiceProcess
from tests.support import Installation, eventually
from tests.sweep import documents_with, take_all

pytestmark = pytest.mark.integration

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

Publish = Callable[..., None]


def everywhere_wrong(publish: Publish, key: str) -> int:
    """Publish with the key in every wrong place, with and without the right header; returns how many."""
    secret = key[-36:]
    escaped = "".join(f"\\u{ord(c):04x}" for c in key)
    bodies: list[bytes | dict[str, Any]] = [
        {"x-api-key": key},
        {"api_key": key},
        {"payload": {"deep": [{"er": key}]}},
        {"payload": {key: 1}},
        {"payload": {"inside": f"Bearer {key}!"}},
        {"payload": {"glued": f"jd_a_b_{'x' * 34}{key}"}},
        {"payload": {"twice": f"{key}{key}"}},
        {"id": key},
        {"tags": [key]},
        {"type": key},
        {"priority": key},
        {"lane": key},
        {"retry": {"on": [key]}},
        {"retry": {key: 1}},
        {key: key},
        b'{"payload":{"a":"' + escaped.encode() + b'"}}',
        b'{"unknown":"' + escaped.encode() + b'"}',
        key.encode(),
        b"[" + json.dumps(key).encode(),
        b"\xff" + key.encode(),
        b'{"payload":{"a":"' + b"x" * 65_490 + key.encode() + b"y" * 300_000 + b'"}}',
    ]
    for body in bodies:
        publish("s.body", body, key)
        publish("s.body", body)
    properties: list[dict[str, Any]] = [
        {"correlation_id": key, "reply_to": "amq.gen-nobody"},
        {"correlation_id": f"x{key}x", "reply_to": "amq.rabbitmq.reply-to.nobody"},
        {"reply_to": key},
        {"reply_to": f"amq.gen-{key}"},
        {"message_id": key, "app_id": key, "type": key, "content_encoding": key},
        {"headers": {"authorization": key, "traceparent": key, "tracestate": key}},
        {"headers": {"traceparent": PARENT, "tracestate": f"vendor={key}"}},
        {"headers": {"x-rejected-reason": key, "x-error": key, "x-death": [{"reason": key}], "CC": [key]}},
        {"headers": {key: key}},
    ]
    for number, values in enumerate(properties):
        publish("s.properties", {"id": f"properties-{number}"}, key, **values)
        publish("s.properties", b"{", key, **values)
        publish("s.properties", {"id": f"stranger-{number}"}, **values)
    for job_type in (key, f"a.{key}", secret, "s.type"):
        publish(job_type, {"id": "typed"}, key)
        publish(job_type, {"id": "typed"})
    return 2 * len(bodies) + 3 * len(properties) + 2 * 4


async def test_a_key_in_the_wrong_place_goes_nowhere(installed: Installation) -> None:
    """Queues, documents, logs at debug level and metrics are searched, byte by byte, for the secret."""
    key = await installed.create_key()
    secret = key[-36:]
    async with ServiceProcess(installed, "up", level="debug") as service:
        await service.ready()
        published = await asyncio.to_thread(everywhere_wrong, installed.publish, key)
        accepted = {f"properties-{number}" for number in range(9)} | {"typed"}
        await eventually(
            lambda: {d["id"] for d in installed.db.jobs.find({"state": "queued"})} >= accepted,
            "valid jobs are recorded",
        )
        await eventually(lambda: _handled(installed, published), "everything is accepted or refused")
        # and once more from where intake empties its strays
        for exchange in (installed.names.unrouted, installed.names.intake_dead):
            installed.publish("s.stray", {"payload": {"a": key}}, key, exchange=exchange)
        await eventually(lambda: _handled(installed, published + 2), "strays are refused")
        _, metrics = await service.get("/metrics")
        _, ready = await service.get("/readyz")
        log = service.output
    assert secret not in metrics + ready
    assert secret not in log
    assert documents_with(installed, secret) == []
    assert [(m.queue, m.headers, m.body[:200]) for m in take_all(installed) if m.holds(secret)] == []


def _handled(installation: Installation, number: int) -> bool:
    names = installation.names
    queues = (names.rejected, names.work_queue("default", "normal"))
    return sum(map(installation.depth, queues)) >= number and installation.depth(names.history) == 0


async def test_the_sweep_finds_what_it_looks_for(installed: Installation) -> None:
    """The search itself is no blind one: a secret put into a queue and a document is found."""
    installed.publish(installed.names.rejected, b"xx needle-123 xx", exchange="")
    installed.publish(installed.names.rejected, b"", exchange="", headers={"x": {"y": ["needle-123"]}})
    installed.db.jobs.insert_one({"_id": "sweep", "deep": [{"needle-123": 1}]})
    assert len([message for message in take_all(installed) if message.holds("needle-123")]) == 2
    assert documents_with(installed, "needle-123") == ["jobs"]

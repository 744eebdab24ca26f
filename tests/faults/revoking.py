"""Keys are revoked under load: how long after the end of `keys revoke` is a job with the key still accepted?

Two intakes share the queue. Jobs with all keys are published all the time, and with the key that is revoked next every
20 ms. Each key has an app of its own, and a work message says when intake accepted it (`accepted_at`): so for each key
the time from the end of the command to the last acceptance is known, however slowly anybody is answered.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click
import pika

from dispatcher.core import keys
from schemas import WorkMessage
from tests.faults.command import own_servers
from tests.processes import ServiceProcess, invoked
from tests.support import Installation, eventually

#: Seconds between two jobs with the key that is revoked next.
EVERY = 0.02
#: Seconds after the end of a command until the next key's turn; all go on being published until the end.
PAUSE = 1.0
#: Seconds after the last command.
AFTER = 3.0
#: What is promised, in seconds.
PROMISED = 2.0


class Load(threading.Thread):
    """Publishes with all keys, most with the one in focus; notes which keys were accepted, and which refused."""

    def __init__(self, installation: Installation, all_keys: Sequence[str], rate: float) -> None:
        super().__init__(name="load", daemon=True)
        self._installation = installation
        self._keys = list(all_keys)
        self._pause = 1 / rate
        self._over = threading.Event()
        #: The key that is revoked next.
        self.focus = self._keys[0]
        self.accepted: set[str] = set()
        self.refused: set[str] = set()
        self.published = self.answered = 0

    def end(self) -> None:
        """Stop publishing, and wait for the thread."""
        self._over.set()
        self.join()

    def run(self) -> None:
        """Until it is ended."""
        with self._installation.channel() as channel:
            channel.basic_consume("amq.rabbitmq.reply-to", self._answer, auto_ack=True)
            focused = next_one = time.monotonic()
            while not self._over.is_set():
                now = time.monotonic()
                if now >= focused:
                    focused = now + EVERY
                    self._publish(channel, self.focus)
                if now >= next_one:
                    next_one = max(next_one + self._pause, now - 0.1)
                    self._publish(channel, self._keys[self.published % len(self._keys)])
                channel.connection.process_data_events(max(0.0, min(focused, next_one) - time.monotonic()))

    def _publish(self, channel: Any, key: str) -> None:
        self.published += 1
        sent = pika.BasicProperties(
            delivery_mode=2,
            headers={"x-api-key": key},
            reply_to="amq.rabbitmq.reply-to",
            correlation_id=keys.parse(key),
        )
        channel.basic_publish(self._installation.names.jobs, "load.one", b"{}", sent)

    def _answer(self, _channel: Any, _method: Any, properties: Any, body: bytes) -> None:
        self.answered += 1
        answer = json.loads(body)
        if answer["status"] == "accepted":
            self.accepted.add(properties.correlation_id)
        elif answer["error"]["code"] == "revoked_key":
            self.refused.add(properties.correlation_id)


async def measure(installation: Installation, count: int, rate: float) -> dict[str, Any]:
    """Make keys, run two intakes, revoke one key after the other; returns the figures, times in milliseconds."""
    made = [await installation.create_key(f"app-{number}") for number in range(count + 1)]
    load = Load(installation, made, rate)
    ends: dict[str, float] = {}
    async with (
        ServiceProcess(installation, "run", "intake") as one,
        ServiceProcess(installation, "run", "intake") as two,
    ):
        await asyncio.gather(one.ready(), two.ready())
        began = time.monotonic()
        load.start()
        try:
            await eventually(lambda: len(load.accepted) == len(made), "every key is accepted")
            for key in made[:-1]:
                load.focus = key
                await asyncio.sleep(10 * EVERY)
                key_id = keys.parse(key) or ""
                await invoked(installation, "keys", "revoke", key_id)
                ends[key_id] = time.time() * 1000
                await asyncio.sleep(PAUSE)
            await asyncio.sleep(AFTER)
            await eventually(lambda: ends.keys() <= load.refused, "every revoked key is refused", timeout=120)
            lasted = time.monotonic() - began
            shares = [await _refused(service) for service in (one, two)]
        finally:
            load.end()
    last = _last_accepted(installation)
    apps = {keys.parse(key) or "": f"app-{number}" for number, key in enumerate(made)}
    late = sorted(max(0.0, last[apps[key_id]] - end) for key_id, end in ends.items())
    return {
        "keys": count,
        "jobs": load.answered,
        "rate": round(load.answered / lasted, 1),
        "refused_by_intake": shares,
        "ms": {"p50": _percentile(late, 50), "p99": _percentile(late, 99), "max": round(late[-1], 1)},
        "kept_key_accepted": last[f"app-{count}"] > max(ends.values()),
    }


def _last_accepted(installation: Installation) -> dict[str, int]:
    """By app: when its last job was accepted, in milliseconds since the epoch, as the work messages say."""
    last: dict[str, int] = {}
    for _, body in installation.drain(installation.names.work_queue("default", "normal")):
        work = WorkMessage.decode(body)
        last[work.app] = max(last.get(work.app, 0), work.accepted_at)
    return last


async def _refused(service: ServiceProcess) -> int:
    _, page = await service.get("/metrics")
    lines = [line for line in page.splitlines() if line.startswith('dispatcher_jobs_refused_total{code="revoked_key"}')]
    return int(float(lines[0].split()[-1])) if lines else 0


def _percentile(values: Sequence[float], percent: int) -> float:
    """The nearest rank: a value that was measured."""
    return round(values[math.ceil(percent / 100 * len(values)) - 1], 1)


def good(figures: dict[str, Any]) -> bool:
    """Whether the promise was kept, both intakes had a share, and the key that was not revoked went on."""
    return bool(
        figures["ms"]["p99"] <= PROMISED * 1000 and all(figures["refused_by_intake"]) and figures["kept_key_accepted"]
    )


def show(figures: dict[str, Any]) -> str:
    """For people."""
    ms, shares = figures["ms"], figures["refused_by_intake"]
    return (
        f"{figures['keys']} keys revoked one after the other, {figures['jobs']} jobs at {figures['rate']} a second, "
        f"two intakes (refused {shares[0]} and {shares[1]})\n"
        f"end of `keys revoke` to the last accepted job: p50 {ms['p50']} ms, p99 {ms['p99']} ms, max {ms['max']} ms "
        f"(promised: p99 {PROMISED * 1000:.0f} ms)"
    )


@click.command()
@click.option("--keys", "count", default=60, show_default=True, help="How many are revoked.")
@click.option("--rate", default=200.0, show_default=True, help="Jobs a second, beside 50 with the next key.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")
def main(count: int, rate: float, as_json: bool) -> None:
    """Revoke keys under load on servers of its own, and measure until when they are accepted."""
    with own_servers() as (rabbit, mongo, _):
        figures = on_servers(rabbit.url, mongo.url, count, rate)
    print(json.dumps(figures) if as_json else show(figures), flush=True)
    sys.exit(0 if good(figures) else 1)


def on_servers(amqp_url: str, mongo_url: str, count: int, rate: float) -> dict[str, Any]:
    """Measure on an installation of its own on these servers."""
    installation = Installation.on(amqp_url, mongo_url, "revoking")
    installation.apply()
    try:
        return asyncio.run(measure(installation, count, rate))
    finally:
        with suppress(Exception):
            installation.remove()


if __name__ == "__main__":
    main()

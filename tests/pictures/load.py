"""What three applications publish in four minutes, and what goes wrong meanwhile.

Times are seconds from the beginning of the load.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dispatcher import Client
from tests.faults.fleet import Fleet
from tests.support import Installation

#: How long it takes in all.
LENGTH = 260.0
#: The CRM does not answer.
AWAY = (60.0, 115.0)
#: Newsletters, all at once: when, and how many.
BURSTS = ((95.0, 2500), (150.0, 1500))
#: One of two workers is killed.
KILLED = (145.0, 195.0)
#: An application sends what does not fit, and somebody tries keys.
REFUSED = (165.0, 200.0)
APPS = ("shop", "billing", "reports")


@dataclass(frozen=True)
class Stream:
    """Jobs of one type, so many a second, with some of these fields (a function gives those of one job)."""

    app: str
    job_type: str
    rate: float
    fields: Callable[[], dict[str, Any]] = dict


def _priorities(*names: str) -> Callable[[], dict[str, Any]]:
    return lambda: {"priority": random.choice(names)}


STREAMS = (
    Stream("shop", "email.send", 12, _priorities("high", "normal", "normal")),
    Stream("shop", "image.resize", 3, lambda: {"priority": "low", "deadline": 1.5}),
    Stream("shop", "digest.add", 6, lambda: {"group": {"key": random.choice("abcd"), "max_size": 12, "max_wait": 6}}),
    Stream("shop", "reminder.send", 1, lambda: {"delay": random.uniform(5, 90)}),
    Stream("billing", "invoice.render", 4, _priorities("critical", "normal", "normal", "normal")),
    Stream("billing", "crm.sync", 5, lambda: {"unique": {"key": f"customer-{random.randrange(400)}", "for": 60}}),
    Stream("reports", "report.build", 0.6, lambda: {"lane": "reports", "deadline": 4}),
    Stream("reports", "export.legacy", 0.1, dict),  # no worker has a handler for it
)


@dataclass
class Load:
    """Three applications and their keys."""

    installation: Installation
    keys: dict[str, str]
    clients: dict[str, Client] = field(default_factory=dict)
    began: float = 0.0

    async def run(self, fleet: Fleet) -> None:
        """Everything, to its end."""
        self.began = time.time()
        prefix = self.installation.settings.amqp.prefix
        self.clients = {app: Client(self.installation.amqp_url, key, prefix=prefix) for app, key in self.keys.items()}
        for client in self.clients.values():
            await client.connect()
        try:
            troubles = [self._bursts(), self._killing(fleet), self._nonsense()]
            await asyncio.gather(*map(self._stream, STREAMS), *troubles)
        finally:
            for client in self.clients.values():
                await client.close()

    def _moments(self, rate: float, start: float = 0.0, end: float = LENGTH) -> Iterator[float]:
        """Seconds to wait for each of the events of a Poisson process."""
        at = start
        while (at := at + random.expovariate(rate)) < end:
            yield max(self.began + at - time.time(), 0)

    async def _stream(self, stream: Stream) -> None:
        client = self.clients[stream.app]
        for wait in self._moments(stream.rate):
            await asyncio.sleep(wait)
            payload: dict[str, Any] = {}
            if stream.job_type == "crm.sync" and time.time() - self.began > AWAY[0]:
                payload["away_until"] = self.began + AWAY[1]
            job_id = await client.publish(stream.job_type, payload, **stream.fields())
            if random.random() < 0.01:  # as after a lost confirm
                await client.publish(stream.job_type, payload, id=job_id)

    async def _bursts(self) -> None:
        for at, count in BURSTS:
            await asyncio.sleep(max(self.began + at - time.time(), 0))
            mails = (self.clients["shop"].publish("newsletter.send", {}, priority="background") for _ in range(count))
            await asyncio.gather(*mails)

    async def _killing(self, fleet: Fleet) -> None:
        await asyncio.sleep(KILLED[0])
        fleet.kill("worker-2")
        await asyncio.sleep(KILLED[1] - KILLED[0])
        fleet.start("worker-2")

    async def _nonsense(self) -> None:
        key = self.keys["reports"]
        wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
        await asyncio.sleep(REFUSED[0])
        for wait in self._moments(2, *REFUSED):
            await asyncio.sleep(wait)
            several = [("report.build", {"payloud": {}})] * random.randrange(1, 5)
            several.append(("report.build", {"lane": "slow"}))
            await asyncio.to_thread(self.installation.publish_many, several, key)
            await asyncio.to_thread(self.installation.publish, "report.build", {}, wrong)

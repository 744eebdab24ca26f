"""What the soak publishes: with confirms, as fast as they come or at a steady rate, with ten thousand keys."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import pymongo

from dispatcher.core import keys
from dispatcher.edges import clock
from dispatcher.edges.amqp import Outgoing, Publisher
from dispatcher.edges.mongo.client import to_date
from schemas import PRIORITIES
from tests.support import Installation

#: Messages published together, and how many such batches are under way.
BATCH, BATCHES = 500, 3
#: Of a hundred messages of the steady load, how many are of which kind.
MIX = {"plain": 70, "flaky": 10, "hopeless": 5, "snooze": 5, "unknown key": 4, "bad body": 3, "forbidden type": 3}
_TEXT = "x" * 100


def create_keys(installation: Installation, count: int) -> list[str]:
    """New keys, written as documents in bulk; returns their full texts."""
    texts, documents = [], []
    for number in range(count):
        text, key_id = keys.generate("test", secrets.choice)
        documents.append(
            {
                "_id": key_id,
                "app": f"app-{number % 100}",
                "hash": keys.digest(text),
                "types": ["soak.#"],
                "lanes": [],
                "max_priority": None,
                "max_bytes": None,
                "expires_at": None,
                "created_at": to_date(clock.now_ms()),
                "revoked_at": None,
            }
        )
        texts.append(text)
    dated = [
        pymongo.UpdateOne(
            {"_id": document["_id"]}, {"$setOnInsert": document, "$currentDate": {"updated_at": True}}, upsert=True
        )
        for document in documents
    ]
    installation.db.api_keys.bulk_write(dated, ordered=False)
    return texts


class Load:
    """Publishes; ``published`` counts what the broker confirmed."""

    def __init__(self, publisher: Publisher, jobs_exchange: str, api_keys: Sequence[str]) -> None:
        self._publisher = publisher
        self._exchange = jobs_exchange
        self._random = random.Random(0)
        self.keys = api_keys
        self.published = 0

    def message(self, job_type: str, number: int, api_key: str | None = None, **fields: Any) -> Outgoing:
        """One job message."""
        body = json.dumps({"payload": {"number": number, "text": _TEXT}, **fields}).encode()
        return Outgoing(self._exchange, job_type, body, {"x-api-key": api_key or self.keys[number % len(self.keys)]})

    def held(self, count: int) -> Iterator[Outgoing]:
        """Jobs that wait to be let go, of all priorities but the highest."""
        return (self.message("soak.held", n, priority=PRIORITIES[1 + n % 4]) for n in range(count))

    def delayed(self, count: int, shortest: float, longest: float) -> Iterator[Outgoing]:
        """Jobs that fail at once and wait in the ladder."""
        for n in range(count):
            retry = {"base": self._random.uniform(shortest, longest), "factor": 1}
            yield self.message("soak.delayed", n, retry=retry)

    def strangers(self, count: int) -> Iterator[Outgoing]:
        """Messages with well-formed keys that nobody was given, all different."""
        return (self.message("soak.plain", n, keys.generate("test", secrets.choice)[0]) for n in range(count))

    def mixed(self, count: int) -> Iterator[Outgoing]:
        """What the steady load is made of."""
        kinds = self._random.choices(list(MIX), list(MIX.values()), k=count)
        return (self._of_kind(kind, self._random.randrange(1 << 30)) for kind in kinds)

    def _of_kind(self, kind: str, number: int) -> Outgoing:
        match kind:
            case "unknown key":
                return next(self.strangers(1))
            case "bad body":
                return Outgoing(self._exchange, "soak.plain", b'{"payload": [', {"x-api-key": self.keys[0]})
            case "forbidden type":  # each is new: none may become a label of a metric
                return self.message(f"other.{number}", number)
            case "flaky":
                return self.message("soak.flaky", number, retry={"base": 0.25})
        return self.message(f"soak.{kind}", number, tags=[f"tag-{number}"])

    async def publish(self, messages: Iterable[Outgoing]) -> None:
        """All of them, as fast as confirms come."""
        source = iter(messages)

        async def some() -> None:
            while batch := list(islice(source, BATCH)):
                await self._publisher.publish(batch)
                self.published += len(batch)

        await asyncio.gather(*(some() for _ in range(BATCHES)))

    async def steadily(self, rate: float, done: Callable[[], bool]) -> None:
        """The steady load, a tenth of a second's messages at a time."""
        loop = asyncio.get_running_loop()
        began, sent = loop.time(), 0
        while not done():
            due = int((loop.time() - began) * rate) - sent
            await self.publish(self.mixed(due))
            sent += due
            await asyncio.sleep(0.1)

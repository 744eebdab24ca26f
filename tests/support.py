"""What tests share: an installation on real servers, waiting with a deadline, plain publishing."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pika
import pymongo

from config import Settings, load_settings
from dispatcher import composition
from dispatcher.core import keys
from dispatcher.core.topology import Names
from dispatcher.edges import clock, log
from dispatcher.edges.mongo import Database, KeyStore
from schemas import Ended, JobState, Outcome, Started
from schemas.events import about, encode_batches
from tests.unit.samples import make_work


async def eventually(
    condition: Callable[[], Any | Awaitable[Any]], what: str, *, timeout: float = 60.0, every: float = 0.02
) -> Any:
    """Wait until a condition holds, and return what it returned; fail with its name after the deadline."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        await asyncio.sleep(every)


@contextmanager
def undisturbed_logging() -> Iterator[None]:
    """Whatever sets up logging for its process inside, it is afterwards as it was before."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {logger: logger.level for logger in (root, *map(logging.getLogger, (log.ROOT, *log.QUIET)))}
    try:
        yield
    finally:
        root.handlers[:] = handlers
        for logger, level in levels.items():
            logger.setLevel(level)


def finished_job(job_id: str, job_type: str = "test.done") -> bytes:
    """What a worker publishes to history of a job that ran and succeeded."""
    now = clock.now_ms()
    work = make_work(id=job_id, type=job_type, accepted_at=now)
    common: dict[str, Any] = about(work) | {"n": 1, "execution": f"e-{job_id}", "started_at": now, "worker": "w"}
    ended = Ended(**common, finished_at=now, outcome=Outcome.SUCCEEDED, state=JobState.SUCCEEDED)
    (body,) = encode_batches([Started(**common), ended])
    return body


class Installation:
    """One prefix and one database on the servers of this run, seen through plain pika and pymongo."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.names = Names(settings.amqp.prefix)
        self.amqp_url = settings.amqp.url.get_secret_value()
        self.mongo: Any = pymongo.MongoClient(settings.mongo.url.get_secret_value(), tz_aware=True)
        self.db: Any = self.mongo[settings.mongo.database]

    @classmethod
    def on(cls, amqp_url: str, mongo_url: str, name: str, **overrides: str) -> Installation:
        """One of its own on these servers; the name begins its prefix and its database's."""
        unique = f"{name}{time.time_ns():x}"
        env = {
            "DISPATCHER_AMQP__URL": amqp_url,
            "DISPATCHER_AMQP__PREFIX": f"{unique}.",
            "DISPATCHER_MONGO__URL": mongo_url,
            "DISPATCHER_MONGO__DATABASE": unique,
        }
        return cls(load_settings(env | overrides))

    def apply(self) -> None:
        """Declare everything."""
        asyncio.run(composition.apply_topology(self.settings))

    def remove(self) -> None:
        """Delete everything."""
        topology = composition.topology_of(self.settings)
        with self.channel() as channel:
            for queue in topology.queues:
                channel.queue_delete(queue.name)
            for exchange in topology.exchanges:
                channel.exchange_delete(exchange.name)
        self.mongo.drop_database(self.settings.mongo.database)
        self.mongo.close()

    def channel(self) -> _Channel:
        """A pika channel, closed with its connection at the end of the block."""
        return _Channel(self.amqp_url)

    def environment(self) -> dict[str, str]:
        """Variables that point a subprocess at this installation."""
        return {
            "DISPATCHER_AMQP__URL": self.amqp_url,
            "DISPATCHER_AMQP__PREFIX": self.settings.amqp.prefix,
            "DISPATCHER_MONGO__URL": self.settings.mongo.url.get_secret_value(),
            "DISPATCHER_MONGO__DATABASE": self.settings.mongo.database,
            "DISPATCHER_LANES": json.dumps(self.settings.lanes),
            "DISPATCHER_LOG__LEVEL": "warning",
        }

    async def create_key(self, app: str = "shop", **scopes: Any) -> str:
        """A new key's full text."""
        key, key_id = keys.generate("test", secrets.choice)
        record = keys.KeyRecord(id=key_id, app=app, hash=keys.digest(key), created_at=clock.now_ms(), **scopes)
        database = Database(self.settings.mongo.url.get_secret_value(), self.settings.mongo.database)
        await KeyStore(database).create(record)
        database.close()
        return key

    def publish(
        self,
        job_type: str,
        body: bytes | dict[str, Any],
        key: str | bytes | None = None,
        *,
        headers: dict[str, Any] | None = None,
        exchange: str | None = None,
        **properties: Any,
    ) -> None:
        """Publish with plain pika, confirmed, as a client app in any language would."""
        self.publish_many([(job_type, body)], key, headers=headers, exchange=exchange, **properties)

    def publish_many(
        self,
        messages: Iterable[tuple[str, bytes | dict[str, Any]]],
        key: str | bytes | None = None,
        *,
        headers: dict[str, Any] | None = None,
        exchange: str | None = None,
        **properties: Any,
    ) -> None:
        """Publish several on one connection."""
        headers = dict(headers or {})
        if key is not None:
            headers["x-api-key"] = key
        with self.channel() as channel:
            channel.confirm_delivery()
            for job_type, body in messages:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                channel.basic_publish(
                    self.names.jobs if exchange is None else exchange,
                    job_type,
                    data,
                    pika.BasicProperties(
                        delivery_mode=2,
                        content_type="application/json",
                        headers=headers or None,
                        **properties,
                    ),
                )

    def drain(self, queue: str) -> list[tuple[dict[str, Any], bytes]]:
        """Take everything out of a queue: (headers without the broker's own count, body) each."""
        found = []
        with self.channel() as channel:
            for _, properties, body in taken(channel, queue):
                headers = {k: v for k, v in (properties.headers or {}).items() if k != "x-delivery-count"}
                found.append((headers, body))
        return found

    def depth(self, queue: str) -> int:
        """Messages ready in a queue."""
        with self.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).method.message_count)

    def job(self, job_id: str, app: str = "shop") -> dict[str, Any] | None:
        """A job's document."""
        found: dict[str, Any] | None = self.db.jobs.find_one({"_id": f"{app}:{job_id}"})
        return found

    async def finished(self, job_id: str, app: str = "shop", *, timeout: float = 60.0) -> dict[str, Any]:
        """A job's document, once it is final."""
        final = ["succeeded", "failed", "timed_out", "cancelled", "expired", "rejected", "duplicate"]
        document: dict[str, Any] = await eventually(
            lambda: self.db.jobs.find_one({"_id": f"{app}:{job_id}", "state": {"$in": final}}),
            f"job {job_id} is final",
            timeout=timeout,
        )
        return document

    async def rejected(self, count: int = 1) -> list[tuple[dict[str, Any], bytes]]:
        """Wait for refusals, and take them out of ``rejected``."""
        found: list[tuple[dict[str, Any], bytes]] = []

        def enough() -> bool:
            found.extend(self.drain(self.names.rejected))
            return len(found) >= count

        await eventually(enough, f"{count} refused messages")
        return found


class _Channel:
    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> Any:
        self._connection = pika.BlockingConnection(pika.URLParameters(self._url))
        return self._connection.channel()

    def __exit__(self, *_: object) -> None:
        if self._connection.is_open:
            self._connection.close()


def taken(channel: Any, queue: str) -> Iterator[tuple[Any, Any, bytes]]:
    """Everything in a queue, taken out: method, properties and body each."""
    if ".group.v1." in queue:  # it has a single active consumer: nothing can be got from it
        if channel.queue_declare(queue, passive=True).method.message_count:
            for method, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=0.5):
                if method is None:
                    break
                yield method, properties, body
            channel.cancel()
        return
    while (answer := channel.basic_get(queue, auto_ack=True))[0] is not None:
        yield answer

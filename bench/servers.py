"""Where RabbitMQ and MongoDB are, and what a run leaves there: nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aio_pika
from pymongo import MongoClient

from bench.processes import BenchError, cpu_seconds, server_pid
from bench.progress import say


@dataclass(frozen=True)
class Servers:
    """The two servers, with their processes where they run on this machine."""

    amqp_url: str
    mongo_url: str

    def pids(self) -> dict[str, int]:
        """Process ids by role."""
        found = {
            "RabbitMQ": server_pid(self.amqp_url, 5672),
            "MongoDB": server_pid(self.mongo_url, 27017),
        }
        return {role: pid for role, pid in found.items() if pid is not None}


@contextmanager
def servers() -> Iterator[Servers]:
    """Those that the environment names, else those that dev.servers finds or starts."""
    amqp_url, mongo_url = os.environ.get("DISPATCHER_AMQP__URL"), os.environ.get("DISPATCHER_MONGO__URL")
    if amqp_url and mongo_url:
        yield Servers(amqp_url, mongo_url)
        return
    from dev import servers as dev

    try:
        with dev.servers(log=say) as given:
            yield Servers(given.amqp_url, given.mongo_url)
    except dev.ServerError as error:
        raise BenchError(str(error)) from None


@contextmanager
def database(url: str, name: str) -> Iterator[Any]:
    """A database of this run, dropped at the end."""
    client: MongoClient[Any] = MongoClient(url, serverSelectionTimeoutMS=5_000)
    try:
        yield client[name]
    finally:
        client.drop_database(name)
        client.close()


def delete(amqp_url: str, queues: Iterable[str], exchanges: Iterable[str]) -> None:
    """Delete queues and exchanges of this run."""

    async def work() -> None:
        connection = await aio_pika.connect(amqp_url)
        async with connection:
            channel = await connection.channel()
            for queue in queues:
                await channel.queue_delete(queue)
            for exchange in exchanges:
                await channel.exchange_delete(exchange)

    asyncio.run(work())


class CpuMeter:
    """CPU seconds that processes spend between two looks."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self._before = self._read()

    def _read(self) -> dict[str, float]:
        return {role: cpu_seconds(pid) for role, pid in self._pids.items()}

    def spent(self) -> dict[str, float]:
        """Seconds since it was made, by role."""
        return {role: now - self._before[role] for role, now in self._read().items()}

"""Servers of a module alone, to be killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev.mongo import LocalMongo
from dev.rabbit import LocalRabbit

Servers = tuple[LocalRabbit, LocalMongo]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """RabbitMQ and MongoDB, running; each test leaves them so."""
    folder = tmp_path_factory.mktemp("servers")
    with LocalRabbit(folder / "rabbitmq") as rabbit, LocalMongo(folder / "mongo") as mongo:
        yield rabbit, mongo

"""Fixtures on real servers. A missing RabbitMQ or MongoDB fails the suite; it never skips."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from config import Settings, load_settings
from dispatcher import composition
from dispatcher.services.host import Service
from tests.support import Installation, undisturbed_logging

#: The slowest first: see `dev.test`.
_ORDER = ("tests/faults/", "tests/acceptance/", "tests/integration/", "tests/unit/")
SERVER_VARIABLES = ("DISPATCHER_AMQP__URL", "DISPATCHER_MONGO__URL")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--long`` runs the tests marked so too."""
    parser.addoption("--long", action="store_true", help="run the tests marked as long, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, unless it is asked for, and put the slow folders first."""
    if not config.getoption("--long"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    items.sort(key=lambda item: next((n for n, folder in enumerate(_ORDER) if item.nodeid.startswith(folder)), 0))


def make_settings(**overrides: str) -> Settings:
    """Settings for an installation of its own on the servers of this run."""
    missing = [name for name in SERVER_VARIABLES if not os.environ.get(name)]
    if missing:
        pytest.fail(f"{' and '.join(missing)} not set: run the tests with `make test`, which starts the servers")
    unique = uuid.uuid4().hex[:10]
    env = {name: os.environ[name] for name in SERVER_VARIABLES}
    env |= {
        "DISPATCHER_AMQP__PREFIX": f"t{unique}.",
        "DISPATCHER_MONGO__DATABASE": f"t{unique}",
        "DISPATCHER_LOG__LEVEL": "warning",
        "DISPATCHER_LANES": '["default", "bulk"]',
    }
    return load_settings(env | overrides)


@pytest.fixture(scope="module")
def settings() -> Settings:
    """One installation a module; a test in need of another calls `make_settings`."""
    return make_settings()


@pytest.fixture(scope="module")
def installed(settings: Settings) -> Iterator[Installation]:
    """The installation with its topology applied; removed afterwards."""
    installation = Installation(settings)
    installation.apply()
    yield installation
    installation.remove()


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """However a test runs a command in this process, the next one sees the lines that it looks for."""
    with undisturbed_logging():
        yield


Running = Callable[..., AbstractAsyncContextManager[None]]


@pytest.fixture
def running() -> Running:
    """Run services inside the test: ``async with running(service, …):``."""
    return run_services


@asynccontextmanager
async def run_services(*services: Service) -> AsyncIterator[None]:
    """Start services, wait until they are ready, and stop them at the end."""
    from tests.support import eventually

    for service in services:
        await service.start()
    try:
        await eventually(lambda: all(all(s.checks().values()) for s in services), "services are ready")
        yield
    finally:
        for service in reversed(services):
            await service.stop()


__all__ = ["Running", "composition", "make_settings", "run_services"]

"""The composition root: which services a process consists of. Commands and tests call it alike."""

from __future__ import annotations

from collections.abc import Callable

from config import Settings
from consumers.loading import load_registry
from consumers.worker import Worker
from dispatcher.core.topology import Names, Topology, build
from dispatcher.edges.amqp import declare
from dispatcher.edges.mongo import Database, explained
from dispatcher.services.host import Service
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from dispatcher.services.scheduler import Scheduler

#: Services that ``dispatcher run`` knows.
SERVICES: dict[str, Callable[[Settings], Service]] = {"intake": Intake, "recorder": Recorder, "scheduler": Scheduler}


def topology_of(settings: Settings) -> Topology:
    """The installation's exchanges, queues and bindings."""
    return build(Names(settings.amqp.prefix), settings.lanes)


async def apply_topology(settings: Settings) -> Topology:
    """Declare the topology in RabbitMQ and the indexes in MongoDB. Doing it again changes nothing.

    Raises:
        BrokerError: RabbitMQ is away, or refuses.
        MongoError: MongoDB is away, or refuses.
    """
    topology = topology_of(settings)
    await declare(settings.amqp.url.get_secret_value(), topology)
    url = settings.mongo.url.get_secret_value()
    database = Database(url, settings.mongo.database)
    try:
        with explained(url):
            await database.ensure_indexes()
    finally:
        database.close()
    return topology


def service(settings: Settings, name: str) -> Service:
    """One service by name (see `SERVICES`)."""
    return SERVICES[name](settings)


def worker(settings: Settings, target: str) -> Worker:
    """A worker for ``module:registry``.

    Raises:
        LoadError: the registry cannot be loaded.
    """
    return Worker(settings, load_registry(target), target)


def everything(settings: Settings, target: str | None = None) -> list[Service]:
    """Every service, and a worker where a registry is given, for one process."""
    services: list[Service] = [make(settings) for make in SERVICES.values()]
    if target is not None:
        services.append(worker(settings, target))
    return services

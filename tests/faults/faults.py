"""Every fault: what it does, how it is undone, and whether steps may be executed again for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from dev.mongo import LocalMongo
from dev.rabbit import LocalRabbit
from tests.faults.fleet import Fleet
from tests.proxy import Proxy
from tests.support import Installation

#: Seconds between heartbeats of the services, the least that the settings take; the broker gives a connection up
#: after two without a word.
HEARTBEAT = 5


@dataclass
class Scene:
    """What faults act upon: servers that the run started itself, proxies before them, its services."""

    rabbit: LocalRabbit
    mongo: LocalMongo
    amqp: Proxy
    database: Proxy
    fleet: Fleet
    installation: Installation


Acts = Callable[[Scene, str], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault.

    Args:
        name: what the ledger calls it.
        group: the word that chooses it on the command line.
        targets: on whom it can be done; two faults on one target never overlap.
        act: does it at the beginning of the block and undoes it at the end.
        lasts: seconds between the two, least and most.
        excuses: whether steps may be executed again for it. What costs neither a process nor a connection of the
            broker is no excuse.
        weight: how often it is chosen, beside others.
    """

    name: str
    group: str
    targets: tuple[str, ...]
    act: Acts
    lasts: tuple[float, float]
    excuses: bool
    weight: float = 1.0


@asynccontextmanager
async def _kill_member(scene: Scene, target: str) -> AsyncIterator[None]:
    await asyncio.to_thread(scene.fleet.kill, target)
    yield
    scene.fleet.start(target)


@asynccontextmanager
async def _kill_broker(scene: Scene, target: str) -> AsyncIterator[None]:
    await asyncio.to_thread(scene.rabbit.kill)
    yield
    await _start(scene.rabbit)


@asynccontextmanager
async def _stop_broker(scene: Scene, target: str) -> AsyncIterator[None]:
    await asyncio.to_thread(scene.rabbit.stop)
    yield
    await _start(scene.rabbit)


@asynccontextmanager
async def _kill_mongo(scene: Scene, target: str) -> AsyncIterator[None]:
    await asyncio.to_thread(scene.mongo.kill)
    yield
    await _start(scene.mongo)


async def _start(server: LocalRabbit | LocalMongo) -> None:
    server.start()
    await asyncio.to_thread(server.wait_ready, 120)


#: Members that a run of the usual fleet can kill.
WORKERS, INTAKES = ("worker-1", "worker-2"), ("intake-1", "intake-2")

FAULTS: tuple[Fault, ...] = (
    Fault("kill worker", "workers", WORKERS, _kill_member, (0.0, 2.0), True, 3),
    Fault("kill intake", "workers", INTAKES, _kill_member, (0.0, 2.0), True, 2),
    Fault("kill recorder", "workers", ("recorder-1",), _kill_member, (0.0, 2.0), False, 2),
    Fault("kill scheduler", "workers", ("scheduler-1",), _kill_member, (0.0, 2.0), True, 1),
    Fault("kill broker", "broker", ("broker",), _kill_broker, (0.0, 5.0), True, 2),
    Fault("stop broker", "broker", ("broker",), _stop_broker, (0.0, 3.0), True, 1),
    Fault("kill mongo", "mongo", ("mongo",), _kill_mongo, (0.0, 5.0), False, 2),
)
GROUPS = tuple(dict.fromkeys(fault.group for fault in FAULTS))


def chosen(groups: tuple[str, ...]) -> tuple[Fault, ...]:
    """The faults of these groups."""
    return tuple(fault for fault in FAULTS if fault.group in groups)


def pick(rng: random.Random, faults: tuple[Fault, ...]) -> tuple[Fault, str, float]:
    """A fault, its target and how long it lasts, by chance."""
    (fault,) = rng.choices(faults, [fault.weight for fault in faults])
    return fault, rng.choice(fault.targets), rng.uniform(*fault.lasts)

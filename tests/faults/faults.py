"""Every fault: what it does, how it is undone, and whether steps may be executed again for it."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError

from dev.mongo import LocalMongo
from dev.rabbit import LocalRabbit
from tests.faults.fleet import Fleet
from tests.faults.plan import Job, delayed_job, plain_job
from tests.proxy import Proxy
from tests.support import Installation, eventually

#: Seconds between heartbeats of the services, the least that the settings take; the broker gives a connection up
#: after two without a word.
HEARTBEAT = 5
#: Seconds that a slow network holds everything back.
DELAY = 0.2
#: RabbitMQ 3.10 can lose a quorum queue that was declared milliseconds before it is killed: seconds to wait.
DECLARED = 3.0
#: And when a quorum queue is deleted while it starts, its supervisor of dead-letter workers may end for good: until the
#: next restart no queue with a dead-letter exchange can be declared. Seconds to wait after a start.
STARTED = 5.0
#: Longest time that a job besides the plan may take, in seconds.
JOB_TIMEOUT = 120.0
#: Level of the delay ladder (16 s) that no job of a plan passes, so that its queue is empty when it is deleted.
UNUSED_LEVEL = 7


@dataclass
class Scene:
    """What faults act upon: servers that the run started itself, proxies before them, its services."""

    rabbit: LocalRabbit
    mongo: LocalMongo
    amqp: Proxy
    database: Proxy
    fleet: Fleet
    installation: Installation
    #: What the handlers wrote.
    executions: Path
    #: Publishes a job besides those of the plan, and returns when something is known of it.
    publish: Callable[[Job], Awaitable[None]]
    _count: Iterator[int] = field(default_factory=itertools.count)

    def fresh_id(self, what: str) -> str:
        """An id of such a job."""
        return f"{what}-{next(self._count)}"


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
        recovers: seconds that it takes to be undone, about.
    """

    name: str
    group: str
    targets: tuple[str, ...]
    act: Acts
    lasts: tuple[float, float]
    excuses: bool
    weight: float = 1.0
    recovers: float = 2.0


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


def _proxy(scene: Scene, target: str) -> Proxy:
    return scene.amqp if target == "to broker" else scene.database


@asynccontextmanager
async def _cut(scene: Scene, target: str) -> AsyncIterator[None]:
    proxy = _proxy(scene, target)
    proxy.refusing = True
    proxy.cut()
    yield
    proxy.refusing = False


@asynccontextmanager
async def _reset(scene: Scene, target: str) -> AsyncIterator[None]:
    _proxy(scene, target).reset()
    yield


@asynccontextmanager
async def _black_hole(scene: Scene, target: str) -> AsyncIterator[None]:
    _proxy(scene, target).stall()
    yield
    _proxy(scene, target).resume()


@asynccontextmanager
async def _delay(scene: Scene, target: str) -> AsyncIterator[None]:
    _proxy(scene, target).delay = DELAY
    yield
    _proxy(scene, target).delay = 0.0


@asynccontextmanager
async def _slice(scene: Scene, target: str) -> AsyncIterator[None]:
    _proxy(scene, target).slicing = True
    yield
    _proxy(scene, target).slicing = False


@asynccontextmanager
async def _memory_alarm(scene: Scene, target: str) -> AsyncIterator[None]:
    await asyncio.to_thread(scene.rabbit.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
    yield
    await asyncio.to_thread(scene.rabbit.ctl, "set_vm_memory_high_watermark", "absolute", "2GB")


@asynccontextmanager
async def _disk_alarm(scene: Scene, target: str) -> AsyncIterator[None]:
    await asyncio.to_thread(scene.rabbit.ctl, "set_disk_free_limit", "100000GB")
    yield
    await asyncio.to_thread(scene.rabbit.ctl, "set_disk_free_limit", "200MB")


@asynccontextmanager
async def _freeze(scene: Scene, target: str) -> AsyncIterator[None]:
    scene.fleet.freeze(target)
    yield
    scene.fleet.thaw(target)


@asynccontextmanager
async def _delete_queue(scene: Scene, target: str) -> AsyncIterator[None]:
    """Delete an empty queue that nobody consumes; the job that needs it then has it declared anew.

    It lasts until that job has ended: the queue must be empty when it is deleted the next time.
    """
    await asyncio.sleep(STARTED)
    await asyncio.to_thread(_delete, scene, scene.installation.names.delay(UNUSED_LEVEL))
    yield
    await _publish_and_wait(scene, delayed_job(scene.fresh_id("deleted"), 2**UNUSED_LEVEL / 8))


@asynccontextmanager
async def _cancel_consumer(scene: Scene, target: str) -> AsyncIterator[None]:
    """Delete an empty queue that every worker consumes: the broker cancels them; an operator declares it anew."""
    await asyncio.sleep(STARTED)
    await asyncio.to_thread(_delete, scene, scene.installation.names.work_queue("bulk", "background"))
    yield
    await asyncio.to_thread(scene.installation.apply)
    await asyncio.sleep(DECLARED)
    await _publish_and_wait(scene, plain_job(scene.fresh_id("cancelled"), "background", lane="bulk"))


async def _publish_and_wait(scene: Scene, job: Job) -> None:
    """Publish a job, and wait until nothing of it is in a queue."""
    await scene.publish(job)
    where = {"id": job.id, "state": job.state}
    jobs = scene.installation.db.jobs
    await eventually(lambda: _found(jobs, where), f"{job.id} is final", timeout=JOB_TIMEOUT, every=0.2)


async def _found(jobs: Any, where: dict[str, str]) -> bool:
    try:
        return bool(await asyncio.to_thread(jobs.count_documents, where))
    except PyMongoError:  # MongoDB may be away as well
        return False


def _delete(scene: Scene, queue: str) -> None:
    with scene.installation.channel() as channel:
        channel.queue_delete(queue)


#: Members that a run of the usual fleet can kill.
WORKERS, INTAKES = ("worker-1", "worker-2"), ("intake-1", "intake-2")

FAULTS: tuple[Fault, ...] = (
    Fault("kill worker", "workers", WORKERS, _kill_member, (0.0, 2.0), excuses=True, weight=3),
    Fault("kill intake", "workers", INTAKES, _kill_member, (0.0, 2.0), excuses=True, weight=2),
    Fault("kill recorder", "workers", ("recorder-1",), _kill_member, (0.0, 2.0), excuses=False, weight=2),
    Fault("kill scheduler", "workers", ("scheduler-1",), _kill_member, (0.0, 2.0), excuses=True),
    Fault("kill broker", "broker", ("broker",), _kill_broker, (0.0, 5.0), excuses=True, weight=2, recovers=9.0),
    Fault("stop broker", "broker", ("broker",), _stop_broker, (0.0, 3.0), excuses=True, recovers=15.0),
    Fault("kill mongo", "mongo", ("mongo",), _kill_mongo, (0.0, 5.0), excuses=False, weight=2, recovers=4.0),
    Fault("cut to broker", "proxy", ("to broker",), _cut, (0.0, 3.0), excuses=True),
    Fault("reset to broker", "proxy", ("to broker",), _reset, (0.0, 1.0), excuses=True),
    Fault("black hole to broker", "proxy", ("to broker",), _black_hole, (1.0, 4 * HEARTBEAT), excuses=True),
    Fault("delay to broker", "proxy", ("to broker",), _delay, (1.0, 5.0), excuses=False),
    Fault("slice to broker", "proxy", ("to broker",), _slice, (1.0, 5.0), excuses=False),
    Fault("cut to mongo", "proxy", ("to mongo",), _cut, (0.0, 3.0), excuses=False, weight=0.5),
    Fault("reset to mongo", "proxy", ("to mongo",), _reset, (0.0, 1.0), excuses=False, weight=0.5),
    Fault("black hole to mongo", "proxy", ("to mongo",), _black_hole, (1.0, 10.0), excuses=False),
    Fault("delay to mongo", "proxy", ("to mongo",), _delay, (1.0, 5.0), excuses=False, weight=0.5),
    Fault("slice to mongo", "proxy", ("to mongo",), _slice, (1.0, 5.0), excuses=False, weight=0.5),
    Fault("memory alarm", "alarms", ("broker",), _memory_alarm, (1.0, 8.0), excuses=False, recovers=4.0),
    Fault("disk alarm", "alarms", ("broker",), _disk_alarm, (1.0, 8.0), excuses=False, recovers=4.0),
    Fault("freeze worker", "freeze", WORKERS, _freeze, (3 * HEARTBEAT, 4 * HEARTBEAT), excuses=True),
    Fault("delete queue", "queues", ("broker",), _delete_queue, (0.0, 2.0), excuses=False, recovers=25.0),
    Fault("cancel consumer", "queues", ("broker",), _cancel_consumer, (0.0, 2.0), excuses=True, recovers=11.0),
)
GROUPS = tuple(dict.fromkeys(fault.group for fault in FAULTS))


def chosen(groups: tuple[str, ...]) -> tuple[Fault, ...]:
    """The faults of these groups."""
    return tuple(fault for fault in FAULTS if fault.group in groups)


def named(name: str) -> Fault:
    """The fault of that name."""
    return next(fault for fault in FAULTS if fault.name == name)


def pick(rng: random.Random, faults: tuple[Fault, ...]) -> tuple[Fault, str, float]:
    """A fault, its target and how long it lasts, by chance."""
    (fault,) = rng.choices(faults, [fault.weight for fault in faults])
    return fault, rng.choice(fault.targets), rng.uniform(*fault.lasts)

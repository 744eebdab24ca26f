"""When which fault comes: chosen by the seed before the run, so that a run can be repeated."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.faults import Fault, Scene, pick
from tests.faults.ledger import Happened

#: How often a fault comes with a second one at the same moment, and how far apart the two may be in seconds.
TOGETHER = 0.3
APART = 0.5


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come: ``at`` seconds after the beginning, for ``lasts`` seconds."""

    at: float
    fault: Fault
    target: str
    lasts: float


def make_schedule(seed: int, faults: Sequence[Fault], seconds: float, gap: float) -> list[Planned]:
    """Faults at random moments, some of them in pairs.

    Between the end of one, with what follows from it, and the next there are ``gap`` seconds on average: services
    that are never up would show nothing.
    """
    rng = random.Random(f"schedule {seed}")
    planned: list[Planned] = []
    at = rng.uniform(0, gap)
    while faults and at < seconds:
        moments = [at, at + rng.uniform(0, APART)] if rng.random() < TOGETHER else [at]
        for moment in moments:
            fault, target, lasts = pick(rng, tuple(faults))
            planned.append(Planned(moment, fault, target, lasts))
        at = max(p.at + p.lasts + p.fault.recovers for p in planned[-len(moments) :]) + rng.expovariate(1 / gap)
    return planned


class Trouble:
    """Carries a schedule out; what happened is in `happened`."""

    def __init__(self, scene: Scene, schedule: Sequence[Planned]) -> None:
        self._scene = scene
        self._schedule = schedule
        self._targets: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.happened: list[Happened] = []
        #: What went wrong with a fault itself.
        self.failed: list[str] = []
        #: Names of the faults that last now.
        self.under_way: list[str] = []

    async def make(self) -> None:
        """All of the schedule; returns when the last fault is undone."""
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for planned in self._schedule:
                group.create_task(self._one(began, planned))

    async def _one(self, began: float, planned: Planned) -> None:
        await asyncio.sleep(max(began + planned.at - asyncio.get_running_loop().time(), 0))
        await self.act(planned.fault, planned.target, planned.lasts)

    async def act(self, fault: Fault, target: str, lasts: float) -> Happened:
        """One fault, now, for so many seconds; returns when it is undone."""
        async with self._targets[target]:
            began = time.time()
            self.under_way.append(fault.name)
            try:
                async with fault.act(self._scene, target):
                    await asyncio.sleep(lasts)
            except Exception as error:  # the run goes on, so that everything else is still compared
                self.failed.append(f"{fault.name} of {target}: {type(error).__name__}: {error}")
            self.under_way.remove(fault.name)
            self.happened.append(Happened(fault.name, target, began, time.time(), fault.excuses))
            return self.happened[-1]

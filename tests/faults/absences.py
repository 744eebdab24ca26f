"""A server goes away under load and comes back: what is measured of it, beside a run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from pymongo.errors import PyMongoError

from dispatcher.core.lifecycle import FINAL
from tests.faults.executions import read_executions
from tests.faults.faults import HEARTBEAT, Scene, named
from tests.faults.ledger import Happened
from tests.faults.load import Load
from tests.faults.plan import Job, own_name, plain_job
from tests.faults.run import Scenario
from tests.faults.schedule import Trouble
from tests.faults.truth import Absence, Judged, judge
from tests.faults.watching import Consumers, Watch, database
from tests.support import eventually

#: Seconds within which a broken connection, or a database that does not answer, is told.
NOTICE = 2.0
DATABASE_NOTICE = 5.0
#: The same of a silent connection: two heartbeats, with a second each, and the time between two looks of aiormq's.
SILENCE_NOTICE = 2 * (HEARTBEAT + 1) + HEARTBEAT / 2 + 1
#: How the broker goes away, on which target, and for how many seconds at least (a silence must be noticed).
WAYS = {
    "kill": ("kill broker", "broker", 0.0),
    "stop": ("stop broker", "broker", 0.0),
    "black hole": ("black hole to broker", "to broker", SILENCE_NOTICE + 5.0),
}
#: Seconds that everything may take to be as before, and that it then stays so.
RECOVERS = 120.0
CALM = 3.0


@dataclass
class Found:
    """What was measured beside a run: what /readyz said and, for MongoDB, when history was complete."""

    judged: list[Judged] = field(default_factory=list)
    #: Seconds after the return until everything was recorded that had ended before it.
    complete_after: float = math.inf


def scenario(jobs: int, rate: float, make: Callable[[str], Job] = plain_job) -> Scenario:
    """Plain jobs; the measurement brings the faults. Those that are to run without MongoDB are `anonymous_job`."""
    return Scenario(0, jobs, rate, plan=[make(f"job-{index:06d}") for index in range(jobs)], schedule=())


class MongoAway:
    """MongoDB is killed after some seconds and is away for others."""

    def __init__(self, after: float, seconds: float) -> None:
        self._after, self._seconds = after, seconds
        self.found = Found()

    async def __call__(self, scene: Scene, load: Load, trouble: Trouble) -> None:
        """Beside a run."""
        with Watch(scene.fleet, database(scene)) as watch:
            await asyncio.sleep(self._after)
            away = await trouble.act(named("kill mongo"), "mongo", self._seconds)
            ended = read_executions(scene.executions)
            await _until_final(scene, {x.job for x in ended if x.ended is not None and x.ended <= away.ended})
            self.found.complete_after = time.time() - away.ended
            await _all_back(watch, away)
        absence = Absence("mongo", away.began, away.ended, DATABASE_NOTICE)
        self.found.judged = _judge_all(scene, watch, [absence])


class BrokerAway:
    """RabbitMQ goes away in each way so many times, for at least so many seconds."""

    def __init__(self, ways: Sequence[str], times: int, seconds: float) -> None:
        self._ways, self._times, self._seconds = ways, times, seconds
        self.found = Found()

    async def __call__(self, scene: Scene, load: Load, trouble: Trouble) -> None:
        """Beside a run."""
        absences = []
        with Watch(scene.fleet, Consumers(scene)) as watch:
            for way in [way for _ in range(self._times) for way in self._ways]:
                await asyncio.sleep(CALM)
                name, target, least = WAYS[way]
                away = await trouble.act(named(name), target, max(self._seconds, least))
                await _all_back(watch, away)
                silent = way == "black hole"
                notice = SILENCE_NOTICE if silent else NOTICE
                absences.append(Absence(way, away.began, away.ended, notice, silent))
            await asyncio.sleep(CALM)
        self.found.judged = _judge_all(scene, watch, absences)


async def _all_back(watch: Watch, away: Happened) -> None:
    """Wait until it is as before; that it takes too long is seen in the table, and is no reason to stop."""
    try:
        await eventually(lambda: watch.all_back(away.ended), "all are back", timeout=RECOVERS, every=0.2)
    except AssertionError:
        return


async def _until_final(scene: Scene, wanted: set[str]) -> None:
    """Wait until history has the end of all these jobs."""
    jobs = scene.installation.db.jobs
    fields = dict.fromkeys(("id", "payload.name"), 1)

    def final() -> set[str]:
        return {own_name(doc) for doc in jobs.find({"state": {"$in": list(FINAL)}}, fields)}

    missing = wanted
    while missing:
        with contextlib.suppress(PyMongoError):
            missing = wanted - await asyncio.to_thread(final)
        await asyncio.sleep(0.2)


def _judge_all(scene: Scene, watch: Watch, absences: Sequence[Absence]) -> list[Judged]:
    """Each absence, until the next begins, for each kind; what it is judged by is kept beside the handlers' file."""
    kept = {"said": [asdict(s) for s in watch.said], "seen": [asdict(s) for s in watch.seen]}
    scene.executions.with_name("readyz.json").write_text(json.dumps(kept))
    judged = []
    kinds = dict.fromkeys(member.kind for member in scene.fleet.members.values())
    for absence, following in zip(absences, [*absences[1:], None], strict=True):
        until = following.began if following else math.inf
        said = [s for s in watch.said if s.at < until]
        seen = [s for s in watch.seen if s.done < until]
        for kind in kinds:
            members = [member.name for member in scene.fleet.of_kind(kind)]
            judged.append(judge(absence, kind, members, said, seen))
    return judged

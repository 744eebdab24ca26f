"""What is left of an installation after a process died in it: queues, documents, statistics, executions.

And the two things that tests of seams do with processes: have one stop at its seam, and let ordinary ones go on.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from dispatcher import composition
from dispatcher.core.lifecycle import FINAL
from dispatcher.core.statistics import report
from dispatcher.edges.mongo import Database, StatisticsStore
from tests.conftest import make_settings
from tests.faults.executions import Execution, read_executions
from tests.processes import ROOT, ServiceProcess, environment
from tests.support import Installation, eventually

HANDLERS = "tests.faults.handlers:jobs"
#: Seconds that a process may take until it meets its seam, and that everything may take afterwards.
PATIENCE = 180.0


@dataclass(frozen=True)
class Stop:
    """A seam for one process: the moment, the exchange or queue, and what the body holds (see tests.faults.seams)."""

    at: str
    message: str = ""
    holding: tuple[str, ...] = ()
    nth: int = 1
    #: Break the connection there instead, once, and go on.
    cut: bool = False

    def arguments(self, note: Path) -> list[str]:
        """As the launcher takes them."""
        texts = [f"--holding={text}" for text in self.holding]
        cut = ["--cut"] if self.cut else []
        return ["--at", self.at, "--message", self.message, *texts, "--nth", str(self.nth), "--note", str(note), *cut]


class Stopping:
    """A process of ours that runs until it meets its seam: ``async with Stopping(…) as it: await it.ended()``."""

    def __init__(
        self, installation: Installation, folder: Path, stop: Stop, *command: str, env: Mapping[str, str] | None = None
    ) -> None:
        self._stop = stop
        self._note = folder / "note.json"
        self._log = folder / "log"
        self._command = command
        self._env = environment(installation, {"DISPATCHER_LOG__LEVEL": "info", **(env or {})})
        self._process: Any = None

    async def __aenter__(self) -> Stopping:
        self._note.parent.mkdir(parents=True, exist_ok=True)
        launcher = [sys.executable, "-m", "tests.faults.seams", *self._stop.arguments(self._note), "--", *self._command]
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *launcher, cwd=ROOT, env=self._env, stdout=log, stderr=log
            )
        return self

    async def ended(self) -> None:
        """Wait for its death by its own hand, at its seam; or for its orderly end after a cut there."""
        try:
            code = await asyncio.wait_for(self._process.wait(), PATIENCE)
        except TimeoutError:
            raise AssertionError(f"{self._command} never met {self._stop}: {self._tail()}") from None
        assert code == (0 if self._stop.cut else -9), (
            f"{self._command} ended with {code}, not at {self._stop}: {self._tail()}"
        )
        note = json.loads(self._note.read_text())
        assert note == {"at": self._stop.at, "message": self._stop.message, "pid": self._process.pid}

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


async def stopped(
    installation: Installation, folder: Path, stop: Stop, *command: str, env: Mapping[str, str] | None = None
) -> None:
    """Run a command until it dies at its seam; or, with a cut there, to its end."""
    async with Stopping(installation, folder, stop, *command, env=env) as process:
        await process.ended()


@contextmanager
def installed(lanes: Sequence[str] = (), **overrides: str) -> Iterator[Installation]:
    """An installation of its own with these lanes besides the default one."""
    installation = Installation(make_settings(DISPATCHER_LANES=json.dumps(["default", *lanes]), **overrides))
    installation.apply()
    try:
        yield installation
    finally:
        installation.remove()


async def settled(installation: Installation, what: str, *workers: ServiceProcess, jobs: Sequence[str] = ()) -> None:
    """Wait until these jobs (none: every document's) are final and no queue holds anything; then stop the workers.

    They are stopped in order, which gives back what they hold: afterwards the queues show all there is.
    """
    names = [f"shop:{job}" for job in jobs]

    def all_final() -> bool:
        found = installation.db.jobs.find({"_id": {"$in": names}} if names else {}, {"state": 1})
        states = [doc["state"] for doc in found]
        return len(states) >= max(len(names), 1) and FINAL.issuperset(states)

    await eventually(all_final, f"{what}: every job is final", timeout=PATIENCE, every=0.1)
    await eventually(lambda: not left(installation), f"{what}: no queue holds anything", every=0.2)
    for worker in workers:
        await eventually(lambda worker=worker: _idle(worker), f"{what}: nothing is held in doubt", every=0.2)  # type: ignore[misc]
    for worker in workers:
        assert await worker.terminate() == 0
    # a moment later the recorder may have events of what was under way still
    await eventually(lambda: not left(installation), f"{what}: no queue holds anything afterwards", every=0.1)


async def _idle(worker: ServiceProcess) -> bool:
    """Whether a worker holds nothing, which no queue shows: what it stopped with would go back to its queue."""
    _, text = await worker.get("/metrics")
    gauges = {family.name: family.samples[0].value for family in text_string_to_metric_families(text) if family.samples}
    return gauges["dispatcher_worker_held"] == gauges["dispatcher_worker_running"] == 0


def left(installation: Installation) -> dict[str, int]:
    """Ready messages by queue, but for those whose content stays: parked, rejected and unrecorded ones."""
    kept = (installation.names.parked(""), installation.names.rejected, installation.names.unrecorded)
    queues = [q.name for q in composition.topology_of(installation.settings).queues if not q.name.startswith(kept)]
    with installation.channel() as channel:
        counts = {queue: channel.queue_declare(queue, passive=True).method.message_count for queue in queues}
    return {queue: count for queue, count in counts.items() if count}


def parked(installation: Installation, lane: str = "default") -> list[str]:
    """Ids of a lane's parked jobs, once for each message; they are taken out."""
    return [json.loads(body)["id"] for _, body in installation.drain(installation.names.parked(lane))]


def by_id(collection: Any) -> dict[str, dict[str, Any]]:
    """The documents of a collection, by the ids of their jobs."""
    return {document["id"]: document for document in collection.find()}


def executed(ledger: Path, job: str) -> list[Execution]:
    """A job's executions, from the handlers' own file."""
    return [execution for execution in read_executions(ledger) if execution.job == job]


def outcomes(document: Mapping[str, Any]) -> list[str]:
    """Each attempt in a few letters, ``run.n outcome``; a lost execution's outcome is ``lost``."""
    return [f"{a['run']}.{a['n']} {a['outcome'] or 'lost'}" for a in document["attempts"]]


def history_matches(document: Mapping[str, Any], ledger: Path) -> None:
    """Every execution in history is one of the handlers' file, once; what history has no end of may have none there."""
    known = {execution.execution for execution in executed(ledger, document["id"])}
    told = [attempt["execution"] for attempt in document["attempts"]]
    assert len(told) == len(set(told))
    assert set(told) <= known


async def statistics_match(installation: Installation) -> None:
    """Statistics say what the documents say: counted now, and put together as the scheduler does."""
    database = Database(installation.settings.mongo.url.get_secret_value(), installation.settings.mongo.database)
    store = StatisticsStore(database)
    wanted = _from_documents(installation)
    try:
        assert _counted(report(await store.cells())) == wanted
        # as if nothing had been written for long
        long_ago = [{"$set": {"dirty_at": {"$subtract": ["$$NOW", 3_600_000]}}}]
        installation.db.stats.update_many({"dirty_at": {"$ne": None}}, long_ago)
        await store.roll_up(60)
        assert installation.db.stats.count_documents({"dirty_at": {"$ne": None}}) == 0
        assert _counted(report(await store.cells())) == wanted
    finally:
        database.close()


def _from_documents(installation: Installation) -> dict[tuple[str, str], dict[str, int]]:
    counts: dict[tuple[str, str], Counter[str]] = {}
    for doc in installation.db.jobs.find():
        for field, value in (("total", ""), ("by_type", doc["type"]), ("by_priority", doc["priority"])):
            if value is not None:
                told = {doc["state"]: 1, "retries": doc.get("retries", 0), "starts": len(doc["attempts"])}
                counts.setdefault((field, value), Counter()).update(told)
    return {key: dict(+counter) for key, counter in counts.items()}


def _counted(stated: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, int]]:
    starts = stated["starts"]
    rows = {("total", ""): stated["total"] | {"starts": starts["total"]}}
    for field in ("by_type", "by_priority"):
        rows |= {(field, value): row | {"starts": starts[field][value]} for value, row in stated[field].items()}
    return {key: {k: n for k, n in row.items() if isinstance(n, int) and n} for key, row in rows.items()}

"""Intake dies at each of its seams; an ordinary one goes on, and the outcome is the right one.

What intake publishes, and what it acknowledges then (each line is a set of cases below):

    the work message, then Accepted                            the message, judged here or in a child process
    the refused message, then Refused (with a valid key)       the message, of any queue that intake empties
    the message into ``intake-deferred.v1``                    the message
    a reply, unconfirmed, after that: none is promised

What it writes to the database, the claims of ids, has a module of its own (``test_seams_ids``). "split" is a death
between the two messages of a batch. A job with an id of its client's is published again then, marked, since its claim
is not done: both messages are one job, whose step is executed once by one worker. Without an id they are two jobs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from consumers import Registry
from consumers.worker import Worker
from dispatcher.core.lifecycle import FINAL
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import run_services
from tests.faults.aftermath import Stop, installed, left, outcomes, statistics_match, stopped
from tests.support import Installation, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

#: A MongoDB that is away.
NOWHERE = {"DISPATCHER_MONGO__URL": "mongodb://127.0.0.1:1/"}
Message = dict[str, Any] | bytes
ONCE, EITHER = (1, 1), (1, 2)


@dataclass(frozen=True)
class Case:
    """A message, where intake dies on it, and what must come of it. The job's type is named after the case."""

    name: str
    at: str
    where: str
    #: Work messages or refused ones, at least and at most, and documents.
    messages: tuple[int, int] = (2, 2)
    documents: int = 1
    with_id: bool = True

    @property
    def type(self) -> str:
        """The job type, which is also what its messages hold and no other's."""
        return f"seam.{self.name}"

    @property
    def kind(self) -> str:
        """The group whose cases share an installation."""
        return self.name.partition("-")[0]

    def body(self) -> Message:
        """What the client publishes."""
        if self.kind in ("refused", "stray"):
            return f"no JSON, {self.type}".encode()
        return {"type": self.type, "payload": {"of": self.name}, **({"id": self.name} if self.with_id else {})}


# without an id the second work message is a second job; where the first one's event is missing, its document has
# what its worker told: no payload
CASES = [
    Case("job-unwritten", "unwritten", "work", messages=ONCE),
    Case("job-split", "written", "work"),
    Case("job-written", "written", "history"),
    Case("job-confirmed", "confirmed", "work"),
    Case("job-unflushed", "unflushed", "intake", messages=EITHER),  # its claim may be marked done by then, or not
    Case("anonymous-unwritten", "unwritten", "work", messages=ONCE, with_id=False),
    Case("anonymous-split", "written", "work", documents=2, with_id=False),
    Case("anonymous-confirmed", "confirmed", "work", documents=2, with_id=False),
    Case("anonymous-unflushed", "unflushed", "intake", documents=2, with_id=False),
    Case("refused-unwritten", "unwritten", "rejected", messages=ONCE),
    Case("refused-split", "written", "rejected"),
    Case("refused-written", "written", "history", documents=2),
    Case("refused-confirmed", "confirmed", "rejected", documents=2),
    Case("refused-unflushed", "unflushed", "intake", documents=2),
    Case("refused-keyless-written", "written", "rejected", documents=0),
    Case("stray-confirmed", "confirmed", "rejected", documents=2),
    Case("stray-unflushed", "unflushed", "unrouted", documents=2),
    Case("putoff-unwritten", "unwritten", "intake_deferred", messages=ONCE),
    # two messages with one id, and nobody can say that they are one: the later one makes no job
    Case("putoff-written", "written", "intake_deferred", messages=EITHER),
    Case("putoff-confirmed", "confirmed", "intake_deferred", messages=EITHER),
    Case("putoff-unflushed", "unflushed", "intake", messages=EITHER),
]
GROUPS = (("job",), ("anonymous",), ("refused", "stray"), ("putoff",))

jobs = Registry()


def _handler(case: Case) -> None:
    @jobs.handler(case.type)
    async def run(payload: dict[str, Any]) -> None:
        executed[case.name] += 1


#: How often each case's handler was started.
executed: Counter[str] = Counter()
for _case in CASES:
    _handler(_case)


@dataclass
class Seen:
    """What was left of a case: messages counted while no worker ran, then documents."""

    messages: int
    documents: list[dict[str, Any]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """Each group in an installation of its own, all groups beside one another."""
    folder = tmp_path_factory.mktemp("intake")

    async def play() -> dict[str, Seen]:
        groups = [[case for case in CASES if case.kind in kinds] for kinds in GROUPS]
        found = await asyncio.gather(*(asyncio.to_thread(_in_thread, group, folder) for group in groups))
        return {name: one for group in found for name, one in group.items()}

    return asyncio.run(play())


def _in_thread(cases: Sequence[Case], folder: Path) -> dict[str, Seen]:
    with installed() as installation:
        return asyncio.run(_play(installation, cases, folder))


async def _play(installation: Installation, cases: Sequence[Case], folder: Path) -> dict[str, Seen]:
    key, settings, names = await installation.create_key(), installation.settings, installation.names
    for case in cases:
        await _die(installation, case, key, folder / case.name)
    work = names.work_queue("default", "normal")
    messages = [body for queue in (work, names.rejected) for _, body in installation.drain(queue)]
    steps = [body for body in messages if body.startswith(b"{")]
    installation.publish_many([("default.normal", body) for body in steps], exchange=names.work)
    worker = Worker(settings, jobs, "tests.faults.test_seams_intake:jobs")
    async with run_services(Recorder(settings), worker):
        documents = sum(case.documents for case in cases)
        await eventually(
            lambda: installation.db.jobs.count_documents({"state": {"$in": sorted(FINAL)}}) == documents, "all final"
        )
        await eventually(lambda: not left(installation), "no queue holds anything", every=0.1)
        await statistics_match(installation)
    assert left(installation) == {}
    found = list(installation.db.jobs.find())
    assert len(found) == documents
    return {
        case.name: Seen(
            sum(case.type.encode() in body for body in messages), [doc for doc in found if doc["type"] == case.type]
        )
        for case in cases
    }


async def _die(installation: Installation, case: Case, key: str, folder: Path) -> None:
    """An intake dies on the case's message, and an ordinary one takes that."""
    names = installation.names
    source = names.unrouted if case.kind == "stray" else names.intake
    exchange = names.unrouted if case.kind == "stray" else names.jobs
    outcome = (names.work_queue("default", "normal"), names.rejected)
    before = sum(map(installation.depth, outcome))
    installation.publish(case.type, case.body(), None if "keyless" in case.name else key, exchange=exchange)
    stop = Stop(case.at, getattr(names, case.where), (case.type,))
    await stopped(installation, folder, stop, "run", "intake", env=NOWHERE if case.kind == "putoff" else {})
    await eventually(lambda: installation.depth(source), f"{case.name}: its message is back")
    sources = (names.intake_deferred, source)
    async with run_services(Intake(installation.settings)):
        wanted = before + case.messages[0]
        await eventually(lambda: sum(map(installation.depth, outcome)) >= wanted, f"{case.name}: it was taken")
        await eventually(lambda: not any(map(installation.depth, sources)), f"{case.name}: nothing of it is left")


@pytest.mark.parametrize("case", [c for c in CASES if c.kind not in ("refused", "stray")], ids=lambda c: c.name)
def test_intake_dies_on_a_job(seen: dict[str, Seen], case: Case) -> None:
    """No job is lost, one id is one document with one final state, executed once though its message came twice."""
    found = seen[case.name]
    least, most = case.messages
    assert least <= found.messages <= most
    assert len(found.documents) == case.documents == executed[case.name]
    for document in found.documents:
        assert (document["state"], document["run"]) == ("succeeded", 1)
        assert outcomes(document) == ["1.1 succeeded"]
        # never a duplicate of itself
        assert document.get("resent", 0) <= (case.kind == "putoff")
    told = [document["payload"] for document in found.documents if "payload" in document]
    assert told == [{"of": case.name}] * (1 if case.name == "anonymous-split" else case.documents)


@pytest.mark.parametrize("case", [c for c in CASES if c.kind in ("refused", "stray")], ids=lambda c: c.name)
def test_intake_dies_on_a_refusal(seen: dict[str, Seen], case: Case) -> None:
    """It is in `rejected`, at most twice; with a valid key a document tells of each that was told of."""
    found = seen[case.name]
    least, most = case.messages
    assert least <= found.messages <= most
    assert [document["state"] for document in found.documents] == ["rejected"] * case.documents
    assert len({document["id"] for document in found.documents}) == case.documents
    assert not executed[case.name]

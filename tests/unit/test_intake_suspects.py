"""Messages that may kill intake, judged by real child processes: what kills them is refused, and harms no other."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dispatcher.core.acks import AckLedger
from dispatcher.core.admission import Submission
from dispatcher.core.keys import KeyRecord
from dispatcher.core.verdicts import Case, Job, Refused, Verdict
from dispatcher.edges.amqp import Delivery
from dispatcher.edges.children import Child, ChildDied
from dispatcher.services import intake_suspects as module
from dispatcher.services.intake_suspects import Suspects
from tests.faults import deadly
from tests.support import eventually
from tests.unit.samples import JOB_TYPE, KEY, NOW, RECORD, RULES
from tests.unit.test_executor import alive


class Held:
    """A consumer that says what it was told, and the verdicts that came."""

    def __init__(self) -> None:
        self.given_back: list[bytes] = []
        self.settled: list[tuple[bytes, Verdict]] = []

    def holds(self, delivery: Delivery) -> bool:
        """Whether its channel lives."""
        return delivery.session.open

    async def give_back(self, delivery: Delivery) -> None:
        """Back to its queue."""
        self.given_back.append(delivery.body)

    def settle(self, delivery: Delivery, record: KeyRecord | None, verdict: Verdict) -> None:
        """The verdict on a message."""
        assert record is RECORD
        self.settled.append((delivery.body, verdict))

    def ids(self) -> list[str]:
        """In their order: the id of a job, the code of a refusal."""
        return [v.id if isinstance(v, Job) else str(v.refusal.code) for _, v in self.settled]


@pytest.fixture
def held() -> Held:
    """A consumer."""
    return Held()


@pytest.fixture
async def suspects(held: Held, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Suspects]:
    """Running, with children that have the fault."""
    monkeypatch.setattr(module, "CHILD_MODULE", deadly.MODULE)
    made = Suspects(cast(Any, held), held.settle)
    made.start()
    yield made
    await made.stop()


def add(suspects: Suspects, body: bytes, is_open: bool = True) -> None:
    """A message that came back three times."""
    session = cast(Any, SimpleNamespace(open=is_open, ledger=AckLedger()))
    headers = {"x-delivery-count": 3}
    delivery = Delivery("intake.v1", 1, body, JOB_TYPE, True, headers, None, None, session)
    suspects.add(delivery, Case(Submission(JOB_TYPE, body, KEY), RECORD, RULES, NOW, 7))


def good(number: int) -> bytes:
    """A body that does nothing wrong."""
    return json.dumps({"id": f"good-{number}"}).encode()


def with_marker(marker: bytes) -> bytes:
    """A body that does, with a key in it."""
    return b'{"id":"bad","payload":{"' + marker + b'":"' + KEY.encode() + b'"}}'


async def settled(held: Held, count: int) -> None:
    """Wait for so many verdicts."""
    await eventually(lambda: len(held.settled) >= count, f"{count} verdicts", timeout=30)


async def test_what_kills_two_children_is_refused_and_others_are_jobs(suspects: Suspects, held: Held) -> None:
    """The refusal shows the body without keys, which a third child took out; the order stays."""
    bodies = [good(1), with_marker(deadly.PARSED), good(2), b"[", good(3)]
    for body in bodies:
        add(suspects, body)
    await settled(held, len(bodies))
    assert held.ids() == ["good-1", "crashed_intake", "good-2", "invalid_json", "good-3"]
    assert [body for body, _ in held.settled] == bodies
    _, refused = held.settled[1]
    assert isinstance(refused, Refused)
    assert deadly.PARSED in refused.body
    assert KEY.encode() not in refused.body


async def test_a_body_that_kills_whoever_looks_is_not_shown(suspects: Suspects, held: Held) -> None:
    """Nobody can say that there is no key in it."""
    add(suspects, with_marker(deadly.SEEN))
    add(suspects, good(1))
    await settled(held, 2)
    assert held.ids() == ["crashed_intake", "good-1"]
    _, refused = held.settled[0]
    assert isinstance(refused, Refused)
    assert (refused.body, refused.size) == (b"", len(with_marker(deadly.SEEN)))


async def test_what_hangs_the_child_is_refused(suspects: Suspects, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe may have killed an intake that it hung."""
    monkeypatch.setattr(module, "JUDGE_TIMEOUT", 1.0)
    for body in (good(1), with_marker(deadly.HANGS), good(2)):
        add(suspects, body)
    await settled(held, 3)
    assert held.ids() == ["good-1", "crashed_intake", "good-2"]


async def test_one_child_judges_many_and_its_death_between_two_harms_none(suspects: Suspects, held: Held) -> None:
    """A start takes as long as hundreds of verdicts."""
    pids = set()
    for number in range(3):
        add(suspects, good(number))
        await settled(held, number + 1)
        assert suspects._child is not None
        pids.add(suspects._child._process.pid)
    (pid,) = pids
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not alive(pid), "the idle child is gone")
    add(suspects, good(3))
    await settled(held, 4)
    assert held.ids() == [f"good-{number}" for number in range(4)]


async def test_a_message_is_not_blamed_for_one_death(
    suspects: Suspects, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs out of memory may kill a child at any moment."""
    call, deaths = Child.call, ["was killed by signal 9"]

    async def unlucky(child: Child, request: bytes) -> bytes:
        if request and deaths:
            raise ChildDied(deaths.pop())
        return await call(child, request)

    monkeypatch.setattr(Child, "call", unlucky)
    add(suspects, good(1))
    await settled(held, 1)
    assert (held.ids(), deaths) == (["good-1"], [])


async def test_without_children_all_go_back_to_their_queue(
    suspects: Suspects, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message is to blame; another intake may be able to judge them."""
    monkeypatch.setattr(module, "CHILD_MODULE", "tests.nowhere")
    monkeypatch.setattr(module, "START_PAUSE", 0)
    for number in range(3):
        add(suspects, good(number))
    await eventually(lambda: len(held.given_back) == 3, "they are given back")
    monkeypatch.setattr(module, "CHILD_MODULE", deadly.MODULE)
    add(suspects, good(3))
    await settled(held, 1)
    assert held.ids() == ["good-3"]
    assert held.given_back == [good(number) for number in range(3)]


async def test_what_the_broker_gave_to_others_is_not_judged(suspects: Suspects, held: Held) -> None:
    """Its connection is gone: it comes again, here or elsewhere."""
    add(suspects, good(1), is_open=False)
    add(suspects, good(2))
    await settled(held, 1)
    assert (held.ids(), held.given_back) == (["good-2"], [])


async def test_a_fault_of_ours_refuses_that_message_and_no_other(
    suspects: Suspects, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that is none, for example."""
    call, answers = Child.call, [b"no answer"]

    async def odd(child: Child, request: bytes) -> bytes:
        return answers.pop() if request and answers else await call(child, request)

    monkeypatch.setattr(Child, "call", odd)
    add(suspects, good(1))
    add(suspects, good(2))
    await settled(held, 2)
    assert held.ids() == ["crashed_intake", "good-2"]


async def test_a_stop_finishes_what_waits(suspects: Suspects, held: Held) -> None:
    """And ends the child."""
    for number in range(100):
        add(suspects, good(number))
    await settled(held, 1)
    assert suspects._child is not None
    pid = suspects._child._process.pid
    await suspects.stop()
    assert len(held.settled) == 100
    assert not alive(pid)


async def test_a_stop_does_not_wait_for_long(suspects: Suspects, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being judged goes back with the rest when the connection closes; its child is killed."""
    monkeypatch.setattr(module, "STOP_GRACE", 0.1)
    add(suspects, good(1))
    add(suspects, with_marker(deadly.HANGS))
    await settled(held, 1)
    assert suspects._child is not None
    pid = suspects._child._process.pid
    await asyncio.wait_for(suspects.stop(), 5)
    assert held.ids() == ["good-1"]
    assert not alive(pid)

"""What a worker does with a delivery: run it, join it, drop it, set it apart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from config import load_settings
from consumers import Registry, worker
from consumers.history import START_GRACE
from consumers.holding import Known
from consumers.read_ahead import HELD
from consumers.steps import LARGE, step_key
from consumers.worker import Worker
from dispatcher.core.acks import AckLedger
from dispatcher.core.outcome import Execution
from dispatcher.edges.amqp import Delivery
from dispatcher.edges.amqp.consumer import SUSPECT_AFTER
from dispatcher.edges.children import ChildNotStarted
from schemas import BatchMessage, Outcome, WorkMessage
from tests.support import eventually

WORK = WorkMessage(
    app="shop", id="one", type="a.b", lane="default", priority="normal", accepted_at=1, payload={}
)  # fmt: skip
QUEUE = "work.v1.default.normal"


def delivered(queue: str = QUEUE, *, count: int = 0, again: bool = False, is_open: bool = True) -> Delivery:
    """The step, delivered."""
    session = cast(Any, SimpleNamespace(open=is_open, ledger=AckLedger(), began=time.monotonic()))
    return Delivery(queue, 1, WORK.encode(), queue, again, {"x-delivery-count": count}, None, None, session)


@pytest.fixture
async def idle(monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker without connections that starts nothing by itself."""
    made = Worker(load_settings({}), Registry(), "nowhere:jobs")
    monkeypatch.setattr(made, "_start_ready", lambda: None)
    return made


async def test_a_step_that_comes_again_joins_the_one_that_is_held(idle: Worker) -> None:
    """History is asked from then on: another worker may have had it in between, and sent the next step."""
    idle._take(delivered())
    (step,) = idle._held
    assert step.only
    idle._take(delivered(again=True, count=1))
    assert len(step.deliveries) == 2
    assert len(idle._ready) == 1
    assert not step.only


async def test_a_step_that_was_settled_is_acknowledged_and_not_run(idle: Worker) -> None:
    """However often it came back, and whoever published it twice."""
    idle._take(delivered())
    (step,) = idle._held
    idle._ready.clear()
    idle._settle(step)
    for again, count in ((False, 0), (True, SUSPECT_AFTER)):
        idle._take(delivered(again=again, count=count))
    assert (len(idle._ready), len(idle._held)) == (0, 0)
    assert [list(entry.messages) for entry in idle._outbox._waiting] == [[], []]


async def test_a_step_whose_workers_died_is_set_apart(idle: Worker) -> None:
    """It goes to its lane's suspects as it is; from there it runs in a process of its own."""
    for count, apart in ((SUSPECT_AFTER - 1, False), (SUSPECT_AFTER, True)):
        last = delivered(again=True, count=count)
        idle._take(last)
        (step,) = await idle._doubts.stop()
        assert not step.alone
        idle._admit(step)
        assert bool(idle._ready.clear()) is not apart
        assert (len(idle._held) == 0) is apart
        idle._held.forget(step)
    ((message,),) = [entry.messages for entry in idle._outbox._waiting]
    assert (message.exchange, message.routing_key, message.body) == ("", "suspect.v1.default", last.body)
    idle._take(delivered("suspect.v1.default"))
    (step,) = idle._held
    assert (step.alone, step.only) == (True, False)


@pytest.mark.parametrize("marked", [False, True])
async def test_a_step_that_somebody_else_may_have_is_not_started_at_once(idle: Worker, marked: bool) -> None:
    """Delivered before, or perhaps published twice; history is asked about it too."""
    delivery = delivered(again=not marked)
    if marked:
        delivery.headers["x-again"] = True
    idle._take(delivery)
    (step,) = idle._held
    assert (len(idle._ready), step in idle._doubts, step.only) == (0, True, False)


async def test_what_another_worker_is_told(idle: Worker) -> None:
    """Settled, held, in doubt; nothing of what the broker took away before it was begun."""
    key = step_key(WORK)
    assert idle._known(key) is None
    idle._take(delivered(again=True))
    assert idle._known(key) is Known.IN_DOUBT
    (step,) = await idle._doubts.stop()
    idle._admit(step)
    assert idle._known(key) is Known.HELD
    step.deliveries[0].session.open = False
    assert idle._known(key) is None
    step.started = True
    assert idle._known(key) is Known.HELD
    idle._settle(step)
    assert idle._known(key) is Known.SETTLED


async def test_what_is_given_back_is_another_step_when_it_comes_again(idle: Worker) -> None:
    """Else the copy would be acknowledged with the original, and nobody would have it."""
    original, copy = delivered(), delivered()
    idle._take(original)
    idle._give_up([QUEUE])
    assert (len(idle._ready), len(idle._held)) == (0, 0)
    (entry,) = idle._outbox._waiting
    ((message,), settled) = entry.messages, entry.settled
    assert (message.exchange, message.routing_key, message.body) == ("", QUEUE, original.body)
    idle._take(copy)
    (step,) = idle._held
    assert step.deliveries == [copy]
    assert settled is not None
    settled()
    assert original.session.ledger.flush().single == (1,)
    assert copy.session.ledger.flush() == (None, ())


async def test_a_large_payload_is_read_again_when_it_is_to_run(idle: Worker) -> None:
    """A thousand steps wait in a worker; as Python objects their payloads could take gigabytes."""
    for payload, kept in (({"text": "x" * LARGE}, {}), ({"text": "short"}, {"text": "short"})):
        work = WORK.model_copy(update={"payload": payload})
        delivery = delivered()
        delivery.body = work.encode()
        idle._take(delivery)
        (step,) = idle._ready.clear()
        assert step.work.payload == kept
        step.load()
        assert step.work == work
        idle._held.forget(step)


async def test_only_what_has_waited_long_is_given_back(idle: Worker) -> None:
    """And nothing of the queues of suspects, which hold few."""
    idle._take(delivered())
    idle._take(delivered("suspect.v1.default"))
    assert idle._overdue() == set()
    for step in idle._ready:
        step.ready_at -= 2 * HELD
    assert idle._overdue() == set(), "a place is free"
    idle._running.update(cast(Any, range(idle._settings.worker.concurrency)))
    assert idle._overdue() == {QUEUE}


async def test_what_the_broker_gave_to_others_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is gone: it comes again, here or elsewhere."""
    made = Worker(load_settings({}), Registry(), "nowhere:jobs")
    began: list[Any] = []

    async def decide(step: Any) -> None:
        began.append(step)

    monkeypatch.setattr(made, "_run", decide)
    made._publisher._link.up.set()
    made._take(delivered(is_open=False))
    assert (len(made._held), len(made._running)) == (0, 0)
    made._take(delivered())
    await asyncio.gather(*made._running)
    assert len(began) == 1


async def test_nothing_is_started_whose_end_could_not_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """While an alarm blocks the publisher, or its connection is away: it would run again if this process died."""
    made = Worker(load_settings({}), Registry(), "nowhere:jobs")
    began: list[Any] = []

    async def run(step: Any) -> None:
        began.append(step)

    monkeypatch.setattr(made, "_run", run)
    made._take(delivered())
    await asyncio.sleep(0)
    assert (began, len(made._ready)) == ([], 1)
    made._publisher._alarm._begin("low on memory")
    made._publisher._link.up.set()
    await asyncio.sleep(0.01)
    assert began == []
    made._publisher._alarm._end()
    await eventually(lambda: len(began) == 1, "it is started", every=0.005)


async def test_children_that_do_not_start_leave_nothing_in_history(
    idle: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is given back; an entry a second in its attempts would fill its document."""

    @asynccontextmanager
    async def none() -> AsyncIterator[Any]:
        await asyncio.sleep(2 * START_GRACE)
        raise ChildNotStarted("it ended first")
        yield

    idle._attempts._registry.handler("a.b")(lambda payload: None)
    monkeypatch.setattr(worker, "FAULT_PAUSE", 0)
    monkeypatch.setattr(idle._attempts._executor, "child", none)
    given_back: list[Any] = []

    async def give_back(delivery: Delivery) -> None:
        given_back.append(delivery)

    monkeypatch.setattr(idle._consumer, "give_back", give_back)
    idle._take(delivered("suspect.v1.default"))
    (step,) = idle._held
    monkeypatch.setattr(step, "only", True)
    await idle._guarded(step, idle._run(step))
    assert given_back == step.deliveries
    assert idle._outbox._waiting == []


async def test_what_is_settled_already_is_not_given_back_by_a_late_stop(
    idle: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stop comes while the child is killed: what follows is in the outbox then, and acknowledges the delivery."""
    leaving = asyncio.Event()

    @asynccontextmanager
    async def slow_to_die() -> AsyncIterator[Any]:
        yield object()
        leaving.set()
        await asyncio.sleep(60)

    async def ended(*_: Any) -> Any:
        return Execution(Outcome.SUCCEEDED), None

    given_back: list[Any] = []

    async def give_back(delivery: Delivery) -> None:
        given_back.append(delivery)

    idle._attempts._registry.handler("a.b")(lambda payload: None)
    monkeypatch.setattr(idle._attempts._executor, "child", slow_to_die)
    monkeypatch.setattr(idle._attempts._executor, "run", ended)
    monkeypatch.setattr(idle._consumer, "give_back", give_back)
    idle._take(delivered("suspect.v1.default"))
    (step,) = idle._held
    monkeypatch.setattr(step, "only", True)
    task = asyncio.create_task(idle._guarded(step, idle._run(step)))
    await asyncio.wait_for(leaving.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert given_back == []
    assert len(idle._outbox._waiting) == 1


def a_batch(names: str, **options: Any) -> Delivery:
    """A batch, delivered."""
    members = tuple(WORK.model_copy(update={"id": name, "seq": 2}) for name in names)
    delivery = delivered(**options)
    delivery.body = BatchMessage(batch="b", members=members).encode()
    return delivery


async def test_a_batch_whose_workers_died_is_taken_apart(idle: Worker) -> None:
    """Each member goes to the suspects by itself, marked; there it runs in a process of its own."""
    last = a_batch("123", again=True, count=SUSPECT_AFTER)
    idle._take(last)
    (batch,) = await idle._doubts.stop()
    idle._admit(batch)
    (entry,) = idle._outbox._waiting
    assert [(m.exchange, m.routing_key, m.headers) for m in entry.messages] == [
        ("", "suspect.v1.default", {"x-again": True})
    ] * 3
    assert [WorkMessage.decode(m.body).id for m in entry.messages] == ["1", "2", "3"]
    assert len(idle._held) == 0
    assert entry.settled is not None
    entry.settled()
    assert last.session.ledger._finished == {1}


@pytest.mark.parametrize("lists", [False, True])
async def test_a_batch_stays_together_for_a_handler_of_lists(idle: Worker, lists: bool) -> None:
    """Another handler gets its members one by one; nobody else can have them, so they are not marked."""
    idle._attempts._registry.handler("a.b", batch=lists)(lambda payload: None)
    idle._take(a_batch("12"))
    if lists:
        assert (len(idle._ready), idle._outbox._waiting) == (1, [])
        return
    ((*messages,),) = [entry.messages for entry in idle._outbox._waiting]
    assert [(m.routing_key, m.headers) for m in messages] == [(QUEUE, None)] * 2
    assert (len(idle._ready), len(idle._held)) == (0, 0)


async def test_a_batch_without_a_handler_is_put_off_whole(idle: Worker) -> None:
    """In one message, a step further; it stays together for a worker that has its handler."""
    idle._take(a_batch("12"))
    (batch,) = idle._held
    await idle._run(batch)
    (entry,) = idle._outbox._waiting
    (message,) = entry.messages
    assert message.exchange == "delay.v1"
    later = BatchMessage.decode(message.body)
    assert (later.batch, [(work.id, work.seq, work.n) for work in later.members]) == ("b", [("1", 3, 1), ("2", 3, 1)])
    assert len(entry.events) == 2
    assert entry.settled is not None
    entry.settled()
    assert (len(idle._held), batch.deliveries[0].session.ledger._finished) == (0, {1})


async def test_a_batch_whose_members_run_in_another_waits_for_that(idle: Worker) -> None:
    """Although it is marked by nobody."""
    idle._attempts._registry.handler("a.b", batch=True)(lambda payload: None)
    idle._take(a_batch("12"))
    (first,) = idle._held
    other = a_batch("23")
    other.body = other.body.replace(b'"batch":"b"', b'"batch":"c"')
    idle._take(other)
    assert (len(idle._ready), len(idle._doubts), len(idle._held)) == (1, 1, 2)
    (second,) = await idle._doubts.stop()
    idle._settle(first)
    await idle._admit_unless_over(second)
    assert [key[1] for key in second.members] == ["3"]


async def test_of_a_batch_that_was_given_back_no_member_is_acknowledged(
    idle: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by one that is settled afterwards."""
    given_back: list[Delivery] = []

    async def give_back(delivery: Delivery) -> None:
        given_back.append(delivery)

    monkeypatch.setattr(idle._consumer, "give_back", give_back)
    delivery = a_batch("1")
    idle._attempts._registry.handler("a.b", batch=True)(lambda payload: None)
    idle._take(delivery)
    (batch,) = idle._held
    (member,) = batch.members.values()
    await idle._give_back(batch)
    idle._settle(member)
    assert (given_back, delivery.session.ledger._finished) == ([delivery], set())

"""What a dispatcher does with the members of groups that are delivered to it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from config import load_settings
from dispatcher.core.acks import AckLedger
from dispatcher.core.topology import GROUPS
from dispatcher.edges import clock
from dispatcher.edges.amqp import Delivery
from dispatcher.services.grouping import Grouping
from schemas import BatchMessage, EventBatch, GroupSpec, Moved, WorkMessage
from schemas.events import pack
from tests.support import eventually
from tests.unit.samples import make_work

QUEUE = "group.v1.3"
SPEC = GroupSpec(key="a", max_size=2, max_wait=0.2)


def session() -> Any:
    """A channel that is open."""
    return SimpleNamespace(open=True, ledger=AckLedger(), began=time.monotonic())


def delivered(work: WorkMessage | bytes, channel: Any = None, *, again: bool = False, key: str = QUEUE) -> Delivery:
    """A member, delivered."""
    body = work if isinstance(work, bytes) else work.encode()
    return Delivery(QUEUE, 1, body, key, again, {}, None, None, cast(Any, channel or session()))


def member(name: str, **fields: Any) -> WorkMessage:
    """A member of a group of two."""
    return make_work(id=name, accepted_at=clock.now_ms(), group=SPEC, **fields)


@pytest.fixture
async def idle() -> Grouping:
    """A dispatcher without connections."""
    return Grouping(load_settings({}))


def told(grouping: Grouping) -> list[Any]:
    """What is to be published."""
    return grouping._outbox._waiting


def of(entry: Any) -> BatchMessage:
    """The batch of an entry."""
    (message,) = entry.messages
    assert (message.exchange, message.routing_key) == ("work.v1", "default.normal")
    return BatchMessage.decode(message.body)


async def test_a_batch_has_its_members_a_step_further(idle: Grouping) -> None:
    """In their order, without their group; history hears of each; they are acknowledged when both are confirmed."""
    deliveries = [delivered(member(name, payload={"n": name})) for name in "12"]
    for delivery in deliveries:
        idle._take(delivery)
    (entry,) = told(idle)
    batch = of(entry)
    assert [(work.id, work.seq, work.group, work.payload) for work in batch.members] == [
        ("1", 2, None, {"n": "1"}),
        ("2", 2, None, {"n": "2"}),
    ]
    (body,) = pack(entry.events)
    events = EventBatch.decode(body).events
    assert [(e.id, e.seq, e.state, e.batch) for e in events if isinstance(e, Moved)] == [
        ("1", 1, "queued", batch.batch),
        ("2", 1, "queued", batch.batch),
    ]
    assert entry.messages[0].headers is None
    entry.settled()
    assert [delivery.session.ledger._finished for delivery in deliveries] == [{1}, {1}]


async def test_a_batch_with_a_member_that_came_again_is_marked(idle: Grouping) -> None:
    """What it becomes may be there already."""
    idle._take(delivered(member("1")))
    idle._take(delivered(member("2"), again=True))
    (entry,) = told(idle)
    assert entry.messages[0].headers == {"x-again": True}


async def test_when_its_wait_is_over_a_group_is_flushed(idle: Grouping) -> None:
    """However few its members are."""
    idle._take(delivered(member("1")))
    assert told(idle) == []
    await eventually(lambda: told(idle), "it is flushed")
    assert [work.id for work in of(told(idle)[0]).members] == ["1"]


async def test_members_of_a_connection_that_is_gone_are_left_to_others(idle: Grouping) -> None:
    """Neither gathered, nor published, nor waited for."""
    channel = session()
    idle._take(delivered(member("1"), channel))
    channel.open = False
    idle._take(delivered(member("2"), channel))
    assert told(idle) == []
    idle._consumer._lost()
    assert len(idle._groups) == 0
    channel.open = True
    for name in "34":
        idle._take(delivered(member(name), channel))
    (entry,) = told(idle)
    assert [work.id for work in of(entry).members] == ["3", "4"]
    assert not entry.void()
    channel.open = False
    assert entry.void()


async def test_a_delayed_member_is_kept_until_it_is_due(idle: Grouping) -> None:
    """It left the ladder some milliseconds early; its wait begins then."""
    due = clock.now_ms() + 40
    spec = GroupSpec(key="a", max_size=1)
    idle._take(delivered(make_work(due_at=due, group=spec), key=f"{GROUPS}.3.05"))
    assert told(idle) == []
    await eventually(lambda: told(idle), "it is flushed", every=0.001)
    assert clock.now_ms() >= due


async def test_what_is_no_member_takes_no_other_with_it(idle: Grouping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of somebody else are parked; a job without a group, or on which we fail, goes on alone."""
    idle._take(delivered(b"nonsense"))
    lone = make_work(id="lone")
    idle._take(delivered(lone))
    monkeypatch.setattr(idle._groups, "add", lambda *_: 1 / 0)
    failing = member("failing")
    idle._take(delivered(failing, again=True))
    parked, alone, failed = (entry.messages[0] for entry in told(idle))
    assert (parked.routing_key, parked.body) == ("parked.v1.default", b"nonsense")
    assert (alone.exchange, alone.routing_key, alone.body, alone.headers) == (
        "work.v1",
        "default.normal",
        lone.encode(),
        None,
    )
    assert (failed.body, failed.headers) == (failing.encode(), {"x-again": True})

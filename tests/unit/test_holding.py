"""What a worker holds: steps, batches, and members that are in two of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from consumers.holding import Holding
from consumers.steps import LARGE, Step, read_step
from schemas import BatchMessage, WorkMessage
from tests.unit.samples import make_work


class Delivered:
    """As much of a delivery as a step looks at."""

    queue = "work.v1.default.normal"
    again = False

    def __init__(self, body: bytes) -> None:
        self.body = body


def step_of(body: bytes) -> Step:
    """What was delivered."""
    delivery: Any = Delivered(body)
    return read_step(delivery)


def works(names: Iterable[str], **fields: Any) -> tuple[WorkMessage, ...]:
    """Members as they are in their batch."""
    return tuple(make_work(id=name, seq=2, **fields) for name in names)


def a_batch(name: str, names: str, **fields: Any) -> Step:
    """A batch, delivered."""
    return step_of(BatchMessage(batch=name, members=works(names, **fields)).encode())


def test_a_batch_is_settled_with_its_last_member() -> None:
    """Each of them by itself; its deliveries are done then."""
    held, batch = Holding(), a_batch("b", "123")
    held.add(batch)
    first, second, third = batch.members.values()
    assert (len(held), held.get(first.key), held.get(batch.key)) == (1, batch, batch)
    assert not held.settle(second)
    assert (held.get(second.key), held.was_settled(second.key), held.is_settled(batch)) == (None, True, False)
    assert not held.settle(first)
    assert held.settle(third)
    assert (len(held), list(batch.parts)) == (0, [])
    assert held.is_settled(a_batch("other", "321"))
    assert not held.is_settled(a_batch("other", "3214"))


def test_a_batch_may_be_settled_as_a_whole() -> None:
    """Where everything of it went on elsewhere."""
    held, batch = Holding(), a_batch("b", "12")
    held.add(batch)
    assert held.settle(batch)
    assert (len(held), held.is_settled(a_batch("again", "12"))) == (0, True)


def test_a_member_is_in_one_pair_of_hands() -> None:
    """Of two batches with one member the first has it, until that is gone; then the other takes it."""
    held, first, second = Holding(), a_batch("first", "12"), a_batch("second", "23")
    held.add(first)
    held.add(second)
    (shared,) = first.members.keys() & second.members.keys()
    assert (held.get(shared), held.rivals(first), held.rivals(second)) == (first, False, True)
    held.forget(first)
    assert (held.get(shared), held.rivals(second)) == (None, False)
    assert held.get(shared) is second
    held.add(first)
    assert held.rivals(first)
    held.settle(second.members[shared])
    assert [member.key for member in held.settled_members(first)] == [shared]


def test_a_member_alone_is_a_step() -> None:
    """As when its batch was taken apart: it has the key that it had there."""
    (work,) = works("1")
    alone, batch = step_of(work.encode()), a_batch("b", "1")
    assert (alone.is_batch, alone.key, list(alone.parts)) == (False, next(iter(batch.members)), [alone])
    held = Holding()
    held.add(alone)
    held.add(batch)
    assert held.rivals(batch)


def test_large_payloads_of_a_batch_are_read_again() -> None:
    """Those of members that are left, and no others."""
    batch = a_batch("b", "123", payload={"x": "y" * LARGE})
    first, *others = batch.members.values()
    batch.lighten()
    assert batch.work.payload == first.work.payload == {}
    del batch.members[first.key]
    batch.load()
    assert first.work.payload == {}
    assert {len(member.work.payload["x"]) for member in others} == {LARGE}

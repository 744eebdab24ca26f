"""Going through a queue and taking messages out of it: the others stay, in their places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from dispatcher.edges.amqp import BrokerError, peek, sift
from tests.support import Installation, eventually

# the function hides the module of its name
sifting = __import__("sys").modules["dispatcher.edges.amqp.sift"]

pytestmark = pytest.mark.integration

COUNT = 300


@pytest.fixture
def queue(installed: Installation) -> Iterator[str]:
    """A queue with numbered messages; empty afterwards."""
    name = installed.names.parked("default")
    installed.publish_many([(name, b"%d" % number) for number in range(COUNT)], exchange="")
    yield name
    installed.drain(name)


def left(installation: Installation, queue: str) -> list[int]:
    """The numbers in a queue."""
    return [int(body) for _, body in installation.drain(queue)]


def seventh(_: Mapping[str, Any], body: bytes) -> bool:
    """Each seventh goes."""
    return int(body) % 7 == 0


@pytest.mark.parametrize("held", [10_000, 40])
async def test_what_stays_keeps_its_place(
    installed: Installation, queue: str, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one consumer, and with seven, one after the other."""
    monkeypatch.setattr(sifting, "HELD", held)
    told: list[tuple[int, int]] = []
    sifted = await sift(installed.amqp_url, queue, seventh, watch=lambda seen, total: told.append((seen, total)))
    assert (sifted.seen, sifted.taken, sifted.more) == (COUNT, 43, False)
    assert told == [(number, COUNT) for number in range(1, COUNT + 1)]
    stay = [number for number in range(COUNT) if number % 7]
    assert left(installed, queue) == stay


@pytest.mark.parametrize("held", [10_000, 40])
async def test_all_that_goes_is_gone(
    installed: Installation, queue: str, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many acknowledgements lie at the end: the broker forgets some where a channel is closed too early."""
    monkeypatch.setattr(sifting, "HELD", held)
    sifted = await sift(installed.amqp_url, queue, lambda _, body: int(body) >= 20)
    assert (sifted.seen, sifted.taken, sifted.more) == (COUNT, COUNT - 20, False)
    assert left(installed, queue) == list(range(20))


async def test_it_ends_where_it_is_told_to(installed: Installation, queue: str) -> None:
    """After so many that go, or that stay."""
    sifted = await sift(installed.amqp_url, queue, seventh, most=3)
    assert (sifted.seen, sifted.taken, sifted.more) == (15, 3, True)
    assert installed.depth(queue) == COUNT - 3, "the rest is put back"
    sifted = await sift(installed.amqp_url, queue, seventh, stays=20)
    assert (sifted.seen, sifted.taken, sifted.more) == (21, 1, False)
    stay = [number for number in range(COUNT) if number not in (0, 7, 14, 21)]
    assert left(installed, queue) == stay


async def test_peek_changes_nothing(installed: Installation, queue: str) -> None:
    """The first ones, in their order, which is the queue's afterwards."""
    assert [int(message.body) for message in await peek(installed.amqp_url, queue, 50)] == list(range(50))
    assert left(installed, queue) == list(range(COUNT))
    assert await peek(installed.amqp_url, queue, 50) == []


async def test_a_fault_of_who_decides_is_the_callers(installed: Installation, queue: str) -> None:
    """What was decided before may be gone; the rest stays."""

    def fails(_: Mapping[str, Any], body: bytes) -> bool:
        if int(body) == 100:
            raise KeyError("what is this")
        return False

    with pytest.raises(KeyError, match="what is this"):
        await sift(installed.amqp_url, queue, fails)
    await eventually(lambda: installed.depth(queue) == COUNT, "all is put back")
    assert left(installed, queue) == list(range(COUNT))


async def test_a_missing_queue_is_said(installed: Installation) -> None:
    """With what to do."""
    with pytest.raises(BrokerError, match="topology apply"):
        await sift(installed.amqp_url, "no-such-queue", seventh)

"""The outbox over a publisher that the test controls: settled means confirmed, and one stuck entry holds no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from dispatcher.edges.amqp import outbox as module
from dispatcher.edges.amqp.outbox import FEW, MAX_BATCHES, MAX_BYTES, MAX_ENTRIES, MAX_PACED_BATCHES, PACE, Outbox
from dispatcher.edges.amqp.publisher import Outgoing
from schemas import Event, EventBatch, Started
from schemas.events import about
from tests.support import eventually
from tests.unit.samples import NOW, make_work

HISTORY = "history.v1"


@dataclass
class Broker:
    """A publisher: holds every call until the test confirms it; messages for missing queues are returned."""

    missing: set[str] = field(default_factory=set)
    calls: list[list[Outgoing]] = field(default_factory=list)
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)
    declared: int = 0
    flushed: int = 0
    broken: bool = False
    #: Whether it is connected.
    ready: bool = True

    async def publish(self, messages: Sequence[Outgoing]) -> list[int]:
        """As the real one: returns the indexes of what no queue took."""
        self.calls.append(list(messages))
        await self.confirmed.wait()
        if self.broken:
            raise RuntimeError("a fault of ours")
        return [i for i, message in enumerate(messages) if message.routing_key in self.missing]

    async def flush(self) -> None:
        """Acknowledgements are flushed."""
        self.flushed += 1

    async def declare(self) -> None:
        """Missing queues are declared."""
        self.declared += 1

    def routed(self) -> list[list[str]]:
        """Routing keys of each call."""
        return [[message.routing_key for message in call] for call in self.calls]


@pytest.fixture
def broker() -> Broker:
    """A broker that confirms at once."""
    made = Broker()
    made.confirmed.set()
    return made


@pytest.fixture
async def outbox(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Outbox]:
    """A running outbox that tries again without a pause."""
    monkeypatch.setattr(module, "UNROUTABLE_PAUSE", 0)
    publisher: Any = broker
    made = Outbox(publisher, HISTORY, broker.flush, broker.declare)
    made.start()
    yield made
    await made.close()


def message(key: str) -> Outgoing:
    """A message for a queue of this name."""
    return Outgoing("", key, key.encode())


def event(execution: str) -> Event:
    """The start of an execution."""
    return Started(**about(make_work()), n=1, execution=execution, started_at=NOW, worker="w")


def told(broker: Broker) -> list[list[str]]:
    """The executions in each batch of events that was published."""
    batches = [m for call in broker.calls for m in call if m.routing_key == HISTORY]
    return [[e.execution for e in EventBatch.decode(m.body).events] for m in batches]  # type: ignore[union-attr]


async def drained(outbox: Outbox) -> None:
    """Wait for everything, with a deadline."""
    await asyncio.wait_for(outbox.drain(), 10)


async def test_an_entry_settles_only_after_its_confirm(broker: Broker, outbox: Outbox) -> None:
    """And acknowledgements are flushed after that."""
    broker.confirmed.clear()
    settled: list[str] = []
    outbox.add([message("a")], [event("1")], lambda: settled.append(f"a, flushed {broker.flushed}"))
    await eventually(lambda: broker.calls, "the batch is published")
    for _ in range(20):
        await asyncio.sleep(0)
    assert (settled, broker.flushed) == ([], 0)
    broker.confirmed.set()
    await drained(outbox)
    assert (settled, broker.flushed) == (["a, flushed 0"], 1)
    assert broker.routed() == [["a", HISTORY]]


async def test_events_of_many_entries_share_a_message(broker: Broker, outbox: Outbox) -> None:
    """In their order."""
    settled: list[int] = []
    for number in range(5):
        outbox.add(
            [message(f"q{number}")], [event(f"{number}a"), event(f"{number}b")], lambda n=number: settled.append(n)
        )
    await drained(outbox)
    assert broker.routed() == [["q0", "q1", "q2", "q3", "q4", HISTORY]]
    assert told(broker) == [[f"{n}{part}" for n in range(5) for part in "ab"]]
    assert settled == [0, 1, 2, 3, 4]


async def test_a_returned_message_holds_back_its_own_entry_alone(broker: Broker, outbox: Outbox) -> None:
    """The queue is declared anew and the message tried until a queue takes it; `stuck` says so meanwhile."""
    broker.missing.add("gone")
    settled: list[str] = []
    outbox.add([message("a")], [], lambda: settled.append("a"))
    outbox.add([message("gone"), message("b")], [], lambda: settled.append("gone"))
    outbox.add([message("c")], [event("1")], lambda: settled.append("c"))
    await eventually(lambda: broker.declared >= 3, "it was tried several times")
    assert settled == ["a", "c"]
    assert outbox.stuck == 1
    assert broker.routed()[:3] == [["a", "gone", "b", "c", HISTORY], ["gone"], ["gone"]]
    outbox.add([message("d")], [], lambda: settled.append("d"))
    await eventually(lambda: "d" in settled, "later entries go on")
    flushed = broker.flushed
    broker.missing.clear()
    await drained(outbox)
    assert settled == ["a", "c", "d", "gone"]
    assert outbox.stuck == 0
    assert broker.flushed > flushed


async def test_returned_events_hold_back_every_entry_of_theirs(broker: Broker, outbox: Outbox) -> None:
    """Without the queue of events nothing settles; with it, everything does, and no event is missing."""
    broker.missing.add(HISTORY)
    settled: list[str] = []
    outbox.add([message("a")], [event("1")], lambda: settled.append("a"))
    outbox.add([], [event("2")], lambda: settled.append("b"))
    await eventually(lambda: broker.declared >= 2, "the queue was declared")
    assert settled == []
    broker.missing.clear()
    await drained(outbox)
    assert sorted(settled) == ["a", "b"]
    assert all(batch == ["1", "2"] for batch in told(broker))
    assert broker.routed().count(["a", HISTORY]) == 1, "what was confirmed is not published again"


async def test_a_withdrawn_event_is_not_published(broker: Broker, outbox: Outbox) -> None:
    """As long as its entry was not taken: a start that its end overtook."""
    entry = outbox.add([], [event("start")])
    assert not entry.taken
    entry.events = ()
    outbox.add([], [event("end")])
    await drained(outbox)
    assert told(broker) == [["end"]]
    assert entry.taken


async def test_a_taken_entry_says_so(broker: Broker, outbox: Outbox) -> None:
    """From then on its events are under way."""
    broker.confirmed.clear()
    entry = outbox.add([], [event("start")])
    await eventually(lambda: broker.calls, "it is under way")
    assert entry.taken
    assert told(broker) == [["start"]]
    broker.confirmed.set()


async def test_an_empty_entry_settles_without_a_publish(broker: Broker, outbox: Outbox) -> None:
    """A message that nothing replaces is acknowledged all the same."""
    settled: list[str] = []
    outbox.add([], [], lambda: settled.append("a"))
    await drained(outbox)
    assert (settled, broker.calls, broker.flushed) == (["a"], [], 1)


async def test_few_batches_are_under_way_and_none_is_endless(
    broker: Broker, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing is confirmed, at most so many batches of so many entries are sent; then the rest follows."""
    monkeypatch.setattr(module, "PACE", 60)
    broker.confirmed.clear()
    settled: list[int] = []
    total = MAX_BATCHES * MAX_ENTRIES + 300
    for number in range(total):
        outbox.add([message(str(number))], [], lambda n=number: settled.append(n))
    await eventually(lambda: len(broker.calls) == MAX_BATCHES, "the first batches are under way")
    for _ in range(50):
        await asyncio.sleep(0)
    assert [len(call) for call in broker.calls] == [MAX_ENTRIES] * MAX_BATCHES
    broker.confirmed.set()
    await drained(outbox)
    assert sorted(settled) == list(range(total))
    assert sorted(int(key) for call in broker.routed() for key in call) == list(range(total))


async def test_a_batch_of_large_entries_has_fewer(broker: Broker, outbox: Outbox) -> None:
    """Its bytes are copied to be written; one that is larger than a batch may be goes alone. None is forgotten."""
    part, settled = MAX_BYTES // 4, list[int]()
    for number, size in enumerate([part] * 6 + [2 * MAX_BYTES, 1, 1]):
        outbox.add([Outgoing("", "a", b"x" * size)], [], lambda n=number: settled.append(n))
    await drained(outbox)
    assert [[len(message.body) for message in call] for call in broker.calls] == [
        [part] * 4,
        [part] * 2,
        [2 * MAX_BYTES],
        [1, 1],
    ]
    assert settled == list(range(9))


async def test_drain_waits_for_what_is_stuck(broker: Broker, outbox: Outbox) -> None:
    """It is not settled yet."""
    broker.missing.add("gone")
    outbox.add([message("gone")], [])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(outbox.drain(), 0.2)
    broker.missing.clear()
    await drained(outbox)


async def test_closing_settles_nothing(broker: Broker, outbox: Outbox) -> None:
    """What is unconfirmed is given up: its sources are not acknowledged and come again."""
    broker.confirmed.clear()
    settled: list[str] = []
    outbox.add([message("a")], [], lambda: settled.append("a"))
    await eventually(lambda: broker.calls, "it is under way")
    await asyncio.wait_for(outbox.close(), 10)
    broker.confirmed.set()
    await asyncio.sleep(0)
    assert (settled, broker.flushed) == ([], 0)


async def test_a_batch_that_fails_settles_nothing_and_stops_nothing(broker: Broker, outbox: Outbox) -> None:
    """Its entries' sources stay unacknowledged; later batches go out, more of them than there are slots."""
    broker.broken = True
    settled: list[str] = []
    for number in range(MAX_BATCHES + 2):
        outbox.add([message(f"bad{number}")], [], lambda: settled.append("bad"))
        await drained(outbox)
    broker.broken = False
    outbox.add([message("good")], [], lambda: settled.append("good"))
    await drained(outbox)
    assert settled == ["good"]


async def test_an_event_that_cannot_be_written_is_its_callers_fault_alone(broker: Broker, outbox: Outbox) -> None:
    """`add` raises and takes nothing; other entries go on."""
    settled: list[str] = []
    bad = Started(**about(make_work()), n=1, execution="half \ud83d", started_at=NOW, worker="w").model_copy(
        update={"worker": object()}
    )
    with pytest.raises(Exception, match=r"serializ|surrogate"):
        outbox.add([message("bad")], [bad])
    outbox.add([message("good")], [event("1")], lambda: settled.append("good"))
    await drained(outbox)
    assert settled == ["good"]
    assert broker.routed() == [["good", HISTORY]]


async def test_events_that_go_in_turn_are_published_when_the_messages_are_confirmed(
    outbox: Outbox, broker: Broker
) -> None:
    """Whoever hears of the event knows that the messages exist; the entry settles after both."""
    settled: list[str] = []
    broker.confirmed.clear()
    outbox.add([message("a")], [event("e1")], lambda: settled.append("a"), in_turn=True)
    await eventually(lambda: broker.calls, "the message is being published", every=0.005)
    assert (broker.routed(), settled) == ([["a"]], [])
    broker.confirmed.set()
    await outbox.drain()
    assert (broker.routed(), settled) == ([["a"], [HISTORY]], ["a"])


async def test_of_messages_that_no_queue_took_nothing_is_told(outbox: Outbox, broker: Broker) -> None:
    """The event waits until they are somewhere."""
    broker.missing = {"a"}
    outbox.add([message("a")], [event("e1")], in_turn=True)
    await eventually(lambda: broker.declared > 2, "it was tried again", every=0.005)
    assert [HISTORY] not in broker.routed()
    broker.missing = set()
    await outbox.drain()
    assert broker.routed()[-1] == [HISTORY]


async def test_what_became_void_is_not_published(outbox: Outbox, broker: Broker) -> None:
    """Nor settled; what waits with it is."""
    settled: list[str] = []
    broker.confirmed.clear()
    outbox.add([message("first")], [], lambda: settled.append("first"))
    await eventually(lambda: broker.calls, "a batch is under way", every=0.005)
    void = False
    outbox.add([message("a")], [event("e1")], lambda: settled.append("a"), void=lambda: void)
    outbox.add([message("b")], [], lambda: settled.append("b"), void=lambda: False)
    void = True
    broker.confirmed.set()
    await outbox.drain()
    assert (broker.routed(), settled) == ([["first"], ["b"]], ["first", "b"])


async def test_while_hardly_anything_is_under_way_nothing_waits(
    outbox: Outbox, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under light load each entry goes at once; a fuller batch makes the next ones wait for it, together."""
    monkeypatch.setattr(module, "PACE", 60)
    broker.confirmed.clear()
    for count, key in enumerate("abcd", start=1):
        outbox.add([message(key)], [])
        await eventually(lambda count=count: len(broker.calls) == count, f"{key} is on its way", every=0.005)  # type: ignore[misc]
    outbox.add([message("e")], [])
    outbox.add([message("f")], [])
    await asyncio.sleep(0.05)
    assert broker.routed() == [["a"], ["b"], ["c"], ["d"]]
    broker.confirmed.set()
    await outbox.drain()
    assert broker.routed()[4:] == [["e", "f"]]


async def test_what_waits_goes_after_a_moment_whatever_is_under_way(outbox: Outbox, broker: Broker) -> None:
    """While no confirm comes, what happened is told all the same: together, and in so many batches at most."""
    broker.confirmed.clear()
    for number in range(MAX_PACED_BATCHES):
        for part in "abcd":
            outbox.add([message(f"{number}{part}")], [])
        await eventually(lambda n=number: len(broker.calls) == n + 1, "they are sent", every=0.001)  # type: ignore[misc]
    outbox.add([message("more")], [])
    await asyncio.sleep(5 * PACE)
    assert broker.routed() == [[f"{number}{part}" for part in "abcd"] for number in range(MAX_PACED_BATCHES)]
    broker.confirmed.set()
    await outbox.drain()
    assert broker.routed()[-1] == ["more"]


async def test_while_the_broker_is_away_what_waits_stays_where_it_can_be_withdrawn(
    outbox: Outbox, broker: Broker
) -> None:
    """It could not be written; only what is under way already is."""
    broker.confirmed.clear()
    outbox.add([message("first")] * FEW, [])
    await eventually(lambda: broker.calls, "a batch is under way", every=0.001)
    broker.ready = False
    for _ in range(FEW):
        outbox.add([message("more")], [])
    await asyncio.sleep(5 * PACE)
    kept = outbox.add([message("kept")], [])
    await asyncio.sleep(5 * PACE)
    assert not kept.taken
    broker.confirmed.set()
    await outbox.drain()
    assert kept.taken


@pytest.mark.parametrize("pace", [PACE, 60])
async def test_while_many_bytes_are_under_way_no_batch_begins_beside_another(
    outbox: Outbox, broker: Broker, monkeypatch: pytest.MonkeyPatch, pace: float
) -> None:
    """Each is copied to be written; neither few entries nor the time that passed are a reason."""
    monkeypatch.setattr(module, "PACE", pace)
    broker.confirmed.clear()
    for number in range(3):
        outbox.add([Outgoing("", f"{number}", b"x" * (MAX_BYTES // 2 + 1))], [], urgent=True)
        await asyncio.sleep(5 * PACE)
    assert broker.routed() == [["0"], ["1"]]
    broker.confirmed.set()
    await outbox.drain()
    assert broker.routed() == [["0"], ["1"], ["2"]]

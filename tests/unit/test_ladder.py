"""The delay ladder, walked in a small simulation of a broker with the topology that is really declared."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.core import ladder
from dispatcher.core.topology import Names, build, work_key
from schemas import PRIORITIES
from tests.unit.broker import Broker

LANES = ("default", "bulk", "0", "1", "critical", "a-b_c")
NAMES = Names("p.")
TOPOLOGY = build(NAMES, LANES)
LONGEST = 2**ladder.LEVELS - 1


DELAYS = st.one_of(
    st.floats(0, ladder.MAX_DELAY),
    st.floats(0, 20),
    st.integers(1, LONGEST).map(lambda n: n / 8),
    st.floats(allow_nan=True, allow_infinity=True),
)


@given(DELAYS, st.sampled_from(LANES), st.sampled_from(PRIORITIES))
@example(0.125, "default", "normal")
@example(ladder.MAX_DELAY, "1", "critical")
@example(math.inf, "0", "low")
@example(5.0, "critical", "critical")
def test_a_delayed_message_reaches_its_work_queue_once_and_in_time(delay: float, lane: str, priority: str) -> None:
    """It visits the queue of each binary digit, highest first, and waits for its units, less what each is early."""
    way = ladder.enter(delay, lane, priority)
    broker = Broker(TOPOLOGY)
    broker.publish(NAMES.delays, way.routing_key)
    number = ladder.units(delay)
    digits = [level for level in reversed(range(ladder.LEVELS)) if number >> level & 1]
    assert broker.visited == [NAMES.delay(level) for level in digits]
    assert broker.waited_ms == number * 125 - ladder.EARLY_MS * len(digits)
    due = round(ladder.units(delay) * 125)
    assert ladder.remaining_ms(way.routing_key, due, broker.waited_ms) == due - broker.waited_ms
    assert broker.arrived == [NAMES.work_queue(lane, priority)]
    assert len(way.routing_key.encode()) <= 255


@given(st.sampled_from(LANES), st.sampled_from(PRIORITIES))
def test_undelayed_work_goes_to_the_same_queue(lane: str, priority: str) -> None:
    """The direct exchange and the end of the ladder agree."""
    broker = Broker(TOPOLOGY)
    broker.publish(NAMES.work, work_key(lane, priority))
    assert (broker.arrived, broker.visited) == ([NAMES.work_queue(lane, priority)], [])


def test_a_dead_letter_for_a_lane_that_is_gone_is_kept() -> None:
    """Dead letters cannot be mandatory: what no work queue takes ends in the stray queue, not in nothing."""
    broker = Broker(TOPOLOGY)
    broker.publish(NAMES.delays, ladder.enter(3, "forgotten", "normal").routing_key)
    assert broker.arrived == [NAMES.stray]


def test_a_missing_work_queue_is_noticed() -> None:
    """work.v1 has no alternate exchange: a mandatory publish to a lane that is gone is returned."""
    broker = Broker(TOPOLOGY)
    broker.publish(NAMES.work, work_key("forgotten", "normal"))
    assert broker.arrived == []


@given(st.floats(0, ladder.MAX_DELAY))
def test_never_less_than_asked_and_less_than_a_unit_more(delay: float) -> None:
    """Rounded up to 1/8 s, but for one microsecond of grace."""
    waits = ladder.units(delay) / 8
    assert waits >= delay - 1.001e-6
    assert waits < delay + 0.125 or waits == 0.125


@pytest.mark.parametrize(
    ("delay", "units"),
    [
        (0, 1),
        (1e-9, 1),
        (0.1, 1),
        (0.125, 1),
        (0.126, 2),
        (0.25, 2),
        (1, 8),
        (1.0001, 9),
        (0.1 + 0.2 - 0.3 + 0.25, 2),
        (60, 480),
        (ladder.MAX_DELAY - 0.1, LONGEST),
        (ladder.MAX_DELAY, LONGEST),
        (ladder.MAX_DELAY + 1, LONGEST),
        (1e300, LONGEST),
        (math.inf, LONGEST),
        (-math.inf, 1),
        (math.nan, 1),
        (-5, 1),
        (-1e300, 1),
        (86_400, 691_200),
    ],
)
def test_units(delay: float, units: int) -> None:
    """At least one, at most what the ladder holds, whatever number comes."""
    assert ladder.units(delay) == units


@given(st.floats(0, ladder.MAX_DELAY))
def test_the_first_stay_is_its_queue_s_lifetime(delay: float) -> None:
    """All messages of a queue live equally long, whether they enter there or come from a higher level."""
    way = ladder.enter(delay, "default", "normal")
    broker = Broker(TOPOLOGY)
    broker.publish(NAMES.delays, way.routing_key)
    assert broker.queues[broker.visited[0]].arguments["x-message-ttl"] == way.stay_ms > 0


@pytest.mark.parametrize(
    ("key", "due_at", "remaining"),
    [
        ("default.normal.03", None, 0),
        ("default.normal.03", 999, 0),
        ("default.normal.03", 1_000, 0),
        ("default.normal.03", 1_001, 1),
        ("default.normal.03", 10**15, ladder.EARLY_MS),
        ("default.normal.05.03", 10**15, 2 * ladder.EARLY_MS),
        ("default.normal", 10**15, 0),
        ("", 10**15, 0),
    ],
)
def test_an_early_message_is_kept_until_it_is_due(key: str, due_at: int | None, remaining: int) -> None:
    """By the receiver's clock, which may be wrong: so never longer than a message can be early on its way."""
    assert ladder.remaining_ms(key, due_at, 1_000) == remaining


def test_usual_backoffs_are_one_hop() -> None:
    """1, 2, 4, 8 s visit one queue each, 5 s two."""
    for delay, hops in ((1, 1), (2, 1), (4, 1), (8, 1), (5, 2)):
        broker = Broker(TOPOLOGY)
        broker.publish(NAMES.delays, ladder.enter(delay, "default", "normal").routing_key)
        assert len(broker.visited) == hops


def test_the_ladder_holds_the_longest_retry_and_its_lifetimes_are_exact() -> None:
    """86,400 s fit; the levels are 2^-3 to 2^16 s."""
    assert ladder.MAX_DELAY >= 86_400
    early = ladder.EARLY_MS
    assert [ladder.ttl_ms(level) + early for level in (0, 3, 19)] == [125, 1_000, 65_536_000]


#: Lifetimes of the levels 2^-3 … 2^16 s in milliseconds, worked out by hand, less the 60 ms that each is early.
LIFETIMES = [
    *(65, 190, 440, 940, 1_940, 3_940, 7_940, 15_940, 31_940, 63_940),
    *(127_940, 255_940, 511_940, 1_023_940, 2_047_940, 4_095_940, 8_191_940, 16_383_940, 32_767_940, 65_535_940),
]


@pytest.mark.parametrize("level", range(20))
def test_each_level_is_declared_with_its_lifetime_and_hands_on_to_its_own_exchange(level: int) -> None:
    """A delay of exactly that level waits in its queue alone, of all the lower ones together in each of those."""
    queue = next(queue for queue in TOPOLOGY.queues if queue.name == NAMES.delay(level))
    assert queue.arguments["x-message-ttl"] == LIFETIMES[level] < 2**32
    assert queue.arguments["x-dead-letter-exchange"] == NAMES.after(level)
    assert "x-dead-letter-routing-key" not in queue.arguments
    for units, levels in ((1 << level, [level]), ((1 << level) - 1, [*reversed(range(level))])):
        broker = Broker(TOPOLOGY)
        if levels:
            broker.publish(NAMES.delays, ladder.enter(units / 8, "default", "normal").routing_key)
            assert broker.visited == [NAMES.delay(each) for each in levels]
            assert broker.waited_ms == sum(LIFETIMES[each] for each in levels)
            assert broker.arrived == [NAMES.work_queue("default", "normal")]


def test_delay_queues_can_lose_nothing() -> None:
    """At-least-once dead-lettering with reject-publish, and never an expiry of the queue."""
    for level in range(ladder.LEVELS):
        queue = next(queue for queue in TOPOLOGY.queues if queue.name == NAMES.delay(level))
        assert queue.arguments["x-queue-type"] == "quorum"
        assert queue.arguments["x-dead-letter-strategy"] == "at-least-once"
        assert queue.arguments["x-overflow"] == "reject-publish"
        assert "x-expires" not in queue.arguments

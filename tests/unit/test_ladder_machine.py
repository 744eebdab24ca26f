"""Many messages on the delay ladder at once, by a clock that the test moves; the broker dies, delays are hostile.

The queues are those of the declared topology, first in, first out, each with its one lifetime; the routing is done by
its bindings alone. The expected times are worked out in fractions, without any of the ladder's own arithmetic.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from fractions import Fraction

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatcher.core import ladder
from dispatcher.core.outcome import Execution, after
from dispatcher.core.retry import RetryPolicy
from dispatcher.core.topology import Names, build
from schemas import PRIORITIES, Outcome
from tests.unit.broker import Broker
from tests.unit.samples import NOW, make_work

#: Lanes that look like parts of a routing key, of a pattern or of a level.
LANES = ("default", "05", "19", "00", "critical", "normal", "a-b_c", "_")
NAMES = Names("x.")
TOPOLOGY = build(NAMES, LANES)
LONGEST = 2**20 - 1
GRACE = Fraction(1, 1_000_000)

HOSTILE = (math.nan, math.inf, -math.inf, float("1e400"), 1e308, 1e300, -1e308, 5e-324, -5e-324, -0.0, 0.0)
DELAYS = st.one_of(
    st.integers(1, LONGEST).map(lambda n: n / 8),
    st.sampled_from([2.0**i / 8 for i in range(20)]).flatmap(
        lambda d: st.sampled_from([d, math.nextafter(d, 0), math.nextafter(d, math.inf), d + 1e-3, d - 1e-3])
    ),
    st.floats(0, 131_071.875),
    st.floats(0, 20),
    st.sampled_from(HOSTILE),
)


def units_by_hand(delay: float) -> int:
    """Eighths of a second, rounded up but for a microsecond, within what twenty digits hold."""
    if math.isnan(delay) or delay <= 0:
        return 1
    if math.isinf(delay):
        return LONGEST
    return min(max(math.ceil((Fraction(delay) - GRACE) * 8), 1), LONGEST)


@dataclass(eq=False)
class Message:
    """A message with all that the test expects of it."""

    key: str
    home: str
    began: int
    units: int
    visited: list[str]


class Ladder(RuleBasedStateMachine):
    """The ladder's queues hold (time of entry, message); time moves from one expiry to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker(TOPOLOGY)
        self.queues: dict[str, deque[tuple[int, Message, list[str]]]] = {}
        self.now = 0
        self.on_the_way = 0

    def ttl(self, queue: str) -> int | None:
        return self.broker.queues[queue].arguments.get("x-message-ttl")

    def publish(self, exchange: str, message: Message, visited: list[str]) -> None:
        """One exchange decides: into a queue of the ladder, or home."""
        queues = self.broker.route(exchange, message.key, set())
        assert len(queues) == 1, "a message is never in two queues, nor in none"
        (queue,) = queues
        if self.ttl(queue) is None:
            self.arrive(queue, message, visited)
        else:
            self.queues.setdefault(queue, deque()).append((self.now, message, [*visited, queue]))

    def arrive(self, queue: str, message: Message, visited: list[str]) -> None:
        """In its work queue, after exactly its digits, early by each level's margin and never late."""
        assert queue == message.home
        assert visited == message.visited
        assert self.now - message.began == 125 * message.units - 60 * len(visited)
        self.on_the_way -= 1

    @rule(delay=DELAYS, lane=st.sampled_from(LANES), priority=st.sampled_from(PRIORITIES))
    def delay(self, delay: float, lane: str, priority: str) -> None:
        """A job is put off by any number at all."""
        way = ladder.enter(delay, lane, priority)
        number = units_by_hand(delay)
        digits = [f"x.delay.v1.{19 - i:02d}" for i, digit in enumerate(f"{number:020b}") if digit == "1"]
        message = Message(way.routing_key, f"x.work.v1.{lane}.{priority}", self.now, number, digits)
        self.on_the_way += 1
        self.publish(NAMES.delays, message, [])
        assert self.ttl(digits[0]) == way.stay_ms

    @rule(ms=st.one_of(st.integers(0, 300), st.integers(0, 140_000_000)))
    def time_passes(self, ms: int) -> None:
        """Every queue hands on what lived long enough, in the order of the times."""
        until = self.now + ms
        while (first := self.next_expiry()) is not None and first[0] <= until:
            self.now, queue = first
            _, message, visited = self.queues[queue].popleft()
            self.publish(self.broker.queues[queue].arguments["x-dead-letter-exchange"], message, visited)
        self.now = until

    def next_expiry(self) -> tuple[int, str] | None:
        """Only the head of a queue can expire: that is how the broker does it."""
        heads = [(queue[0][0] + (self.ttl(name) or 0), name) for name, queue in self.queues.items() if queue]
        return min(heads, default=None)

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def a_message_comes_twice(self, data: st.DataObject) -> None:
        """The broker is killed between handing on and forgetting: at-least-once means that both copies go on."""
        filled = sorted(name for name, queue in self.queues.items() if queue)
        queue = self.queues[data.draw(st.sampled_from(filled))]
        entered, message, visited = queue[-1]
        self.on_the_way += 1
        queue.append((entered, message, visited))

    @invariant()
    def no_message_blocks_another(self) -> None:
        """Within a queue what entered first expires first: nobody waits behind a longer wait."""
        for queue in self.queues.values():
            times = [entered for entered, _, _ in queue]
            assert times == sorted(times)
        assert self.on_the_way == sum(map(len, self.queues.values()))

    def teardown(self) -> None:
        """The longest delay later the ladder is empty."""
        self.time_passes(LONGEST * 125)
        assert self.on_the_way == 0


TestLadder = Ladder.TestCase
TestLadder.settings = settings(max_examples=40, stateful_step_count=25)


@given(st.floats(0, 86_400))
@example(0.0)
@example(0.1 + 0.2)
@example(math.nextafter(0.125, 1))
@example(86_400.0)
@example(5e-324)
def test_a_snoozed_job_starts_when_it_is_due_and_less_than_a_unit_later(snooze: float) -> None:
    """The ladder's early arrival and the worker's wait for the rest, taken together, are the delay that was asked."""
    following = after(make_work(), Execution(Outcome.SNOOZED, snooze=snooze), RetryPolicy(), NOW, 0)
    assert following.message is not None
    assert following.delay is not None
    due = following.message.due_at
    assert due is not None
    # to the millisecond, but for what a float cannot tell from half of one
    assert abs(Fraction(due - NOW) - Fraction(snooze) * 1000) <= Fraction(1, 2) + GRACE
    way = ladder.enter(following.delay, "default", "normal")
    broker = Broker(TOPOLOGY)
    broker.publish(NAMES.delays, way.routing_key)
    arrival = NOW + broker.waited_ms
    start = arrival + ladder.remaining_ms(way.routing_key, due, arrival)
    assert due <= start
    assert start <= max(due + 125, NOW + 125)


@given(DELAYS, DELAYS)
def test_a_longer_delay_is_never_a_shorter_wait(one: float, other: float) -> None:
    """Units grow with the seconds, and are what they are by hand, for any number."""
    assert ladder.units(one) == units_by_hand(one)
    if one <= other:
        assert ladder.units(one) <= ladder.units(other)


@given(
    st.lists(st.sampled_from(["a", "", "05", "*"]), max_size=12).map(".".join),
    st.none() | st.integers(-(2**70), 2**70),
    st.integers(0, 2**45),
)
def test_no_message_is_kept_longer_than_it_can_be_early(key: str, due_at: int | None, now: int) -> None:
    """Whatever a routing key and a due time say, a worker waits for milliseconds, never less than none."""
    kept = ladder.remaining_ms(key, due_at, now)
    assert 0 <= kept <= 60 * max(key.count(".") - 1, 0)
    if due_at is not None:
        assert now + kept <= max(due_at, now)

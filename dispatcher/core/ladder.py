"""The delay ladder: which routing key makes a message come back after a delay.

A delay is a whole number of units of 1/8 s, written in binary. Level ``i`` is a queue whose messages live 2^i units;
a message visits one queue for each 1 in its number, from the highest down, and at last reaches the exchange ``due``,
which routes it to its work queue. So every queue holds messages of one lifetime and none blocks another.

The routing key is the whole way: lane, priority, then each level, highest first (``default.normal.05.03`` waits 4 s
and 1 s). Every queue dead-letters to an exchange of its own, which reads from the key what follows its level.

The binary ladder is the delivery-delay scheme of NServiceBus for RabbitMQ; its keys hold a word for every level and
go through an exchange for every level, which costs the broker three times as much.
"""

from __future__ import annotations

import math
from typing import NamedTuple

#: Units a second: the ladder's resolution is 1/8 s.
UNITS_PER_SECOND = 8
#: Levels 2^-3 … 2^16 s.
LEVELS = 20
#: The longest delay, in units and in seconds.
MAX_UNITS = (1 << LEVELS) - 1
MAX_DELAY = MAX_UNITS / UNITS_PER_SECOND
#: How much earlier than its nominal lifetime a message leaves each level, in milliseconds: about what the broker takes
#: to write it on its way through. Who receives it keeps it, unacknowledged, for what is left.
EARLY_MS = 60


class Way(NamedTuple):
    """A message's way through the ladder: its routing key, and how long it stays in the first queue.

    ``stay_ms`` counts from the moment at which the delay began.
    """

    routing_key: str
    stay_ms: int


def ttl_ms(level: int) -> int:
    """Lifetime of a message in the level's queue, in milliseconds."""
    return (125 << level) - EARLY_MS


def units(delay: float) -> int:
    """Seconds as units, rounded up, at least one and at most what the ladder holds."""
    if delay >= MAX_DELAY:
        return MAX_UNITS
    if not delay > 0:  # NaN too
        return 1
    # a float such as 0.1 + 0.2 must not cost a whole unit more: 1 µs of grace
    return max(math.ceil(delay * UNITS_PER_SECOND - 8e-6), 1)


def enter(delay: float, lane: str, priority: str) -> Way:
    """The way for a delay in seconds."""
    number = units(delay)
    levels = [level for level in reversed(range(number.bit_length())) if number >> level & 1]
    return Way(".".join((lane, priority, *map(_word, levels))), ttl_ms(levels[0]))


def remaining_ms(routing_key: str, due_at: int | None, now_ms: int) -> int:
    """How long a message that left the ladder is to be kept: until it is due, but no longer than it can be early.

    A longer wait is a clock that differs from that of the worker which wrote the due time.

    Args:
        routing_key: the message's; one that did not come through the ladder names no level.
        due_at, now_ms: milliseconds since the epoch.
    """
    if due_at is None:
        return 0
    levels = max(routing_key.count(".") - 1, 0)
    return min(max(due_at - now_ms, 0), EARLY_MS * levels)


def entry_pattern(level: int) -> str:
    """Binding pattern from the ladder's first exchange to a level's queue: for keys that begin with it."""
    return f"*.*.{_word(level)}.#"


def next_pattern(level: int, following: int | None) -> str:
    """Binding pattern after a level: for keys where ``following`` comes next, or (None) where nothing does."""
    last = f"*.*.#.{_word(level)}"
    return last if following is None else f"{last}.{_word(following)}.#"


def due_pattern(lane: str, priority: str) -> str:
    """Binding pattern from the exchange ``due`` to a work queue."""
    return f"{lane}.{priority}.#"


def _word(level: int) -> str:
    return f"{level:02d}"

"""The delay ladder: which exchange and routing key make a message come back after a delay.

A delay is a whole number of units of 1/8 s, written in binary. Level ``i`` is an exchange and a queue whose messages
live 2^i units; a message visits one queue for each 1 in its number, from the highest down, and at last reaches the
exchange ``due``, which routes it to its work queue. So every queue holds messages of one lifetime and none blocks
another. The routing key carries the digits, highest first, then lane and priority.

The binary ladder is the delivery-delay scheme of NServiceBus for RabbitMQ.
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
#: How much before its time a message leaves the ladder, in milliseconds: about what the broker takes to write it on
#: its way in and out. Who receives it keeps it, unacknowledged, for what is left.
EARLY_MS = 60


class Hop(NamedTuple):
    """Where to publish: the level whose exchange takes the message, its routing key, and how long it stays there.

    ``stay_ms`` counts from the moment at which the delay began.
    """

    level: int
    routing_key: str
    stay_ms: int


def ttl_ms(level: int) -> int:
    """Lifetime of a message in the level's queue, in milliseconds."""
    return 125 << level


def units(delay: float) -> int:
    """Seconds as units, rounded up, at least one and at most what the ladder holds."""
    if delay >= MAX_DELAY:
        return MAX_UNITS
    if not delay > 0:  # NaN too
        return 1
    # a float such as 0.1 + 0.2 must not cost a whole unit more: 1 µs of grace
    return max(math.ceil(delay * UNITS_PER_SECOND - 8e-6), 1)


def enter(delay: float, lane: str, priority: str) -> Hop:
    """The first hop for a delay in seconds."""
    number = units(delay)
    digits = ".".join(format(number, f"0{LEVELS}b"))
    level = number.bit_length() - 1
    return Hop(level, f"{digits}.{lane}.{priority}", ttl_ms(level) - EARLY_MS)


def remaining_ms(due_at: int | None, now_ms: int) -> int:
    """How long a message that left the ladder is to be kept: until it is due, but no longer than it can be early.

    A longer wait is a clock that differs from that of the worker which wrote the due time.
    """
    return 0 if due_at is None else min(max(due_at - now_ms, 0), EARLY_MS)


def digit_pattern(level: int, digit: str) -> str:
    """Binding pattern of a topic exchange for keys whose digit of this level is ``digit``."""
    return "*." * (LEVELS - 1 - level) + f"{digit}.#"


def due_pattern(lane: str, priority: str) -> str:
    """Binding pattern from the exchange ``due`` to a work queue."""
    return f"#.{lane}.{priority}"

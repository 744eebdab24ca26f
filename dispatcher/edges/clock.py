"""Time and chance, for the services to hand to the core."""

from __future__ import annotations

import random
import time

from dispatcher.core.ids import uuid7


def now_ms() -> int:
    """Milliseconds since the Unix epoch, rounded down (so a due time is never met early)."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """A fresh UUIDv7."""
    return uuid7(now_ms(), random_bits())


def random_bits() -> int:
    """74 random bits, for an id. Ids are no secrets, and the system's generator costs a system call."""
    return random.getrandbits(74)


def chance() -> float:
    """A random number in [0, 1), for jitter."""
    return random.random()

"""Time and chance, for the services to hand to the core."""

from __future__ import annotations

import random
import secrets
import time

from dispatcher.core.ids import uuid7


def now_ms() -> int:
    """Milliseconds since the Unix epoch, rounded down (so a due time is never met early)."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """A fresh UUIDv7."""
    return uuid7(now_ms(), secrets.randbits(74))


def random_bits() -> int:
    """74 random bits, for an id."""
    return secrets.randbits(74)


def chance() -> float:
    """A random number in [0, 1), for jitter."""
    return random.random()

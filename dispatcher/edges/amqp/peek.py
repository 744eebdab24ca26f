"""Looking at the first messages of a queue, which stay there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.edges.amqp.sift import sift


@dataclass(frozen=True, slots=True)
class Peeked:
    """A message as it lies in its queue."""

    headers: dict[str, Any]
    body: bytes


async def peek(url: str, queue: str, limit: int) -> list[Peeked]:
    """The first messages of a queue, at most ``limit``; they go back unchanged, to their places.

    Raises:
        BrokerError: the broker is away, or there is no such queue.
    """
    found: list[Peeked] = []

    def look(headers: Mapping[str, Any], body: bytes) -> bool:
        found.append(Peeked(dict(headers), body))
        return False

    await sift(url, queue, look, most=1, stays=limit)
    return found

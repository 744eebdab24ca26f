"""Headers of what lies in ``rejected`` and in parked queues: since when, and whose it is where the body cannot say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: When the message was put there, in milliseconds since the epoch.
AT_HEADER = "x-at"
#: The app of the key with which a refused message was published, where that is known.
APP_HEADER = "x-app"


def dated(headers: Mapping[str, Any] | None, now: int, app: str | None = None) -> dict[str, Any]:
    """These headers, with the time and the app."""
    return {**(headers or {}), AT_HEADER: now, **({APP_HEADER: app} if app else {})}


def is_older(headers: Mapping[str, Any], than: float) -> bool:
    """Whether a message was put there before a time; of one that does not say when, nobody knows."""
    at = headers.get(AT_HEADER)
    return isinstance(at, int) and not isinstance(at, bool) and at < than

"""Headers of what was set aside (``rejected``, parked queues, ``unrecorded.v1``): why, since when, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: When the message was put there, in milliseconds since the epoch.
AT_HEADER = "x-at"
#: The app of the key with which a refused message was published, where that is known.
APP_HEADER = "x-app"
#: Why a message was refused, and the job type and size with which it came.
REASON_HEADER = "x-rejected-reason"
TYPE_HEADER = "x-type"
SIZE_HEADER = "x-original-size"
#: What is wrong with a message that no service of ours can read or store.
ERROR_HEADER = "x-error"


def dated(headers: Mapping[str, Any] | None, now: int, app: str | None = None) -> dict[str, Any]:
    """These headers, with the time and the app."""
    return {**(headers or {}), AT_HEADER: now, **({APP_HEADER: app} if app else {})}


def not_work(now: int) -> dict[str, Any]:
    """The headers of a message that lay where jobs do, and is none."""
    return dated({ERROR_HEADER: "not a work message"}, now)


def is_older(headers: Mapping[str, Any], than: float) -> bool:
    """Whether a message was put there before a time; of one that does not say when, nobody knows."""
    at = headers.get(AT_HEADER)
    return isinstance(at, int) and not isinstance(at, bool) and at < than

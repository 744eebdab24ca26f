"""Times and lengths of time as people write them on a command line."""

from __future__ import annotations

import re
from datetime import datetime

_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LENGTH = re.compile(r"([0-9]{1,9})([smhd])")
#: Up to the year 9999, as in every format of ours.
LAST_MS = 253_402_300_799_999


def length_ms(text: str) -> int | None:
    """``90d``, ``12h``, ``30m`` or ``45s`` in milliseconds; None for anything else."""
    match = _LENGTH.fullmatch(text)
    return int(match[1]) * _UNIT_MS[match[2]] if match else None


def moment_ms(text: str, now: int) -> int:
    """A moment in milliseconds since the epoch: so long ago (``2h``), or an RFC 3339 time with its offset.

    Raises:
        ValueError: it is neither; the sentence shows what to write.
    """
    ago = length_ms(text)
    if ago is not None:
        return max(now - ago, 0)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"{text!r} is no time; write how long ago (2h, 30m, 7d) or 2026-11-26T12:00:00Z")
    return min(max(round(moment.timestamp() * 1000), 0), LAST_MS)


def span(ms: int) -> str:
    """A length of time for people; a clock that is behind counts as none."""
    seconds = max(ms, 0) / 1000
    for limit, size, unit in ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}" if seconds >= 10 or unit != "s" else f"{seconds:.1f} s"
    return f"{seconds / 86_400:.0f} days"

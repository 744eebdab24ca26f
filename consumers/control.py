"""What a handler raises to steer its job."""

from __future__ import annotations


class Snooze(Exception):
    """Put the job off, without spending an attempt.

    Args:
        seconds: how long, at least; rounded up to 1/8 s.

    Raises:
        ValueError: not between 0 and 86,400.
    """

    def __init__(self, seconds: float) -> None:
        if not 0 <= seconds <= 86_400:
            raise ValueError(f"Snooze takes 0 to 86,400 seconds, not {seconds!r}")
        super().__init__(f"snoozed for {seconds:g} s")
        self.seconds = float(seconds)


class Cancel(Exception):
    """End the job as cancelled; it is not tried again.

    Args:
        reason: kept in the job's history; anything but text as ``str`` shows it.
    """

    def __init__(self, reason: object = "") -> None:
        super().__init__(reason)
        self.reason = str(reason)

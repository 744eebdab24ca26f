"""Lengths of time as options: ``90d``, ``12h``, ``30m``, ``45s``; some may be plain seconds too."""

from __future__ import annotations

import math
import re
from typing import Any

import click

from dispatcher.core.moments import length_ms

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONGEST_MS = 100 * 366 * 86_400_000


class Duration(click.ParamType[int]):
    """``90d``, ``12h``, ``30m`` or ``45s``, as milliseconds; zero only where it is allowed."""

    name = "duration"

    def __init__(self, *, zero: bool = False) -> None:
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the text."""
        match = re.fullmatch(r"([0-9]{1,9})([smhd])", str(value))
        if match is None or (int(match[1]) == 0 and not self._zero):
            self.fail(f"{value!r} is not a duration; write 90d, 12h, 30m or 45s", param, ctx)
        ms = int(match[1]) * _UNITS[match[2]] * 1000
        if ms > _LONGEST_MS:
            self.fail("at most 100 years", param, ctx)
        return ms


class Seconds(click.ParamType[float]):
    """Seconds, as in a message: ``90`` or ``0.5``; or with a unit, ``90s``, ``30m``, ``12h`` or ``7d``."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text."""
        ms = length_ms(str(value))
        try:
            seconds = float(value) if ms is None else ms / 1000
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds <= _LONGEST_MS / 1000:
            self.fail(f"{value!r} is no length of time; write seconds (90), or 90s, 30m, 12h or 7d", param, ctx)
        return seconds

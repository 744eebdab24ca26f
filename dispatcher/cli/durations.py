"""Lengths of time as options: ``90d``, ``12h``, ``30m``, ``45s``."""

from __future__ import annotations

import re
from typing import Any

import click

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

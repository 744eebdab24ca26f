"""Numbers with Grafana's units, as it writes them."""

from __future__ import annotations

import math

_SECONDS = ((1e-6, 1e-9, "ns"), (1e-3, 1e-6, "µs"), (1, 1e-3, "ms"), (60, 1, "s"), (3600, 60, "min"),
            (86_400, 3600, "hours"), (math.inf, 86_400, "days"))  # fmt: skip
_COUNTS = ((1e3, 1.0, ""), (1e6, 1e3, "K"), (math.inf, 1e6, "Mil"))
_BYTES = ((2**10, 1.0, "B"), (2**20, 2**10, "KiB"), (2**30, 2**20, "MiB"), (math.inf, 2**30, "GiB"))


def shown(value: float, unit: str, decimals: int | None) -> str:
    """A value of a unit: ``s``, ``bytes``, ``percentunit``, ``short``, or a suffix."""
    if not math.isfinite(value):
        return str(value)
    if unit == "percentunit":
        return f"{_number(value * 100, decimals)}%"
    if unit.startswith("suffix:"):
        return f"{_number(value, decimals)}{unit.removeprefix('suffix:')}"
    size, name = _scale(value, unit)
    if value == 0:
        size, name = 1, {"s": "s", "bytes": "B"}.get(unit, "")
    return f"{_number(value / size, decimals)} {name}".rstrip()


def size_of(value: float, unit: str) -> float:
    """How much one is of what a value of the unit is written in: 60 of seconds, where it is minutes."""
    return _scale(value, unit)[0]


def _scale(value: float, unit: str) -> tuple[float, str]:
    scale = {"s": _SECONDS, "bytes": _BYTES, "short": _COUNTS}.get(unit, ((math.inf, 1.0, ""),))
    return next((size, name) for below, size, name in scale if abs(value) < below * 0.9995)


def _number(value: float, decimals: int | None) -> str:
    """With the decimals asked for, else three digits."""
    if decimals is None:
        decimals = 0 if value == int(value) or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{decimals}f}"

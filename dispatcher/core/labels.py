"""Which values a metric's label may take: clients choose the names of types, and a metric must not grow with them."""

from __future__ import annotations

from collections.abc import Iterable

#: The label of whatever has none of its own.
OTHER = "other"
#: So many values get a label of their own.
MAX_LABELS = 200


class BoundedLabels:
    """The first values get a label each, those that are reserved before all others; the rest share `OTHER`."""

    def __init__(self, most: int = MAX_LABELS) -> None:
        self._most = most
        self._known: set[str] = set()

    def reserve(self, values: Iterable[str]) -> None:
        """Give labels to values that are known beforehand, as long as there are any."""
        for value in values:
            self.of(value)

    def of(self, value: str) -> str:
        """The label of a value."""
        if value == OTHER or value in self._known:
            return value
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(value)
        return value

"""What a batch handler is given, and what it returns, taken apart by member."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from consumers.context import Context
from consumers.registry import Handler
from consumers.results import ResultError

Ending = TypeVar("Ending")


@dataclass(frozen=True, slots=True)
class Sorted:
    """The payloads that fit, validated, with their contexts; what validation raised for the others, by place."""

    values: list[Any]
    contexts: list[Context]
    misfits: dict[int, BaseException]

    def in_order(self, endings: Iterable[Ending], misfits: Mapping[int, Ending]) -> list[Ending]:
        """How every member ended, given that of those that fit, in order, and that of the others."""
        remaining, count = iter(endings), len(self.values) + len(self.misfits)
        return [misfits[place] if place in misfits else next(remaining) for place in range(count)]


def sort_out(handler: Handler, payloads: Sequence[dict[str, Any]], contexts: Sequence[Context]) -> Sorted:
    """Validate each payload by itself."""
    found = Sorted([], [], {})
    for place, (payload, context) in enumerate(zip(payloads, contexts, strict=True)):
        try:
            value = handler.value(payload)
        except BaseException as error:  # a validator may raise anything
            found.misfits[place] = error
        else:
            found.values.append(value)
            found.contexts.append(context)
    return found


def entries(returned: Any, count: int) -> Sequence[Any]:
    """What a batch handler returned, one entry for each of ``count`` payloads.

    Raises:
        ResultError: it is not that.
    """
    if returned is None:
        return [None] * count
    if not isinstance(returned, (list, tuple)):
        said = f"a {type(returned).__name__}"
    elif len(returned) != count:
        said = f"{_plural(len(returned), 'entry', 'entries')}"
    else:
        return returned
    raise ResultError(
        f"the batch handler returned {said} for {_plural(count, 'payload', 'payloads')}: return None, or a list with "
        "one entry for each payload, in their order: its result, or an exception to fail it alone"
    )


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"

"""What history does not keep: fields of payloads and results by name or path, and errors that may repeat them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from schemas import ErrorInfo

#: What stands in place of a value.
REDACTED = "[redacted]"
#: What stands in place of the text of an error.
NOT_RECORDED = "not recorded, since it may hold values that the configuration of this type keeps out of history"

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Redaction:
    """Fields to take out: of a name anywhere, or at the end of a path from the top, ``*`` being any one step."""

    names: frozenset[str] = frozenset()
    paths: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.names or self.paths)

    def of(self, value: Any) -> Any:
        """The value without what these fields hold; the value itself stays as it is."""
        return _without(value, self.names, self.paths)


def redaction(fields: Iterable[str]) -> Redaction:
    """Read fields as the configuration gives them. A dotted path is taken as a name as well: JSON allows dots there."""
    fields = tuple(fields)
    names = frozenset(field for field in fields if field != "*")
    return Redaction(names, tuple(tuple(field.split(".")) for field in fields if field not in names or "." in field))


def withhold(error: ErrorInfo) -> ErrorInfo:
    """An error by its name alone."""
    return ErrorInfo(type=error.type, message=NOT_RECORDED)


def _without(value: Any, names: frozenset[str], paths: tuple[Path, ...]) -> Any:
    if isinstance(value, dict):
        return {name: _member(member, name, names, paths) for name, member in value.items()}
    if isinstance(value, list):
        return [_member(member, None, names, paths) for member in value]
    return value


def _member(value: Any, name: str | None, names: frozenset[str], paths: tuple[Path, ...]) -> Any:
    """What is shown of a field, or of an element, which has no name."""
    following = tuple(path[1:] for path in paths if path[0] in (name, "*"))
    if name in names or () in following:
        return REDACTED
    return _without(value, names, following)

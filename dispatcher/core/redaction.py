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
    """Fields to take out: at the end of a path of names, wherever it begins; ``*`` is any one field or element."""

    paths: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.paths)

    def of(self, value: Any) -> Any:
        """The value without what these fields hold; the value itself stays as it is."""
        return _without(value, self.paths, ())


def redaction(fields: Iterable[str]) -> Redaction:
    """Read fields as the configuration gives them. A dotted one is taken as a name as well: JSON allows dots there."""
    return Redaction(tuple({path: None for field in fields for path in ((field,), tuple(field.split(".")))}))


def withhold(error: ErrorInfo) -> ErrorInfo:
    """An error by its name alone."""
    return ErrorInfo(type=error.type, message=NOT_RECORDED)


def _without(value: Any, paths: tuple[Path, ...], begun: tuple[Path, ...]) -> Any:
    """``begun`` is what is left of the paths that led here."""
    if isinstance(value, dict):
        return {name: _member(member, name, paths, begun) for name, member in value.items()}
    if isinstance(value, list):
        return [_member(member, None, paths, begun) for member in value]
    return value


def _member(value: Any, name: str | None, paths: tuple[Path, ...], begun: tuple[Path, ...]) -> Any:
    """What is shown of a field, or of an element, which has no name."""
    following = tuple({path[1:] for path in (*paths, *begun) if path[0] in (name, "*")})
    return REDACTED if () in following else _without(value, paths, following)

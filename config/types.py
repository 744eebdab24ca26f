"""What the configuration says of job types: the section ``types``. `dispatcher.core.types` finds what holds for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from config.base import Days, Name, Section, unknown_setting
from schemas import RetrySpec

#: A job type, or a topic pattern: ``*`` stands for one word, ``#`` for any number.
TypePattern = Annotated[str, Field(max_length=100, pattern=r"^(?:[a-z0-9_-]+|\*|#)(?:\.(?:[a-z0-9_-]+|\*|#))*$")]
#: A field's name, or names on the way to it joined by dots; ``*`` stands for any one field or element.
FieldPath = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^.]+(?:\.[^.]+)*$")]


class TypeSettings(Section):
    """What one entry of ``types`` sets; what it leaves out comes from the next less specific entry, then elsewhere.

    ``timeout`` and ``retry`` stand behind the message's and the handler's. ``record_payload``, ``record_result`` and
    ``redact`` say what history keeps; ``retention`` for how many days (null: for ever).
    """

    lane: Name | None = None
    timeout: Annotated[float, Field(ge=0.1, le=86_400)] | None = None
    retry: RetrySpec | None = None
    record_payload: bool = True
    record_result: bool = True
    redact: Annotated[tuple[FieldPath, ...], Field(max_length=100)] = ()
    retention: Days | None = None

    def given(self) -> dict[str, Any]:
        """What the entry sets, and nothing that it leaves out."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def _entry(value: Any) -> Any:
    """The short form, a lane's name, in the long one."""
    return {"lane": value} if isinstance(value, str) else value


Types = dict[TypePattern, Annotated[TypeSettings, BeforeValidator(_entry)]]


def check_types(types: Any, source: str) -> None:
    """Find unknown keys in the entries, before their values are looked at.

    Raises:
        SettingsError: with the nearest key.
    """
    for name, entry in types.items() if isinstance(types, Mapping) else ():
        _check_keys(entry, TypeSettings.model_fields, source, f"types.{name}.")
        retry = entry.get("retry") if isinstance(entry, Mapping) else None
        _check_keys(retry, RetrySpec.model_fields, source, f"types.{name}.retry.")


def _check_keys(entry: Any, known: Mapping[str, Any], source: str, at: str) -> None:
    for key in entry if isinstance(entry, Mapping) else ():
        if key not in known:
            raise unknown_setting(str(key), known, source, at)

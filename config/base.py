"""What every section of the settings shares."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
#: A retention; fractions are allowed.
Days = Annotated[float, Field(gt=0, le=36_500)]


class SettingsError(Exception):
    """The configuration cannot be used; the sentence says which key and what to do."""


class Section(BaseModel):
    """One section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def unknown_setting(key: str, known: Iterable[str], source: str, at: str = "") -> SettingsError:
    """The error that names the nearest known key."""
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.0)
    return SettingsError(f'unknown setting "{at}{key}" in {source}; did you mean "{at}{near[0]}"?')

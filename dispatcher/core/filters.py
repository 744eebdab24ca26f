"""Which jobs an operator means: one filter for history, for parked messages, and for what is done to many at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.core.fingerprints import fingerprint
from dispatcher.core.keys import split_type_pattern, type_matches
from dispatcher.core.redaction import withhold
from schemas import WorkMessage


@dataclass(frozen=True, slots=True)
class JobFilter:
    """What to look for; None or empty means any.

    ``type`` may be a pattern (``*`` one word, ``#`` any number of words). ``since`` and ``until`` bound the time of
    acceptance, in milliseconds since the epoch; ``until`` itself is not meant any more. ``breached`` means jobs that
    finished after their deadline, or have not finished and are past it; a message says nothing of that.
    """

    states: tuple[str, ...] = ()
    app: str | None = None
    type: str | None = None
    tag: str | None = None
    lane: str | None = None
    priority: str | None = None
    error: str | None = None
    fingerprint: str | None = None
    since: int | None = None
    until: int | None = None
    breached: bool = False

    def __post_init__(self) -> None:
        if self.type and is_pattern(self.type):
            split_type_pattern(self.type)  # raises ValueError where it is none

    @property
    def is_empty(self) -> bool:
        """Whether it means every job."""
        return self == JobFilter()

    def covers(self, work: WorkMessage) -> bool:
        """Whether a job's message is meant. States are not asked: a message knows none."""
        return (
            self._of(work.app, work.lane, work.priority)
            and (not self.tag or self.tag in work.tags)
            and (self.since is None or work.accepted_at >= self.since)
            and (self.until is None or work.accepted_at < self.until)
            and self._of_type(work.type)
            and self._covers_error_of(work)
        )

    def covers_error(self, error: Mapping[str, Any] | None) -> bool:
        """Whether an error (``type``, ``message``, ``traceback``) is meant."""
        if self.error and (error is None or error["type"] != self.error):
            return False
        return not self.fingerprint or (error is not None and fingerprint(error).id == self.fingerprint)

    def _covers_error_of(self, work: WorkMessage) -> bool:
        """The same for a message's error, or for what history keeps of it where the type's data are private."""
        if work.error is None:
            return self.covers_error(None)
        return any(self.covers_error(error.model_dump()) for error in (work.error, withhold(work.error)))

    def _of(self, app: str, lane: str, priority: str) -> bool:
        return self.app in (None, app) and self.lane in (None, lane) and self.priority in (None, priority)

    def _of_type(self, job_type: str) -> bool:
        if not self.type or self.type == job_type:
            return True
        return is_pattern(self.type) and type_matches(tuple(self.type.split(".")), tuple(job_type.split(".")))


def is_pattern(job_type: str) -> bool:
    """Whether it stands for several types."""
    return "*" in job_type or "#" in job_type


def type_expression(pattern: str) -> str:
    """A type pattern as a regular expression that begins with the pattern's fixed words, for an index to use."""
    words: list[str] = []
    for word in pattern.split("."):
        if word != "#" or words[-1:] != ["#"]:
            words.append(word)
    if words == ["#"]:
        return "^"
    expression = "^"
    for at, word in enumerate(words):
        if word == "#":
            expression += r"(?:\.[^.]+)*" if at else r"(?:[^.]+\.)*"
        else:
            between = "" if at == 0 or words[:at] == ["#"] else r"\."
            expression += between + (r"[^.]+" if word == "*" else re.escape(word))
    return expression + "$"

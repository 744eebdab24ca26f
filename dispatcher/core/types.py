"""What holds for a job type: the entries of the section ``types`` that match it, laid one over the other.

Each setting comes from the most specific entry that has it. A type's own name is the most specific; of patterns the
first word that differs decides: a plain word before ``*``, the end before ``#``. Fields of ``retry`` count singly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dispatcher.core.keys import split_type_pattern, type_matches
from dispatcher.core.redaction import Redaction, redaction, withhold
from schemas import ErrorInfo, RetrySpec

#: Types that only patterns match are remembered up to this number: clients choose them.
REMEMBERED = 1_000

#: What one entry sets.
Entry = Mapping[str, Any]

_NOTHING = Redaction()
_END = 2
_RANKS = {"*": 1, "#": 3}


@dataclass(frozen=True, slots=True)
class TypeRules:
    """What holds for one type. ``keeps``: whether ``retention`` (days; None: for ever) stands in place of the default.

    ``redaction`` is what is taken out of the payload and the result that are recorded.
    """

    lane: str | None = None
    timeout: float | None = None
    retry: RetrySpec | None = None
    record_payload: bool = True
    record_result: bool = True
    redaction: Redaction = _NOTHING
    keeps: bool = False
    retention: float | None = None

    @property
    def private(self) -> bool:
        """Whether history must not have some of what the handler sees."""
        return bool(self.redaction) or not (self.record_payload and self.record_result)

    def payload(self, payload: dict[str, Any]) -> dict[str, Any] | None:
        """What history keeps of a payload."""
        if not self.record_payload:
            return None
        shown: dict[str, Any] = self.redaction.of(payload) if self.redaction else payload
        return shown

    def result(self, result: Any) -> Any:
        """What history keeps of a result."""
        if not self.record_result:
            return None
        return self.redaction.of(result) if self.redaction else result

    def error(self, error: ErrorInfo | None) -> ErrorInfo | None:
        """What history keeps of an error that a handler made: its text may repeat what it was given."""
        return withhold(error) if error is not None and self.private else error


_PLAIN = TypeRules()


class TypeTable:
    """The section ``types``, ready to be asked.

    Args:
        types: what each entry sets, by a type's name or pattern (``Settings.type_entries``).
    """

    def __init__(self, types: Mapping[str, Entry] | None = None) -> None:
        ordered = sorted((types or {}).items(), key=lambda entry: _specificity(entry[0]), reverse=True)
        #: The least specific first, so that each is laid over those before it.
        self._patterns = [(split_type_pattern(name), entry) for name, entry in ordered if _is_pattern(name)]
        self._exact = {name: self._rules(name, entry) for name, entry in ordered if not _is_pattern(name)}
        self._remembered: dict[str, TypeRules] = {}

    def of(self, job_type: str) -> TypeRules:
        """What holds for a type."""
        rules = self._exact.get(job_type)
        if rules is None and self._patterns:
            rules = self._remembered.get(job_type) or self._matched(job_type)
        return rules or _PLAIN

    def _matched(self, job_type: str) -> TypeRules:
        if len(self._remembered) >= REMEMBERED:
            self._remembered.clear()
        rules = self._remembered[job_type] = self._rules(job_type)
        return rules

    def _rules(self, job_type: str, exact: Entry | None = None) -> TypeRules:
        words = tuple(job_type.split("."))
        rules = _PLAIN
        for pattern, entry in self._patterns:
            if type_matches(pattern, words):
                rules = _over(rules, entry)
        return rules if exact is None else _over(rules, exact)


def _over(rules: TypeRules, entry: Entry) -> TypeRules:
    """These rules with what an entry sets laid over them."""
    changed = dict(entry)
    if "redact" in changed:
        changed["redaction"] = redaction(changed.pop("redact"))
    if "retention" in changed:
        changed["keeps"] = True
    if (retry := entry.get("retry")) is not None and rules.retry is not None:
        changed["retry"] = rules.retry.model_copy(update=retry.model_dump(exclude_none=True))
    return replace(rules, **changed)


def _is_pattern(name: str) -> bool:
    return not {"*", "#"}.isdisjoint(name.split("."))


def _specificity(name: str) -> tuple[int, ...]:
    """Orders names: the lesser is the more specific."""
    return (*(_RANKS.get(word, 0) for word in name.split(".")), _END)

"""Why intake refuses a message: the contract's codes, in the order in which the first counts."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """Refusal codes. When several apply, the one that stands first here is given."""

    MISSING_KEY = "missing_key"
    MALFORMED_KEY = "malformed_key"
    UNKNOWN_KEY = "unknown_key"
    REVOKED_KEY = "revoked_key"
    EXPIRED_KEY = "expired_key"
    BAD_TYPE = "bad_type"
    FORBIDDEN = "forbidden"
    TOO_LARGE = "too_large"
    INVALID_UTF8 = "invalid_utf8"
    TOO_DEEP = "too_deep"
    NOT_FINITE = "not_finite"
    INVALID_JSON = "invalid_json"
    NOT_AN_OBJECT = "not_an_object"
    UNKNOWN_FIELD = "unknown_field"
    UNSUPPORTED = "unsupported"
    TYPE_MISMATCH = "type_mismatch"
    CONFLICTING_FIELDS = "conflicting_fields"
    INVALID_FIELD = "invalid_field"
    UNKNOWN_LANE = "unknown_lane"
    RATE_LIMITED = "rate_limited"
    CRASHED_INTAKE = "crashed_intake"


class Refusal(Exception):
    """A message is refused. The sentence explains, and holds no value of the input."""

    def __init__(self, code: Code, sentence: str) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code = code
        self.sentence = sentence

    def __reduce__(self) -> tuple[type[Refusal], tuple[Code, str]]:
        return type(self), (self.code, self.sentence)  # so that it can be sent to a child process

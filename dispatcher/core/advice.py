"""What to do about each refusal: the last column of docs/refusals.md, held to it by a test."""

from __future__ import annotations

from dispatcher.core.refusals import Code

REFUSALS: dict[Code, str] = {
    Code.MISSING_KEY: "send the key in that header",
    Code.MALFORMED_KEY: "copy the key again, without spaces or quotes",
    Code.UNKNOWN_KEY: "make one: `dispatcher keys create`",
    Code.REVOKED_KEY: "ask the platform team for a new one",
    Code.EXPIRED_KEY: "ask the platform team for a new one",
    Code.BAD_TYPE: "use dot-separated words of `[a-z0-9_-]`, at most 100 characters",
    Code.FORBIDDEN: "use another key, or ask for one that may do more",
    Code.TOO_LARGE: "store the data elsewhere and publish a reference",
    Code.INVALID_UTF8: "encode it as UTF-8",
    Code.TOO_DEEP: "flatten it",
    Code.NOT_FINITE: "send finite numbers, or text",
    Code.INVALID_JSON: "check how it is written",
    Code.NOT_AN_OBJECT: 'wrap it: `{"payload": …}`',
    Code.UNKNOWN_FIELD: "check its spelling; your own data belongs in `payload`",
    Code.UNSUPPORTED: "leave it out, or upgrade",
    Code.TYPE_MISMATCH: "leave it out",
    Code.CONFLICTING_FIELDS: "give one of them",
    Code.INVALID_FIELD: "the sentence names the field and the rule",
    Code.UNKNOWN_LANE: "use a lane of the configuration's `lanes`",
    Code.RATE_LIMITED: "publish more slowly",
    Code.CRASHED_INTAKE: "if a queue was missing, `dispatcher topology apply`; publish it again; then it is a bug",
}

"""Secrets of others in texts that history keeps: messages of exceptions and their tracebacks.

Only well-known forms are found: what stands behind a name such as ``password`` or in ``Authorization``, passwords in
URLs, bearer tokens, and tokens that show by their beginning what they are. A thousand jobs may fail together, so a
pattern is tried only where the text has a word of it; that makes most texts fifty times cheaper.
"""

from __future__ import annotations

import re

#: What is put in the place of a secret.
HIDDEN = b"***"

#: In lower case; a value that follows one of these is hidden.
_NAMES = (
    b"password", b"passwd", b"passphrase", b"pwd", b"secret", b"token", b"api_key", b"api-key", b"apikey",
    b"access_key", b"access-key", b"accesskey", b"private_key", b"private-key", b"privatekey", b"authorization",
    b"cookie",
)  # fmt: skip
#: After a name: perhaps a few letters more and a quote, = or :, then a value in quotes or up to what ends a word.
_VALUE = re.compile(
    rb"([\w-]{0,16}\\?[\"']?\s{0,3}(?:=>|=|:)\s{0,3}\\?)"
    rb"(?:\"[^\"\n]*\"?|'[^'\n]*'?|(?:(?:basic|bearer|digest)\s+)?[^\s,;&\"')\]}]+)",
    re.IGNORECASE,
)
_BEARER = re.compile(rb"(\s{1,3})[\w.~+/=-]{6,}")
_IN_URL = re.compile(rb"(://[^\s:/@\"']{0,256}:)[^\s/\"']{1,1024}@")
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}KEY-----|\Z)", re.DOTALL)
_BEGINNINGS = (
    b"eyJ", b"AKIA", b"ASIA", b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_", b"glpat-", b"xox",
    b"k_live_", b"k_test_",
)  # fmt: skip
_BY_BEGINNING = re.compile(
    rb"\b(?:eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?|(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_\w{20,}|github_pat_\w{20,}"
    rb"|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{10,}|[rs]k_(?:live|test)_\w{10,})"
)


def hide(text: bytes) -> bytes:
    """The text (UTF-8) with ``***`` in the place of each secret that is found."""
    if b"PRIVATE KEY-----" in text:
        text = _PRIVATE_KEY.sub(HIDDEN, text)
    if any(beginning in text for beginning in _BEGINNINGS):
        text = _BY_BEGINNING.sub(HIDDEN, text)
    if b"://" in text:
        text = _IN_URL.sub(rb"\1" + HIDDEN + b"@", text)
    lower = text.lower()
    for name in [name for name in _NAMES if name in lower]:
        text = _behind(name, _VALUE, text)
    return _behind(b"bearer", _BEARER, text) if b"bearer" in lower else text


def _behind(word: bytes, value: re.Pattern[bytes], text: bytes) -> bytes:
    """Hide the values that follow a word, in whatever case it is written."""
    lower = text.lower()  # of bytes: it changes ASCII alone, and no length
    at, parts, kept = lower.find(word), [], 0
    while at >= 0:
        end = at + len(word)
        if found := value.match(text, end):
            parts += [text[kept : found.end(1)], HIDDEN]
            end = kept = found.end()
        at = lower.find(word, end)
    return b"".join([*parts, text[kept:]])

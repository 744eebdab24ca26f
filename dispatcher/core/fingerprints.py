"""Errors that are one and the same trouble: their fingerprint leaves out what differs from job to job."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Characters of a message that count, after what differs is taken out.
MAX_MESSAGE = 200

#: In this order: what stands between quotes, UUIDs, long hexadecimal numbers, numbers.
_VARIABLE = (
    (re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|`[^`\n]*`"), "<text>"),
    (re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"), "<id>"),
    (re.compile(r"\b0[xX][0-9a-fA-F]+\b|\b(?=[0-9a-fA-F]*[0-9])[0-9a-fA-F]{8,}\b"), "<id>"),
    (re.compile(r"[0-9]+(?:[.:,][0-9]+)*"), "<n>"),
)
_FRAME = re.compile(r'File "([^"\n]+)", line [0-9]+, in (\S+)')
#: Whatever has one of these in its path is a library's, or Python's own.
_FOREIGN = ("site-packages", "dist-packages", "/lib/python", "\\lib\\", "<frozen")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What errors of one trouble share: class, message without what varies, and where in the handlers' code."""

    id: str
    type: str
    message: str
    frame: str


def fingerprint(error: Mapping[str, Any]) -> Fingerprint:
    """The fingerprint of an error with ``type``, ``message`` and ``traceback``.

    Line numbers do not count: the next release moves them.
    """
    message = normalised(error.get("message") or "")
    frame = own_frame(error.get("traceback") or "")
    name = error.get("type") or ""
    digest = hashlib.sha256("\0".join((name, message, frame)).encode("utf-8", "replace")).hexdigest()
    return Fingerprint(digest[:12], name, message, frame)


def normalised(message: str) -> str:
    """A message without numbers, ids and what is quoted: one line, cut to a length."""
    text = message[: 4 * MAX_MESSAGE]
    for pattern, word in _VARIABLE:
        text = pattern.sub(word, text)
    return " ".join(text.split())[:MAX_MESSAGE]


def own_frame(traceback: str) -> str:
    """The innermost frame that is no library's, as ``folder/file.py:function``; "" where there is no traceback."""
    frames = _FRAME.findall(traceback)
    own = [frame for frame in frames if not any(part in frame[0] for part in _FOREIGN)]
    if not frames:
        return ""
    path, function = map(str, (own or frames)[-1])
    return "/".join(re.split(r"[/\\]", path)[-2:]) + ":" + function

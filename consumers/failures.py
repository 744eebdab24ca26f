"""Exceptions as history keeps them: name, message, traceback; trimmed, storable, and without API keys."""

from __future__ import annotations

import traceback

from dispatcher.core import keys
from schemas import ErrorInfo

MAX_MESSAGE = 2_000
MAX_TRACEBACK = 8_000


def describe(error: BaseException) -> ErrorInfo:
    """An exception as `ErrorInfo`, whatever its ``__str__`` does."""
    try:
        message = str(error)
    except Exception as broken:
        message = f"(its message cannot be read: {type(broken).__name__})"
    return ErrorInfo(
        type=clean(type(error).__name__, 200),
        message=clean(message, MAX_MESSAGE),
        traceback=_traceback(error),
    )


def clean(text: str, limit: int) -> str:
    """Text that can be stored: no lone surrogates, no API keys, at most ``limit`` characters (the middle goes)."""
    # keys first: cut in half, one would no longer look like one
    text = keys.redact(text.encode("utf-8", "replace")).decode("utf-8", "replace")
    if len(text) > limit:
        half = (limit - 3) // 2
        text = f"{text[:half]} … {text[-half:]}"
    return text


def _traceback(error: BaseException) -> str | None:
    frames = error.__traceback__
    while frames is not None and str(frames.tb_frame.f_globals.get("__name__", "")).startswith("consumers."):
        frames = frames.tb_next
    try:
        lines = traceback.format_exception(type(error), error, frames)
    except Exception:
        return None
    return clean("".join(lines), MAX_TRACEBACK)

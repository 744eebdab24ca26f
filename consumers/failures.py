"""Exceptions as history keeps them: name, message, traceback; trimmed, storable, without API keys and other secrets."""

from __future__ import annotations

import linecache
import traceback
from types import TracebackType

from dispatcher.core import keys, secrets
from dispatcher.core.cancelling import ERROR_TYPE
from dispatcher.core.outcome import Execution
from dispatcher.core.types import TypeRules
from schemas import ErrorInfo, Outcome

MAX_MESSAGE = 2_000
MAX_TRACEBACK = 8_000
#: Characters at both ends of a text that are searched for keys; far more than is kept, even where all of them are keys.
SEARCHED = 1 << 20


def describe(error: BaseException) -> ErrorInfo:
    """An exception as `ErrorInfo`, whatever its ``__str__`` does."""
    try:
        message = str(error)
    except Exception as broken:
        message = f"(its message cannot be read: {type(broken).__name__})"
    return ErrorInfo(
        type=clean(type(error).__name__, 200),
        message=clean(message, MAX_MESSAGE),
        traceback=_traceback(error, message),
    )


def clean(text: str, limit: int) -> str:
    """Text that can be stored: no lone surrogates, no secrets of a known form, at most ``limit`` characters."""
    if len(text) > 2 * SEARCHED:
        text = f"{text[:SEARCHED]} … {text[-SEARCHED:]}"
    # keys first: cut in half, one would no longer look like one
    text = secrets.hide(keys.redact(text.encode("utf-8", "replace"))).decode("utf-8", "replace")
    if len(text) > limit:
        half = (limit - 3) // 2
        text = f"{text[:half]} … {text[-half:]}"
    return text


def recorded(execution: Execution, rules: TypeRules) -> ErrorInfo | None:
    """What history has of an error: what we say ourselves, and what the handler said where nothing of it is private."""
    error = execution.error
    by_operator = execution.outcome is Outcome.CANCELLED and error is not None and error.type == ERROR_TYPE
    ours = by_operator or execution.outcome in (Outcome.TIMED_OUT, Outcome.CRASHED)
    return error if ours else rules.error(error)


def _traceback(error: BaseException, message: str) -> str | None:
    frames = error.__traceback__
    while frames is not None and str(frames.tb_frame.f_globals.get("__name__", "")).startswith("consumers."):
        frames = frames.tb_next
    try:
        if _is_plain(error):
            text = _format(error, message, frames)
        else:
            text = "".join(traceback.format_exception(type(error), error, frames))
    except Exception:
        return None
    return clean(text, MAX_TRACEBACK)


def _is_plain(error: BaseException) -> bool:
    """Whether nothing is chained or grouped, no note is added, and it is no syntax error, which shows its line."""
    chained = error.__cause__ is not None or (error.__context__ is not None and not error.__suppress_context__)
    special = isinstance(error, (BaseExceptionGroup, SyntaxError, NameError, AttributeError, ImportError))
    return not (chained or special or getattr(error, "__notes__", None))


def _format(error: BaseException, message: str, frames: TracebackType | None) -> str:
    """A plain exception as the interpreter shows it, but for the marks under a line.

    The standard library's way asks the file system for each source file, every time; when a thousand jobs fail
    together, that would delay their retries.
    """
    lines = ["Traceback (most recent call last):\n"]
    while frames is not None:
        code, number = frames.tb_frame.f_code, frames.tb_lineno
        lines.append(f'  File "{code.co_filename}", line {number}, in {code.co_name}\n')
        source = linecache.getline(code.co_filename, number, frames.tb_frame.f_globals).strip()
        if source:
            lines.append(f"    {source}\n")
        frames = frames.tb_next
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    lines.append(f"{name}: {message}\n" if message else f"{name}\n")
    return "".join(lines)

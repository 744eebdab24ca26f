"""The child process in which messages are judged that may kill it; see `dispatcher.services.intake_suspects`."""

from __future__ import annotations

import pickle
from collections.abc import Callable

from dispatcher.core.verdicts import Case, crashed, judge, refused


def answering() -> Callable[[bytes], bytes]:
    """What maps a case to its verdict and, where our own code failed on it, the name of the error (all pickled)."""
    return _answer


def _answer(request: bytes) -> bytes:
    case: Case = pickle.loads(request)
    fault = ""
    try:
        verdict = judge(case)
    except Exception as error:
        fault = type(error).__name__
        refusal = crashed("intake failed on this message")
        verdict = refused(refusal, case.submission, case.rules.max_body_bytes)
    return pickle.dumps((verdict, fault))

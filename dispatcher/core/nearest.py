"""Which of the known words somebody could have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: How alike two words must be, from 0 to 1.
ALIKE = 0.6
#: Longest word that is compared: the effort grows with the square.
LONGEST = 200


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The first known word that begins with this one, else the one most like it, else None."""
    words = list(known)
    if not word or len(word) > LONGEST:
        return None
    begins = next((each for each in words if each.startswith(word)), None)
    return begins or next(iter(difflib.get_close_matches(word, words, n=1, cutoff=ALIKE)), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The question, with a semicolon before it; empty where nothing is like it."""
    meant = nearest(word, known)
    return f"; did you mean {meant}?" if meant else ""

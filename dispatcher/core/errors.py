"""The root of the errors that we raise for people: each is a sentence that says what to do."""

from __future__ import annotations


class DispatcherError(Exception):
    """Something cannot be done; the sentence says why and what to do."""

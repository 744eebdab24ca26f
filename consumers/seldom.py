"""What happens often and is worth a line in the log now and then."""

from __future__ import annotations

#: Subjects that are remembered; beyond them everything is forgotten, since clients choose some of the names.
MOST = 1_000


class Seldom:
    """Says for each subject whether it was not news within the last ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._told: dict[str, float] = {}

    def is_news(self, subject: str, now: float) -> bool:
        """Whether to speak of it; if so, that counts as told at ``now``, in seconds of any clock."""
        told = self._told.get(subject)
        if told is not None and now - told < self._seconds:
            return False
        if len(self._told) >= MOST:
            self._told.clear()
        self._told[subject] = now
        return True

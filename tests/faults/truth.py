"""What /readyz said, compared with what was true, while a server was away and when it came back.

Pure: values in, values out; all times in seconds since the epoch.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Said:
    """An answer of a member's /readyz; no answer is a no."""

    at: float
    member: str
    ready: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """How many members of each kind could work, seen without asking them; None where the server did not answer.

    It was so at some moment from ``at``, when the look began, to ``done``.
    """

    at: float
    done: float
    working: Mapping[str, int] | None

    def of(self, kind: str) -> int:
        """How many of a kind."""
        return self.working.get(kind, 0) if self.working is not None else 0


@dataclass(frozen=True, slots=True)
class Absence:
    """A server was away: from when to when, and within how many seconds that must be noticed.

    ``silent``: the connections stayed open and nothing came through them, so what the server says of them is not so.
    """

    name: str
    began: float
    ended: float
    notice: float
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """How the members of a kind went through an absence; seconds, infinite where it never came.

    Args:
        no_after: from the loss until the last of them said no.
        works_after: from the return until all of them worked.
        yes_after: from the return until the last of them said yes.
        wrong: answers that said yes while fewer worked than said so, after the time to notice.
    """

    absence: str
    kind: str
    no_after: float
    works_after: float
    yes_after: float
    wrong: int


def judge(absence: Absence, kind: str, members: Sequence[str], said: Sequence[Said], seen: Sequence[Seen]) -> Judged:
    """Compare what the members of a kind said with what was seen, from the absence's beginning to the end of both."""
    truth = [_corrected(absence, s) for s in seen if s.at >= absence.began]
    answers = sorted((s for s in said if s.member in members and s.at >= absence.began), key=lambda s: s.at)
    gone = absence.began if absence.silent else _first(truth, lambda s: s.of(kind) < len(members))
    lost = _first(truth, lambda s: s.working is None)
    back = absence.ended if absence.silent else _first(truth, lambda s: s.at > lost and s.working is not None)
    works = _first(truth, lambda s: s.at >= back and s.of(kind) >= len(members))
    noes = {m: _first(answers, lambda s, m=m: s.member == m and not s.ready) for m in members}
    yeses = [_first(answers, lambda s, m=m: s.member == m and s.ready and s.at > max(noes[m], back)) for m in members]
    return Judged(
        absence.name,
        kind,
        max(max(noes.values()) - gone, 0.0),
        works - back,
        max(yeses) - back,
        _wrong(kind, gone + absence.notice, answers, truth),
    )


def _corrected(absence: Absence, seen: Seen) -> Seen:
    """Through a connection that is silent nobody works, whatever the server believes."""
    return replace(seen, working=None) if absence.silent and seen.at < absence.ended else seen


def _first(things: Sequence, condition) -> float:  # type: ignore[no-untyped-def, type-arg]
    return next((thing.at for thing in things if condition(thing)), math.inf)


def _wrong(kind: str, since: float, answers: Sequence[Said], truth: Sequence[Seen]) -> int:
    """Each yes is held against the next look after it: on their return, members only get more."""
    looks, latest, wrong = [seen.at for seen in truth], dict[str, bool](), 0
    for answer in answers:
        latest[answer.member] = answer.ready
        look = bisect.bisect_left(looks, answer.at)
        if answer.ready and answer.at >= since and look < len(truth):
            wrong += truth[look].of(kind) < sum(latest.values())
    return wrong

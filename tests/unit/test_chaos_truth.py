"""How `make away` judges what /readyz said, on made-up absences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.truth import Absence, Judged, Said, Seen, judge

pytestmark = pytest.mark.unit

MEMBERS = ("worker-1", "worker-2")
#: Gone from 10 to 20, noticed within 1 s.
ABSENCE = Absence("kill", 10.0, 20.0, notice=1.0)


def seen(working: Callable[[float], int | None]) -> list[Seen]:
    """A look every half second from 0 to 40."""
    times = [half / 2 for half in range(80)]
    return [Seen(at, at, None if (count := working(at)) is None else {"worker": count}) for at in times]


def said(member: str, ready: Callable[[float], bool]) -> list[Said]:
    """An answer every half second from 0 to 40, between two looks."""
    return [Said(at, member, ready(at)) for at in (half / 2 + 0.25 for half in range(80))]


def working(at: float) -> int | None:
    """Away from 10 to 20; the first worker is back at 22, the second at 24."""
    if 10 <= at < 20:
        return None
    return 0 if 20 <= at < 22 else 1 if 22 <= at < 24 else 2


def honest(back: float) -> Callable[[float], bool]:
    """Says no from the beginning of the absence until it is back."""
    return lambda at: not 10 <= at < back


def test_an_honest_fleet() -> None:
    """How long each step took; no answer was wrong."""
    answers = said("worker-1", honest(22)) + said("worker-2", honest(24))
    judged = judge(ABSENCE, "worker", MEMBERS, answers, seen(working))
    assert judged == Judged("kill", "worker", 0.25, 4.0, 4.25, 0)


@pytest.mark.parametrize(("back", "wrong"), [(24, 0), (23, 1), (20, 9), (11, 27)])
def test_yes_before_it_works_is_wrong(back: float, wrong: int) -> None:
    """Each answer counts that says yes while fewer work than say so."""
    answers = said("worker-1", honest(22)) + said("worker-2", honest(back))
    assert judge(ABSENCE, "worker", MEMBERS, answers, seen(working)).wrong == wrong


def test_yes_is_not_wrong_before_it_can_be_noticed() -> None:
    """Until the time to notice is over; then each is."""
    answers = said("worker-1", honest(22)) + said("worker-2", lambda at: not 13 <= at < 24)
    late = judge(ABSENCE, "worker", MEMBERS, answers, seen(working))
    assert (late.no_after, late.wrong) == (3.25, 4)
    assert judge(replace(ABSENCE, notice=3.0), "worker", MEMBERS, answers, seen(working)).wrong == 0


def test_what_never_comes_back() -> None:
    """Takes for ever."""
    answers = said("worker-1", honest(22)) + said("worker-2", honest(math.inf))
    judged = judge(ABSENCE, "worker", MEMBERS, answers, seen(lambda at: working(min(at, 23))))
    assert (judged.works_after, judged.yes_after) == (math.inf, math.inf)


def test_silence_is_no_work_whatever_the_server_believes() -> None:
    """The server counts its consumers on while nothing reaches them."""
    hole = replace(ABSENCE, silent=True)
    answers = said("worker-1", honest(20)) + said("worker-2", lambda at: not 15 <= at < 20)
    judged = judge(hole, "worker", MEMBERS, answers, seen(lambda _: 2))
    assert judged == Judged("kill", "worker", 5.25, 0.0, 0.25, 8)

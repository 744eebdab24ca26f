"""What ``jobs show`` and ``watch`` tell of a job's document, and lengths of time as options."""

from __future__ import annotations

from typing import Any

import click
import pytest

from dispatcher.cli.durations import Seconds
from dispatcher.cli.jobs import show_job
from dispatcher.core.watching import news
from tests.unit.samples import NOW
from tests.unit.test_explaining import attempt, make_doc

PROGRESS = {"run": 1, "n": 1, "execution": "e1.1", "at": NOW + 1_500, "done": 1, "total": 4, "message": "row\x1b[2J\n1"}


def shown(capsys: pytest.CaptureFixture[str], doc: dict[str, Any]) -> str:
    """The tables of a job, with single spaces."""
    show_job(doc)
    return " ".join(capsys.readouterr().out.split())


def test_what_the_client_asked_for_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A deadline, an expiry and a timeout, where the message had one; a deadline that passed says so."""
    limits = {"deadline_at": NOW + 3_000, "expires_at": NOW + 60_000, "timeout": 2.5}
    late = shown(capsys, make_doc("succeeded", **limits))
    assert "deadline │ 2027-01-15T08:00:03.000Z (missed)" in late
    assert "expires │ 2027-01-15T08:01:00.000Z" in late
    assert "timeout │ 2.5 s" in late
    assert "missed" not in shown(capsys, make_doc("succeeded", **limits | {"finished_at": NOW + 3_000}))
    unfinished = make_doc("running", deadline_at=1, finished_at=None, attempts=[attempt(1, None)])
    assert "(missed)" in shown(capsys, unfinished)
    plain = shown(capsys, make_doc("succeeded"))
    assert not any(word in plain for word in ("deadline", "expires", "timeout"))


def test_only_the_latest_attempt_of_a_running_job_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """One that a worker gave back, or that its death ended, has no end in history, and does not look as if it ran."""
    running = shown(capsys, make_doc("running", finished_at=None, attempts=[attempt(1, None), attempt(1, None)]))
    assert running.count("no end known") == 1
    assert running.index("no end known") < running.rindex("│ running │")
    over = shown(capsys, make_doc("succeeded", attempts=[attempt(1, None), attempt(1, "succeeded")]))
    assert "no end known" in over
    assert "│ running │" not in over


def test_progress_is_news_once() -> None:
    """A line for each report that history has, at its time, without what drives a terminal."""
    before = make_doc("running", finished_at=None, attempts=[attempt(1, None)])
    after = before | {"progress": PROGRESS}
    assert list(news(before, after)) == [(NOW + 1_500, "progress 1 of 4 (25%): row [2J 1")]
    assert list(news(after, after)) == []
    assert (NOW + 1_500, "progress 1 of 4 (25%): row [2J 1") in list(news(None, after))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("0.5", 0.5), ("0", 0), ("90s", 90), ("30m", 1_800), ("7d", 604_800)]
)
def test_seconds_may_have_a_unit(text: str, seconds: float) -> None:
    """As in a message, or as in every other option that takes a length of time."""
    assert Seconds().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "1e300", "90 s", "1w", "999999999d", "soon"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    """With what to write instead."""
    with pytest.raises(click.BadParameter, match="90s, 30m, 12h or 7d"):
        Seconds().convert(text, None, None)

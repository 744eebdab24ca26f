"""What commands print cannot drive a terminal, whatever applications, handlers and clients wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.cli import output
from dispatcher.cli.top import render
from dispatcher.core.nearest import did_you_mean, nearest
from dispatcher.core.overview import HistoryLook, Look, overview
from dispatcher.core.text import clean
from dispatcher.core.topology import Names
from tests.unit.samples import NOW

#: Clears the screen, sets a title, begins a CSI in one character, turns letters round, deletes.
HOSTILE = "a\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnirts\x7f\r\nb"


def drives(text: str) -> set[str]:
    """The characters of a text that could do something to a terminal; a line feed may."""
    return {c for c in text if not c.isprintable() and c != "\n"}


@given(st.text())
def test_json_says_the_same_and_drives_nothing(text: str) -> None:
    """Printed and read again it is what it was, with every control character escaped."""
    printed = output.json_text({"text": text, text: [text]})
    assert json.loads(printed) == {"text": text, text: [text]}
    assert drives(printed) == set()


@given(st.text())
def test_lines_drive_nothing(text: str) -> None:
    """A cell is one line; a message keeps its lines."""
    assert drives(clean(text)) == set()
    assert "\n" not in output.plain(text, 10_000).plain
    assert clean(text).count("\n") == text.count("\n")


@pytest.mark.parametrize("show", [output.say, output.line])
def test_messages_are_cleaned(show: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout and on stderr."""
    show(HOSTILE)
    out, err = capsys.readouterr()
    assert "gnirts" in out + err
    assert drives(out + err) == set()


def test_top_shows_hostile_names_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    """A worker's name comes from events: whoever may write those could choose it."""
    history = HistoryLook(running={("default", "normal", HOSTILE): 1})
    shown = overview(Names("p."), ["default"], Look(NOW - 1_000, {}), Look(NOW, {}, history))
    output.console().print(render(shown, every=True))
    out = capsys.readouterr().out
    assert "gnirts" in out
    assert drives(out) == set()


@pytest.mark.parametrize(
    ("word", "meant"),
    [("welcom-1", "welcome-1"), ("wel", "welcome-1"), ("zzz", None), ("", None), ("w" * 100_000, None)],
)
def test_the_nearest_word(word: str, meant: str | None) -> None:
    """What begins so, what is alike, or nothing; a huge word costs nothing."""
    assert nearest(word, ["welcome-1", "other"]) == meant
    assert did_you_mean(word, ["welcome-1", "other"]) == (f"; did you mean {meant}?" if meant else "")

"""``dispatcher stats`` on screens of every width: nothing of a number, a name or a heading is cut or folded."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from rich.console import Console

from dispatcher.cli import output
from dispatcher.cli import stats as command
from dispatcher.core.statistics import Cell
from schemas import JobState

#: Jobs in every state, with times that take the most places.
CELL = Cell(
    "invoices.render-and-send",
    "normal",
    "shop",
    Counter({str(state): 123_456 for state in JobState}),
    retries=98_765,
    starts=1_234_567,
    wait=Counter({0: 1, 580: 99}),
    run=Counter({0: 1, 580: 99}),
)


@pytest.mark.parametrize(("columns", "tables"), [(80, 6), (100, 6), (300, 3)])
def test_it_is_read_at_any_width(
    columns: int, tables: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three tables where they fit, else two for each, with the same numbers."""
    monkeypatch.setattr(command, "run_operation", lambda _: [CELL])
    monkeypatch.setattr(output, "console", lambda: Console(file=sys.stdout, width=columns, highlight=False))
    assert command.stats.callback is not None
    command.stats.callback(as_json=False)
    out = capsys.readouterr().out
    assert out.count("┏") == tables
    assert max(map(len, out.splitlines())) <= columns
    words = out.replace("│", " ").replace("┃", " ").split()
    for heading in ("retries", "starts", "98765", "1234567"):
        assert words.count(heading) == 3
    for heading in ("wait p50", "wait p99", "run p50", "run p99"):
        assert out.count(heading) == 3
    assert words.count("invoices.render-and-send") == tables / 3
    for state in JobState:
        assert sum(word == state for word in words) == 3
    assert words.count("123456") == 3 * len(JobState)

"""`worker --reload` without its library, which only developers need."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dispatcher.edges.reloading import ReloadUnavailable, supervise


def test_a_missing_library_is_named_with_its_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is started, and the sentence says what to install."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ReloadUnavailable, match=r"pip install 'job-dispatcher\[reload\]'"):
        supervise(["worker", "handlers:jobs"], tmp_path, 1, pytest.fail)

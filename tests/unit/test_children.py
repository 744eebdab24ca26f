"""Child processes: none outlives its parent."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROUND = """
import sys
from dispatcher.edges.children import serve
serve(int(sys.argv[1]), bytes)
"""


@contextmanager
def a_child() -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A child that is ready, and its parent's end of the socket, which the child outlives by 30 s at most."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-c", ROUND, str(theirs.fileno())]
        child = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
    try:
        with ours:
            assert select.select([ours], [], [], 60)[0], "it says that it is ready"
            yield child, ours
        child.wait(30)
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("read", [False, True], ids=["unread", "read"])
def test_a_child_ends_with_its_parent(read: bool) -> None:
    """Also when the parent is killed before it has read what the child said last: the socket is then reset."""
    with a_child() as (child, ours):
        assert child.poll() is None
        if read:
            ours.recv(100)


def test_a_child_is_killed_before_its_parent_where_memory_runs_out() -> None:
    """Linux adds its score to what the process takes, in thousandths of what there is."""
    with a_child() as (child, _):
        assert Path(f"/proc/{child.pid}/oom_score_adj").read_text(encoding="ascii") == "1000\n"

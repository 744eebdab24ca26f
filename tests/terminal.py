"""A command on a terminal of its own: what it prints there, and what is typed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from tests.processes import ROOT, environment
from tests.support import Installation

DISPATCHER = (sys.executable, "-m", "dispatcher.cli.main")
CTRL_C, CTRL_D = b"\x03", b"\x04"
#: Colours, moves of the cursor, and what hides or shows it: all that rich sends.
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3|4|9|10)[0-9](?:;[0-9]+)*m")
_EDGES = tuple("│┃┏┡└├╇")
#: Seconds after which a key is pressed again: Python misses what comes in the moment before it begins to read.
_AGAIN = 2.0
#: A program that makes its terminal the controlling one, so that Ctrl-C is a signal, and becomes the command.
_CLAIM = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
#: Variables by which an environment of tests could change what a terminal gets.
_IGNORED = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


class Terminal:
    """``with Terminal(installation, "top") as terminal:``; killed at the end, if it is still there."""

    def __init__(
        self,
        installation: Installation,
        *arguments: str,
        columns: int = 80,
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = DISPATCHER,
    ) -> None:
        self._command = [*program, *arguments]
        self._columns = columns
        plain = {name: value for name, value in environment(installation).items() if name not in _IGNORED}
        self._env = plain | {"TERM": "xterm-256color"} | dict(env or {})
        self._read = b""

    def __enter__(self) -> Terminal:
        self._master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, self._columns, 0, 0))
        self._before = termios.tcgetattr(self._slave)
        self.process: subprocess.Popen[Any] = subprocess.Popen(
            [sys.executable, "-c", _CLAIM, *self._command],
            cwd=ROOT,
            env=self._env,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    @property
    def raw(self) -> str:
        """Everything that the terminal got so far."""
        return self._read.decode("utf-8", "replace")

    @property
    def text(self) -> str:
        """The same without what colours it and moves the cursor."""
        return _SEQUENCE.sub("", self.raw).replace("\r\n", "\n")

    @property
    def coloured(self) -> bool:
        """Whether something has a colour."""
        return _COLOUR.search(self.raw) is not None

    @property
    def widest(self) -> int:
        """Places of the longest line of a table or bar; messages are folded by the terminal."""
        lines = self.text.replace("\r", "\n").split("\n")
        return max(cell_len(line) for line in lines if line[:1] in _EDGES or "━" in line)

    @property
    def restored(self) -> bool:
        """Whether the terminal is set as it was, with its cursor shown."""
        hidden = self.raw.rfind("\x1b[?25l")
        return self._before == termios.tcgetattr(self._slave) and self.raw.rfind("\x1b[?25h") >= hidden

    def until(self, text: str, *, timeout: float = 60.0) -> None:
        """Read until this text is there."""
        deadline = time.monotonic() + timeout
        while text not in self.text:
            if time.monotonic() > deadline or (self.process.poll() is not None and not self._take(0)):
                raise AssertionError(f"{text!r} did not come: {self.text[-2000:]}")
            self._take(0.05)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    def signal(self, number: signal.Signals) -> None:
        """Send the command a signal."""
        self.process.send_signal(number)

    def ends(self, key: bytes = b"", *, timeout: float = 60.0) -> int:
        """Press a key, and read until the command has ended; its exit code."""
        began = pressed = time.monotonic()
        self.type(key)
        while self.process.poll() is None:
            now = time.monotonic()
            assert now < began + timeout, f"it does not end: {self.text[-2000:]}"
            if key and now > pressed + _AGAIN:
                pressed = now
                self.type(key)
            self._take(0.05)
        while self._take(0):
            pass
        return self.process.returncode

    def _take(self, seconds: float) -> bool:
        """Read what there is within this time; whether there was something."""
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        self._read += os.read(self._master, 65_536)
        return True

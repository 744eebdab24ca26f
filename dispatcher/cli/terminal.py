"""The terminal of a command that shows something until it is told to leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Keys that leave.
LEAVE = frozenset(b"qQ")


@contextmanager
def leaving() -> Iterator[asyncio.Event]:
    """An event that is set by q, and by SIGTERM; the terminal is afterwards as it was before.

    Keys are read one by one and not echoed meanwhile. Ctrl-C raises KeyboardInterrupt as ever.
    """
    leave, loop = asyncio.Event(), asyncio.get_running_loop()
    with contextlib.ExitStack() as restored:
        # not in a thread, nor on Windows: SIGTERM ends it at once there
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(signal.SIGTERM, leave.set)
            restored.callback(loop.remove_signal_handler, signal.SIGTERM)
        if sys.stdin.isatty():
            with contextlib.suppress(ImportError, NotImplementedError):
                restored.enter_context(_keys(leave, loop))
        yield leave


@contextmanager
def _keys(leave: asyncio.Event, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def read() -> None:
        pressed = os.read(terminal, 64)
        if not pressed:  # the terminal is gone
            loop.remove_reader(terminal)
        if not pressed or LEAVE & set(pressed):
            leave.set()

    tty.setcbreak(terminal)
    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)

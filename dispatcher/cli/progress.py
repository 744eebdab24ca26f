"""How far a long command is: a bar on a terminal, a line now and then elsewhere; on stderr in both cases."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dispatcher.cli.output import say

Result = TypeVar("Result")
#: Seconds between two lines where there is no terminal.
PAUSE = 2.0

Tell = Callable[[int, int, int], None]


@contextmanager
def progress(what: str, quiet: bool = False) -> Iterator[Tell]:
    """Give a function that is told how many were looked at, of how many, and how many were ``what``."""
    if quiet:
        yield lambda done, total, chosen: None
    elif sys.stderr.isatty():
        with _bar(what) as tell:
            yield tell
    else:
        yield _lines(what)


@contextmanager
def _bar(what: str) -> Iterator[Tell]:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task("", total=None)
        yield lambda done, total, chosen: shown.update(
            task, completed=done, total=total, description=f"{chosen} {what}"
        )


def _lines(what: str) -> Tell:
    said = time.monotonic()

    def tell(done: int, total: int, chosen: int) -> None:
        nonlocal said
        if time.monotonic() - said >= PAUSE:
            said = time.monotonic()
            say(f"{done} of {total} looked at, {chosen} {what}")

    return tell


async def until_interrupted(action: Callable[[Callable[[], bool]], Awaitable[Result]]) -> Result:
    """Run an action that asks whether it is to stop: after Ctrl-C or SIGTERM it is, at the next good place."""
    stopped: list[int] = []
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        stopped.append(number)
        say("stopping after what is under way…")
        loop.remove_signal_handler(number)  # a second one ends it at once

    handled = []
    for number in (signal.SIGINT, signal.SIGTERM):
        # not in a thread, nor on Windows: there it ends at once, which loses nothing either
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(number, stop, number)
            handled.append(number)
    try:
        return await action(lambda: bool(stopped))
    finally:
        for number in handled:
            loop.remove_signal_handler(number)

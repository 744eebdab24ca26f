"""Telling history how far an execution has come: at most once a second."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

from consumers.progress import INTERVAL, Progress
from dispatcher.core.types import TypeRules
from dispatcher.edges import clock
from dispatcher.edges.amqp import Outbox
from schemas import Progressed


class ProgressNotice:
    """Tells history of one execution's progress: the first report at once, later ones once a second, the last value.

    To be made in the event loop; `tell` may be called from any thread.
    """

    def __init__(self, outbox: Outbox, fields: dict[str, Any], rules: TypeRules) -> None:
        self._outbox = outbox
        self._fields = {name: value for name, value in fields.items() if name not in ("started_at", "worker")}
        self._private = rules.private
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._latest: tuple[Progress, int] | None = None
        self._told: tuple[Progress, int] | None = None
        self._asked = False
        self._timer: asyncio.TimerHandle | None = None
        self._over = False

    def tell(self, progress: Progress) -> None:
        """The handler reports."""
        if self._over:
            return
        self._latest = progress, clock.now_ms()
        if threading.get_ident() == self._thread:
            self._take()
        elif not self._asked:  # however often a thread reports, the loop hears of it once at a time
            self._asked = True
            with contextlib.suppress(RuntimeError):  # the worker is gone, and this thread is not
                self._loop.call_soon_threadsafe(self._take)

    def end(self) -> list[Progressed]:
        """The execution is over; returns what is to be told together with its end."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        return self._news()

    def _take(self) -> None:
        self._asked = False
        if self._timer is None and not self._over and (news := self._news()):
            self._outbox.add([], news)
            self._timer = self._loop.call_later(INTERVAL, self._again)

    def _again(self) -> None:
        self._timer = None
        self._take()

    def _news(self) -> list[Progressed]:
        if self._latest is None or self._latest is self._told:
            return []
        self._told = self._latest
        progress, at = self._latest
        message = None if self._private else progress.message
        return [Progressed(**self._fields, at=at, done=progress.done, total=progress.total, message=message)]

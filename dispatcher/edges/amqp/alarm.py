"""Whether an alarm of the broker (memory, disk) blocks the connection that publishes.

While an alarm lasts, the broker reads nothing more from a connection that has published, and says so. What is on its
way then is not lost: it is taken once the alarm is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from pamqp.commands import Connection

from dispatcher.edges import log

_logger = log.get("amqp")


class Alarm:
    """What the broker last said of alarms on a connection, and on the next one where that is lost."""

    def __init__(self, name: str, told: Callable[[int], None] = lambda _: None) -> None:
        """``told`` is called with 1 when an alarm begins, and with -1 when it is over or the connection is gone."""
        self._name = name
        self._told = told
        self._began = 0.0
        self._connection: Any = None
        #: Set while publishing is not blocked.
        self.over = asyncio.Event()
        self.over.set()
        #: Alarms so far.
        self.count = 0
        #: What the broker is low on, as it says; "" without an alarm.
        self.reason = ""

    def follow(self, connection: Any) -> None:
        """Listen to a connection of aiormq's, which takes note of alarms but has no callback for them."""
        blocked = connection._Connection__handle_connection_blocked
        unblocked = connection._Connection__handle_connection_unblocked
        self._connection = connection

        async def begin(frame: Connection.Blocked) -> None:
            await blocked(frame)
            if connection is self._connection:  # one that was given up is still read until it is closed
                self._begin(frame.reason)

        async def end(frame: Connection.Unblocked) -> None:
            await unblocked(frame)
            if connection is self._connection:
                self._end()

        connection._Connection__handle_connection_blocked = begin
        connection._Connection__handle_connection_unblocked = end

    def forget(self) -> None:
        """The connection is gone: whether the next one is blocked, the broker says when something is published."""
        self._connection = None
        self._clear()

    def _clear(self) -> None:
        if not self.over.is_set():
            self._told(-1)
        self.reason = ""
        self.over.set()

    def _begin(self, reason: str) -> None:
        if self.over.is_set():
            self.count += 1
            self._told(1)
            self._began = time.monotonic()
            _logger.warning("the broker blocks publishing: alarm", connection=self._name, reason=reason)
        self.reason = reason
        self.over.clear()

    def _end(self) -> None:
        if not self.over.is_set():
            seconds = round(time.monotonic() - self._began, 1)
            _logger.warning("the alarm is over: publishing goes on", connection=self._name, seconds=seconds)
        self._clear()

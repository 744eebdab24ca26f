"""What the broker says of an alarm, on one connection and on the next."""

from __future__ import annotations

from typing import Any

from pamqp.commands import Connection

from dispatcher.edges.amqp.alarm import Alarm


class FakeConnection:
    """As aiormq's: it hands what the broker says to two methods of its own."""

    def __init__(self) -> None:
        self.noted: list[Any] = []

    async def _Connection__handle_connection_blocked(self, frame: Any) -> None:
        self.noted.append(frame)

    async def _Connection__handle_connection_unblocked(self, frame: Any) -> None:
        self.noted.append(frame)

    async def blocked(self) -> None:
        """The broker says that it blocks."""
        await self._Connection__handle_connection_blocked(Connection.Blocked("low on memory"))

    async def unblocked(self) -> None:
        """The broker says that the alarm is over."""
        await self._Connection__handle_connection_unblocked(Connection.Unblocked())


async def test_an_alarm_begins_and_ends_and_aiormq_is_told_too() -> None:
    """Each of the two, with what the broker is low on."""
    alarm, connection = Alarm("test"), FakeConnection()
    alarm.follow(connection)
    await connection.blocked()
    assert (alarm.over.is_set(), alarm.reason, alarm.count) == (False, "low on memory", 1)
    await connection.unblocked()
    assert (alarm.over.is_set(), alarm.reason, alarm.count) == (True, "", 1)
    assert len(connection.noted) == 2


async def test_a_connection_that_was_given_up_blocks_nothing() -> None:
    """It is read until it is closed, and nobody would hear on it that the alarm is over."""
    alarm, old, new = Alarm("test"), FakeConnection(), FakeConnection()
    alarm.follow(old)
    await old.blocked()
    alarm.forget()
    assert alarm.over.is_set()
    await old.blocked()
    assert alarm.over.is_set()
    alarm.follow(new)
    await old.blocked()
    assert alarm.over.is_set()
    await new.blocked()
    await old.unblocked()
    assert not alarm.over.is_set()


async def test_a_meter_is_told_of_each_alarm_once_and_of_its_end() -> None:
    """Whether that is said, or the connection is lost; the broker may say the same again."""
    told: list[int] = []
    alarm, connection = Alarm("test", told.append), FakeConnection()
    alarm.follow(connection)
    alarm.forget()
    assert told == []
    alarm.follow(connection)
    await connection.blocked()
    await connection.blocked()
    await connection.unblocked()
    await connection.unblocked()
    assert told == [1, -1]
    await connection.blocked()
    alarm.forget()
    assert told == [1, -1, 1, -1]

"""What commands share: the settings, and operations with their connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from config import Settings, load_settings
from dispatcher.cli.output import say
from dispatcher.core.filters import JobFilter
from dispatcher.edges import log
from dispatcher.edges.amqp import check_broker
from dispatcher.edges.mongo import explained
from dispatcher.services.hints import hints
from dispatcher.services.operations import Operations

Result = TypeVar("Result")
#: Seconds by which clocks may differ before a command that shows ages says so.
MAX_SKEW = 2.0


def settings() -> Settings:
    """The settings, with logging set up for a short command: warnings only.

    Raises:
        SettingsError: they cannot be used.
    """
    loaded = load_settings()
    log.configure("error", loaded.log.format)
    return loaded


def run_operation(
    action: Callable[[Operations], Awaitable[Result]], *, publishes: bool = False, ages: bool = False
) -> Result:
    """Run an action on the installation. With ``ages`` times are compared: a clock that differs is worth a warning.

    Raises:
        BrokerError: it publishes, and RabbitMQ cannot be used.
        MongoError: MongoDB cannot be used.
    """

    async def run() -> Result:
        loaded = settings()
        async with _operations(loaded, publishes) as operations:
            with explained(loaded.mongo.url.get_secret_value()):
                if ages:
                    warn_of_skew(await operations.clock_ahead())
                return await action(operations)

    return asyncio.run(run())


def warn_of_skew(measured: tuple[float, float] | None, what: str = "ages are wrong by that") -> None:
    """Say on stderr that this machine's clock and that of MongoDB's server differ: by so much, so uncertain."""
    ahead, uncertain = measured or (0.0, 0.0)
    if abs(ahead) - uncertain > MAX_SKEW:
        word = "ahead of" if ahead > 0 else "behind"
        say(f"warning: this machine's clock is {abs(ahead):.1f} s {word} MongoDB's; {what}: check NTP")


def told(
    where: JobFilter, search: Callable[[Operations], Awaitable[Result]]
) -> Callable[[Operations], Awaitable[Result]]:
    """A search that says on stderr, where it finds nothing, which words of the filter nothing has."""

    async def action(operations: Operations) -> Result:
        found = await search(operations)
        if not found:
            for hint in await hints(operations, where) or [f"no such jobs in the database {operations.database}"]:
                say(hint)
        return found

    return action


@asynccontextmanager
async def _operations(loaded: Settings, publishes: bool) -> AsyncIterator[Operations]:
    if publishes:
        await check_broker(loaded.amqp.url.get_secret_value())
    operations = Operations(loaded)
    try:
        if publishes:
            await operations.publisher.start()
        yield operations
    finally:
        await operations.publisher.close()
        operations.close()

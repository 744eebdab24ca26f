"""What a shell completes with: words of the configuration, and of MongoDB where it answers at once.

A shell puts what it completes into the command line as it is, so only words without special characters are offered,
whatever stands in MongoDB.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from config import Settings
    from dispatcher.services.operations import Operations

#: Seconds for MongoDB's answer: somebody has pressed Tab and waits.
PATIENCE = 1.0
#: How many jobs are offered: those accepted last.
RECENT = 200

_HARMLESS = re.compile(r"[A-Za-z0-9._-]+")


def lanes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The configured lanes."""
    loaded = _settings()
    return _offered(loaded.lanes if loaded else [], incomplete)


def types(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The types that are configured or have jobs, but no patterns."""
    loaded = _settings()
    configured = list(loaded.types) if loaded else []
    return _offered([*configured, *_asked(lambda operations: operations.jobs.types())], incomplete)


def apps(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The applications that have keys or jobs."""

    async def read(operations: Operations) -> list[str]:
        return [*await operations.keys.apps(), *await operations.jobs.apps()]

    return _offered(_asked(read), incomplete)


def keys(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The ids of keys, of the application that was named before if one was."""

    async def read(operations: Operations) -> list[str]:
        return [record.id for record in await operations.keys.all(ctx.params.get("app"))]

    return _offered(_asked(read), incomplete)


def jobs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The ids of the jobs accepted last, of the application that was named before if one was."""

    async def read(operations: Operations) -> list[str]:
        app = ctx.params.get("app")
        found = await operations.jobs.recent_ids([app] if app else await operations.jobs.apps(), RECENT)
        return [job for _, job in found if job]

    return _offered(_asked(read), incomplete)


def _offered(words: Iterable[str], incomplete: str) -> list[str]:
    return sorted({word for word in words if word.startswith(incomplete) and _HARMLESS.fullmatch(word)})


def _settings() -> Settings | None:
    from config import SettingsError, load_settings

    try:
        return load_settings()
    except SettingsError:
        return None


def _asked(read: Callable[[Operations], Awaitable[list[str]]]) -> list[str]:
    """What MongoDB has; nothing where it is away or slow, or the settings cannot be read."""
    from dispatcher.core.errors import DispatcherError
    from dispatcher.edges import log
    from dispatcher.edges.mongo import DatabaseError
    from dispatcher.services.operations import Operations

    loaded = _settings()
    if loaded is None:
        return []
    log.configure("error", loaded.log.format)

    async def ask() -> list[str]:
        operations = Operations(loaded)
        try:
            async with asyncio.timeout(PATIENCE):
                return await read(operations)
        finally:
            operations.close()

    try:
        return asyncio.run(ask())
    except (DatabaseError, DispatcherError, TimeoutError):
        return []

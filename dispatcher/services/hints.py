"""Why a filter finds nothing: words in it that neither history nor the configuration knows."""

from __future__ import annotations

from collections.abc import Iterable

from dispatcher.core.filters import JobFilter, is_pattern
from dispatcher.core.keys import split_type_pattern, type_matches
from dispatcher.core.nearest import did_you_mean
from dispatcher.services.operations import Operations


async def hints(operations: Operations, where: JobFilter) -> list[str]:
    """A sentence for each word of a filter that nothing has.

    Raises:
        DatabaseError: MongoDB is away.
    """
    found = []
    if where.lane is not None and where.lane not in operations.lanes:
        found.append(f"lane {where.lane!r} is not in the configuration; there are: {', '.join(operations.lanes)}")
    if where.app is not None:
        apps = sorted({*await operations.keys.apps(), *await operations.jobs.apps()})
        if where.app not in apps:
            found.append(f"no application {where.app!r} has jobs or keys{did_you_mean(where.app, apps)}")
    if where.type is not None:
        types = await operations.jobs.types()
        if not _any_of(where.type, types):
            found.append(f"no job of type {where.type!r} is in history{did_you_mean(where.type, types)}")
    return found


def _any_of(wanted: str, types: Iterable[str]) -> bool:
    if not is_pattern(wanted):
        return wanted in types
    pattern = split_type_pattern(wanted)
    return any(type_matches(pattern, tuple(each.split("."))) for each in types)

"""Each check by itself: what stops one of them stops no other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from dispatcher.core.diagnosis import Finding, unchecked
from dispatcher.core.errors import DispatcherError
from dispatcher.edges import log

_logger = log.get("doctor")

#: Longest time for some checks together, in seconds.
LONGEST = 20.0


async def guarded(checks: Sequence[str], look: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    """The findings of some checks; or that they could not be made, and why."""
    try:
        async with asyncio.timeout(LONGEST):
            return await look()
    except DispatcherError as error:
        return unchecked_all(checks, str(error))
    except TimeoutError:
        return unchecked_all(checks, f"no answer within {LONGEST:g} s")
    except Exception as error:
        _logger.exception("a check failed by itself")
        return unchecked_all(checks, f"doctor itself failed ({type(error).__name__})")


def unchecked_all(checks: Sequence[str], because: str) -> list[Finding]:
    """That none of these checks could be made."""
    return [unchecked(check, because) for check in checks]

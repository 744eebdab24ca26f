"""All checks, the broker's beside the database's: one server's absence hides nothing of the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from config import Settings
from dispatcher.core.diagnosis import CHECKS, Finding, failed, fine, warning
from dispatcher.services.doctor.broker import check_broker
from dispatcher.services.doctor.database import check_database
from dispatcher.services.doctor.port import check_port


@dataclass(frozen=True, slots=True)
class Local:
    """What was found on this machine without the settings.

    ``clashes``: files that hide modules of ours; ``handlers``: timeouts by type of the registry that was named, with
    its name in ``target``; ``load_error``: why it cannot be loaded.
    """

    clashes: Sequence[str] = ()
    target: str | None = None
    handlers: dict[str, float | None] | None = None
    load_error: str = ""

    def findings(self) -> list[Finding]:
        """The findings about it."""
        found = [_names(self.clashes)]
        if self.load_error:
            found.append(
                failed("handlers", self.load_error, "mend what it says; run the command in the folder of the module")
            )
        elif self.target is not None:
            found.append(fine("handlers", f"{self.target}: {len(self.handlers or {})} handlers"))
        return found


def _names(clashes: Sequence[str]) -> Finding:
    if not clashes:
        return fine("names", "no module here has a name of ours")
    first = Path(clashes[0])
    name = first.parent.name if first.name == "__init__.py" else first.stem
    return warning(
        "names",
        f"{', '.join(clashes)}: Job Dispatcher has a module {name} too, and yours is not found under that name",
        f"rename {name}, or put it inside a package of your own",
    )


async def diagnose(settings: Settings, local: Local) -> list[Finding]:
    """Every finding, in the order of `CHECKS`."""
    found = [fine("configuration", "loaded"), *local.findings()]
    for findings in await asyncio.gather(
        check_port(settings), check_broker(settings, longest_timeout(settings, local)), check_database(settings)
    ):
        found += findings
    order = list(CHECKS)
    return sorted(found, key=lambda finding: order.index(finding.check))


def longest_timeout(settings: Settings, local: Local) -> tuple[float, str]:
    """The longest time for which an attempt may run, and whose it is."""
    times = {"worker.timeout": settings.worker.timeout}
    times |= {f"types.{name}.timeout": entry.timeout for name, entry in settings.types.items() if entry.timeout}
    times |= {f"the handler of {name}": timeout for name, timeout in (local.handlers or {}).items() if timeout}
    whose = max(times, key=lambda name: times[name])
    return times[whose], whose

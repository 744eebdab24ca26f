"""What was checked, and what came of it."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One check: what it is, what was seen, whether it is as it should be, and the seconds that it took."""

    what: str
    seen: str
    fine: bool
    seconds: float


@dataclass
class Report:
    """Checks in the order in which they were made; one that fails does not stop those that follow."""

    rows: list[Row] = field(default_factory=list)

    def check(self, what: str, look: Callable[[], str]) -> bool:
        """Make a check: `look` returns what it saw, or raises what is wrong. Returns whether all is well."""
        began = time.monotonic()
        try:
            seen, fine = look(), True
        except Exception as error:  # a check may fail in any way, and the others go on
            seen, fine = f"{type(error).__name__}: {error}", False
        row = Row(what, seen.strip(), fine, time.monotonic() - began)
        self.rows.append(row)
        print(f"containers: {'ok  ' if fine else 'FAIL'} {what}: {row.seen}", flush=True)
        return fine

    def show(self, notes: Iterable[str]) -> int:
        """Print the table; returns the exit code, 1 if anything failed or nothing was checked."""
        table = Table("", "check", "seen", "s")
        for row in self.rows:
            table.add_row("ok" if row.fine else "FAIL", row.what, row.seen, f"{row.seconds:.1f}")
        console = Console(width=150, highlight=False)
        console.print(table)
        for note in notes:
            console.print(note)
        failed = sum(not row.fine for row in self.rows)
        console.print(f"{len(self.rows)} checks, {failed} failed")
        return 1 if failed or not self.rows else 0


def expect(condition: object, otherwise: str) -> None:
    """Raise what is wrong, unless the condition holds."""
    if not condition:
        raise AssertionError(otherwise)

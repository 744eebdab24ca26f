"""``dispatcher audit``: who changed what, and when."""

from __future__ import annotations

from typing import Any

import click

from dispatcher.cli import completing, output
from dispatcher.cli.filters import TIME, Moment
from dispatcher.cli.session import run_operation
from dispatcher.edges.mongo import AuditFilter


@click.group()
def audit() -> None:
    """The audit: every change of a key and what else operators do, with who did it."""


@audit.command("list")
@click.option("--app", shell_complete=completing.apps, help="Only what concerns this application.")
@click.option("--action", help="Only this action, for example key.revoked.")
@click.option("--key", "key_id", shell_complete=completing.keys, help="Only what concerns the key with this id.")
@click.option("--since", type=Moment(), metavar="TIME", help=f"Only entries since then: {TIME}.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: an array.")
def list_entries(
    app: str | None, action: str | None, key_id: str | None, since: int | None, limit: int, as_json: bool
) -> None:
    """List entries, the latest first.

    An entry is written before its change and closed after it. Outcome "open": the one who made the change died, or
    lost MongoDB, in between; it may or may not have been made.
    """
    which = AuditFilter(app, action, since, key_id)
    entries = run_operation(lambda operations: operations.audit.search(which, limit))
    if as_json:
        output.emit_json(output.with_times(entries))
        return
    output.table(None, ["at", "action", "app", "key", "by", "outcome", "details"], map(_row, entries), ["details"])


def _row(entry: dict[str, Any]) -> tuple[Any, ...]:
    details = output.with_times(entry.get("details") or {})
    return (
        output.clock(entry["at"]),
        entry["action"],
        entry.get("app") or "",
        entry.get("key_id") or "",
        entry["by"],
        entry.get("outcome") or "open",
        output.plain(" ".join(f"{name}={value}" for name, value in details.items() if value is not None), 60),
    )

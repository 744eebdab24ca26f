"""``dispatcher jobs reschedule``."""

from __future__ import annotations

import click

from dispatcher.cli import completing, output
from dispatcher.cli.durations import Seconds
from dispatcher.cli.session import run_operation
from dispatcher.core.timing import parse_time
from dispatcher.edges import clock
from dispatcher.services import rescheduling
from dispatcher.services.operations import Operations


def _due(at: str | None, delay: float | None) -> int:
    """The time that the two options say, in milliseconds since the epoch."""
    if (at is None) == (delay is None):
        raise click.UsageError("give --at or --delay, and not both")
    if at is not None:
        moment = parse_time(at)
        if moment is None:
            raise click.BadParameter("write a time with its offset: 2026-11-26T18:00:00+01:00", param_hint="--at")
        return moment
    return clock.now_ms() + round((delay or 0) * 1000)


@click.command("reschedule")
@click.argument("job_id", metavar="ID", shell_complete=completing.jobs)
@click.option("--at", metavar="TIME", help="The new time, RFC 3339 with its offset; the past means now.")
@click.option("--delay", type=Seconds(), help="The new time, so long from now: 90 or 90s, 30m, 12h, 7d.")
@click.option("--app", shell_complete=completing.apps, help="The application, where several have this id.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: app, id, due_at.")
def reschedule(job_id: str, at: str | None, delay: float | None, app: str | None, as_json: bool) -> None:
    """Move a job that waits for its time to another time. ID may be APP:ID.

    Only a job that is due in more than a minute or so can be moved. Doing it again is safe.
    """
    due_at = _due(at, delay)

    async def action(operations: Operations) -> dict[str, object]:
        doc = await operations.find(job_id, app)
        return {"app": doc["app"], "id": doc["id"], "due_at": await rescheduling.reschedule(operations, doc, due_at)}

    moved = run_operation(action, publishes=True)
    if as_json:
        output.emit_json(output.with_times(moved))
    else:
        output.say(f"job {moved['app']}:{moved['id']}: due {output.iso(moved['due_at'])}")  # type: ignore[arg-type]

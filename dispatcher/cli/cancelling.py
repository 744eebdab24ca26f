"""``dispatcher jobs cancel``."""

from __future__ import annotations

import click

from dispatcher.cli import completing, output
from dispatcher.cli.session import run_operation
from dispatcher.core.cancelling import MAX_REASON
from dispatcher.core.history import Document
from dispatcher.services import cancelling
from dispatcher.services.operations import Operations


def _reason(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and len(value) > MAX_REASON:
        raise click.BadParameter(f"has {len(value)} characters, at most {MAX_REASON} are kept")
    return value


@click.command("cancel")
@click.argument("job_id", metavar="ID", shell_complete=completing.jobs)
@click.option("--reason", callback=_reason, help="Why; kept in the job's history.")
@click.option("--app", shell_complete=completing.apps, help="The application, where several have this id.")
@click.option(
    "--wait",
    type=click.FloatRange(min=1),
    default=60,
    show_default=True,
    help="Seconds to wait for the end of a job that runs; it is cancelled in any case.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: app, id, run, state.")
def cancel(job_id: str, reason: str | None, app: str | None, wait: float, as_json: bool) -> None:
    """Cancel a job that has not ended. ID may be APP:ID.

    Once the command has returned, a job that had not started never starts; one that ran was stopped at its next await,
    or its process killed. A handler in a thread cannot be stopped: its flag is set and its result dropped.
    """

    async def action(operations: Operations) -> Document:
        doc = await operations.find(job_id, app)
        return await cancelling.cancel(operations, doc, reason, wait, output.say)

    doc = run_operation(action, publishes=True)
    if as_json:
        output.emit_json({name: doc[name] for name in ("app", "id", "run", "state")})
    else:
        output.say(f"job {doc['app']}:{doc['id']}: {doc['state']}")

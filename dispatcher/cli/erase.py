"""``dispatcher jobs erase``: personal data goes, from history, parked queues and ``rejected``."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from dispatcher.cli import completing, output
from dispatcher.cli.filters import Moment
from dispatcher.cli.progress import progress
from dispatcher.cli.session import run_operation
from dispatcher.core.filters import JobFilter
from dispatcher.services.erasing import Erased, Meant, count
from dispatcher.services.erasing import erase as erase_meant
from dispatcher.services.operations import Operations


@click.command("erase")
@click.argument("job_id", metavar="[ID]", required=False, shell_complete=completing.jobs)
@click.option(
    "--app", shell_complete=completing.apps, help="Every finished job of this application; with ID: its application."
)
@click.option(
    "--type",
    "job_type",
    shell_complete=completing.types,
    help="Only jobs of this type: a pattern, * is one word and # any number of words.",
)
@click.option(
    "--before", type=Moment(), metavar="TIME", help="Only jobs accepted before then: 90d or an RFC 3339 time."
)
@click.option("--dry-run", is_flag=True, help="Only count, place by place; nothing is erased.")
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: counts by place.")
def erase(
    job_id: str | None,
    app: str | None,
    job_type: str | None,
    before: int | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Erase finished jobs for good: all of an application, or the one named (ID may be APP:ID).

    They go from history, from the parked queues and, without --type, from rejected. Jobs that are not
    finished stay; cancel them first.
    """
    meant = _meant(job_id, app, job_type, before)
    if dry_run or not yes:
        found = run_operation(lambda operations: count(operations, meant))
        if dry_run:
            _show(found, True, as_json)
            return
        _ask(found)

    async def action(operations: Operations) -> Erased:
        with progress("erased", quiet=as_json) as tell:
            return await erase_meant(operations, meant, tell)

    done = run_operation(action)
    _show(done, False, as_json)
    if meant.id is not None and done.unfinished:
        raise click.exceptions.Exit(1)


def _meant(job_id: str | None, app: str | None, job_type: str | None, before: int | None) -> Meant:
    if job_id is not None and app is None and ":" in job_id:
        app, _, job_id = job_id.partition(":")
    if app is None:
        raise click.UsageError("say whose: --app APP for all of an application, or APP:ID for one job")
    if job_id is not None and (job_type is not None or before is not None):
        raise click.UsageError("name one job by ID, or many by --type and --before; not both")
    try:
        JobFilter(type=job_type)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--type") from None
    return Meant(app, job_id, job_type, before)


def _ask(found: Erased) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("erasing cannot be undone: look with --dry-run, then say --yes")
    what = f"{found.history} jobs in history, {found.parked} parked and {found.rejected} refused messages"
    click.confirm(f"erase {what} for good?", abort=True, err=True)


def _show(done: Erased, dry: bool, as_json: bool) -> None:
    if as_json:
        output.emit_json({**asdict(done), "dry_run": dry})
    else:
        rows = [("history", done.history), ("parked", done.parked), ("rejected", done.rejected)]
        output.table(None, ["place", ">would be erased" if dry else ">erased"], rows)
    if done.unfinished:
        output.say(f"{done.unfinished} jobs are not finished and stay: `dispatcher jobs cancel` them, then erase again")

"""``dispatcher dead``: jobs that ended failed or timed out, and were parked."""

from __future__ import annotations

from typing import Any

import click

from dispatcher.cli import completing, output
from dispatcher.cli.bulk import bulk_options, chosen, run_bulk
from dispatcher.cli.filters import filter_options, limit_option, read_filter
from dispatcher.cli.jobs import report_run, show_jobs
from dispatcher.cli.rejected import show_readmitted
from dispatcher.cli.session import run_operation, told
from dispatcher.core.dead_groups import DeadGroups, Group
from dispatcher.services.operations import Operations, dead_ones
from dispatcher.services.readmitting import readmit_parked
from dispatcher.services.replaying import replay_matching


@click.group()
def dead() -> None:
    """Dead letters: jobs that ended failed or timed out."""


@dead.command("list")
@filter_options(fingerprint=True)
@limit_option
@click.option("--flat", is_flag=True, help="A row for each job, not for each kind of error.")
@click.option("--groups", is_flag=True, help="With --json: an array of kinds of error, not of jobs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: an array of jobs.")
def list_dead(limit: int, flat: bool, groups: bool, as_json: bool, **options: Any) -> None:
    """List dead jobs by kind of error: one row for each fingerprint (error type, message, place in your code)."""
    where = read_filter(options)
    if flat and groups:
        raise click.UsageError("--flat and --groups exclude each other")
    if flat or (as_json and not groups):
        show_jobs(run_operation(told(where, lambda operations: operations.dead(where, limit))), as_json)
    else:
        found = run_operation(told(where, lambda operations: operations.dead_groups(where)))
        show_groups(found, limit, as_json)


def show_groups(found: DeadGroups, limit: int, as_json: bool) -> None:
    """The largest groups as a table or an array, with a word on what is not shown."""
    groups = found.largest()
    if as_json:
        output.emit_json([output.with_times(group.document()) for group in groups[:limit]])
        return
    columns = ["fingerprint", ">jobs", "type", "error", "in", "last seen", "example"]
    output.table(None, columns, map(_row, groups[:limit]), drop=["last seen", "in", "type"])
    output.say(f"{sum(group.count for group in groups) + found.others} dead jobs, {len(groups)} kinds of error")
    if found.others:
        output.say(f"{found.others} of them are of further kinds, too many to tell apart: narrow the filter")


def _row(group: Group) -> tuple[Any, ...]:
    (first, _), *more = group.types.most_common()
    error = f"{group.fingerprint.type}: {group.fingerprint.message}".removesuffix(": ")
    return (
        group.fingerprint.id,
        group.count,
        f"{first} and {len(more)} more" if more else first,
        output.plain(error, 200),
        group.fingerprint.frame,
        output.clock(group.last_seen),
        group.example,
    )


@dead.command("replay")
@click.argument("job_id", metavar="[ID]", required=False, shell_complete=completing.jobs)
@bulk_options()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: app, id, run; or what was done.")
def replay(job_id: str | None, app: str | None, as_json: bool, **options: Any) -> None:
    """Start a new run of a dead job, or of all that the options choose, from their parked messages.

    Many are replayed in one pass through each lane's parked queue. It can be stopped (Ctrl-C) and run again. The new
    run starts at once and does not expire; a deadline still counts from the job's acceptance.
    """
    options |= {"app": app, "as_json": as_json}
    where = chosen(job_id, options)
    if where is not None:
        run_bulk(where, options, "replay", lambda operations, w: operations.jobs.count(dead_ones(w)), replay_matching)
        return

    async def action(operations: Operations) -> dict[str, Any]:
        doc = await operations.find(str(job_id), app)
        return {"app": doc["app"], "id": doc["id"], "run": await operations.replay(doc)}

    report_run(run_operation(action, publishes=True), as_json)


@dead.command("readmit")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def readmit(as_json: bool) -> None:
    """Put parked messages that no worker could read back into their queues, where this version can read them.

    An older worker parks what only a newer one knows. Dead jobs, and what this version cannot read, stay parked.
    """
    show_readmitted(run_operation(readmit_parked, publishes=True), as_json)

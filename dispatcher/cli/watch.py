"""``dispatcher watch``: follows one job until it ends."""

from __future__ import annotations

import asyncio
import time

import click

from dispatcher.cli import completing, output
from dispatcher.cli.session import run_operation
from dispatcher.core.history import Document
from dispatcher.core.lifecycle import FINAL
from dispatcher.core.watching import news
from dispatcher.services.operations import OperationError, Operations
from schemas import JobState


@click.command()
@click.argument("job_id", metavar="JOB", shell_complete=completing.jobs)
@click.option("--app", shell_complete=completing.apps, help="The application, where several have this id.")
@click.option("--timeout", type=click.FloatRange(0), help="Seconds after which to give up; without it, never.")
@click.option(
    "--wait",
    type=click.FloatRange(0),
    default=10,
    show_default=True,
    help="Seconds to wait for a job that history does not have yet.",
)
@click.option(
    "--run",
    type=click.IntRange(1),
    default=1,
    help="Wait for this run, of a job that was started again: jobs retry and dead replay say which.",
)
@click.option("--interval", type=click.FloatRange(0.05), default=0.5, show_default=True, help="Seconds between looks.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end: the job.")
def watch(
    job_id: str, app: str | None, timeout: float | None, wait: float, run: int, interval: float, as_json: bool
) -> None:
    """Follow a job, with a line for whatever happens, until it ends. JOB may be APP:ID.

    It reads the job's document from history every --interval seconds; what ends and starts again in between is told
    afterwards, with its times. Ctrl-C leaves, and changes nothing.

    Exit code 0 if it succeeded, else 1; 1 too where it has not ended within --timeout.
    """
    until = None if timeout is None else time.monotonic() + timeout

    async def action(operations: Operations) -> Document:
        doc = await _appearance(operations, job_id, app, run, wait, interval)
        return await _follow(operations, doc, until, interval, as_json)

    doc = run_operation(action, ages=True)
    if as_json:
        output.emit_json(output.with_times(doc))
    if doc["state"] is None or JobState(doc["state"]) not in FINAL:
        raise click.ClickException(
            f"job {doc['_id']} is {doc['state']} after {timeout:g} s; see: dispatcher jobs explain {doc['_id']}"
        )
    if doc["state"] != JobState.SUCCEEDED:
        raise click.exceptions.Exit(1)


async def _appearance(
    operations: Operations, job_id: str, app: str | None, run: int, wait: float, interval: float
) -> Document:
    """The job, once history has it and has heard of this run."""
    until = time.monotonic() + wait
    while True:
        over = time.monotonic() >= until
        try:
            doc = await operations.find(job_id, app, hint=over)
            if doc["run"] >= run:
                return doc
            raise OperationError(f"run {run} of job {doc['_id']} is not in history (yet); the last is {doc['run']}")
        except OperationError:
            if over:
                raise
        await asyncio.sleep(min(interval, max(until - time.monotonic(), 0)))


async def _follow(operations: Operations, doc: Document, until: float | None, interval: float, quiet: bool) -> Document:
    """Tell what is new, until the job is final or it is time."""
    before = None
    while True:
        if not quiet:
            for at, line in news(before, doc):
                output.line(f"{output.clock(at)}  {line}")
        over = until is not None and time.monotonic() >= until
        if over or (doc["state"] is not None and JobState(doc["state"]) in FINAL):
            return doc
        before = doc
        await asyncio.sleep(interval if until is None else min(interval, max(until - time.monotonic(), 0)))
        doc = await operations.jobs.get(doc["app"], doc["id"]) or doc

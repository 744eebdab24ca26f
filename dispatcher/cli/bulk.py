"""What `dead replay` and `jobs retry` share when they mean many jobs."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import click

from dispatcher.cli import output
from dispatcher.cli.filters import filter_options, read_filter
from dispatcher.cli.progress import Tell, progress, until_interrupted
from dispatcher.cli.session import run_operation
from dispatcher.core.filters import JobFilter
from dispatcher.services.operations import Operations
from dispatcher.services.replaying import Bulk

Start = Callable[[Operations, JobFilter, int | None, Callable[[], bool], Tell], Awaitable[Bulk]]
Count = Callable[[Operations, JobFilter], Awaitable[int]]

Command = Callable[..., Any]

_OPTIONS = [
    click.option("--all", "every", is_flag=True, help="Every one, where no other option chooses."),
    click.option("--limit", type=click.IntRange(1), help="Start at most so many."),
    click.option("--dry-run", is_flag=True, help="Only count what history has of them; nothing is started."),
    click.option("--yes", is_flag=True, help="Do not ask on a terminal."),
]


def bulk_options(*, states: bool = False) -> Callable[[Command], Command]:
    """The options of a filter, and those of what is done to many."""

    def put(command: Command) -> Command:
        for option in reversed(_OPTIONS):
            command = option(command)
        return filter_options(states=states, fingerprint=True)(command)

    return put


def chosen(job_id: str | None, options: dict[str, Any]) -> JobFilter | None:
    """The filter, or None where one job is named.

    Raises:
        click.UsageError: both or neither are given.
    """
    where = read_filter(options)
    many = bool(options["every"] or options["limit"] or options["dry_run"])
    if job_id is not None:
        if where != JobFilter(app=where.app) or many:
            raise click.UsageError("name one job by ID, or many by options; not both")
        return None
    if where.is_empty and not options["every"]:
        raise click.UsageError("name a job by ID, choose jobs by options such as --type, or say --all")
    return where


def run_bulk(
    where: JobFilter, options: dict[str, Any], verb: str, count: Count, start: Start, word: str = "started"
) -> None:
    """Count, ask, start, and say what was done; exit code 1 where it was stopped or some could not be started.

    ``word`` is what the jobs then are, in the sentences: started, published.
    """
    limit, as_json = options["limit"], options["as_json"]
    if options["dry_run"] or _asks(options):
        number = run_operation(lambda operations: count(operations, where))
        number = min(number, limit) if limit is not None else number
        if options["dry_run"]:
            _show_dry(number, verb, word, as_json)
            return
        click.confirm(f"{verb} {number} jobs?", abort=True, err=True)

    began = time.monotonic()

    async def action(operations: Operations) -> Bulk:
        with progress(word, quiet=as_json) as tell:
            return await until_interrupted(lambda stop: start(operations, where, limit, stop, tell))

    done = run_operation(action, publishes=True)
    _show(done, word, time.monotonic() - began, as_json)
    if done.stopped or done.impossible:
        raise click.exceptions.Exit(1)


def _asks(options: dict[str, Any]) -> bool:
    return not options["yes"] and sys.stdin.isatty()


def _show_dry(number: int, verb: str, word: str, as_json: bool) -> None:
    if as_json:
        output.emit_json({"dry_run": True, "matching": number})
    else:
        click.echo(f"would {verb} {number} jobs, as far as history knows; nothing was {word}")


def _show(done: Bulk, word: str, seconds: float, as_json: bool) -> None:
    if as_json:
        output.emit_json(asdict(done) | {"dry_run": False, "seconds": round(seconds, 1)})
        return
    click.echo(f"{done.started} jobs {word} of {done.looked_at} looked at, in {seconds:.1f} s")
    if done.left_over:
        output.say(f"{done.left_over} parked messages were of runs that are over, and were removed")
    if done.impossible:
        output.say(f"{done.impossible} could not be {word}: no queue takes them, or their payload is not in history")
    if done.stopped:
        output.say("stopped before the end; run the same command again for the rest")

"""``dispatcher jobs``: history."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from dispatcher.cli import cancelling, completing, output, republishing, rescheduling
from dispatcher.cli.bulk import bulk_options, chosen, run_bulk
from dispatcher.cli.erase import erase
from dispatcher.cli.filters import filter_options, limit_option, read_filter
from dispatcher.cli.session import run_operation, told
from dispatcher.core.explaining import explain
from dispatcher.core.history import Document
from dispatcher.core.watching import progress_said
from dispatcher.edges import clock
from dispatcher.services.operations import Operations
from dispatcher.services.replaying import retry_matching, retryable
from schemas import JobState


@click.group()
def jobs() -> None:
    """Jobs in history: list, show, explain, retry, cancel, reschedule, republish, erase."""


jobs.add_command(cancelling.cancel)
jobs.add_command(rescheduling.reschedule)
jobs.add_command(republishing.republish)
jobs.add_command(erase)


@jobs.command("list")
@filter_options(states=True)
@click.option("--breached", is_flag=True, help="Only jobs that missed their deadline, the unfinished ones too.")
@limit_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: an array.")
def list_jobs(limit: int, as_json: bool, **options: Any) -> None:
    """List jobs, the last accepted first."""
    where = read_filter(options)
    found = run_operation(told(where, lambda operations: operations.jobs.search(where, limit)), ages=not as_json)
    show_jobs(found, as_json)


def show_jobs(found: list[Document], as_json: bool) -> None:
    """A table of jobs, or their documents."""
    if as_json:
        output.emit_json([output.with_times(doc) for doc in found])
        return
    due = any(doc["state"] == JobState.SCHEDULED and doc.get("due_at") for doc in found)
    rows = [
        (
            doc["app"],
            doc["id"],
            doc["type"],
            doc["priority"] or "-",
            output.state(doc["state"] or "-"),
            len(doc["attempts"]),
            output.clock(doc["accepted_at"]),
            *([output.clock(doc.get("due_at"))] if due else []),
            output.duration(doc.get("run_ms")),
            (doc.get("error") or {}).get("type", ""),
        )
        for doc in found
    ]
    times = ["accepted", *(["due"] if due else []), ">ran"]
    columns = ["app", "id", "type", "priority", "state", ">tries", *times, "error"]
    output.table(None, columns, rows, drop=[">ran", ">tries", "priority", "accepted", "error"])


@jobs.command("show")
@click.argument("job_id", metavar="ID", shell_complete=completing.jobs)
@click.option("--app", shell_complete=completing.apps, help="The application, where several have this id.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(job_id: str, app: str | None, as_json: bool) -> None:
    """Show a job, the timeline of its attempts, and the traceback of the last that failed. ID may be APP:ID."""
    doc = run_operation(lambda operations: operations.find(job_id, app), ages=not as_json)
    if as_json:
        output.emit_json(output.with_times(doc))
        return
    show_job(doc)


def show_job(doc: Document) -> None:
    """A job for people: its fields, its attempts, and the traceback of the last that failed."""
    fields: list[tuple[str, Any]] = [
        ("job", doc["_id"]),
        ("type", doc["type"]),
        ("lane, priority", f"{doc['lane']}, {doc['priority']}"),
        ("state", output.state(doc["state"] or "-")),
        ("run", doc["run"]),
        ("accepted", output.iso(doc["accepted_at"])),
        ("finished", output.iso(doc["finished_at"]) or "-"),
    ]
    fields.extend(_limits(doc))
    for name in ("payload", "tags", "result"):
        if doc.get(name) is not None:
            fields.append((name, output.plain(json.dumps(doc[name], ensure_ascii=False, default=str), 400)))
    if progress := doc.get("progress"):
        fields.append(("progress", output.plain(_progress(progress), 400)))
    if error := doc.get("error"):
        fields.append(("error", output.plain(f"{error['type']}: {error['message']}", 400)))
    output.table(None, ["", ""], fields)
    output.table(
        "Attempts",
        [">run", ">attempt", ">started after", ">ran", "outcome", "error", "worker"],
        _timeline(doc),
    )
    for attempt in reversed(doc["attempts"]):
        if trace := (attempt.get("error") or {}).get("traceback"):
            output.paragraph([f"Traceback of run {attempt['run']}, attempt {attempt['n']}:", *trace.splitlines()])
            break


def _limits(doc: Document) -> Iterator[tuple[str, Any]]:
    """What the client asked for besides, where it did."""
    if doc.get("due_at"):
        yield "due", output.iso(doc["due_at"])
    if doc.get("expires_at"):
        yield "expires", output.iso(doc["expires_at"])
    if doc.get("deadline_at"):
        missed = (doc["finished_at"] or clock.now_ms()) > doc["deadline_at"]
        yield "deadline", f"{output.iso(doc['deadline_at'])}{' (missed)' if missed else ''}"
    if group := doc.get("group"):
        yield "group", output.plain(f"{group['key']} (at most {group['max_size']}, {group['max_wait']:g} s)", 400)
    if doc.get("batch"):
        yield "batch", output.plain(doc["batch"], 400)
    if unique := doc.get("unique"):
        yield "unique key", output.plain(f"{unique['key']} (until {unique['until']})", 400)
    if doc.get("duplicate_of"):
        yield "duplicate of", output.plain(doc["duplicate_of"], 400)
    if doc.get("resent"):
        yield "sent again", f"{doc['resent']} times" if doc["resent"] > 1 else "once"
    if doc.get("timeout"):
        yield "timeout", f"{doc['timeout']:g} s"


def _progress(progress: Document) -> str:
    """How far the handler said it has come, in which attempt, and when."""
    return f"{progress_said(progress)} (attempt {progress['n']}, at {output.clock(progress['at'])})"


def _outcome(doc: Document, attempt: Document) -> str:
    """How an attempt ended; one that somebody began again, or that the job's end left behind, has no end in history."""
    latest = doc["state"] == JobState.RUNNING and attempt is doc["attempts"][-1]
    return attempt["outcome"] or ("running" if latest else "no end known")


def _timeline(doc: Document) -> list[tuple[Any, ...]]:
    rows = []
    for attempt in doc["attempts"]:
        finished, started = attempt["finished_at"], attempt["started_at"]
        rows.append(
            (
                attempt["run"],
                attempt["n"],
                output.duration(started - doc["accepted_at"]),
                output.duration(finished - started) if finished is not None else "-",
                output.state(_outcome(doc, attempt)),
                (attempt.get("error") or {}).get("type", ""),
                attempt["worker"],
            )
        )
    return rows


@jobs.command("explain")
@click.argument("job_id", metavar="ID", shell_complete=completing.jobs)
@click.option("--app", shell_complete=completing.apps, help="The application, where several have this id.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: app, id, state, sentences, commands.")
def explain_job(job_id: str, app: str | None, as_json: bool) -> None:
    """Say where a job is, why, what would move it on, and what you can do."""
    doc = run_operation(lambda operations: operations.find(job_id, app), ages=True)
    explanation = explain(doc, clock.now_ms())
    if as_json:
        commands = [{"command": command, "effect": effect} for command, effect in explanation.commands]
        shown = {"app": doc["app"], "id": doc["id"], "state": doc["state"]}
        output.emit_json(shown | {"sentences": list(explanation.sentences), "commands": commands})
        return
    output.paragraph(explanation.sentences)
    output.paragraph([f"{command}   {effect}" for command, effect in explanation.commands])


@jobs.command("retry")
@click.argument("job_id", metavar="[ID]", required=False, shell_complete=completing.jobs)
@bulk_options(states=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: app, id, run; or what was done.")
def retry(job_id: str | None, app: str | None, as_json: bool, **options: Any) -> None:
    """Start a new run of a finished job, or of all that the options choose, from history.

    Without --state, many are those that ended failed, timed_out, cancelled or expired. The new run starts at once and
    does not expire; a deadline still counts from the job's acceptance.
    """
    options |= {"app": app, "as_json": as_json}
    where = chosen(job_id, options)
    if where is not None:
        run_bulk(where, options, "retry", lambda operations, w: operations.jobs.count(retryable(w)), retry_matching)
        return

    async def action(operations: Operations) -> dict[str, Any]:
        doc = await operations.find(str(job_id), app)
        return {"app": doc["app"], "id": doc["id"], "run": await operations.retry(doc)}

    report_run(run_operation(action, publishes=True), as_json)


def report_run(started: dict[str, Any], as_json: bool) -> None:
    """Say which run was started."""
    if as_json:
        output.emit_json(started)
    else:
        output.say(f"job {started['app']}:{started['id']}: run {started['run']} started")

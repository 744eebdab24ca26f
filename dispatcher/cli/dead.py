"""``dispatcher dead``: jobs that ended failed or timed out, and were parked."""

from __future__ import annotations

from typing import Any

import click

from dispatcher.cli.jobs import report_run, show_jobs
from dispatcher.cli.session import run_operation
from dispatcher.services.operations import Operations


@click.group()
def dead() -> None:
    """Dead letters: jobs that ended failed or timed out."""


@dead.command("list")
@click.option("--app", help="Only this application's jobs.")
@click.option("--type", "job_type", help="Only jobs of this type.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: an array.")
def list_dead(app: str | None, job_type: str | None, limit: int, as_json: bool) -> None:
    """List dead jobs, the last accepted first."""
    show_jobs(run_operation(lambda operations: operations.dead(app, job_type, limit)), as_json)


@dead.command("replay")
@click.argument("job_id", metavar="ID")
@click.option("--app", help="The application, where several have this id.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: app, id, run.")
def replay(job_id: str, app: str | None, as_json: bool) -> None:
    """Start a new run of a dead job from its parked message."""

    async def action(operations: Operations) -> dict[str, Any]:
        doc = await operations.find(job_id, app)
        return {"app": doc["app"], "id": doc["id"], "run": await operations.replay(doc)}

    report_run(run_operation(action, publishes=True), as_json)

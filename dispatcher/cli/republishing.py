"""``dispatcher jobs republish``."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from dispatcher.cli.bulk import bulk_options, chosen, run_bulk
from dispatcher.cli.session import settings
from dispatcher.services.republishing import check_stopped, republish_matching, unfinished


@click.command("republish")
@bulk_options()
@click.option("--force", is_flag=True, help="Also while queues hold messages; a job among them is published twice.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: what was done.")
def republish(force: bool, **options: Any) -> None:
    """Publish anew the jobs that history calls unfinished, after the broker that held them was lost.

    Stop every service and worker first, and run `dispatcher topology apply`. Nothing is published while a queue on a
    job's way holds messages: those are not lost. Jobs that wait in MongoDB for their time are left there.
    """
    where = chosen(None, options)
    assert where is not None
    asyncio.run(check_stopped(settings(), force))
    run_bulk(
        where,
        options,
        "republish",
        lambda operations, w: operations.jobs.count(unfinished(w)),
        republish_matching,
        word="published",
    )

"""``dispatcher rejected``: messages that intake refused, and why."""

from __future__ import annotations

import asyncio

import click

from dispatcher.cli import output
from dispatcher.cli.session import settings
from dispatcher.core.topology import Names
from dispatcher.edges.amqp import peek

_REASON = "x-rejected-reason"
_SIZE = "x-original-size"


@click.group()
def rejected() -> None:
    """Messages that intake refused, and why."""


@rejected.command("list")
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: an array.")
def list_rejected(limit: int, as_json: bool) -> None:
    """Look at the oldest refused messages; they stay in the queue. API keys in them were taken out."""
    loaded = settings()
    queue = Names(loaded.amqp.prefix).rejected
    found = asyncio.run(peek(loaded.amqp.url.get_secret_value(), queue, limit))
    shown = [
        {
            "reason": str(message.headers.get(_REASON, "")),
            "size": message.headers.get(_SIZE, len(message.body)),
            "body": message.body.decode("utf-8", "replace"),
        }
        for message in found
    ]
    if as_json:
        output.emit_json(shown)
        return
    output.table(
        None, ["reason", ">bytes", "body"], [(m["reason"], m["size"], output.plain(str(m["body"]))) for m in shown]
    )

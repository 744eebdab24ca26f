"""``dispatcher rejected`` and ``dispatcher unrecorded``: messages that were set aside, and why."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from dispatcher.cli import output
from dispatcher.cli.session import run_operation, settings
from dispatcher.core import keys
from dispatcher.core.dated import APP_HEADER, AT_HEADER, ERROR_HEADER, REASON_HEADER, SIZE_HEADER, TYPE_HEADER
from dispatcher.core.moments import LAST_MS
from dispatcher.core.topology import Names
from dispatcher.edges.amqp import Peeked, Rotated, peek
from dispatcher.services.readmitting import readmit_unrecorded

_limit = click.option("--limit", type=click.IntRange(1, 1_000), default=20, show_default=True, help="At most so many.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document: an array.")


@click.group()
def rejected() -> None:
    """Messages that intake refused, and why."""


@rejected.command("list")
@_limit
@_json
def list_rejected(limit: int, as_json: bool) -> None:
    """Look at the oldest refused messages; they stay in the queue. API keys in them were taken out.

    The application is known where the key was good, the type where the routing key is one.
    """
    shown: list[dict[str, Any]] = [
        {
            "at": _time(message),
            "app": _text(message, APP_HEADER),
            "type": _text(message, TYPE_HEADER),
            "reason": _text(message, REASON_HEADER) or "",
            "size": message.headers.get(SIZE_HEADER, len(message.body)),
            "body": message.body.decode("utf-8", "replace"),
        }
        for message in _first(_names().rejected, limit)
    ]
    if as_json:
        output.emit_json(output.with_times(shown))
        return
    rows = [
        (
            output.clock(m["at"]),
            output.plain(m["app"] or ""),
            output.plain(m["type"] or ""),
            output.plain(m["reason"], 200),
            m["size"],
            output.plain(m["body"]),
        )
        for m in shown
    ]
    output.table(None, ["at", "app", "type", "reason", ">bytes", "body"], rows, [">bytes", "at"])


@click.group()
def unrecorded() -> None:
    """Events that history lacks, because they could not be stored, and why."""


@unrecorded.command("list")
@_limit
@_json
def list_unrecorded(limit: int, as_json: bool) -> None:
    """Look at the oldest messages in unrecorded.v1; they stay in the queue."""
    shown = [
        {
            "error": _text(message, ERROR_HEADER) or "",
            "size": len(message.body),
            "body": keys.redact(message.body).decode("utf-8", "replace"),
        }
        for message in _first(_names().unrecorded, limit)
    ]
    if as_json:
        output.emit_json(shown)
        return
    rows = [(output.plain(str(m["error"]), 200), m["size"], output.plain(str(m["body"]))) for m in shown]
    output.table(None, ["error", ">bytes", "body"], rows, ["body"])


@unrecorded.command("readmit")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def readmit(as_json: bool) -> None:
    """Put events that this version can read back into history.v1: an older one could not.

    The others stay. What MongoDB refused goes back too, and returns if MongoDB refuses it again.
    """
    show_readmitted(run_operation(readmit_unrecorded, publishes=True), as_json)


def show_readmitted(done: Rotated, as_json: bool) -> None:
    """How many messages went back to where they belong."""
    if as_json:
        output.emit_json({"readmitted": done.replaced, "looked_at": done.looked_at})
    else:
        click.echo(f"{done.replaced} messages put back of {done.looked_at} looked at")


def _names() -> Names:
    return Names(settings().amqp.prefix)


def _first(queue: str, limit: int) -> list[Peeked]:
    return asyncio.run(peek(settings().amqp.url.get_secret_value(), queue, limit))


def _text(message: Peeked, header: str) -> str | None:
    value: Any = message.headers.get(header)
    return None if value is None else str(value)


def _time(message: Peeked) -> int | None:
    at = message.headers.get(AT_HEADER)
    return at if isinstance(at, int) and 0 <= at <= LAST_MS else None

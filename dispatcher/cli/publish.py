"""``dispatcher publish``: one job from the command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import click

from config import Settings
from dispatcher.cli import output
from dispatcher.cli.completing import lanes, types
from dispatcher.cli.durations import Seconds
from dispatcher.cli.session import settings, warn_of_skew
from dispatcher.client import Client, Receipt
from dispatcher.core.timing import parse_time
from dispatcher.edges import clock
from dispatcher.edges.amqp import check_broker
from dispatcher.edges.mongo import Database, DatabaseError, clock_ahead
from schemas import PRIORITIES
from schemas.job import Until

KEY_VARIABLE = "DISPATCHER_API_KEY"
#: Seconds, after the job was published, to wait for MongoDB's time.
CLOCK_TIMEOUT = 0.5
#: Options that are fields of the message as they are.
_FIELDS = ("priority", "lane", "delay", "run_at", "expires", "deadline", "timeout")


def _time(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and parse_time(value) is None:
        raise click.BadParameter("write a time with its offset: 2026-11-26T18:00:00+01:00")
    return value


@click.command()
@click.argument("job_type", metavar="TYPE", shell_complete=types)
@click.argument("payload", default="{}", metavar="[PAYLOAD]")
@click.option("--id", "job_id", help="The job's id; a UUIDv7 where none is given.")
@click.option("--priority", type=click.Choice(PRIORITIES), help="Default: normal.")
@click.option("--lane", shell_complete=lanes, help="Work queue family.")
@click.option(
    "--delay",
    type=Seconds(),
    help="Seconds from now, at most a year; 30m, 12h or 7d will do too.",
)
@click.option(
    "--run-at", metavar="TIME", callback=_time, help="When to start, RFC 3339 with its offset; the past means now."
)
@click.option("--expires", type=Seconds(), help="Seconds after which it must not start any more.")
@click.option(
    "--deadline",
    type=Seconds(),
    help="Seconds within which it should have finished: measured, not enforced.",
)
@click.option("--timeout", type=Seconds(), help="Seconds for one attempt.")
@click.option("--retry", help='Retry fields as JSON, for example {"max_attempts": 3}.')
@click.option("--group-key", help="A group whose members are delivered together (docs/groups.md).")
@click.option("--group-size", type=int, help="Members that make it complete.  [default: 100]")
@click.option("--group-wait", type=Seconds(), help="Seconds that it waits for more.  [default: 10]")
@click.option("--unique-key", help="A key that only one job of the app has at a time (docs/ids.md).")
@click.option("--unique-for", type=Seconds(), help="Seconds for which the job has its key; 30m, 12h or 7d will do too.")
@click.option(
    "--unique-until",
    type=click.Choice(get_args(Until)),
    help="What frees the key before: nothing, an end other than succeeded, any end.  [default: window]",
)
@click.option("--tag", "tags", multiple=True, help="A tag; may be repeated.")
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False),
    help=f"File with the key; else ${KEY_VARIABLE}.",
)
@click.option(
    "--wait",
    type=float,
    default=10.0,
    show_default=True,
    help="Seconds to wait for intake's answer; 0: none.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def publish(job_type: str, payload: str, key_file: str | None, wait: float, as_json: bool, **options: Any) -> None:
    """Publish one job of TYPE. PAYLOAD is a JSON object, {} where none is given, or - to read it from stdin."""
    fields = {name: options[name] for name in _FIELDS if options[name] is not None}
    if options["tags"]:
        fields["tags"] = list(options["tags"])
    if group := _group(options["group_key"], options["group_size"], options["group_wait"]):
        fields["group"] = group
    if unique := _unique(options["unique_key"], options["unique_for"], options["unique_until"]):
        fields["unique"] = unique
    if options["retry"] is not None:
        fields["retry"] = _json(options["retry"], "--retry")
    body = _json(_stdin() if payload == "-" else payload, "PAYLOAD")
    key = _key(key_file)
    # chosen here, so that it can be shown where nobody answers
    job_id = options["job_id"] or clock.new_id()
    try:
        receipt = asyncio.run(_publish(key, job_type, body, job_id, fields, wait))
    except ValueError as error:
        raise click.UsageError(f"cannot be sent: {error}") from None
    _report(receipt, as_json)


def _group(key: str | None, size: int | None, wait: float | None) -> dict[str, Any] | None:
    if key is None and (size is not None or wait is not None):
        raise click.UsageError("a group needs its --group-key")
    given = {"key": key, "max_size": size, "max_wait": wait}
    return None if key is None else {name: value for name, value in given.items() if value is not None}


def _unique(key: str | None, window: float | None, until: str | None) -> dict[str, Any] | None:
    if key is None and window is None and until is None:
        return None
    if key is None or window is None:
        raise click.UsageError("a unique key needs both --unique-key and --unique-for")
    return {"key": key, "for": window, **({} if until is None else {"until": until})}


def _stdin() -> str:
    return sys.stdin.buffer.read().decode(errors="replace")


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise click.BadParameter("not JSON that anybody takes: nested too deep", param_hint=where) from None
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint=where) from None


def _key(file: str | None) -> str:
    key = Path(file).read_text(encoding="utf-8", errors="replace").strip() if file else os.environ.get(KEY_VARIABLE, "")
    if not key:
        raise click.UsageError(f"no API key: set {KEY_VARIABLE} or give --key-file (dispatcher keys create makes one)")
    return key


async def _publish(key: str, job_type: str, payload: Any, job_id: str, fields: dict[str, Any], wait: float) -> Receipt:
    loaded = settings()
    url = loaded.amqp.url.get_secret_value()
    await check_broker(url)
    async with (
        _clock_checked(loaded, "run_at" in fields),
        Client(url, key, prefix=loaded.amqp.prefix, timeout=wait or 30) as client,
    ):
        if not wait:
            return Receipt(await client.publish(job_type, payload, id=job_id, **fields), True, message="not waited for")
        try:
            return await client.submit(job_type, payload, id=job_id, wait=wait, **fields)
        except TimeoutError:
            return Receipt(job_id, True, message=f"intake has not answered within {wait:g} s; is it running?")


@asynccontextmanager
async def _clock_checked(loaded: Settings, compared: bool) -> AsyncIterator[None]:
    """Beside what is inside, MongoDB is asked for its time: ``--run-at`` was written by this machine's clock.

    A delay needs no clock of ours. Who publishes need not reach MongoDB: nothing is said then.
    """
    if not compared:
        yield
        return
    database = Database(loaded.mongo.url.get_secret_value(), loaded.mongo.database)
    asking = asyncio.create_task(clock_ahead(database))
    try:
        yield
        with contextlib.suppress(DatabaseError, TimeoutError):
            async with asyncio.timeout(CLOCK_TIMEOUT):
                warn_of_skew(await asking, "the job starts at --run-at by MongoDB's")
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        database.close()


def _report(receipt: Receipt, as_json: bool) -> None:
    if as_json:
        error = {"code": receipt.code, "message": receipt.message} if receipt.code else None
        status = "accepted" if receipt.accepted else "rejected"
        if receipt.accepted and receipt.message:
            status = "published"
        duplicate = {"duplicate": True} if receipt.duplicate else {}
        output.emit_json({"id": receipt.id, "status": status, **duplicate, **({"error": error} if error else {})})
    elif receipt.accepted:
        if receipt.message:
            output.say(f"published; {receipt.message}")
        if receipt.duplicate:
            output.say("a duplicate: another job has its id or unique key (docs/ids.md)")
        click.echo(receipt.id or "")
    if not receipt.accepted:
        raise click.ClickException(f"refused: {receipt.code}: {receipt.message}")

"""``dispatcher keys``: API keys of the applications."""

from __future__ import annotations

import re
import secrets
from typing import Any

import click

from dispatcher.cli import output
from dispatcher.cli.session import run_operation, settings
from dispatcher.core import keys as core
from dispatcher.edges import clock
from dispatcher.services.operations import Operations
from schemas import PRIORITIES

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_YEAR_MS = 366 * 86_400_000


class Duration(click.ParamType[int]):
    """``90d``, ``12h``, ``30m`` or ``45s``, as milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the text."""
        match = re.fullmatch(r"([0-9]{1,9})([smhd])", str(value))
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is not a duration; write 90d, 12h, 30m or 45s", param, ctx)
        ms = int(match[1]) * _UNITS[match[2]] * 1000
        if ms > 100 * _YEAR_MS:
            self.fail("at most 100 years", param, ctx)
        return ms


def _words(values: tuple[str, ...]) -> tuple[str, ...]:
    """Options may be repeated or hold several values with commas between."""
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


@click.group()
def keys() -> None:
    """API keys: create, list, revoke."""


@keys.command("create")
@click.option("--app", required=True, help="The application the key belongs to: [a-z0-9_-], at most 64 characters.")
@click.option("--expires", type=Duration(), metavar="90d", help="How long it is valid; without it, for good.")
@click.option("--types", multiple=True, help="Allowed job types: patterns, * is one word and # any number of words.")
@click.option("--lanes", multiple=True, help="Allowed lanes.")
@click.option("--max-priority", type=click.Choice(PRIORITIES), help="Highest allowed priority.")
@click.option("--max-bytes", type=click.IntRange(min=2), help="Largest allowed message body.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: app, id, key.")
def create(
    app: str,
    expires: int | None,
    types: tuple[str, ...],
    lanes: tuple[str, ...],
    max_priority: str | None,
    max_bytes: int | None,
    as_json: bool,
) -> None:
    """Create a key and print it. It is shown this once; only its hash is stored."""
    if not core.APP_PATTERN.fullmatch(app):
        raise click.BadParameter("use [a-z0-9_-], at most 64 characters", param_hint="--app")
    loaded = settings()
    unknown = [lane for lane in _words(lanes) if lane not in loaded.lanes]
    if unknown:
        raise click.BadParameter(f"no lane {unknown[0]!r}; there are: {', '.join(loaded.lanes)}", param_hint="--lanes")
    key, key_id = core.generate(loaded.keys.env, secrets.choice)
    now = clock.now_ms()
    try:
        record = core.KeyRecord(
            id=key_id,
            app=app,
            hash=core.digest(key),
            created_at=now,
            types=_words(types),
            lanes=_words(lanes),
            max_priority=max_priority,
            max_bytes=max_bytes,
            expires_at=now + expires if expires else None,
        )
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--types") from None
    run_operation(lambda operations: operations.keys.create(record))
    if as_json:
        output.emit_json({"app": app, "id": key_id, "key": key})
    else:
        output.say(f"Key {key_id} of app {app}. Keep it now: it is not shown again.")
        click.echo(key)


@keys.command("list")
@click.option("--app", help="Only this application's keys.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: an array.")
def list_keys(app: str | None, as_json: bool) -> None:
    """List keys, never their secrets."""
    now = clock.now_ms()
    records = run_operation(lambda operations: operations.keys.all(app))
    if as_json:
        output.emit_json([_shown(record, now) for record in records])
        return
    columns = ["key", "app", "state", "types", "lanes", "highest priority", "created", "expires"]
    output.table(
        None,
        columns,
        [
            (
                record.id,
                record.app,
                output.state(record.state(now)),
                " ".join(record.types) or "all",
                " ".join(record.lanes) or "all",
                record.max_priority or "any",
                output.clock(record.created_at),
                output.clock(record.expires_at) or "never",
            )
            for record in records
        ],
    )


def _shown(record: core.KeyRecord, now: int) -> dict[str, Any]:
    shown: dict[str, Any] = output.with_times(
        {
            "id": record.id,
            "app": record.app,
            "state": record.state(now),
            "types": list(record.types),
            "lanes": list(record.lanes),
            "max_priority": record.max_priority,
            "max_bytes": record.max_bytes,
            "created_at": record.created_at,
            "expires_at": record.expires_at,
        }
    )
    return shown


@keys.command("revoke")
@click.argument("key_id", metavar="KEYID")
def revoke(key_id: str) -> None:
    """Revoke a key for good; every running intake refuses it within 2 s."""

    async def action(operations: Operations) -> core.KeyRecord | None:
        return await operations.keys.revoke(key_id)

    record = run_operation(action)
    if record is None:
        raise click.ClickException(f"no key {core.redact(key_id.encode()).decode()}; see: dispatcher keys list")
    output.say(f"revoked {record.id} of app {record.app}")

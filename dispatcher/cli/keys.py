"""``dispatcher keys``: API keys of the applications."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, get_args

import click
from rich.text import Text

from dispatcher.cli import completing, output
from dispatcher.cli.durations import Duration
from dispatcher.cli.leaks import check_leak
from dispatcher.cli.session import run_operation, settings
from dispatcher.core import keys as core
from dispatcher.core.moments import span
from dispatcher.core.usage import DAY_MS, Usage
from dispatcher.edges import clock
from dispatcher.services.keyring import Keyring, Rotated
from dispatcher.services.operations import Operations
from schemas import PRIORITIES


def _words(values: tuple[str, ...]) -> tuple[str, ...]:
    """Options may be repeated or hold several values with commas between."""
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


Result = TypeVar("Result")

_STATES = get_args(core.KeyState)


def on_keyring(action: Callable[[Keyring], Awaitable[Result]]) -> Result:
    """Run an action on the installation's keys, with its entry in the audit."""

    async def run(operations: Operations) -> Result:
        return await action(Keyring(operations.keys, operations.audit, settings().keys.env))

    return run_operation(run)


@click.group()
def keys() -> None:
    """API keys: create, list, show, rotate, revoke, and look for leaked ones."""


@keys.command("create")
@click.option(
    "--app",
    required=True,
    shell_complete=completing.apps,
    help="The application the key belongs to: [a-z0-9_-], at most 64 characters.",
)
@click.option("--expires", type=Duration(), metavar="90d", help="How long it is valid; without it, for good.")
@click.option(
    "--types",
    multiple=True,
    shell_complete=completing.types,
    help="Allowed job types: patterns, * is one word and # any number of words.",
)
@click.option("--lanes", multiple=True, shell_complete=completing.lanes, help="Allowed lanes.")
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
    on_keyring(lambda keyring: keyring.create(record))
    if as_json:
        output.emit_json({"app": app, "id": key_id, "key": key})
    else:
        output.say(f"Key {key_id} of app {app}. Keep it now: it is not shown again.")
        click.echo(key)


@keys.command("list")
@click.option("--app", shell_complete=completing.apps, help="Only this application's keys.")
@click.option("--state", "states", multiple=True, type=click.Choice(_STATES), help="Only keys in this state.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: an array.")
def list_keys(app: str | None, states: tuple[str, ...], as_json: bool) -> None:
    """List keys, never their secrets, with when each was last used and how many jobs it brought."""
    now, warn_days = clock.now_ms(), settings().keys.warn_days

    async def action(operations: Operations) -> list[dict[str, Any]]:
        records = await operations.keys.all(app)
        usages = await operations.usage.get(record.id for record in records)
        known = [_known(record, usages.get(record.id), now, warn_days) for record in records]
        return [key for key in known if not states or key["state"] in states]

    known = run_operation(action)
    if as_json:
        output.emit_json(output.with_times(known))
        return
    columns = ["key", "app", "state", "types", "lanes", "top priority", "expires", "last used", ">accepted", ">refused"]
    columns.append("replaced by")
    output.table(None, columns, [_row(key, now) for key in known], drop=_DROPPED)
    if soon := sum(key["expiring"] for key in known):
        output.say(f"{soon} end within {warn_days:g} days; give them successors: dispatcher keys rotate KEYID")


#: Columns that go first where a terminal is too narrow; `keys show` has all of it.
_DROPPED = ("top priority", "lanes", "types", "replaced by", ">accepted", ">refused", "last used")


def _row(key: dict[str, Any], now: int) -> tuple[Any, ...]:
    expires = output.clock(key["expires_at"]) or "never"
    if key["expiring"]:
        expires += f" (in {span(key['expires_at'] - now)})"
    return (
        key["id"],
        key["app"],
        output.state(key["state"]),
        " ".join(key["types"]) or "all",
        " ".join(key["lanes"]) or "all",
        key["max_priority"] or "any",
        Text(expires, style="yellow") if key["expiring"] else expires,
        output.clock(key["last_used_at"]) or "never",
        str(key["accepted"]),
        str(key["refused"]),
        key["replaced_by"] or "",
    )


def _known(record: core.KeyRecord, usage: Usage | None, now: int, warn_days: float) -> dict[str, Any]:
    """What is known of a key and may be shown."""
    usage = usage or Usage(record.id, record.app)
    state = record.state(now)
    return {
        "id": record.id,
        "app": record.app,
        "state": state,
        "expiring": state == "active" and record.expires_within(now, warn_days * DAY_MS),
        "types": list(record.types),
        "lanes": list(record.lanes),
        "max_priority": record.max_priority,
        "max_bytes": record.max_bytes,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "last_used_at": usage.last_used_at or None,
        "accepted": usage.accepted,
        "refused": usage.refused,
        "replaces": record.replaces,
        "replaced_by": record.replaced_by,
    }


#: What is shown of a key where a field is empty.
_ABSENT = {"types": "all", "lanes": "all", "max_priority": "any", "expires_at": "never", "last_used_at": "never"}


@keys.command("show")
@click.argument("key_id", metavar="KEYID", shell_complete=completing.keys)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(key_id: str, as_json: bool) -> None:
    """Show one key: what it may do, until when, how it is used, and what it replaces or is replaced by."""
    loaded = settings()

    async def action(operations: Operations) -> dict[str, Any]:
        record = await Keyring(operations.keys, operations.audit, loaded.keys.env).get(key_id)
        usage = (await operations.usage.get([record.id])).get(record.id)
        return _known(record, usage, clock.now_ms(), loaded.keys.warn_days)

    shown = output.with_times(run_operation(action))
    if as_json:
        output.emit_json(shown)
        return
    for name, value in shown.items():
        output.line(f"{name.replace('_', ' '):14} {_said(name, value)}")


def _said(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = " ".join(value) if isinstance(value, list) else value
    return _ABSENT.get(name, "-") if text in (None, "") else str(text)


@keys.command("rotate")
@click.argument("key_id", metavar="KEYID", shell_complete=completing.keys)
@click.option(
    "--grace", type=Duration(zero=True), default="24h", show_default=True, help="How long the old key is accepted."
)
@click.option("--expires", type=Duration(), metavar="90d", help="How long the new key is valid; else as the old was.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: app, id, key, old, grace_until.")
def rotate(key_id: str, grace: int, expires: int | None, as_json: bool) -> None:
    """Make a key that replaces KEYID, with the same application and scopes, and print it.

    The new key has an id and a secret of its own, shown this once. The old one is accepted until the grace period is
    over; `keys list` shows both, and when each was last used.
    """
    rotated = on_keyring(lambda keyring: keyring.rotate(key_id, grace, expires))
    if as_json:
        output.emit_json(_rotation(rotated))
        return
    old, new = rotated.old, rotated.new
    output.say(f"Key {new.id} of app {new.app} replaces {old.id}. Keep it now: it is not shown again.")
    until = output.clock(old.expires_at)
    if (old.expires_at or 0) <= clock.now_ms():
        output.say(f"{old.id} is accepted no more: it ended at {until}")
    else:
        output.say(f"{old.id} is accepted until {until}; to end it before: dispatcher keys revoke {old.id}")
    click.echo(rotated.key)


def _rotation(rotated: Rotated) -> dict[str, Any]:
    shown: dict[str, Any] = output.with_times(
        {
            "app": rotated.new.app,
            "id": rotated.new.id,
            "key": rotated.key,
            "expires_at": rotated.new.expires_at,
            "old": rotated.old.id,
            "grace_until": rotated.old.expires_at,
        }
    )
    return shown


@keys.command("revoke")
@click.argument("key_id", metavar="KEYID", shell_complete=completing.keys)
def revoke(key_id: str) -> None:
    """Revoke a key for good; every running intake refuses it within 2 s.

    Keys that it replaced and that are still accepted are revoked with it; the key that replaced it goes on.
    """
    for record in on_keyring(lambda keyring: keyring.revoke(key_id)):
        output.say(f"revoked {record.id} of app {record.app}")


keys.add_command(check_leak)

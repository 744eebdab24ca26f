"""``dispatcher keys check-leak``: API keys in files, before or after somebody else finds them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import click
from rich.console import Console
from rich.progress import track

from dispatcher.cli import output
from dispatcher.cli.session import run_operation
from dispatcher.core import keys as core
from dispatcher.core.keys import KeyRecord
from dispatcher.core.leaks import scan
from dispatcher.edges import clock
from dispatcher.edges.mongo import MongoError
from dispatcher.services.operations import Operations

BLOCK_BYTES = 1 << 20
#: What is never looked into: a repository's own store is compressed. Pipe `git log -p` instead.
_SKIPPED = {".git"}


@dataclass(frozen=True, slots=True)
class Found:
    """A key in a file; of its secret only the hash goes on."""

    file: str
    line: int
    key_id: str
    hash: str


@click.command("check-leak")
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True))
@click.option("--offline", is_flag=True, help="Do not ask MongoDB; every key that is found counts as live.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: an array.")
def check_leak(files: Sequence[str], offline: bool, as_json: bool) -> None:
    """Look for API keys in files, in folders and all below them, or in what is piped in (-).

    Keys are found by form and checksum, and never shown. Exit code 1 if one of them is live: accepted now, or not
    known to be dead, because MongoDB cannot be asked. 0 if there is none.
    """
    found: list[Found] = []
    unread: list[str] = []

    def unreadable(error: OSError) -> None:
        unread.append(str(error.filename))
        output.say(f"cannot read {_name(str(error.filename))}: {error.strerror}")

    for path in _with_progress([path for given in files for path in _below(given, unreadable)]):
        try:
            found += _in_file(path)
        except OSError as error:
            unreadable(error)
    records = None if offline or not found else _look_up({each.key_id for each in found})
    live = _report(found, records, as_json)
    if live:
        state = "not known to be dead" if records is None else "live"
        output.say(f"{live} {state}: take them out, then rotate and revoke: dispatcher keys rotate KEYID --grace 1h")
    if live or unread:
        sys.exit(1)


def _below(given: str, unreadable: Callable[[OSError], None]) -> Iterator[str]:
    """The file itself, or the regular files in a folder and below it; links are not followed."""
    if given == "-" or not Path(given).is_dir():
        yield given
        return
    for folder, folders, names in os.walk(given, onerror=unreadable):
        folders[:] = sorted(set(folders) - _SKIPPED)
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_file() and not path.is_symlink():
                yield str(path)


def _with_progress(paths: Sequence[str]) -> Iterator[str]:
    """A bar on stderr where it is a terminal, and there is more than a moment's work."""
    if len(paths) < 2 or not sys.stderr.isatty():
        yield from paths
        return
    yield from track(paths, "looking for keys", console=Console(stderr=True), transient=True)


def _in_file(path: str) -> Iterator[Found]:
    if path == "-":
        yield from _in_stream("stdin", sys.stdin.buffer)
        return
    with Path(path).open("rb") as stream:
        yield from _in_stream(_name(path), stream)


def _in_stream(name: str, stream: BinaryIO) -> Iterator[Found]:
    for line, key in scan(iter(lambda: stream.read(BLOCK_BYTES), b"")):
        yield Found(name, line, core.parse(key) or "", core.digest(key))


def _name(path: str) -> str:
    """A file's name may hold a key too, or bytes that are no text."""
    return core.redact(os.fsencode(path)).decode(errors="replace")


def _look_up(key_ids: set[str]) -> dict[str, KeyRecord] | None:
    """The records that MongoDB has, or None where it cannot be asked."""

    async def action(operations: Operations) -> dict[str, KeyRecord]:
        return await operations.keys.get(key_ids)

    try:
        return run_operation(action)
    except MongoError as error:
        output.say(f"{error}\nEvery key that is found counts as live, since nobody can say.")
        return None


def _report(found: Sequence[Found], records: dict[str, KeyRecord] | None, as_json: bool) -> int:
    """Show what was found; returns how many keys are live."""
    now = clock.now_ms()
    shown = []
    for each in found:
        record = None if records is None else records.get(each.key_id)
        if record is not None and record.hash != each.hash:
            record = None  # another secret under this id: nobody made this key
        state = "unchecked" if records is None else "unknown" if record is None else record.state(now)
        shown.append(
            {
                "file": each.file,
                "line": each.line,
                "id": each.key_id,
                "app": None if record is None else record.app,
                "state": state,
                "live": state in (*core.LIVE, "unchecked"),
            }
        )
    if as_json:
        output.emit_json(shown)
    else:
        for row in shown:
            app = f" app {row['app']}" if row["app"] else ""
            click.echo(f"{row['file']}:{row['line']}: key {row['id']}{app} {row['state']}")
    return len({row["id"] for row in shown if row["live"]})

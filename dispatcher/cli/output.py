"""How commands show things: tables for people, one JSON document for scripts."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dispatcher.core.text import clean

_TIMES = {
    "accepted_at", "finished_at", "started_at", "due_at", "run_at", "deadline_at", "created_at", "expires_at",
    "successor_expires_at", "grace_until", "last_used_at", "first_seen", "last_seen", "at", "closed_at",
}  # fmt: skip

#: Where nobody looks at a screen, nothing is folded.
PIPED_WIDTH = 10_000
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")
#: Longest text of a cell: the longest app, a colon and the longest id have 193 characters.
CELL = 200

STATE_STYLES = {
    "succeeded": "green",
    "running": "cyan",
    "retrying": "yellow",
    "failed": "red",
    "timed_out": "red",
    "rejected": "red",
    "cancelled": "magenta",
    "revoked": "red",
    "active": "green",
    "retiring": "yellow",
}


def console() -> Console:
    """Data on stdout; colours only on a terminal, and as wide as it must be elsewhere."""
    out = sys.stdout
    return Console(file=out, width=None if out.isatty() else PIPED_WIDTH, highlight=False)


def say(text: str) -> None:
    """A message for people, on stderr."""
    click.echo(clean(text), err=True)


def line(text: str) -> None:
    """A line for people, on stdout."""
    click.echo(clean(text).replace("\n", " "))


def emit_json(value: Any) -> None:
    """One JSON document on stdout; what could drive a terminal is escaped in it."""
    click.echo(json_text(value))


def json_text(value: Any) -> str:
    """A JSON document in which what could drive a terminal is escaped."""
    return _NOT_PLAIN.sub(_escaped, json.dumps(value, ensure_ascii=False, default=str))


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


def iso(ms: int | None) -> str | None:
    """Milliseconds since the epoch as RFC 3339, UTC."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def with_times(value: Any) -> Any:
    """A document with its times as RFC 3339."""
    if isinstance(value, list):
        return [with_times(item) for item in value]
    if not isinstance(value, dict):
        return value
    shown = {}
    for name, item in value.items():
        if name in _TIMES:
            shown[name] = iso(item)
        else:
            shown[name] = item if name in ("payload", "result") else with_times(item)
    return shown


def clock(ms: int | None) -> str:
    """A time for a table cell: local date and time, to the second."""
    return "" if ms is None else datetime.fromtimestamp(ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(ms: float | None) -> str:
    """Milliseconds for people."""
    if ms is None:
        return "-"
    if ms < 1000:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:.1f} s" if ms < 120_000 else f"{ms / 60_000:.1f} min"


def state(name: str) -> Text:
    """A state in its colour."""
    return Text(name, style=STATE_STYLES.get(name, ""))


def plain(text: str, limit: int = 80) -> Text:
    """Foreign text for a cell: one line, no control characters (they could drive the terminal)."""
    shown = clean(text).replace("\n", " ")
    return Text(shown if len(shown) <= limit else shown[: limit - 1] + "…")


def paragraph(lines: Iterable[str]) -> None:
    """Sentences on stdout, each on a line of its own, folded between words on a terminal alone; then an empty line."""
    out = console()
    for each in lines:
        out.print(plain(each, PIPED_WIDTH), soft_wrap=not sys.stdout.isatty())
    out.print()


def new_table(title: str | None, columns: Sequence[str]) -> Table:
    """A table without rows; columns whose name begins with ">" are aligned right.

    Where it is too wide, cells fold: nothing of them is left out, ids least of all.
    """
    shown = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        name, justify = column.lstrip(">"), "right" if column.startswith(">") else "left"
        shown.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return shown


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[Any]], drop: Sequence[str] = ()) -> None:
    """A table on stdout; columns whose name begins with ">" are aligned right.

    Where a terminal is too narrow, the columns ``drop`` go, in that order, as far as is needed, and stderr says which.
    """
    out = console()
    shown, gone = fitting(out, title, columns, rows, drop)
    out.print(shown)
    if gone:
        say(f"no room for: {', '.join(gone)}; widen the terminal, or use --json")


def fitting(
    out: Console, title: str | None, columns: Sequence[str], rows: Iterable[Sequence[Any]], drop: Sequence[str]
) -> tuple[Table, list[str]]:
    """A table as wide as the screen at most, as far as leaving out ``drop`` helps; and what was left out."""
    cells = [list(row) for row in rows]
    kept, gone = list(columns), []
    shown = _filled(title, kept, cells)
    for column in drop:
        if _fits(out, shown):
            break
        if column not in kept:
            continue
        at = kept.index(column)
        gone.append(kept.pop(at).lstrip(">"))
        for row in cells:
            del row[at]
        shown = _filled(title, kept, cells)
    return shown, gone


def fits(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bool:
    """Whether a table of these is not wider than the screen; always, where nobody looks at one."""
    return _fits(console(), _filled(None, columns, rows))


def _fits(out: Console, shown: Table) -> bool:
    return Measurement.get(out, out.options.update_width(PIPED_WIDTH), shown).maximum <= out.width


def _filled(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    shown = new_table(title, columns)
    for row in rows:
        shown.add_row(*(cell if isinstance(cell, Text) else plain(str(cell), CELL) for cell in row))
    return shown

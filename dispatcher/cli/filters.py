"""The options by which commands choose jobs, the same in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from dispatcher.cli.completing import apps, lanes, types
from dispatcher.core.filters import JobFilter
from dispatcher.core.moments import moment_ms
from dispatcher.edges import clock
from schemas import PRIORITIES, JobState

#: As plain words: of an enum, click takes the members' names.
STATES = [str(state) for state in JobState]

Command = Callable[..., Any]


class Moment(click.ParamType[int]):
    """``2h`` (so long ago) or an RFC 3339 time, as milliseconds since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the text."""
        try:
            return moment_ms(str(value), clock.now_ms())
        except ValueError as error:
            self.fail(str(error), param, ctx)


TIME = "so long ago (2h, 30m, 7d) or 2026-11-26T12:00:00Z"
_OPTIONS = [
    click.option("--app", shell_complete=apps, help="Only this application's jobs."),
    click.option(
        "--type",
        "type",
        shell_complete=types,
        help="Only jobs of this type: a pattern, * is one word and # any number of words.",
    ),
    click.option("--tag", help="Only jobs with this tag."),
    click.option("--lane", shell_complete=lanes, help="Only jobs of this lane."),
    click.option("--priority", type=click.Choice(PRIORITIES), help="Only jobs of this priority."),
    click.option("--error", help="Only jobs whose error has this type, for example ConnectionError."),
    click.option("--since", type=Moment(), metavar="TIME", help=f"Only jobs accepted since then: {TIME}."),
    click.option("--until", type=Moment(), metavar="TIME", help="Only jobs accepted before then."),
]
_STATE = click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only jobs in this state.")
_FINGERPRINT = click.option("--fingerprint", help="Only jobs whose error has this fingerprint (dead list shows it).")


def filter_options(*, states: bool = False, fingerprint: bool = False) -> Callable[[Command], Command]:
    """Put the options of a filter before the command's own."""
    options = [*([_STATE] if states else []), *_OPTIONS, *([_FINGERPRINT] if fingerprint else [])]

    def put(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return put


def read_filter(options: Mapping[str, Any]) -> JobFilter:
    """The filter that a command's options ask for.

    Raises:
        click.BadParameter: the type is no pattern, or the times leave nothing between them.
    """
    try:
        where = JobFilter(**{name: options[name] for name in JobFilter.__dataclass_fields__ if name in options})
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--type") from None
    if where.since is not None and where.until is not None and where.since >= where.until:
        raise click.BadParameter("it must be after --since", param_hint="--until")
    return where


limit_option = click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many."
)

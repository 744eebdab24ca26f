"""The entry point: the group of commands, and errors as sentences."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import click

from config import SettingsError
from dispatcher import __version__
from dispatcher.core.errors import DispatcherError
from dispatcher.core.text import clean

#: Each command and the module of this package that has it, imported when it is asked for: a help text or a usage
#: error need not wait for the libraries of RabbitMQ and MongoDB.
COMMANDS = {
    "up": "run",
    "run": "run",
    "worker": "run",
    "publish": "publish",
    "keys": "keys",
    "audit": "audit",
    "jobs": "jobs",
    "dead": "dead",
    "rejected": "rejected",
    "unrecorded": "rejected",
    "stats": "stats",
    "top": "top",
    "watch": "watch",
    "completion": "completion",
    "topology": "topology",
    "doctor": "doctor",
}


class Commands(click.Group):
    """Loads commands when they are asked for, and turns the errors that we know into a sentence and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"dispatcher.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is answered with the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}; did you mean {_nearest(args[0], list(COMMANDS))!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (DispatcherError, SettingsError) as error:
            raise click.ClickException(clean(str(error))) from None


def _nearest(word: str, known: Sequence[str]) -> str:
    import difflib

    return difflib.get_close_matches(word, known, n=1, cutoff=0.0)[0]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dispatcher")
def main() -> None:
    """Job Dispatcher: an event-driven job system on RabbitMQ.

    Settings come from config/default.yaml, the file named by DISPATCHER_CONFIG, and DISPATCHER_<SECTION>__<KEY>
    variables.
    """


if __name__ == "__main__":
    main()

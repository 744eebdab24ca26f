"""Writes docs/command-line.md from the commands themselves: ``python -m dev.command_line``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from dev.samples import STORE
from dispatcher.cli.main import main

PAGE = Path(__file__).parent.parent / "docs" / "command-line.md"

INTRODUCTION = """# Command line

Every command of `dispatcher`, made from the commands themselves by `python -m dev.command_line`; a test holds the two
together. Data is printed on stdout, messages on stderr; `--json` prints one document. Exit codes: 0 done, 1 failed,
2 usage. Colours and bars are for terminals alone: where the output is piped, nothing is cut, and where a terminal is
too narrow, stderr says which columns had no room. Settings come from config/default.yaml, the file named by
`DISPATCHER_CONFIG`, and variables such as `DISPATCHER_AMQP__URL`. A secret is never an argument.

What commands print below is captured from a real run by `python -m dev.samples`; long ones are cut at …. What could
drive a terminal in a payload, an error or a name is replaced by spaces, and escaped in JSON.

Options that choose jobs are the same everywhere: `--type` is a type or a pattern (`*` one word, `#` any number of
words), `--since` and `--until` bound the time of acceptance and are so long ago (`45s`, `30m`, `2h`, `7d`) or an RFC
3339 time with its offset, `--error` is the type of the error, `--fingerprint` one kind of error (`dead list`).

"""

#: What each command looks like in use: what is typed, and what is printed. Captured by `python -m dev.samples`, but
#: for what runs until it is told to stop, and what differs from shell to shell and from installation to installation.
EXAMPLES: dict[str, tuple[str, str]] = {
    "up": ("dispatcher up --worker examples.handlers:jobs", ""),
    "run": ("dispatcher run intake", ""),
    "worker": ("dispatcher worker examples.handlers:jobs", ""),
    "completion": ("dispatcher completion bash >> ~/.bashrc", ""),
    "doctor": ("dispatcher doctor --worker examples.handlers:jobs", ""),
    **{name: (typed, printed) for name, (typed, printed) in json.loads(STORE.read_text(encoding="utf-8")).items()},
}


def commands(command: click.Command = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its whole name."""
    if not isinstance(command, click.Group):
        yield " ".join(path), command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        if found := command.get_command(context, name):
            yield from commands(found, (*path, name))


def page() -> str:
    """The whole page."""
    return INTRODUCTION + "\n".join(_section(name, command) for name, command in commands())


def _section(name: str, command: click.Command) -> str:
    usage = " ".join(p.metavar or p.human_readable_name for p in command.params if isinstance(p, click.Argument))
    lines = [f"## dispatcher {name}", "", f"`dispatcher {name}{' ' + usage if usage else ''}`", ""]
    lines += [" ".join(part.split()) + "\n" for part in (command.help or "").split("\n\n")]
    options = [param for param in command.params if isinstance(param, click.Option)]
    if options:
        lines += ["| option | meaning |", "|---|---|", *map(_row, options), ""]
    typed, printed = EXAMPLES.get(name, (f"dispatcher {name} --help", ""))
    lines += ["```console", f"$ {typed}", *printed.splitlines(), "```", ""]
    return "\n".join(lines)


def _row(option: click.Option) -> str:
    meaning = (option.help or "").replace("|", "\\|")
    choices = option.type.choices if isinstance(option.type, click.Choice) else ()
    if choices:
        meaning += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    if option.required:
        meaning += " Required."
    if option.show_default and option.default is not None:
        meaning += f" Default: {option.default}."
    return f"| `{'`, `'.join(option.opts)}` | {meaning} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

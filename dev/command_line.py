"""Writes docs/command-line.md from the commands themselves: ``python -m dev.command_line``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from dispatcher.cli.main import main

PAGE = Path(__file__).parent.parent / "docs" / "command-line.md"

INTRODUCTION = """# Command line

Every command of `dispatcher`, made from the commands themselves by `python -m dev.command_line`; a test holds the two
together. Data is printed on stdout, messages on stderr; `--json` prints one document. Exit codes: 0 done, 1 failed,
2 usage. Colours and bars are for terminals alone: where the output is piped, nothing is cut, and where a terminal is
too narrow, stderr says which columns had no room. Settings come from config/default.yaml, the file named by
`DISPATCHER_CONFIG`, and variables such as `DISPATCHER_AMQP__URL`. A secret is never an argument.

Options that choose jobs are the same everywhere: `--type` is a type or a pattern (`*` one word, `#` any number of
words), `--since` and `--until` bound the time of acceptance and are so long ago (`45s`, `30m`, `2h`, `7d`) or an RFC
3339 time with its offset, `--error` is the type of the error, `--fingerprint` one kind of error (`dead list`).

"""

#: What each command looks like in use: what is typed, and what is printed (shortened with … where it is long).
EXAMPLES = {
    "up": ("dispatcher up --worker examples.handlers:jobs", ""),
    "run": ("dispatcher run intake", ""),
    "worker": ("dispatcher worker examples.handlers:jobs", ""),
    "publish": ('dispatcher publish email.send \'{"to": "ann@example.org"}\' --id welcome-1', "welcome-1"),
    "keys create": (
        "dispatcher keys create --app shop --types 'email.*' --expires 90d",
        "Key X6yHEznGjNAS of app shop. Keep it now: it is not shown again.\njd_live_X6yHEznGjNAS_…",
    ),
    "jobs list": (
        "dispatcher jobs list --state failed --type 'email.*' --since 2h --json",
        '[{"_id": "shop:welcome-1", "app": "shop", "id": "welcome-1", "type": "email.send", "state": "failed", …}]',
    ),
    "jobs explain": (
        "dispatcher jobs explain welcome-1",
        "Job shop:welcome-1 of type email.send is failed: attempts used up, or not retried; parked with its error.\n"
        "It ended at 2026-11-26T12:00:09Z and was put into parked.v1.default.\n"
        "Its last error: ConnectionError: no answer.\n"
        "5 attempts of this run ended; no other follows, since they are used up or its error is not retried.\n"
        "It is moved on by: operator: jobs retry, dead replay.\n\n"
        "dispatcher jobs show shop:welcome-1   its fields and every attempt\n"
        "dispatcher dead replay shop:welcome-1   a new run from the parked message\n"
        "dispatcher jobs retry shop:welcome-1   a new run from history",
    ),
    "jobs retry": (
        "dispatcher jobs retry --state expired --since 1d --yes",
        "12 jobs started of 12 looked at, in 0.4 s",
    ),
    "dead list": (
        "dispatcher dead list --groups --json",
        '[{"fingerprint": "0c6cd4bd5ae1", "count": 412, "types": {"email.send": 412}, '
        '"error": {"type": "ConnectionError", "message": "no answer from <n>"}, "frame": "app/mail.py:send", …}]',
    ),
    "dead replay": (
        "dispatcher dead replay --fingerprint 0c6cd4bd5ae1 --dry-run",
        "would replay 412 jobs, as far as history knows; nothing was started",
    ),
    "watch": (
        "dispatcher watch welcome-1",
        "2026-11-26 12:00:00  accepted: email.send in lane default, priority normal\n"
        "2026-11-26 12:00:00  run 1, attempt 1 started on host-4242\n"
        "2026-11-26 12:00:00  run 1, attempt 1 succeeded\n"
        "2026-11-26 12:00:00  state succeeded",
    ),
    "top": (
        "dispatcher top --once --json",
        '{"at": "2026-11-26T12:00:00.000Z", "history": true, "lanes": [{"lane": "default", "priority": "critical", '
        '"ready": 0, "consumers": 2, "running": 0, …}], "workers": […], "retries": […], "queues": {…}, …}',
    ),
    "completion": ("dispatcher completion bash", "_dispatcher_completion() {\n…"),
    "stats": ("dispatcher stats --json", '{"total": {"succeeded": 12, "retries": 3}, "by_type": {…}, …}'),
    "topology apply": ("dispatcher topology apply --json", '{"exchanges": 29, "queues": 35, "bindings": 250}'),
    "rejected list": (
        "dispatcher rejected list --json",
        '[{"at": "2026-11-26T12:00:00.000Z", "app": "shop", "type": "email.send", "reason": "unknown_lane: …", '
        '"size": 52, "body": "…"}]',
    ),
    "unrecorded list": (
        "dispatcher unrecorded list --json",
        '[{"error": "not a batch of events: …", "size": 10, "body": "…"}]',
    ),
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

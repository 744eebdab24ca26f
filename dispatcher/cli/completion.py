"""``dispatcher completion``: what a shell needs to complete our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_DISPATCHER_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    bash: put  eval "$(dispatcher completion bash)"  into ~/.bashrc; zsh: the same with zsh into ~/.zshrc; fish:
    dispatcher completion fish > ~/.config/fish/completions/dispatcher.fish

    Commands, options, states, priorities and the configured lanes are completed; types, applications, ids of keys and
    of the jobs accepted last too, where MongoDB answers within a second.
    """
    made = get_completion_class(shell)
    if made is None:
        raise click.ClickException(f"no completion for {shell}")
    from dispatcher.cli.main import main

    click.echo(made(main, {}, "dispatcher", VARIABLE).source())

"""The entry point: the group of commands, and errors as sentences."""

from __future__ import annotations

import click

from config import SettingsError
from consumers.loading import LoadError
from consumers.registry import RegistryError
from dispatcher import __version__
from dispatcher.cli import dead, jobs, keys, publish, rejected, run, stats, topology
from dispatcher.client import PublishFailed
from dispatcher.edges.amqp import BrokerError
from dispatcher.edges.http import HttpError
from dispatcher.edges.mongo import DatabaseError, explain
from dispatcher.services.operations import OperationError

_SENTENCES = (SettingsError, LoadError, RegistryError, BrokerError, HttpError, OperationError, PublishFailed)


class Commands(click.Group):
    """Turns the errors that we know into one sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except _SENTENCES as error:
            raise click.ClickException(str(error)) from None
        except DatabaseError as error:
            raise click.ClickException(explain(error, "mongo.url")) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dispatcher")
def main() -> None:
    """Job Dispatcher: an event-driven job system on RabbitMQ.

    Settings come from config/default.yaml, the file named by DISPATCHER_CONFIG, and DISPATCHER_<SECTION>__<KEY>
    variables.
    """


for command in (
    run.up,
    run.run,
    run.worker,
    publish.publish,
    keys.keys,
    jobs.jobs,
    dead.dead,
    rejected.rejected,
    stats.stats,
    topology.topology,
):
    main.add_command(command)


if __name__ == "__main__":
    main()

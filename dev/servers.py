"""Real RabbitMQ and MongoDB for the demo, for `make up` and for the tests: found, or started and stopped.

In this order: the configured ones, if they answer (DISPATCHER_AMQP__URL, DISPATCHER_MONGO__URL, or AMQP_URL=
and MONGO_URL= given to make); those at the default addresses; containers, where a Docker engine runs; local
processes on free ports. One of the two may be found and the other started. A RabbitMQ of another version, asked
for by RABBITMQ= given to make, is a local process. A server whose image is named (RABBITMQ_IMAGE=, MONGO_IMAGE=) is
a container of it or one of the configured ones, and nothing else: a test run says which version it was on.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Literal
from urllib.parse import urlsplit

from dev import compose
from dev.images import VARIABLES, Server, asked_image
from dev.mongo import LocalMongo
from dev.probe import amqp_answers, management_answers, mongo_answers
from dev.process import Log, ServerError
from dev.provision import rabbit_asked
from dev.rabbit import LocalRabbit
from dev.runs import run_folder
from dev.signals import ending_unwinds, undisturbed

__all__ = ["Containers", "LocalMongo", "LocalRabbit", "ServerError", "Servers", "servers"]

Containers = Literal["compose", "testcontainers", "none"]

DEFAULT_AMQP_URL = "amqp://guest:guest@localhost:5672"
DEFAULT_MONGO_URL = "mongodb://localhost:27017"

#: Where the management interface is, for tests; not a setting of the product.
MANAGEMENT_VARIABLE = "DEV_MANAGEMENT_URL"


@dataclass(frozen=True)
class Servers:
    """Where the servers are, and what was started to have them."""

    amqp_url: str
    mongo_url: str
    management_url: str | None = None
    started: list[str] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """The variables that point our programs, and a nested servers(), at these servers."""
        found = {"DISPATCHER_AMQP__URL": self.amqp_url, "DISPATCHER_MONGO__URL": self.mongo_url}
        return found | ({MANAGEMENT_VARIABLE: self.management_url} if self.management_url else {})


@contextmanager
def servers(
    *,
    data_dir: Path = Path(".servers"),
    containers: Containers = "compose",
    keep: str | None = None,
    log: Log = print,
) -> Iterator[Servers]:
    """Give both servers, and stop afterwards what was started.

    Data is kept in a folder of this run below `data_dir`, removed at the end; with `keep` the folder has that
    name and stays. Raises ServerError, saying what to install, when one can be neither found nor started.
    """
    found = _find(log)
    if found.amqp_url and found.mongo_url:
        yield found
        return
    how = _how(found, containers)
    with ending_unwinds(), _Stops() as stops:
        folder = stops.enter_context(run_folder(data_dir, keep=keep, log=log))
        run = _Run(found, folder, data_dir / "cache", keep is not None, log)
        yield _from_containers(run, how, stops) or _from_processes(run, stops)


def _how(found: Servers, containers: Containers) -> Containers:
    """From where to start what is missing. Raises ServerError where both processes and images are asked for."""
    asked = _must_be_containers(found)
    if asked and rabbit_asked():
        raise ServerError(f"RABBITMQ= asks for a process and {' and '.join(asked)} for containers: give only one")
    if asked and containers == "none":
        return "testcontainers"
    return "none" if rabbit_asked() else containers


def _must_be_containers(found: Servers) -> list[str]:
    """What is still to be started from an image that was named, as it was given to make."""
    missing: dict[Server, bool] = {"RabbitMQ": not found.amqp_url, "MongoDB": not found.mongo_url}
    return [f"{VARIABLES[what]}={asked_image(what)}" for what in missing if missing[what] and asked_image(what)]


@dataclass(frozen=True)
class _Run:
    """What was found so far, and where and how the rest is to be started."""

    found: Servers
    folder: Path
    cache: Path
    keep: bool
    log: Log


class _Stops(ExitStack):
    """What is to be undone at the end; a second Ctrl-C does not disturb it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool:
        with undisturbed():
            return bool(super().__exit__(kind, error, trace))


def _find(log: Log) -> Servers:
    """The servers that answer; the URL of one that does not is empty."""
    amqp_names, mongo_names = ("AMQP_URL", "DISPATCHER_AMQP__URL"), ("MONGO_URL", "DISPATCHER_MONGO__URL")
    usual_amqp = "" if rabbit_asked() or asked_image("RabbitMQ") else DEFAULT_AMQP_URL
    usual_mongo = "" if asked_image("MongoDB") else DEFAULT_MONGO_URL
    amqp_url = _answering("RabbitMQ", amqp_names, usual_amqp, amqp_answers, log)
    mongo_url = _answering("MongoDB", mongo_names, usual_mongo, mongo_answers, log)
    return Servers(amqp_url, mongo_url, _management(amqp_url) if amqp_url else None)


def _answering(
    what: str, variables: Sequence[str], default: str, version_at: Callable[[str], str | None], log: Log
) -> str:
    """The first URL at which the server answers, of those configured and the default, if any; empty if none does."""
    configured = list(dict.fromkeys(filter(None, map(os.environ.get, variables))))
    for url in filter(None, [*configured, default]):
        version = version_at(url)
        if version is not None:
            log(f"servers: using the {what} {version} at {shown(url)}")
            return url
        if url in configured:
            log(f"servers: no {what} answers at the configured {shown(url)}")
    return ""


def _management(amqp_url: str) -> str | None:
    named = os.environ.get(MANAGEMENT_VARIABLE)
    if named and management_answers(named):
        return named
    at = urlsplit(amqp_url)
    usual = f"http://{at.hostname}:15672"
    return usual if at.port in (None, 5672) and management_answers(usual) else None


def shown(url: str) -> str:
    """The URL without its password."""
    password = urlsplit(url).password
    return url.replace(f":{password}@", ":***@") if password else url


def _from_containers(run: _Run, how: Containers, stops: ExitStack) -> Servers | None:
    """Start what is missing in containers; None where that cannot be done. ServerError if it must be containers."""
    asked = " and ".join(_must_be_containers(run.found))
    if asked and not compose.engine_answers():
        raise ServerError(f"{asked} needs a Docker engine, and none answers here")
    if how == "none" or not compose.engine_answers():
        return None
    start = _from_compose if how == "compose" else _from_testcontainers
    try:
        with _Stops() as ours:
            given = start(run, ours)
            stops.push(ours.pop_all())
    except Exception as error:  # testcontainers raises what its libraries raise
        if asked:
            raise ServerError(f"{asked} does not start here: {error}") from error
        run.log(f"servers: containers do not start here, so local processes are used ({error})")
        return None
    return given


def _from_compose(run: _Run, stops: ExitStack) -> Servers:
    found = run.found
    services = [name for name, url in (("rabbitmq", found.amqp_url), ("mongo", found.mongo_url)) if not url]
    stops.callback(compose.remove_recorded, run.folder, volumes=not run.keep)
    ports = compose.start(run.folder, services, run.log)
    given = replace(found, started=[f"{name} (container of docker-compose.yml)" for name in services])
    if not found.amqp_url:
        management = f"http://127.0.0.1:{ports['RABBITMQ_MANAGEMENT_PORT']}"
        amqp_url = f"amqp://{compose.ADMIN}:{compose.ADMIN}@127.0.0.1:{ports['RABBITMQ_PORT']}"
        given = replace(given, amqp_url=amqp_url, management_url=management)
    if not found.mongo_url:
        mongo_url = f"mongodb://{compose.ADMIN}:{compose.ADMIN}@127.0.0.1:{ports['MONGO_PORT']}/?directConnection=true"
        given = replace(given, mongo_url=mongo_url)
    return given


def _from_testcontainers(run: _Run, stops: ExitStack) -> Servers:
    from dev.containers import mongo_container, rabbit_container

    run.log("servers: starting containers (the first time pulls their images)")
    given, started = run.found, []
    if not given.amqp_url:
        amqp_url, management = stops.enter_context(rabbit_container())
        given = replace(given, amqp_url=amqp_url, management_url=management)
        started.append("RabbitMQ (container)")
    if not given.mongo_url:
        given = replace(given, mongo_url=stops.enter_context(mongo_container()))
        started.append("MongoDB (container)")
    return replace(given, started=started)


def _from_processes(run: _Run, stops: ExitStack) -> Servers:
    """Start what is missing as processes of this machine, both at the same time."""
    found, folder = run.found, run.folder
    name = f"rabbitmq{rabbit_asked()}"  # the data of one version is not for the other
    rabbit = None if found.amqp_url else LocalRabbit(folder / name, cache=run.cache, log=run.log)
    mongo = None if found.mongo_url else LocalMongo(folder / "mongo", cache=run.cache, log=run.log)
    nodes = [node for node in (rabbit, mongo) if node is not None]
    for node in nodes:  # data that is thrown away needs no orderly end
        stops.callback(node.stop if run.keep else node.kill)
    run.log(f"servers: starting {' and '.join(node.what for node in nodes)} in {folder}")
    _start(nodes)
    given = replace(found, started=[f"{node.what} (process, data in {folder})" for node in nodes])
    if rabbit is not None:
        given = replace(given, amqp_url=rabbit.url, management_url=rabbit.management_url)
    if mongo is not None:
        given = replace(given, mongo_url=mongo.url)
    return given


def _start(nodes: Sequence[LocalRabbit | LocalMongo]) -> None:
    def start(node: LocalRabbit | LocalMongo) -> None:
        node.start()
        node.wait_ready()

    with ThreadPoolExecutor(len(nodes)) as pool:
        try:
            for done in as_completed([pool.submit(start, node) for node in nodes]):
                done.result()
        except BaseException:
            for node in nodes:  # so that the other thread ends soon
                node.kill()
            raise

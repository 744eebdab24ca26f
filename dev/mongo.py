"""A real MongoDB as a local process: a replica set of one node, on 127.0.0.1, its data below one folder."""

import os
import time
from pathlib import Path
from typing import Any

import pymongo
import pymongo.errors

from dev.process import LocalServer, Log, ServerError, ServerProcess, kept_ports, wait_until
from dev.provision import mongod_program

_Client = pymongo.MongoClient[dict[str, Any]]
_SET = "rs0"
_NOT_INITIALIZED = 94  # MongoDB's error code of a node that belongs to no set yet


class LocalMongo(LocalServer):
    """One mongod. After a stop or a kill, start() brings it back on the same port with the same data.

    As a context manager: started and ready inside, killed at the end. `cache` is where a downloaded mongod is
    kept for the next time.
    """

    what = "MongoDB"

    def __init__(self, folder: Path, *, cache: Path = Path(".servers/cache"), log: Log = print) -> None:
        self._folder = folder.resolve()
        self._cache = cache.resolve()
        self._log = log
        self._port = 0
        self._server: ServerProcess | None = None
        self._began = 0.0

    @property
    def url(self) -> str:
        """The connection string; known once it was started."""
        return f"mongodb://127.0.0.1:{self._port}/?replicaSet={_SET}"

    def start(self) -> None:
        """Start the server and return at once; wait_ready() tells when it can be used.

        The first start finds the program, and downloads it where that is possible.
        """
        if self._server is None:
            self._server = self._prepare()
        self._began = time.monotonic()
        self._server.start()

    def wait_ready(self, timeout: float = 60) -> None:
        """Return when the node takes writes; ServerError, with the end of its log, when it does not."""
        server = self._server
        if server is None:
            raise ServerError("MongoDB was not started: call start() first")
        url = f"mongodb://127.0.0.1:{self._port}/?directConnection=true"
        with _Client(url, serverSelectionTimeoutMS=1_000) as client:
            wait_until(lambda: not server.running() or self._is_primary(client), timeout, 0.1)
            if not server.running() or not self._is_primary(client):
                raise ServerError(f"MongoDB did not start within {timeout:.0f} s\n{server.tail()}")
            version = client.server_info()["version"]
        seconds = time.monotonic() - self._began
        self._log(f"servers: MongoDB {version} is ready after {seconds:.1f} s on port {self._port}")

    def stop(self, timeout: float = 30) -> None:
        """Stop the server in an orderly way."""
        if self._server is not None:
            self._server.stop(timeout)

    def kill(self) -> None:
        """kill -9, at once."""
        if self._server is not None:
            self._server.kill()

    def _prepare(self) -> ServerProcess:
        program = mongod_program(self._cache, self._log)
        data = self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        self._port = kept_ports(self._folder, ["mongo"])["mongo"]
        command = [str(program), "--replSet", _SET, "--bind_ip", "127.0.0.1", "--port", str(self._port)]
        command += ["--dbpath", str(data), "--nounixsocket", "--wiredTigerCacheSizeGB", "0.5"]
        command += ["--oplogSize", "512", "--setParameter", "diagnosticDataCollectionEnabled=false"]
        # A stopped primary would otherwise wait 15 s for a successor, and there is none.
        command += ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=0"]
        return ServerProcess("mongod", command, folder=self._folder, env=os.environ)

    def _is_primary(self, client: _Client) -> bool:
        return _is_primary(client, f"127.0.0.1:{self._port}")


def initiate_set(url: str, host: str, timeout: float) -> None:
    """Make the server at `url` (a direct connection) a replica set whose only member is called `host`."""
    with _Client(url, serverSelectionTimeoutMS=1_000) as client:
        if not wait_until(lambda: _is_primary(client, host), timeout, 0.1):
            raise ServerError(f"the MongoDB at {host} did not become primary within {timeout:.0f} s")


def _is_primary(client: _Client, host: str) -> bool:
    """Whether the node takes writes as `host`; makes the set where there is none, or moves it there."""
    try:
        hello = client.admin.command("hello")
        if hello["isWritablePrimary"] and hello["me"] == host:
            return True
        _configure(client, host)
    except pymongo.errors.PyMongoError:
        pass
    return False


def _configure(client: _Client, host: str) -> None:
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except pymongo.errors.OperationFailure as error:
        if error.code == _NOT_INITIALIZED:
            members = [{"_id": 0, "host": host}]
            client.admin.command("replSetInitiate", {"_id": _SET, "members": members})
        return
    if config["members"][0]["host"] != host:  # the data was on another port before
        config["members"][0]["host"] = host
        client.admin.command("replSetReconfig", config, force=True)

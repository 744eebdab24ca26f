"""A real RabbitMQ as a local process, on 127.0.0.1, everything that it writes below one folder."""

import os
import subprocess
import time
from pathlib import Path

from dev.probe import amqp_answers
from dev.process import LocalServer, Log, ServerError, ServerProcess, kept_ports, wait_until
from dev.provision import RabbitPrograms, rabbit_programs

_CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = {prometheus}
vm_memory_high_watermark.absolute = 2GB
disk_free_limit.absolute = 200MB
log.console = false
"""

#: A node that was killed tries dead letters that it could not route while it started again only after this time; it
#: waits 3 minutes by default (docs/architecture.md). The second name is that of RabbitMQ 4.3.
_ADVANCED = """\
[{rabbit, [
  {dead_letter_worker_publisher_confirm_timeout, 10000},
  {dead_letter_worker_publisher_confirm_timeout_ms, 10000}
]}].
"""

_NOT_STARTED = "RabbitMQ was not started: call start() first"


class LocalRabbit(LocalServer):
    """One node. After a stop or a kill, start() brings it back on the same ports with the same data.

    As a context manager: started and ready inside, killed at the end. `cache` is where another RabbitMQ than the
    machine's own is kept (RABBITMQ=4 given to make).
    """

    what = "RabbitMQ"

    def __init__(self, folder: Path, *, cache: Path = Path(".servers/cache"), log: Log = print) -> None:
        self._folder = folder.resolve()
        self._cache = cache
        self._log = log
        self._ports: dict[str, int] = {}
        self._server: ServerProcess | None = None
        self._epmd: ServerProcess | None = None
        self._programs: RabbitPrograms | None = None
        self._began = 0.0

    @property
    def url(self) -> str:
        """The AMQP URL; known once it was started."""
        return f"amqp://guest:guest@127.0.0.1:{self._ports['amqp']}"

    @property
    def management_url(self) -> str:
        """The management interface (user guest, password guest)."""
        return f"http://127.0.0.1:{self._ports['management']}"

    @property
    def prometheus_target(self) -> str:
        """Host and port of its metrics: ``/metrics`` (sums) and ``/metrics/detailed?family=…`` (each queue)."""
        return f"127.0.0.1:{self._ports['prometheus']}"

    def start(self) -> None:
        """Start the node and return at once; wait_ready() tells when it can be used.

        The first start finds the program, and installs it where that is possible.
        """
        if self._server is None or self._epmd is None:
            self._prepare()
        assert self._server is not None
        assert self._epmd is not None
        self._began = time.monotonic()
        self._epmd.start()
        self._server.start()

    def wait_ready(self, timeout: float = 60) -> None:
        """Return when the node answers AMQP; ServerError, with the end of its log, when it does not."""
        server = self._started()
        wait_until(lambda: not server.running() or amqp_answers(self.url) is not None, timeout, 0.1)
        version = amqp_answers(self.url) if server.running() else None
        if version is None:
            tail = server.tail(*sorted(self._folder.glob("log/*.log")))
            raise ServerError(f"RabbitMQ did not start within {timeout:.0f} s\n{tail}")
        seconds = time.monotonic() - self._began
        self._log(f"servers: RabbitMQ {version} is ready after {seconds:.1f} s on port {self._ports['amqp']}")

    def stop(self, timeout: float = 30) -> None:
        """Stop the node in an orderly way (some 6 s)."""
        if self._server is not None:
            self._server.stop(timeout)
        self.kill()

    def kill(self) -> None:
        """kill -9: the node, its children and its port mapper, at once."""
        for process in (self._server, self._epmd):
            if process is not None:
                process.kill()

    def ctl(self, *words: str, timeout: float = 60) -> str:
        """Run rabbitmqctl on the node, for example ctl("stop_app"); returns what it printed."""
        if self._programs is None:
            raise ServerError(_NOT_STARTED)
        command = self._programs.command(self._programs.ctl, "--quiet", *words)
        done = subprocess.run(command, env=self._env(), timeout=timeout, capture_output=True, text=True)
        if done.returncode != 0:
            raise ServerError(f"rabbitmqctl {words[0]} failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def _started(self) -> ServerProcess:
        if self._server is None:
            raise ServerError(_NOT_STARTED)
        return self._server

    def _prepare(self) -> None:
        """Write the node's files; ports and data of an earlier run in the same folder are used again."""
        programs = self._programs = rabbit_programs(self._cache, self._log)
        for name in ("home", "log", "data"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        self._ports = kept_ports(self._folder, ["amqp", "management", "prometheus", "distribution", "epmd"])
        self._write("rabbitmq.conf", _CONFIG.format(**self._ports))
        self._write("advanced.config", _ADVANCED)
        self._write("rabbitmq-env.conf", "")  # instead of the machine's own
        self._write("enabled_plugins", "[rabbitmq_management, rabbitmq_prometheus].\n")
        env = self._env()
        self._server = ServerProcess("rabbitmq", programs.command(programs.server), folder=self._folder, env=env)
        # A port mapper of our own, in the foreground: the one that Erlang starts by itself would stay behind.
        command = programs.command(programs.epmd, "-port", str(self._ports["epmd"]), "-address", "127.0.0.1")
        self._epmd = ServerProcess("epmd", command, folder=self._folder, env=env)

    def _write(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text, encoding="utf-8")

    def _env(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RABBITMQ_")}
        inherited.pop("NOTIFY_SOCKET", None)
        at = {name: str(self._folder / name) for name in ("home", "log", "data", "enabled_plugins")}
        return inherited | {
            "HOME": at["home"],  # where the Erlang cookie is made
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._ports["epmd"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "dispatcher@localhost",
            "RABBITMQ_DIST_PORT": str(self._ports["distribution"]),
            "RABBITMQ_MNESIA_BASE": at["data"],
            "RABBITMQ_LOG_BASE": at["log"],
            "RABBITMQ_ENABLED_PLUGINS_FILE": at["enabled_plugins"],
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "rabbitmq-env.conf"),
            "RABBITMQ_PID_FILE": str(self._folder / "data" / "node-pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ("-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"),
            # The start script then becomes the node instead of waiting for it: one process to stop or kill.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

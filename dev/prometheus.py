"""A real Prometheus as a local process on 127.0.0.1, everything that it writes below one folder; and promtool."""

import json
import os
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dev.process import LocalServer, Log, ServerError, ServerProcess, kept_ports, wait_until
from dev.provision import prometheus_program


class LocalPrometheus(LocalServer):
    """One Prometheus, started with a configuration; as a context manager: ready inside, killed at the end.

    Args:
        folder: for its data and configuration.
        config: what prometheus.yml has, as a document: ``global``, ``scrape_configs``, ``rule_files`` (absolute paths).
    """

    what = "Prometheus"

    def __init__(self, folder: Path, config: Mapping[str, Any], *, log: Log = print) -> None:
        self._folder = folder.resolve()
        self._config = config
        self._log = log
        self._port = 0
        self._server: ServerProcess | None = None

    @property
    def url(self) -> str:
        """Its address; known once it was started."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Write its configuration, start it and return at once; wait_ready() tells when it can be asked."""
        if self._server is None:
            self._server = self._prepare()
        self._server.start()

    def wait_ready(self, timeout: float = 60) -> None:
        """Return when it answers; ServerError, with the end of its log, when it does not (a rule may be wrong)."""
        server = self._server
        if server is None:
            raise ServerError("Prometheus was not started: call start() first")
        wait_until(lambda: not server.running() or self._is_ready(), timeout, 0.1)
        if not server.running() or not self._is_ready():
            raise ServerError(f"Prometheus did not start within {timeout:.0f} s\n{server.tail()}")
        self._log(f"servers: Prometheus is ready at {self.url}")

    def kill(self) -> None:
        """kill -9, at once."""
        if self._server is not None:
            self._server.kill()

    def query(self, expression: str, time: float | None = None) -> list[dict[str, Any]]:
        """The samples that an expression gives now, or at a time in seconds since 1970.

        Each is ``{"metric": labels, "value": [time, text]}``; of a scalar there is one without labels.

        Raises:
            ServerError: Prometheus refuses the expression; the sentence is its own.
        """
        data = self.api("query", query=expression, **({} if time is None else {"time": str(time)}))
        if data["resultType"] in ("scalar", "string"):
            return [{"metric": {}, "value": data["result"]}]
        found: list[dict[str, Any]] = data["result"]
        return found

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of an expression from ``start`` to ``end`` (seconds since 1970), a sample every ``step`` seconds.

        Each is ``{"metric": labels, "values": [[time, text], …]}``.

        Raises:
            ServerError: Prometheus refuses the expression.
        """
        data = self.api("query_range", query=expression, start=str(start), end=str(end), step=str(step))
        found: list[dict[str, Any]] = data["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Every loaded rule, with ``health``, ``lastError`` and, of alerts, ``state`` and ``alerts``."""
        return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, each with ``labels``, ``health`` and ``lastError``."""
        found: list[dict[str, Any]] = self.api("targets")["activeTargets"]
        return found

    def api(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API, below /api/v1/."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            with error:
                said = json.load(error).get("error", error.reason)
            raise ServerError(f"Prometheus refuses {path} {parameters}: {said}") from None

    def _prepare(self) -> ServerProcess:
        program = prometheus_program("prometheus", self._log)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._port = kept_ports(self._folder, ["prometheus"])["prometheus"]
        config = self._folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(dict(self._config)), encoding="utf-8")
        command = [str(program), f"--config.file={config}", f"--storage.tsdb.path={self._folder / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{self._port}", "--log.level=warn"]
        return ServerProcess("prometheus", command, folder=self._folder, env=os.environ)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False


def promtool(*words: str | Path, log: Log = print) -> subprocess.CompletedProcess[str]:
    """Run promtool to its end: ``promtool("check", "rules", path)``; look at ``returncode``, ``stdout``, ``stderr``."""
    command: Sequence[str] = [str(prometheus_program("promtool", log)), *map(str, words)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)

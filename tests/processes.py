"""The command line and its services as subprocesses, as an operator starts them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from dispatcher.cli.main import main
from tests.support import Installation, eventually, undisturbed_logging

ROOT = Path(__file__).parent.parent
_PROGRAM = (sys.executable, "-m", "dispatcher.cli.main")


def environment(installation: Installation, overrides: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with no setting of ours but the installation's and the overrides."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    return plain | {"PYTHONUNBUFFERED": "1"} | installation.environment() | dict(overrides or {})


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its one document on stdout."""
        return json.loads(self.out)


async def command(
    installation: Installation, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> Finished:
    """Run a command to its end; services inside the test go on meanwhile."""
    process = await asyncio.create_subprocess_exec(
        *_PROGRAM,
        *arguments,
        cwd=ROOT,
        env=environment(installation, env),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Finished(process.returncode or 0, out.decode(), err.decode())


def invoke(installation: Installation, *arguments: str, env: Mapping[str, str] | None = None) -> Finished:
    """Run a command in this process, where its start costs nothing; not inside an event loop.

    An exception that the command did not turn into a sentence is raised. Logging is left as it was.
    """
    blank = {name: None for name in os.environ if name.startswith("DISPATCHER_")}
    with undisturbed_logging():
        ended = CliRunner().invoke(main, arguments, env=blank | installation.environment() | dict(env or {}))
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return Finished(ended.exit_code, ended.stdout, ended.stderr)


async def invoked(installation: Installation, *arguments: str, env: Mapping[str, str] | None = None) -> Finished:
    """The same beside an event loop, for a command that must end with exit code 0."""
    finished = await asyncio.to_thread(invoke, installation, *arguments, env=env)
    assert finished.code == 0, finished.err
    return finished


async def succeed(installation: Installation, *arguments: str, **options: Any) -> Finished:
    """Run a command that must end with exit code 0."""
    finished = await command(installation, *arguments, **options)
    assert finished.code == 0, finished.err
    return finished


class ServiceProcess:
    """A command that runs until it is told to stop: ``async with ServiceProcess(installation, "run", "intake")``."""

    def __init__(
        self,
        installation: Installation,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        level: str = "info",
        folder: Path = ROOT,
    ) -> None:
        log = {"DISPATCHER_LOG__FORMAT": "json", "DISPATCHER_LOG__LEVEL": level}
        self._arguments = arguments
        self._folder = folder
        self._env = environment(installation, log | dict(env or {}))
        self.process: Any = None
        self.url = ""

    async def __aenter__(self) -> ServiceProcess:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed in _end
        self.process = await asyncio.create_subprocess_exec(
            *_PROGRAM, *self._arguments, cwd=self._folder, env=self._env, stdout=self._file, stderr=self._file
        )
        try:
            self.url = (await self.logged("listening"))["url"]
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def _end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        self._file.close()

    @property
    def output(self) -> str:
        """Everything it wrote, to stdout or stderr."""
        return os.pread(self._file.fileno(), 1 << 26, 0).decode()

    def lines(self) -> list[dict[str, Any]]:
        """Its log lines that are JSON."""
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]

    async def logged(self, text: str, *, timeout: float = 60.0) -> dict[str, Any]:
        """The first log line with this text in its event, once there is one."""

        def look() -> dict[str, Any] | None:
            assert self.process.returncode is None, f"it ended with {self.process.returncode}: {self.output[-2000:]}"
            return next((line for line in self.lines() if text in str(line.get("event"))), None)

        found: dict[str, Any] = await eventually(look, f"a log line with {text!r}", timeout=timeout)
        return found

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of one of its pages."""
        return await asyncio.to_thread(_get, self.url + path)

    async def ready(self, *, timeout: float = 60.0) -> None:
        """Wait until /readyz says 200."""

        async def fine() -> bool:
            return (await self.get("/readyz"))[0] == 200

        await eventually(fine, f"{self._arguments} is ready", timeout=timeout, every=0.05)

    async def terminate(self, *, timeout: float = 20.0) -> int:
        """Send SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code: int = await asyncio.wait_for(self.process.wait(), timeout)
        return code


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()

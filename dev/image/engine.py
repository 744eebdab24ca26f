"""Docker's command line, and that of Compose, which is fetched where the engine has none."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dev.process import Log, ServerError
from dev.unpacked import unpacked

ROOT = Path(__file__).resolve().parents[2]
_PLUGIN = Path("usr/libexec/docker/cli-plugins/docker-compose")


def run(
    *words: str | Path, env: Mapping[str, str] | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run a command; its output is kept."""
    command = [str(word) for word in words]
    whole = None if env is None else os.environ | env
    return subprocess.run(command, env=whole, timeout=timeout, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def must(
    *words: str | Path, env: Mapping[str, str] | None = None, timeout: float = 600, wanted: Sequence[int] = (0,)
) -> str:
    """What a command printed. ServerError, with the end of what it said, where its exit code is none of the wanted."""
    done = run(*words, env=env, timeout=timeout)
    if done.returncode not in wanted:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ServerError(f"{' '.join(map(str, words[:4]))} … failed:\n{said}")
    return done.stdout.strip()


def docker(*words: str | Path, timeout: float = 600) -> str:
    """`docker …`, which must succeed."""
    return must("docker", *words, timeout=timeout)


def inspect(what: str) -> dict[str, Any]:
    """What the engine knows of a container or an image."""
    (found,) = json.loads(docker("inspect", what))
    return dict(found)


def has_image(name: str) -> bool:
    """Whether the engine has an image."""
    return run("docker", "image", "inspect", name).returncode == 0


def pulled(name: str) -> bool:
    """Whether the engine has an image, or can get it."""
    return has_image(name) or run("docker", "pull", "--quiet", name).returncode == 0


def eventually(condition: Callable[[], Any], what: str, timeout: float = 90) -> Any:
    """The condition's value, once it is true; ServerError with `what` after the deadline, in seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise ServerError(f"not within {timeout:.0f} s: {what}")
        time.sleep(0.25)
    return value


class Compose:
    """docker-compose.yml as a project of its own.

    Args:
        project: its name.
        env: variables of the file.
        cache: where a Compose is kept that the engine does not bring along.
    """

    def __init__(self, project: str, env: Mapping[str, str], cache: Path, log: Log) -> None:
        own = run("docker", "compose", "version").returncode == 0
        program = ["docker", "compose"] if own else [str(unpacked("trixie", "docker-compose", cache, log) / _PLUGIN)]
        self.project = project
        self.env = dict(env)
        self._command = [*program, "--project-name", project, "--file", str(ROOT / "docker-compose.yml")]

    def __call__(self, *words: str, wanted: Sequence[int] = (0,), env: Mapping[str, str] | None = None) -> str:
        """`docker compose …`, which must end with a wanted exit code; `env` are variables for this time alone."""
        return must(*self._command, *words, env=self.env | dict(env or {}), wanted=wanted)

    def container(self, service: str) -> str:
        """The id of a service's container, whether it runs or not."""
        return self("ps", "--all", "--quiet", service).splitlines()[0]

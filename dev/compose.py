"""RabbitMQ and MongoDB from docker-compose.yml, where a Docker engine answers. Standard library only."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from dev.process import Log, ServerError, kept_ports

FILE = Path(__file__).resolve().parent.parent / "docker-compose.yml"

#: The administrator of both servers, here: whoever reaches their ports on 127.0.0.1 is on this machine.
ADMIN = "guest"

_RECORD = "compose-project"  # in a run's folder: the project that it started
#: Seconds for pulling the images and starting them.
_PULL_TIMEOUT, _START_TIMEOUT = 300, 180


def engine_answers() -> bool:
    """Whether a Docker engine runs here."""
    return shutil.which("docker") is not None and _quiet("docker", "info")


def start(folder: Path, services: Sequence[str], log: Log) -> dict[str, int]:
    """Start the services as a project of their own; returns their ports on 127.0.0.1 by variable.

    Raises ServerError when they do not start, with what Docker said.
    """
    if not _quiet("docker", "compose", "version"):
        raise ServerError("this Docker has no Compose: install its plugin, version 2.24 or newer")
    ports = kept_ports(folder, ["RABBITMQ_PORT", "RABBITMQ_MANAGEMENT_PORT", "MONGO_PORT"])
    env = os.environ | _administrator() | {name: str(port) for name, port in ports.items()}
    project = f"job-dispatcher-{folder.name.lower()}-{sha256(bytes(folder)).hexdigest()[:6]}"
    log("servers: starting the containers of docker-compose.yml (the first time pulls their images)")
    _compose(project, "pull", "--quiet", "--policy", "missing", *services, env=env, timeout=_PULL_TIMEOUT)
    (folder / _RECORD).write_text(project, encoding="utf-8")
    _compose(project, "up", "--detach", "--wait", *services, env=env, timeout=_START_TIMEOUT)
    return ports


def remove_recorded(folder: Path, *, volumes: bool) -> None:
    """Remove the containers that a run started, if it did; with `volumes` their data too."""
    record = folder / _RECORD
    if record.is_file():
        project = record.read_text(encoding="utf-8").strip()
        extra = ["--volumes"] if volumes else []
        _quiet("docker", "compose", "--project-name", project, "--file", str(FILE), "down", *extra)
        record.unlink(missing_ok=True)


def _administrator() -> dict[str, str]:
    """Variables of docker-compose.yml: whatever .env says, these servers have the administrator that we know."""
    return {f"{server}_ADMIN_{what}": ADMIN for server in ("RABBITMQ", "MONGO") for what in ("USER", "PASSWORD")}


def _compose(project: str, *words: str, env: dict[str, str], timeout: float) -> None:
    command = ["docker", "compose", "--project-name", project, "--file", str(FILE), *words]
    try:
        done = subprocess.run(
            command, env=env, timeout=timeout, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"docker compose {words[0]} took more than {timeout:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise ServerError(f"docker compose {words[0]} failed: {' / '.join(said)}")


def _quiet(*command: str) -> bool:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0

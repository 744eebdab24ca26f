"""Programs of another Debian release, kept in a folder: its packages are unpacked there, not installed.

They run with the folder's /usr in place of the machine's, in a mount namespace that the started process alone has.
Every other path is the machine's own, and so is the process: it has one id and gets signals like any other.
"""

import os
import shutil
import subprocess
from pathlib import Path

from dev.apt import apt_get, may_install, must
from dev.process import Log, ServerError
from dev.runs import locked

_TOOLS = ("apt-get", "dpkg-deb", "unshare")


def inside(root: Path) -> tuple[str, ...]:
    """The words that stand before a command which is to run with the folder's programs and libraries."""
    as_root = () if os.geteuid() == 0 else ("--map-root-user",)
    return ("unshare", "--mount", *as_root, "sh", "-c", 'mount --bind "$0/usr" /usr && exec "$@"', str(root))


def unpacked(release: str, package: str, cache: Path, log: Log) -> Path:
    """The folder with a package of a Debian release and all that it needs; made once, and kept in `cache`.

    It comes from the Debian mirror that apt uses on this machine. Raises ServerError where that cannot be done.
    """
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise ServerError(f"{package} of Debian {release} needs {' and '.join(missing)}, which this machine has not")
    root = cache.resolve() / f"{package}-{release}"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "unpacking"):
        if not root.is_dir():
            log(f"servers: unpacking Debian {release}'s {package} into {root} (once; 80 MB, half a minute)")
            _make(root, release, package)
    may = subprocess.run([*inside(root), "true"], capture_output=True, text=True)
    must(f"Giving a process mounts of its own (unshare --mount), to run {package} of Debian {release},", may)
    return root


def _make(root: Path, release: str, package: str) -> None:
    """Whole or not at all."""
    part = root.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    tree = part / "root"
    tree.mkdir(parents=True)
    for archive in _downloaded(part, release, package):
        must(
            f"Unpacking {archive.name}",
            subprocess.run(["dpkg-deb", "-x", archive, tree], capture_output=True, text=True),
        )
    tree.rename(root)
    shutil.rmtree(part)


def _downloaded(part: Path, release: str, package: str) -> list[Path]:
    """The package files of what a system with nothing but this package has."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (part / folder).mkdir(parents=True)
    lines = [f"deb {mirror} {release} main\n" for mirror in mirrors()]
    (part / "sources.list").write_text("".join(lines), encoding="utf-8")
    (part / "status").touch()  # no package is installed yet
    own = {
        "Dir::State::lists": part / "lists",
        "Dir::State::status": part / "status",
        "Dir::Cache": part / "cache",
        "Dir::Etc::sourcelist": part / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "APT::Sandbox::User": "root",  # whoever we are: nobody else need be able to write here
    }
    options = [word for name, value in own.items() for word in ("-o", f"{name}={value}")]
    must(f"Reading Debian {release}'s list of packages", apt_get(*options, "update"))
    words = ["install", "--yes", "--download-only", "--no-install-recommends", "?essential", package]
    must(f"Downloading {package} of Debian {release}", apt_get(*options, *words))
    return sorted((part / "cache" / "archives").glob("*.deb"))


def mirrors() -> list[str]:
    """Where apt gets Debian itself from on this machine."""
    ask = ["indextargets", "--format", "$(REPO_URI)", "Label: Debian", "Component: main", "Created-By: Packages"]
    found = apt_get(*ask).stdout.split()
    if not found and may_install():  # a machine that has never read its lists
        apt_get("update")
        found = apt_get(*ask).stdout.split()
    if not found:
        raise ServerError("no mirror of Debian is among apt's sources here (or apt-get update was never run)")
    return list(dict.fromkeys(found))

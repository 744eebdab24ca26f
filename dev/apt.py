"""Debian's package tools, where this machine has them."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.process import ServerError

_POLICY = Path("/usr/sbin/policy-rc.d")  # asked by Debian's packages before they start a service

_installing = threading.Lock()


def may_install() -> bool:
    """Whether packages can be installed on this machine."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(package: str) -> None:
    """Install a Debian package, without starting the service that it brings."""
    with _installing, _no_service_starts():
        words = ["install", "--yes", "--no-install-recommends", package]
        if apt_get(*words).returncode == 0:
            return
        apt_get("update")
        must(f"apt-get install {package}", apt_get(*words))


def apt_get(*words: str) -> subprocess.CompletedProcess[str]:
    """Run apt-get, quietly and without questions."""
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1", "LANG": "C.UTF-8"}
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *words]
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def must(what: str, done: subprocess.CompletedProcess[str]) -> None:
    """ServerError, with the end of what was said, for a command that failed."""
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-10:])
        raise ServerError(f"{what} failed:\n{said}")


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

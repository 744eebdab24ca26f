"""`make sbom`: what the product consists of, as CycloneDX documents (https://cyclonedx.org/specification/overview/).

build/sbom/environment.cdx.json: an environment with the wheel and what requirements/runtime.txt pins.
build/sbom/image.cdx.json (--image): the Python packages in an image. The rest of an image, Debian's packages in its
base, is described by the document that BuildKit attaches to it when it is released.

Each document is held against requirements/runtime.txt: it names what is pinned, at that version, and nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dev.dist import DistError, build, epoch

ROOT = Path(__file__).resolve().parent.parent
INTO = ROOT / "build" / "sbom"
_CYCLONEDX = ROOT / ".venv-project" / "bin" / "cyclonedx-py"
_IN_IMAGE = "/opt/dispatcher/lib"
_OURS = "job-dispatcher"


class SbomError(Exception):
    """What could not be done, or does not hold, in a sentence."""


def main(arguments: Sequence[str]) -> int:
    """Write one document; 0 if it says what it should."""
    parser = argparse.ArgumentParser(prog="make sbom")
    parser.add_argument("--image", help="describe the Python packages in this image, not an environment")
    image = parser.parse_args(arguments).image
    try:
        with tempfile.TemporaryDirectory() as folder:
            environment = Path(folder) / "environment"
            venv.create(environment, with_pip=False)
            fill = _from_image if image else _from_lock_file
            fill(environment, image or "")
            document = _document(environment)
        faults = differences(document, (ROOT / "requirements" / "runtime.txt").read_text(encoding="utf-8"))
        if faults:
            raise SbomError("; ".join(faults))
    except (SbomError, DistError) as error:
        print(f"sbom: {error}", file=sys.stderr)
        return 1
    path = INTO / ("image.cdx.json" if image else "environment.cdx.json")
    INTO.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"sbom: {len(components(document))} packages in {path.relative_to(ROOT)}")
    return 0


def differences(document: dict[str, Any], lock: str) -> list[str]:
    """Where a document and what a lock file pins for this platform do not agree; ours is in the document besides."""
    found, pinned = components(document), pins(lock)
    if _OURS not in found:
        return [f"{_OURS} itself is missing"]
    del found[_OURS]
    names = sorted(found.keys() | pinned.keys())
    return [
        f"{name}: {pinned.get(name, 'nothing')} is pinned, {found.get(name, 'nothing')} is there"
        for name in names
        if found.get(name) != pinned.get(name)
    ]


def components(document: dict[str, Any]) -> dict[str, str]:
    """Name and version of each package of a document."""
    return {canonicalize_name(each["name"]): each["version"] for each in document.get("components", [])}


def pins(lock: str) -> dict[str, str]:
    """Name and version of each package that a lock file has installed on this platform."""
    lines = [line.rstrip("\\ ") for line in lock.splitlines() if line[:1].isalnum()]
    wanted = [each for each in map(Requirement, lines) if each.marker is None or each.marker.evaluate()]
    return {canonicalize_name(each.name): next(iter(each.specifier)).version for each in wanted}


def _from_lock_file(environment: Path, _: str) -> None:
    """Install what is pinned, and the wheel."""
    wheel, _sdist = build(ROOT, environment / "dist")
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
    _run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(ROOT / "requirements" / "runtime.txt")])
    _run([*pip, "--no-deps", "--no-index", str(wheel)])


def _from_image(environment: Path, image: str) -> None:
    """Copy an image's packages into the environment. Their metadata is read; nothing of them is run."""
    container = _run(["docker", "create", image]).strip()
    try:
        _run(["docker", "cp", "--quiet", f"{container}:{_IN_IMAGE}", str(environment / "image")])
    finally:
        _run(["docker", "rm", container])
    (packages,) = environment.glob("image/python3.*/site-packages")
    (here,) = environment.glob("lib/python3.*/site-packages")
    here.rmdir()  # empty: made without pip
    packages.rename(here)


def _document(environment: Path) -> dict[str, Any]:
    command = [str(_CYCLONEDX), "environment", str(environment), "--output-reproducible"]
    document: dict[str, Any] = json.loads(_run(command))
    return document


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, env=os.environ | epoch(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise SbomError(f"{' '.join(command[:3])} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

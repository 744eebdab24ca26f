"""`make containers`: build the image, check it, run docker-compose.yml with it; a table, and exit code 1 if anything
is not as it should be.

BASE_IMAGE=… names the base. Where no image can be pulled, base and servers are made from Debian's packages.
"""

import argparse
import os
import secrets
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from dev.image import bases
from dev.image.checks import check_image
from dev.image.engine import ROOT, Compose, docker, run
from dev.image.installation import Installation
from dev.image.report import Report
from dev.process import ServerError, kept_ports
from dev.signals import ending_unwinds
from dispatcher import __version__

CACHE = Path(".servers/cache")
IMAGE = f"job-dispatcher-check:{__version__}"
#: Variables of docker-compose.yml with a default that are something to choose here.
PORTS = ["RABBITMQ_PORT", "RABBITMQ_MANAGEMENT_PORT", "MONGO_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT"]


def main(arguments: Sequence[str]) -> int:
    """Check everything; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make containers", description=__doc__)
    parser.add_argument("--image-only", action="store_true", help="do not run docker-compose.yml")
    parser.add_argument("--keep", action="store_true", help="leave what was started running")
    asked = parser.parse_args(arguments)
    try:
        with ending_unwinds():
            return _check(image_only=asked.image_only, keep=asked.keep)
    except ServerError as error:
        print(f"containers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _check(*, image_only: bool, keep: bool) -> int:
    if run("docker", "info").returncode != 0:
        raise ServerError("no Docker engine answers here; start one, and give this user the right to use it")
    defaults = _defaults()
    base = bases.base(os.environ.get("BASE_IMAGE") or defaults["BASE_IMAGE"], print)
    print(f"containers: building {IMAGE} on {base}", flush=True)
    given = {"BASE_IMAGE": base, "VERSION": __version__, "REVISION": bases.revision()}
    options = [word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")]
    docker("build", "--quiet", *options, "--tag", IMAGE, ROOT, timeout=900)
    report, notes = Report(), [f"base: {base}"]
    check_image(report, IMAGE, base)
    if not image_only:
        notes += _run_compose(report, defaults, base, keep=keep)
    return report.show(notes)


def _defaults() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _run_compose(report: Report, defaults: dict[str, str], base: str, *, keep: bool) -> list[str]:
    wanted = {name: image for name, image in defaults.items() if name.endswith("_IMAGE") and name != "BASE_IMAGE"}
    images = bases.servers(wanted, CACHE, print)
    up = ["up", "--detach", "--wait"]
    started = [["--profile", "demo", *(["--profile", "observability"] if "GRAFANA_IMAGE" in images else []), *up]]
    if "GRAFANA_IMAGE" not in images and "PROMETHEUS_IMAGE" in images:  # Grafana has no stand-in
        started.append([*up, "prometheus"])
    passwords = {name: secrets.token_hex(12) for name in defaults if name.endswith("_PASSWORD")}
    with tempfile.TemporaryDirectory(prefix="job-dispatcher-check-") as folder:
        ports = kept_ports(Path(folder), PORTS)
        env = images | passwords | {name: str(port) for name, port in ports.items()}
        env |= {"IMAGE": IMAGE, "BASE_IMAGE": base, "DEMO_JOBS_PER_SECOND": "20"}
        compose = Compose(f"job-dispatcher-check-{secrets.token_hex(3)}", env, CACHE, print)
        try:
            Installation(compose, passwords, ports, started).check(report)
        finally:
            if not keep:
                compose("--profile", "*", "down", "--volumes", "--timeout", "10")
    return _notes(wanted, images)


def _notes(wanted: dict[str, str], images: dict[str, str]) -> list[str]:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    notes = []
    for variable, image in wanted.items():
        if variable not in images:
            names = [name for name, service in services.items() if variable in service["image"]]
            notes.append(f"NOT run, for want of {image}: {', '.join(names)}")
        elif images[variable] != image:
            notes.append(f"{images[variable]} stood in for {image}")
    return notes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The image by itself: what is in it, what it may do, how it starts and ends."""

import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dev.image.engine import ROOT, docker, eventually, inspect, run
from dev.image.report import Report, expect
from dispatcher.composition import SERVICES

MOST_MB = 200
#: How every container of ours runs, here and in docker-compose.yml.
HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")  # noqa: S108
CHECK = ("/opt/dispatcher/bin/python", "-I", "-S", "/opt/dispatcher/bin/healthcheck.py")
GUIDE = ROOT / "docs" / "deploy-compose.md"
_COMPILERS = "cc gcc g++ c++ clang ld as make cargo rustc"


def check_image(report: Report, image: str, base: str) -> None:
    """Everything that needs no server."""
    report.check("size over its base", lambda: _size(image, base))
    report.check("user", lambda: _user(image))
    report.check("labels", lambda: _labels(image))
    report.check("no compiler, no pip, no cache", lambda: _contents(image))
    report.check("a command with a read-only root", lambda: docker("run", "--rm", *HARDENED, image, "--version"))
    report.check("a service that is none", lambda: _unknown(image))
    for service in sorted(SERVICES):
        report.check(f"run {service}: healthy without servers", lambda name=service: healthy(image, "run", name))  # type: ignore[misc]
    report.check("SIGTERM", lambda: _stopped(image))
    report.check("SIGTERM while it starts", lambda: _stopped_early(image))
    report.check("the health check of a frozen service", lambda: _frozen(image))
    report.check("the guide's image with handlers of one's own", lambda: _derived(image))


def _size(image: str, base: str) -> str:
    more = (int(inspect(image)["Size"]) - int(inspect(base)["Size"])) / 1e6
    expect(0 < more < MOST_MB, f"{more:.0f} MB, more than {MOST_MB}")
    return f"{more:.0f} MB of {MOST_MB}"


def _user(image: str) -> str:
    config, real = inspect(image)["Config"]["User"], docker("run", "--rm", "--entrypoint", "id", image)
    expect(re.fullmatch(r"[1-9]\d*:[1-9]\d*", config), f"USER is {config!r}, no number")
    expect(f"uid={config.split(':', maxsplit=1)[0]}" in real, real)
    return real


def _labels(image: str) -> str:
    labels = inspect(image)["Config"]["Labels"]
    found = {name: labels.get(f"org.opencontainers.image.{name}", "") for name in ("version", "revision", "licenses")}
    expect(all(value and value != "unknown" for value in found.values()), str(found))
    return ", ".join(f"{name} {value}" for name, value in found.items())


def _contents(image: str) -> str:
    look = f"""
        for name in {_COMPILERS}; do command -v $name && echo "compiler $name"; done
        ls /opt/dispatcher/bin/pip* 2>/dev/null
        find / -xdev -path '*/pip/http*' 2>/dev/null
        find /root/.cache /var/lib/apt/lists -type f 2>/dev/null
        find /opt/dispatcher -name '*.py' -path '*site-packages/dispatcher*' | while read -r file; do
            compiled="${{file%/*}}/__pycache__/$(basename "$file" .py)"
            ls "$compiled".*.pyc > /dev/null 2>&1 || echo "not compiled: $file"
        done"""
    found = docker("run", "--rm", "--user", "0", "--entrypoint", "sh", image, "-c", look)
    expect(not found, found)
    return "none found; our modules are compiled"


def _unknown(image: str) -> str:
    done = run("docker", "run", "--rm", *HARDENED, image, "run", "nothing")
    expect(done.returncode == 2, f"exit code {done.returncode}")
    return "exit code 2"


@contextmanager
def _running(image: str, *command: str, options: Sequence[str] = ()) -> Iterator[str]:
    """A container with a command of ours; removed at the end."""
    container = docker("run", "--detach", *HARDENED, *options, image, *command)
    try:
        yield container
    finally:
        run("docker", "rm", "--force", container)


def _health(container: str) -> str:
    return str(inspect(container)["State"]["Health"]["Status"])


def healthy(image: str, *command: str, options: Sequence[str] = ()) -> str:
    """A command of ours in a container, until Docker calls it healthy; ServerError where it does not."""
    with _running(image, *command, options=options) as container:
        began = time.monotonic()
        eventually(lambda: _health(container) == "healthy", "it is healthy")
        return f"after {time.monotonic() - began:.0f} s"


def _stop(container: str) -> str:
    began = time.monotonic()
    docker("stop", "--time", "60", container)
    seconds, code = time.monotonic() - began, inspect(container)["State"]["ExitCode"]
    expect(code in (0, 143), f"exit code {code} after {seconds:.1f} s")
    expect(seconds < 30, f"{seconds:.1f} s")
    return f"exit code {code} after {seconds:.1f} s"


def _stopped(image: str) -> str:
    with _running(image, "run", "intake") as container:
        eventually(lambda: run("docker", "exec", container, *CHECK).returncode == 0, "/healthz answers")
        said = _stop(container)
        logged = run("docker", "logs", container).stderr
        expect('"event": "stopped"' in logged, f"it did not stop in good order: {logged[-500:]}")
        return said


def _stopped_early(image: str) -> str:
    with _running(image, "run", "intake") as container:
        return _stop(container)


def _frozen(image: str) -> str:
    with _running(image, "run", "intake") as container:
        eventually(lambda: run("docker", "exec", container, *CHECK).returncode == 0, "/healthz answers")
        pid = docker("exec", container, "sh", "-c", "cat /proc/1/task/1/children").split()[0]
        docker("exec", container, "sh", "-c", f"kill -STOP {pid}")
        done = run("docker", "exec", container, *CHECK)
        expect(done.returncode == 1, f"exit code {done.returncode}: {done.stdout}")
        return f"exit code 1: {done.stdout.strip()}"


def blocks(language: str) -> list[str]:
    """The guide's examples in a language."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def _derived(image: str) -> str:
    """The guide's Dockerfile, with the guide's handler, runs."""
    (dockerfile,) = blocks("dockerfile")
    handler = next(block for block in blocks("python") if "Registry()" in block)
    name = f"{image}-derived"
    with tempfile.TemporaryDirectory(prefix="job-dispatcher-derived-") as folder:
        Path(folder, "Dockerfile").write_text(
            re.sub(r"FROM job-dispatcher\S*", f"FROM {image}", dockerfile), encoding="utf-8"
        )
        Path(folder, "billing.py").write_text(handler, encoding="utf-8")
        Path(folder, "requirements.txt").write_text("humanize==4.*\n", encoding="utf-8")
        docker("build", "--quiet", "--tag", name, folder)
    try:
        docker("run", "--rm", *HARDENED, "--entrypoint", "python", name, "-c", "import humanize, billing, dispatcher")
        user = inspect(name)["Config"]["User"]
        expect(user == inspect(image)["Config"]["User"], f"it runs as {user}")
        return f"{healthy(name, 'worker', 'billing:jobs')}, with a package of its own, as {user}"
    finally:
        run("docker", "image", "rm", "--force", name)

"""What the commands print, captured from a real run for docs/command-line.md: ``python -m dev.samples``, by hand.

It starts servers of its own and writes dev/samples.json. A test captures the same again on the servers of the suite
and holds the columns, labels and sentences of both together.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from config import load_settings
from dispatcher import composition
from dispatcher.cli.main import main
from dispatcher.edges.operator import whoami
from dispatcher.services.host import Service

ROOT = Path(__file__).resolve().parent.parent
STORE = Path(__file__).with_suffix(".json")
WORKER = "examples.handlers:jobs"
#: Seconds within which a command must do what the next one needs.
PATIENCE = 60.0
#: Lines that a long sample has.
LONGEST = 30
KEY_IDS = ("X6yHEznGjNAS", "mB3kQ9tLw2Za")

#: Before the services run.
FIRST = (
    ("topology apply", "topology apply"),
    ("topology show", "topology show"),
    ("jobs republish", "jobs republish --all --dry-run"),
    ("keys create", "keys create --app shop --types 'email.*,demo.*' --expires 90d"),
)
#: While they run. Those without a name are steps on the way; those with + are given again until they succeed.
THEN = (
    ("publish", """publish email.send '{"to": "ann@example.org"}' --id welcome-1"""),
    ("", "watch welcome-1 --json"),  # to its end, so that the next is told all of it at once
    ("watch", "watch welcome-1"),
    ("", "publish demo.hopeless --id order-7"),
    ("-", "watch order-7 --json"),
    ("jobs list", "jobs list --since 2h"),
    ("jobs show", "jobs show order-7"),
    ("jobs explain", "jobs explain order-7"),
    ("dead list", "dead list"),
    ("dead replay", "dead replay --error ValueError --dry-run"),
    ("dead readmit", "dead readmit"),
    ("-", "publish email.send --lane nowhere --id order-8"),
    ("rejected list", "rejected list"),
    ("unrecorded list", "unrecorded list --json"),
    ("unrecorded readmit", "unrecorded readmit"),
    ("", "publish email.send --id later-1 --delay 3600"),
    ("+jobs reschedule", "jobs reschedule later-1 --delay 2h"),
    ("jobs cancel", "jobs cancel later-1 --reason 'not needed'"),
    ("+stats", "stats"),
    ("top", "top --once --all --interval 0.5"),
    ("jobs erase", "jobs erase --app shop --dry-run"),
    ("jobs retry", "jobs retry --state failed --error ValueError --yes"),
    ("keys list", "keys list"),
    ("keys show", "keys show {key}"),
    ("keys rotate", "keys rotate {key} --grace 24h"),
    ("-keys check-leak", "keys check-leak {file}"),
    ("keys revoke", "keys revoke {new}"),
    ("audit list", "audit list --app shop"),
)


@dataclass
class Capture:
    """Runs commands on one installation, and keeps what they print."""

    env: Mapping[str, str]
    folder: Path
    samples: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: What is typed for each placeholder.
    known: dict[str, str] = field(default_factory=dict)
    secret: str = ""

    def step(self, name: str, typed: str) -> None:
        """One command. Its exit code is 0, or 1 where the name begins with -; with + it is given until it is so."""
        code, again = int(name.startswith("-")), name.startswith("+")
        for placeholder, value in self.known.items():
            typed = typed.replace(f"{{{placeholder}}}", value)
        deadline = time.monotonic() + (PATIENCE if again else 0)
        while True:
            done = CliRunner().invoke(main, shlex.split(typed), env=self._environment())
            if done.exit_code == code:
                break
            if time.monotonic() >= deadline:
                raise RuntimeError(f"{typed}: exit code {done.exit_code}: {done.output}") from done.exception
            time.sleep(0.1)
        self._learn(done.output)
        if name := name.lstrip("+-"):
            self.samples[name] = (f"dispatcher {self._shown(typed)}", self._shown(done.output))

    def _environment(self) -> dict[str, str | None]:
        blank = {name: None for name in os.environ if name.startswith("DISPATCHER_")}
        return {**blank, **self.env, "DISPATCHER_API_KEY": self.secret or None}

    def _learn(self, printed: str) -> None:
        for key in re.findall(r"jd_live_([0-9A-Za-z]{12})_[0-9A-Za-z]{36}", printed):
            self.known.setdefault("key" if "key" not in self.known else "new", key)
        if not self.secret and (found := re.search(r"jd_live_\w+", printed)):
            self.secret = found[0]
            leak = self.folder / "app.env"
            leak.write_text(f"QUEUE_KEY={self.secret}\n")
            self.known["file"] = str(leak)

    def _shown(self, text: str) -> str:
        """Without what is ours: ids of keys become always the same, secrets and names of this machine go."""
        text = re.sub(r"(jd_live_\w{12}_)\w{36}", r"\1…", text)
        for name, shown in zip(("key", "new"), KEY_IDS, strict=True):
            text = text.replace(self.known.get(name, shown), shown)
        text = text.replace(f"{self.folder}/", "").replace(f"{ROOT}/", "")
        return "".join(map(_nobody, text.splitlines(keepends=True)))


def _nobody(line: str) -> str:
    """A line without the names of this machine and its user; that of a table stays straight."""
    host = re.escape(whoami().split("@")[1])
    for pattern, shown in ((rf"{host}-\d+", "w-4242"), (re.escape(whoami()), "ann@hq")):
        for real in re.findall(pattern, line):
            line = line.replace(real, shown.ljust(len(real)) if "│" in line else shown)
    return line


async def capture(env: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What each command prints (and what was typed), by its name.

    Args:
        env: variables that name an installation of which nothing is there yet.
    """
    settings = load_settings(env)
    with tempfile.TemporaryDirectory() as folder:
        taken = Capture(env, Path(folder))
        for name, typed in FIRST:
            await asyncio.to_thread(taken.step, name, typed)
        services: list[Service] = composition.everything(settings, WORKER)
        try:
            for service in services:
                await service.start()
            for name, typed in THEN:
                await asyncio.to_thread(taken.step, name, typed)
        finally:
            for service in reversed(services):
                await service.stop()
    return {name: (typed, shortened(printed)) for name, (typed, printed) in taken.samples.items()}


def shortened(printed: str) -> str:
    """The first lines, and a … for the others."""
    lines = [line.rstrip() for line in printed.rstrip().splitlines()]
    return "\n".join(lines if len(lines) <= LONGEST else [*lines[:LONGEST], "…"])


_TIME = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?"
_MASKS = (
    (_TIME, "TIME"),
    (r"\b[0-9a-f]{12}\b", "FINGERPRINT"),
    (r"-?\b\d+(?:\.\d+)?(?: (?:ms|s|min|d)\b)?", "N"),
)


def skeleton(printed: str) -> list[Any]:
    """What of a sample does not change from run to run: columns, labels, keys of JSON, sentences without numbers."""
    return list(_lines(printed.rstrip().splitlines()))


def _lines(lines: list[str]) -> Iterator[Any]:
    labelled = False
    for line in lines:
        cells = [cell.strip() for cell in re.split("[┃│]", line)[1:-1]]
        if line[:1] == "┃":
            labelled = cells[0] == ""
            yield cells
        elif line[:1] == "│":
            if labelled and cells[0]:
                yield cells[0]
        elif line[:1] == "{":
            yield _keys(json.loads(line))
        elif line[:1] not in "┏┡└" and line[:1] != "…":
            yield _masked(line)


def _masked(line: str) -> str:
    for pattern, mask in _MASKS:
        line = re.sub(pattern, mask, line)
    return " ".join(line.split())


def _keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _keys(item) for key, item in value.items()}
    return [_keys(item) for item in value[:1]] if isinstance(value, list) else type(value).__name__


def _run() -> None:
    from dev.mongo import LocalMongo
    from dev.rabbit import LocalRabbit

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rabbit = stack.enter_context(LocalRabbit(folder / "rabbit"))
        mongo = stack.enter_context(LocalMongo(folder / "mongo"))
        env = {"DISPATCHER_AMQP__URL": rabbit.url, "DISPATCHER_MONGO__URL": mongo.url, "DISPATCHER_LOG__LEVEL": "error"}
        samples = asyncio.run(capture(env))
    STORE.write_text(json.dumps(samples, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _run()

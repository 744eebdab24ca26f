"""`top`, `watch`, completion, tables at several widths, and errors that say what to do, on real servers."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from consumers import Registry, Retry
from consumers.worker import Worker
from dispatcher.cli import output, session
from dispatcher.cli import publish as publish_module
from dispatcher.edges import mongo
from dispatcher.services import operations as operations_module
from dispatcher.services import overview as overview_module
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.conftest import run_services
from tests.processes import command, invoke, succeed
from tests.support import Installation, eventually, finished_job

pytestmark = pytest.mark.integration

jobs = Registry()


@jobs.handler("v.flaky", retry=Retry(max_attempts=3, base=0.125))
async def flaky(payload: dict[str, Any], ctx: Any) -> str:
    """Fail once, or for good."""
    if payload.get("never") or ctx.attempt == 1:
        raise ConnectionError("broken")
    return "fine"


held = asyncio.Event()


@jobs.handler("v.held")
async def hold(payload: dict[str, Any]) -> None:
    """Run until it is let go."""
    await held.wait()


async def test_watch_follows_a_job_to_its_end(installed: Installation) -> None:
    """Exit code 0 and a line for each step of one that succeeds; 1 for one that fails, or does not end in time."""
    key = await installed.create_key()
    settings = installed.settings
    async with run_services(Intake(settings), Recorder(settings), Worker(settings, jobs, "test_cli_live:jobs")):
        installed.publish("v.flaky", {"id": "good"}, key)
        good = await succeed(installed, "watch", "good", "--interval", "0.1")
        installed.publish("v.flaky", {"id": "bad", "payload": {"never": True}}, key)
        bad = await command(installed, "watch", "shop:bad", "--json")
        run = (await succeed(installed, "jobs", "retry", "shop:bad", "--json")).json["run"]
        again = await command(installed, "watch", "shop:bad", "--run", str(run), "--json")
        none = await command(installed, "watch", "good", "--run", "2", "--wait", "0.2")
    assert "run 1, attempt 1 failed: ConnectionError: broken" in good.out
    assert "run 1, attempt 2 succeeded" in good.out
    assert good.out.rstrip().endswith("state succeeded")
    assert (bad.code, bad.json["state"]) == (1, "failed")
    assert (again.code, again.json["state"], again.json["run"]) == (1, "failed", 2)
    assert (none.code, "run 2 of job shop:good is not in history" in none.err) == (1, True)
    installed.publish("v.flaky", {"id": "late"}, key)
    late = await command(installed, "watch", "late", "--wait", "0.2")
    assert late.code == 1
    assert "no job late in history" in late.err


async def test_top_shows_what_waits(installed: Installation) -> None:
    """One document; for people a table of what waits; the same queues as the broker's."""
    installed.publish(installed.names.work_queue("bulk", "low"), finished_job("x"), exchange="")
    shown = (await succeed(installed, "top", "--once", "--interval", "0.2", "--json")).json
    (row,) = [row for row in shown["lanes"] if (row["lane"], row["priority"]) == ("bulk", "low")]
    assert (row["ready"], row["consumers"], row["running"]) == (1, 0, 0)
    assert shown["missing"] == []
    assert shown["queues"]["unrouted"] == 0
    table = await succeed(installed, "top", "--once", "--interval", "0.2")
    assert re.search(r"bulk\s+│ low\s+│\s+1 │", table.out)
    away = {"DISPATCHER_MONGO__URL": "mongodb://127.0.0.1:9/"}
    half = await succeed(installed, "top", "--once", "--interval", "0.2", env=away)
    assert "MongoDB does not answer" in half.out
    installed.drain(installed.names.work_queue("bulk", "low"))


async def test_top_counts_idle_workers(installed: Installation) -> None:
    """A worker that runs a job of one lane is idle in the other; once the job has ended, in both."""
    key = await installed.create_key()
    settings = installed.settings
    held.clear()
    async with run_services(Intake(settings), Recorder(settings), Worker(settings, jobs, "test_cli_live:jobs")):
        installed.publish("v.held", {"id": "held"}, key)

        async def idle() -> dict[str, tuple[int, int]]:
            shown = (await succeed(installed, "top", "--once", "--interval", "0.2", "--json")).json
            return {each["lane"]: (each["idle"], each["workers"]) for each in shown["serving"]}

        async def one_is_busy() -> bool:
            return await idle() == {"default": (0, 1), "bulk": (1, 1)}

        async def none_is_busy() -> bool:
            return await idle() == {"default": (1, 1), "bulk": (1, 1)}

        await eventually(one_is_busy, "the worker is busy in its lane")
        held.set()
        await eventually(none_is_busy, "the worker is idle again")


def test_bash_completes_without_servers(tmp_path: Path) -> None:
    """A real bash, with the printed script: commands, options, states and configured lanes."""
    bash = shutil.which("bash")
    assert bash is not None
    folder = Path(sys.executable).parent
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(tmp_path), "DISPATCHER_LANES": '["default", "bulk"]'}
    env |= {"DISPATCHER_AMQP__URL": "amqp://127.0.0.1:9/", "DISPATCHER_MONGO__URL": "mongodb://127.0.0.1:9/"}
    script = subprocess.run(["dispatcher", "completion", "bash"], env=env, capture_output=True, text=True, timeout=60)
    assert script.returncode == 0, script.stderr
    (tmp_path / "completion").write_text(script.stdout)

    def complete(*words: str) -> set[str]:
        line = f"""
            source {tmp_path}/completion
            COMP_WORDS=(dispatcher {" ".join(words)} ''); COMP_CWORD={len(words) + 1}
            [[ -n "${{LAST-}}" ]] && COMP_WORDS[COMP_CWORD]=$LAST
            _dispatcher_completion dispatcher; printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run([bash, "-c", line], env=env, capture_output=True, text=True, timeout=60)
        return set(done.stdout.split())

    assert {"jobs", "dead", "top", "watch"} <= complete()
    assert {"list", "explain", "retry"} <= complete("jobs")
    assert {"failed", "succeeded"} <= complete("jobs", "list", "--state")
    assert complete("jobs", "list", "--lane") == {"default", "bulk"}


class Screen(io.StringIO):
    """A terminal as far as rich and we ask."""

    def isatty(self) -> bool:
        """It is one."""
        return True


LONG = "a" * 40 + "." + "b" * 60
ROW = {"app": "shop", "id": LONG, "type": "email.send.weekly", "priority": "background", "attempts": []}
ROW |= {"state": "failed", "accepted_at": 1_800_000_000_000, "run_ms": 12, "error": {"type": "ConnectionError"}}


@pytest.mark.parametrize("width", [40, 80, 120, 240])
def test_a_table_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """No line is longer, the id is there to its last character, and stderr says which columns had no room."""
    from dispatcher.cli.jobs import show_jobs

    screen = Screen()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", screen)
    show_jobs([ROW], as_json=False)
    text = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    assert max(map(len, text.splitlines())) <= width
    letters = "".join(c for c in text if c in "ab.")
    assert letters.count("a") >= 40
    assert letters.count("b") >= 60
    assert ("no room for" in capsys.readouterr().err) == (width < 190)


def test_a_piped_table_cuts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids stand on one line, without colour."""
    from dispatcher.cli.jobs import show_jobs

    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stdout", pipe)
    show_jobs([ROW], as_json=False)
    assert LONG in pipe.getvalue()
    assert "\x1b" not in pipe.getvalue()
    assert len(LONG) < output.PIPED_WIDTH


def _amqp(url: str, **changed: str) -> str:
    """The servers' address with another scheme, password or virtual host."""
    scheme, rest = url.split("://")
    user, host = rest.rsplit("@", 1)
    name = user.split(":")[0]
    host = host.split("/")[0]
    return (
        f"{changed.get('scheme', scheme)}://{name}:{changed.get('password', 'guest')}@{host}/{changed.get('vhost', '')}"
    )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"vhost": "nowhere"}, "no such virtual host, or its user may not use it; check the path of amqp.url"),
        ({"password": "hush"}, "refused the user or password; check amqp.url"),
        ({"scheme": "amqps"}, "TLS failed"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("arguments", ["topology apply", "dead replay x", "rejected list", "top --once"])
def test_a_broker_that_refuses_is_explained(
    installed: Installation, arguments: str, changed: dict[str, str], says: str
) -> None:
    """Exit code 1, what to check, no password."""
    env = {"DISPATCHER_AMQP__URL": _amqp(installed.amqp_url, **changed)}
    finished = invoke(installed, *arguments.split(), env=env)
    assert finished.code == 1
    assert says in finished.err
    assert "hush" not in finished.err


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mongodb://u:hush@{host}/", "refused the user or password"),
        ("mongodb://{host}/?tls=true&directConnection=true", "TLS failed"),
    ],
)
def test_a_database_that_refuses_is_explained(installed: Installation, url: str, says: str) -> None:
    """The same for MongoDB."""
    host = installed.settings.mongo.url.get_secret_value().split("://")[1].split("/")[0].rsplit("@", 1)[-1]
    finished = invoke(installed, "jobs", "list", env={"DISPATCHER_MONGO__URL": url.format(host=host)})
    assert finished.code == 1
    assert says in finished.err
    assert "hush" not in finished.err


@pytest.mark.parametrize(("ahead", "says"), [(5.0, "5.0 s ahead of"), (-7.5, "7.5 s behind"), (1.0, "")])
@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        ("jobs explain nobody", operations_module),
        ("jobs show nobody", operations_module),
        ("jobs list", operations_module),
        ("top --once --interval 0.2", overview_module),
        ("publish a.b {} --run-at 2026-11-26T12:00:00Z --wait 0", publish_module),
    ],
)
def test_a_clock_that_differs_is_told(
    installed: Installation, monkeypatch: pytest.MonkeyPatch, arguments: str, module: Any, ahead: float, says: str
) -> None:
    """Over 2 s, on stderr; the command goes on."""

    async def asked(_: mongo.Database) -> tuple[float, float]:
        return ahead, 0.01

    monkeypatch.setattr(module, "clock_ahead", asked)
    finished = invoke(installed, *arguments.split(), env={"DISPATCHER_API_KEY": "x"})
    assert says in finished.err
    assert ("warning" in finished.err) == (abs(ahead) > session.MAX_SKEW)


@pytest.mark.parametrize(
    ("arguments", "says"), [("jobs lst", "'list'"), ("jobs list --stat x", "--state"), ("tops", "'top'")]
)
def test_the_nearest_is_named(installed: Installation, arguments: str, says: str) -> None:
    """An unknown command or option is answered with a known one."""
    finished = invoke(installed, *arguments.split())
    assert finished.code == 2
    assert says in finished.err

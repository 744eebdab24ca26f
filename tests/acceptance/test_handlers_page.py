"""docs/handlers.md, followed word for word: its files are a project that a real worker runs."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from config import Settings, load_settings
from config.settings import DEFAULTS
from consumers import BatchContext, Context, Registry
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.acceptance.readme import ROOT, blocks, files
from tests.conftest import run_services
from tests.processes import ServiceProcess
from tests.support import Installation

pytestmark = pytest.mark.acceptance

PAGE = ROOT / "docs" / "handlers.md"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest_asyncio.fixture
async def shop(installed: Installation, settings: Settings, tmp_path: Path) -> AsyncIterator[tuple[Any, ...]]:
    """The page's project, run by a worker that is started in its folder; and a key."""
    for name, text in files(PAGE).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert len(files(PAGE)) == len(blocks("python", PAGE)), "every block is a file"
    key = await installed.create_key()
    env = {"DISPATCHER_RETRY__BASE": "0.125", "DISPATCHER_RETRY__MAX_ATTEMPTS": "2"}
    async with (
        run_services(Intake(settings), Recorder(settings)),
        ServiceProcess(installed, "worker", "shop.worker:jobs", env=env, folder=tmp_path) as worker,
    ):
        yield installed, key, worker


#: Jobs by id: type, payload, and the outcomes, state and result that the page promises (... stands for any).
PROMISED: dict[str, tuple[str, dict[str, Any], list[str], str, Any]] = {
    "model": ("email.send", {"to": "ann", "copies": "2"}, ["succeeded"], "succeeded", {"sent": 2}),
    "bad-model": ("email.send", {"to": "ann", "copies": 0}, ["failed"], "failed", None),
    "dataclass": ("email.remind", {"to": "ann", "at": "2030-01-02T03:04:05Z"}, ["succeeded"], "succeeded", 2030),
    "bad-dataclass": ("email.remind", {"to": "ann"}, ["failed"], "failed", None),
    "typed": ("email.note", {"text": "x", "author": "bob"}, ["succeeded"], "succeeded", "bob"),
    "bad-typed": ("email.note", {"author": "bob"}, ["failed"], "failed", None),
    "raw": ("email.raw", {"b": 1, "a": None}, ["succeeded"], "succeeded", ["a", "b"]),
    "async": ("kind.async", {}, ["succeeded"], "succeeded", "MainThread"),
    "async-late": ("kind.async", {"seconds": 60}, ["timed_out"] * 2, "timed_out", None),
    "thread-late": ("kind.thread", {"seconds": 20}, ["timed_out"] * 2, "timed_out", None),
    "process": ("kind.process", {}, ["succeeded"], "succeeded", ...),
    "process-crash": ("kind.process", {"crash": True}, ["crashed"] * 2, "failed", None),
    "cancel": ("order.ship", {"order": "withdrawn"}, ["cancelled"], "cancelled", None),
    "declined": ("order.ship", {"order": "1", "card": "bad"}, ["failed"] * 2, "failed", None),
    "snooze": ("order.ship", {"order": "2"}, ["snoozed", "succeeded"], "succeeded", "shipped"),
    "batch": ("letter.post", {"to": "ann"}, ["succeeded"], "succeeded", {"posted_to": "ann"}),
    "batch-cancel": ("letter.post", {"to": "unknown"}, ["cancelled"], "cancelled", None),
    "batch-full": ("letter.post", {"to": "full"}, ["failed"] * 2, "failed", None),
    "batch-snooze": ("letter.post", {"to": "held"}, ["snoozed", "succeeded"], "succeeded", {"posted_to": "held"}),
    "bad-batch": ("letter.post", {"for": "ann"}, ["failed"], "failed", None),
    "shared-1": ("shared.count", {}, ["succeeded"], "succeeded", 1),
    "shared-2": ("shared.count", {}, ["succeeded"], "succeeded", 1),
}


async def test_the_examples_do_what_the_page_says(shop: tuple[Any, ...]) -> None:
    """Every handler of the page, on real servers, in every way that the page tells of."""
    installed, key, worker = shop
    installed.publish_many([(kind, {"id": i, "payload": p}) for i, (kind, p, *_) in PROMISED.items()], key)
    found = {job_id: await installed.finished(job_id) for job_id in PROMISED}
    for job_id, (_, _, outcomes, state, result) in PROMISED.items():
        document = found[job_id]
        assert [a["outcome"] for a in document["attempts"]] == outcomes, job_id
        assert document["state"] == state, job_id
        if result is not ...:
            assert document.get("result") == result, job_id
    assert {found[i]["attempts"][0]["error"]["type"] for i in PROMISED if i.startswith("bad-")} == {"ValidationError"}
    assert found["cancel"]["error"]["message"] == "the customer withdrew it"
    assert [a["n"] for a in found["snooze"]["attempts"]] == [1, 1]
    assert (await worker.logged("a thread cannot be stopped"))["type"] == "kind.thread"


async def test_the_context_is_as_the_page_shows(shop: tuple[Any, ...]) -> None:
    """Its attributes in a real job, and its log line in the worker's log."""
    installed, key, worker = shop
    headers = {"traceparent": TRACE}
    installed.publish("context.show", {"id": "ctx", "tags": ["a"], "payload": {"x": 1}}, key, headers=headers)
    document = await installed.finished("ctx")
    result = document["result"]
    assert result.pop("execution") == document["attempts"][0]["execution"]
    assert result == {
        "job": "shop:ctx context.show",
        "attempt": "1.1",
        "tags": ["a"],
        "trace": TRACE,
        "cancelled": False,
    }
    line = await worker.logged("looking")
    assert (line["app"], line["job"], line["run"], line["attempt"], line["payload_fields"]) == ("shop", "ctx", 1, 1, 1)


def rows(heading: str) -> set[str]:
    """The names in the first column of the table whose head begins so."""
    text = PAGE.read_text()
    table = text[text.index(f"\n| {heading}") :].split("\n\n")[0]
    return {name for line in table.splitlines()[3:] for name in re.findall(r"`(\w+)", line.split("|")[1])}


def test_the_tables_name_what_there_is() -> None:
    """Every attribute of the context, every argument of a declaration, and no other."""
    assert rows("of `ctx`") == {name for name in dir(Context) if not name.startswith("_")}
    assert rows("of a batch's `ctx`") == {name for name in dir(BatchContext) if not name.startswith("_")}
    assert rows("argument of `handler`") == set(inspect.signature(Registry().handler).parameters)


def test_the_figures_are_those_of_the_code() -> None:
    """Defaults that the page tells of."""
    text, worker = PAGE.read_text(), load_settings({}).worker
    for sentence in (
        f"`worker.timeout`: {worker.timeout:g}",
        f"`worker.max_result_bytes`, {worker.max_result_bytes:,} bytes",
        f"`worker.grace`, {worker.grace:g} seconds",
        f"for {worker.no_handler_delay:g} seconds (`worker.no_handler_delay`)",
        f"After {worker.no_handler_limit / 60:g} minutes (`worker.no_handler_limit`)",
    ):
        assert sentence in text
    for key in set(re.findall(r"`worker\.(\w+)`", text)):
        assert key in yaml.safe_load(DEFAULTS.read_text())["worker"]


def test_the_lane_example_is_a_configuration(tmp_path: Path) -> None:
    """The YAML block loads, and routes as it says."""
    (text,) = blocks("yaml", PAGE)
    (tmp_path / "settings.yaml").write_text(text)
    settings = load_settings({"DISPATCHER_CONFIG": str(tmp_path / "settings.yaml")})
    assert settings.types["report.#"].lane == "slow"

"""docs/celery.md: the example after the move runs, with a real worker, and does what Celery's did."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from consumers.loading import load_registry
from consumers.worker import Worker
from dispatcher import Client
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from tests.acceptance.readme import ROOT, blocks, files
from tests.conftest import run_services
from tests.support import Installation

pytestmark = [pytest.mark.acceptance, pytest.mark.long]

PAGE = ROOT / "docs" / "celery.md"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's files, importable, and forgotten afterwards."""
    names = files(PAGE)
    assert set(names) == {"receipts.py", "handlers.py", "shop.py"}
    for name, text in names.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in names:
        sys.modules.pop(name.removesuffix(".py"), None)


async def test_the_example_after_the_move(project: Path, installed: Installation) -> None:
    """One job however often it is called, retried with Celery's pauses, and the later one not early."""
    settings, target = installed.settings, "handlers:jobs"
    worker = Worker(settings, load_registry(target), target)
    key, prefix = await installed.create_key(), settings.amqp.prefix
    shop = importlib.import_module("shop")

    def application() -> None:
        with Client(installed.amqp_url, key, prefix=prefix) as client:
            for _ in range(2):
                shop.order_paid(client, 1234, "ann@example.org")
            shop.order_paid(client, 1235, "bob@example.org")
            shop.order_paid_later(client, 1236, "cid@example.org")

    async with run_services(Intake(settings), Recorder(settings), worker):
        await asyncio.to_thread(application)
        found = {order: await installed.finished(f"receipt-{order}") for order in (1234, 1235, 1236)}
    assert {document["state"] for document in found.values()} == {"succeeded"}
    assert found[1234]["result"] == "receipt 1234 sent to ann@example.org"
    assert len(found[1234]["attempts"]) == 1
    retried = found[1235]["attempts"]
    assert [attempt["outcome"] for attempt in retried] == ["failed", "failed", "succeeded"]
    pauses = [(after["started_at"] - before["finished_at"]).total_seconds() for before, after in pairwise(retried)]
    assert pauses[0] >= 1
    assert pauses[1] >= 2
    later = found[1236]
    assert (later["attempts"][0]["started_at"] - later["accepted_at"]).total_seconds() >= 2


def test_the_example_before_the_move_is_the_same_work() -> None:
    """Celery's side is read, not run: its policy is the handler's."""
    (before,) = blocks("py", PAGE)
    compile(before, "tasks.py", "exec")
    assert "max_retries=4, retry_backoff=1, retry_jitter=False" in before
    assert "max_attempts=5, base=1, factor=2" in files(PAGE)["handlers.py"]
    assert before.count('"receipt.send"') == files(PAGE)["handlers.py"].count('"receipt.send"') == 1

"""Rounds of claims: a fault of ours in one does no harm to the other messages of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from dispatcher.core.claims import Claim
from dispatcher.core.verdicts import Job
from dispatcher.services.claiming import Claiming, Pending

pytestmark = pytest.mark.unit


class Ids:
    """Claims of ids, of which one name cannot be written."""

    def __init__(self) -> None:
        self.made: list[str] = []

    async def make(self, claims: Sequence[Claim]) -> dict[str, Claim | None]:
        """Make them, unless that one is among them."""
        names = [claim.name for claim in claims]
        if "shop:bad" in names:
            raise OverflowError("no such document")
        self.made += names
        return {}


class Store:
    """Where claims are made; history is empty, and no job has a key."""

    def __init__(self) -> None:
        self.ids = Ids()
        self.keys = MagicMock(make=self.nothing)

    async def nothing(self, _: Any) -> dict[str, Any]:
        """None of them."""
        return {}

    recorded = states = nothing


class Desk:
    """Notes what becomes of each job."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}
        self.all = asyncio.Event()

    def holds(self, _: Any) -> bool:
        """Always."""
        return True

    def _note(self, pending: Pending, what: str) -> None:
        self.said[pending.job.id] = what
        if len(self.said) == 3:
            self.all.set()

    def proceed(self, pending: Pending) -> None:
        """It is its own."""
        self._note(pending, "published")
        if pending.job.id == "unlucky" and not pending.again:
            raise RuntimeError("once")

    def failed(self, pending: Pending) -> None:
        """It is refused."""
        self._note(pending, "refused")


def _pending(job_id: str) -> Pending:
    claim = Claim(f"shop:{job_id}", job_id, "a.b", "default", "normal", 1, "d")
    job = MagicMock(spec=Job, id=job_id, id_claim=claim, key_claim=None)
    return Pending(MagicMock(), MagicMock(), cast(Job, job), False)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["good", "bad", "other"], {"good": "published", "bad": "refused", "other": "published"}),
        (["good", "unlucky", "other"], {"good": "published", "unlucky": "published", "other": "published"}),
    ],
)
async def test_a_fault_refuses_its_message_alone(ids: list[str], said: dict[str, str]) -> None:
    """The others of the round are published, and the next round is made."""
    desk = Desk()
    claiming = Claiming(MagicMock(), cast(Any, desk))
    claiming._store, claiming._answers = cast(Any, Store()), True
    claiming.start()
    try:
        for job_id in ids:
            claiming.add(_pending(job_id))
        await asyncio.wait_for(desk.all.wait(), 10)
        assert desk.said == said
        claiming.add(_pending("next"))
        await asyncio.wait_for(claiming.settle(), 10)
        assert desk.said["next"] == "published"
    finally:
        await claiming.stop()

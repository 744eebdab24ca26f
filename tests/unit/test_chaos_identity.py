"""The ledger of `make chaos`, of ids and unique keys: of made-up runs, each kind of discrepancy is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.ledger import Evidence
from tests.unit.test_chaos_ledger import FIRST, KEY, clean, executed, found

pytestmark = pytest.mark.unit


def _second_document(e: Evidence) -> None:
    e.documents.append(e.documents[0])


def _sent_again(e: Evidence) -> None:
    e.published.sent_again += 1


def _told_again(e: Evidence) -> None:
    e.documents[0]["resent"] = 1


def _duplicate_of_nobody(e: Evidence) -> None:
    e.documents[-1]["duplicate_of"] = "nobody"


def _duplicate_of_itself(e: Evidence) -> None:
    e.documents[-1]["duplicate_of"] = e.documents[-1]["id"]


def _duplicate_of_another_key(e: Evidence) -> None:
    e.documents[-1]["duplicate_of"] = e.documents[0]["id"]


def _duplicate_without_a_key(e: Evidence) -> None:
    e.documents[0] |= {"state": "duplicate", "duplicate_of": e.documents[1]["id"]}


def _duplicate_of_what_never_ran(e: Evidence) -> None:
    e.executions = [x for x in e.executions if x.job != FIRST]


def _duplicate_that_ran(e: Evidence) -> None:
    e.executions += executed(e.published.jobs[e.documents[-1]["id"]])


def _both_ran(e: Evidence) -> None:
    e.documents[-1]["state"] = "succeeded"


def _none_ran(e: Evidence) -> None:
    e.documents[-2] |= {"state": "duplicate", "duplicate_of": e.documents[-1]["id"]}


def one_after_the_other(e: Evidence, began: float) -> None:
    """Of the jobs with the key the second ran too, whose key is free at the end of the first (10.5)."""
    for doc in e.documents[-2:]:
        job = e.published.jobs[doc["id"]]
        e.published.jobs[job.id] = replace(job, fields={"unique": KEY | {"until": "final"}})
    second = replace(e.published.jobs[e.documents[-1]["id"]], fields={"unique": KEY | {"until": "final"}})
    e.documents[-1]["state"] = "succeeded"
    e.executions += executed(second, at=began)


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (_second_document, "ids with several documents"),
        (_sent_again, "sent again, miscounted"),
        (_told_again, "sent again, miscounted"),
        (_duplicate_of_nobody, "false duplicates"),
        (_duplicate_of_itself, "false duplicates"),
        (_duplicate_of_another_key, "false duplicates"),
        (_duplicate_without_a_key, "false duplicates"),
        (_duplicate_of_what_never_ran, "false duplicates"),
        (_duplicate_that_ran, "false duplicates"),
        (_both_ran, "unique keys shared"),
        (_none_ran, "unique keys shared"),
        (lambda e: one_after_the_other(e, 10.2), "unique keys shared"),
    ],
)
def test_discrepancy(spoil: Callable[[Evidence], None], check: str) -> None:
    """What was spoilt is reported by its check."""
    evidence = clean()
    spoil(evidence)
    assert check in found(evidence)


def test_a_key_that_was_given_free() -> None:
    """Its jobs may run one after the other."""
    evidence = clean()
    one_after_the_other(evidence, 10.5)
    assert "unique keys shared" not in found(evidence)

"""Filters of history, dead jobs by kind of error, and explanations, on documents as a recorder writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher.core.filters import JobFilter
from dispatcher.edges.mongo import query_of
from tests.processes import invoke
from tests.support import Installation

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC).replace(microsecond=0)
FRAME = 'File "/srv/app/billing.py", line {}, in send'


def job(number: int, **fields: Any) -> dict[str, Any]:
    """A document of ``jobs``, accepted so many minutes ago."""
    accepted = NOW - timedelta(minutes=number)
    doc = {"_id": f"shop:f-{number}", "v": 1, "rev": 0, "app": "shop", "id": f"f-{number}", "run": 1, "seq": 1}
    doc |= {"type": "email.send", "lane": "default", "priority": "normal", "state": "succeeded", "attempts": []}
    doc |= {"accepted_at": accepted, "finished_at": accepted, "payload": {}, "key_id": "k", "tags": []}
    return doc | fields


def failed(number: int, error: str, message: str, **fields: Any) -> dict[str, Any]:
    """A dead one."""
    error_fields = {"type": error, "message": message, "traceback": FRAME.format(number)}
    return job(number, state="failed", error=error_fields, **fields)


DOCUMENTS = [
    job(1),
    job(2, type="email.sort", priority="high"),
    job(3, type="report.build.daily", lane="bulk", tags=["red"]),
    job(4, state="queued", _id="stock:f-4", app="stock"),
    failed(5, "ConnectionError", "no answer from 10.0.0.1"),
    failed(6, "ConnectionError", "no answer from 10.0.0.2", type="email.sort"),
    failed(7, "ValueError", "bad", tags=["red"]),
    job(8, state="timed_out", error={"type": "TimeoutError", "message": "1 s"}),
]


@pytest.fixture(scope="module")
def history(installed: Installation) -> Installation:
    """The installation with the documents."""
    installed.db.jobs.insert_many(DOCUMENTS)
    return installed


FILTERS = [
    ("--state failed --state queued", [4, 5, 6, 7]),
    ("--app stock", [4]),
    ("--type email.send", [1, 4, 5, 7, 8]),
    ("--type email.*", [1, 2, 4, 5, 6, 7, 8]),
    ("--type report.#", [3]),
    ("--type *.sort --error ConnectionError", [6]),
    ("--tag red", [3, 7]),
    ("--lane bulk", [3]),
    ("--priority high", [2]),
    ("--error ConnectionError", [5, 6]),
    ("--since 210s", [1, 2, 3]),
    ("--until 330s", [6, 7, 8]),
    (f"--since {(NOW - timedelta(minutes=3)).isoformat()} --until {(NOW - timedelta(minutes=1)).isoformat()}", [2, 3]),
    ("--app nobody", []),
    ("--type email.# --limit 2", [1, 2]),
]


@pytest.mark.parametrize(("options", "numbers"), FILTERS, ids=map(str, range(len(FILTERS))))
def test_each_filter_finds_its_jobs(history: Installation, options: str, numbers: list[int]) -> None:
    """The last accepted first, and no other; how long ago is counted from when the documents were made."""
    age = round((datetime.now(UTC) - NOW).total_seconds())
    options = re.sub(r"(\d+)s\b", lambda match: f"{int(match[1]) + age}s", options)
    finished = invoke(history, "jobs", "list", "--json", *options.split())
    assert finished.code == 0, finished.err
    assert [document["id"] for document in finished.json] == [f"f-{number}" for number in numbers]


def test_dead_jobs_are_grouped_by_error(history: Installation) -> None:
    """Two troubles of one fingerprint are one row; it finds its jobs again; --json stays an array of jobs."""
    groups = invoke(history, "dead", "list", "--groups", "--json").json
    assert [(group["count"], group["error"]["type"]) for group in groups] == [
        (2, "ConnectionError"), (1, "ValueError"), (1, "TimeoutError"),
    ]  # fmt: skip
    connection = groups[0]
    assert connection["types"] == {"email.send": 1, "email.sort": 1}
    assert connection["frame"] == "app/billing.py:send"
    assert connection["example"] == "shop:f-5"
    assert connection["first_seen"] < connection["last_seen"]
    table = invoke(history, "dead", "list")
    assert connection["fingerprint"] in table.out
    assert "4 dead jobs, 3 kinds of error" in table.err
    flat = invoke(history, "dead", "list", "--flat")
    assert all(f"f-{number}" in flat.out for number in (5, 6, 7, 8))
    found = invoke(history, "dead", "list", "--fingerprint", connection["fingerprint"], "--json").json
    assert [document["id"] for document in found] == ["f-5", "f-6"]
    one = invoke(history, "dead", "list", "--fingerprint", connection["fingerprint"], "--limit", "1", "--json").json
    assert [document["id"] for document in one] == ["f-5"]


@pytest.mark.parametrize(
    ("options", "says"),
    [("--since yesterday", "how long ago"), ("--type em*il", "type pattern"), ("--flat --groups", "exclude")],
)
def test_a_filter_that_is_none_is_refused(history: Installation, options: str, says: str) -> None:
    """Exit code 2, with what to write."""
    finished = invoke(history, "dead", "list", *options.split())
    assert finished.code == 2
    assert says in finished.err


def test_a_job_is_explained(history: Installation) -> None:
    """Sentences, then commands; the same in JSON."""
    plain = invoke(history, "jobs", "explain", "f-5")
    shown = invoke(history, "jobs", "explain", "shop:f-5", "--json").json
    assert shown["state"] == "failed"
    assert "ConnectionError: no answer from 10.0.0.1" in plain.out
    assert all(sentence in plain.out for sentence in shown["sentences"])
    assert "dispatcher dead replay shop:f-5" in [command["command"] for command in shown["commands"]]
    missing = invoke(history, "jobs", "explain", "f-99")
    assert missing.code == 1
    assert "no job f-99" in missing.err


@pytest.mark.parametrize(
    ("where", "most"),
    [
        (JobFilter(), 50),
        (JobFilter(states=("failed",)), 50),
        (JobFilter(states=("failed", "timed_out")), 60),
        (JobFilter(app="rare"), 3),
        (JobFilter(type="rare.type"), 3),
        (JobFilter(type="rare.*"), 3),
        (JobFilter(tag="rare"), 3),
        (JobFilter(error="RareError"), 3),
        (JobFilter(states=("failed",), error="RareError"), 3),
        (JobFilter(lane="rare"), 400),
    ],
    ids=lambda value: "" if isinstance(value, int) else str(query_of(value)),
)
def test_a_filter_reads_about_what_it_finds(history: Installation, where: JobFilter, most: int) -> None:
    """Each has an index for what is rare; a lane alone is looked for from the last accepted on."""
    jobs = history.mongo[history.settings.mongo.database + "-explained"].jobs
    jobs.drop()
    try:
        for index in history.db.jobs.list_indexes():
            rest = {k: index[k] for k in ("partialFilterExpression",) if k in index}
            jobs.create_index(list(index["key"].items()), **rest)
        jobs.insert_many(
            [
                job(number + 100, state="failed" if number % 3 == 0 else "succeeded", error=_common(number))
                for number in range(400)
            ]
        )
        rare = {"app": "rare", "type": "rare.type", "tags": ["rare"], "lane": "rare"}
        jobs.insert_many([failed(number, "RareError", "x", _id=f"rare:{number}", **rare) for number in range(600, 602)])
        plan = jobs.find(query_of(where)).sort("accepted_at", -1).limit(50).explain()
        assert plan["executionStats"]["totalDocsExamined"] <= most + 2
        assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"])
    finally:
        history.mongo.drop_database(history.settings.mongo.database + "-explained")


def _common(number: int) -> dict[str, Any] | None:
    return {"type": "CommonError", "message": "x"} if number % 3 == 0 else None

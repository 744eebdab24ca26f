"""Metrics of real services: after a run of every kind of job, everything that docs/metrics.md lists is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from dispatcher import __version__
from dispatcher.edges import metrics
from tests.conftest import make_settings
from tests.processes import ServiceProcess
from tests.support import Installation, eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

COMMANDS = {
    "intake": ("run", "intake"),
    "recorder": ("run", "recorder"),
    "scheduler": ("run", "scheduler"),
    "worker": ("worker", "examples.handlers:jobs"),
}
QUICK = {"DISPATCHER_SCHEDULER__DEPTH_INTERVAL": "0.2", "DISPATCHER_WORKER__LANES": '["default"]'}

Fleet = dict[str, ServiceProcess]
#: Sample name and labels to value.
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fleet(installed: Installation) -> AsyncIterator[Fleet]:
    """One process a service."""
    made = {name: ServiceProcess(installed, *command, env=QUICK) for name, command in COMMANDS.items()}
    try:
        await asyncio.gather(*(service.__aenter__() for service in made.values()))
        for service in made.values():
            await service.ready()
        yield made
    finally:
        await asyncio.gather(*(service.__aexit__() for service in made.values() if service.process))


async def scraped(service: ServiceProcess) -> tuple[set[str], Samples]:
    """The names of what has samples, and all samples."""
    status, text = await service.get("/metrics")
    assert status == 200
    names, samples = set(), {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            names.add(family.name + ("_total" if family.type == "counter" else ""))
            samples[sample.name, frozenset(sample.labels.items())] = sample.value
    return names, samples


def value(samples: Samples, name: str, **labels: str) -> float:
    """One sample, 0 where it is not there."""
    return samples.get((name, frozenset(labels.items())), 0.0)


def total(samples: Samples, name: str) -> float:
    """All samples of a name together."""
    return sum(number for (found, _), number in samples.items() if found == name)


async def until(service: ServiceProcess, condition: Callable[[Samples], bool], what: str) -> Samples:
    """The samples of a service, once they are as wanted."""

    async def look() -> Samples | None:
        samples = (await scraped(service))[1]
        return samples if condition(samples) else None

    found: Samples = await eventually(look, what, every=0.1)
    return found


async def test_after_a_run_every_metric_has_its_values(installed: Installation, fleet: Fleet) -> None:
    """Successes, failures with a retry, refusals, a key that is not there, jobs in a lane that nobody serves."""
    key = await installed.create_key()
    jobs = [("demo.echo", {"id": f"echo-{n}", "priority": "high" if n % 2 else "low"}) for n in range(20)]
    bulk = [("demo.echo", {"id": f"bulk-{n}", "lane": "bulk", "priority": "background"}) for n in range(3)]
    flaky = ("demo.flaky", {"id": "flaky", "payload": {"failures": 1}, "retry": {"base": 0.25}})
    later = ("demo.flaky", {"id": "later", "payload": {"failures": 9}, "retry": {"base": 80}})
    dead = ("demo.flaky", {"id": "dead", "payload": {"failures": 9}, "retry": {"max_attempts": 1}})
    installed.publish_many([*jobs, *bulk, flaky, later, dead, ("demo.echo", {"id": "not/good"})], key)
    installed.publish("demo.echo", {}, (await installed.create_key())[:-1] + "?")
    for job_id in ("flaky", "dead", *(str(body["id"]) for _, body in jobs)):
        await installed.finished(job_id)
    await eventually(lambda: installed.job("later", "shop")["attempts"], "the one that waits was tried")  # type: ignore[index]

    intake = await until(fleet["intake"], lambda s: total(s, "dispatcher_jobs_refused_total") == 2, "two are refused")
    assert value(intake, "dispatcher_jobs_accepted_total", lane="default", priority="high") == 10
    assert value(intake, "dispatcher_app_accepted_total", app="shop") == 26
    assert value(intake, "dispatcher_app_refused_total", app="shop") == 1  # the other one is no application's
    assert value(intake, "dispatcher_jobs_refused_total", code="malformed_key") == 1
    assert value(intake, "dispatcher_jobs_refused_total", code="invalid_field") == 1
    assert value(intake, "dispatcher_key_cache_lookups_total", result="hit") >= 26
    await until(fleet["intake"], lambda s: value(s, "dispatcher_key_cache_keys") == 2, "both keys are in memory")
    repeated = "dispatcher_app_repeated_total"
    await until(fleet["intake"], lambda s: any(name == repeated for name, _ in s), "applications with keys are known")
    assert 0 <= value(intake, "dispatcher_key_cache_age_seconds") < 30

    worker = await until(fleet["worker"], lambda s: total(s, "dispatcher_attempts_total") == 24, "24 executions ended")
    for priority, number in (("high", 10), ("low", 10), ("normal", 4)):
        labels = {"lane": "default", "priority": priority}
        assert value(worker, "dispatcher_starts_total", **labels) == number
        assert value(worker, "dispatcher_job_wait_seconds_count", **labels) == number
    assert value(worker, "dispatcher_type_wait_seconds_count", type="demo.echo") == 20
    assert value(worker, "dispatcher_type_run_seconds_count", type="demo.flaky") == 4
    assert value(worker, "dispatcher_type_attempts_total", type="demo.flaky", outcome="failed") == 3
    assert value(worker, "dispatcher_job_run_seconds_count", lane="default") == 24
    assert value(worker, "dispatcher_attempts_total", lane="default", outcome="failed") == 3
    assert value(worker, "dispatcher_retries_total", lane="default") == 2
    assert value(worker, "dispatcher_jobs_final_total", lane="default", state="failed") == 1
    assert value(worker, "dispatcher_publish_confirm_seconds_count", role="worker") >= 1

    recorder = await until(
        fleet["recorder"], lambda s: value(s, "dispatcher_events_recorded_total") >= 26 + 24 + 1, "events are recorded"
    )
    writes = value(recorder, "dispatcher_record_seconds_count")
    assert writes == value(recorder, "dispatcher_event_lag_seconds_count") >= 1
    assert 0 < value(recorder, "dispatcher_event_lag_seconds_sum") < 60 * writes
    assert value(recorder, "dispatcher_record_batch_events_sum") == value(recorder, "dispatcher_events_recorded_total")

    names = set.union(*[(await scraped(service))[0] for service in fleet.values()])
    # labelled by application, and no key of this test ends
    assert {each.name for each in metrics.ALL} - names == {"dispatcher_app_key_expiry_seconds"}


async def test_depths_and_ages_are_what_waits(installed: Installation, fleet: Fleet) -> None:
    """Of jobs that no worker takes, of a retry in the ladder, of parked and rejected messages."""
    key = await installed.create_key()
    installed.publish_many([("demo.echo", {"lane": "bulk", "priority": "critical"}) for _ in range(4)], key)
    where = {"lane": "bulk", "priority": "critical"}

    def as_published(samples: Samples) -> bool:
        oldest = value(samples, "dispatcher_oldest_job_age_seconds", **where)
        return value(samples, "dispatcher_work_ready", **where) == 4 and oldest > 0

    before = await until(fleet["scheduler"], as_published, "four jobs wait")
    age = value(before, "dispatcher_oldest_job_age_seconds", **where)
    assert age < 120
    await until(
        fleet["scheduler"],
        lambda s: value(s, "dispatcher_oldest_job_age_seconds", **where) >= age + 0.5,
        "the oldest grows older",
    )
    assert value(before, "dispatcher_oldest_job_age_seconds", lane="bulk", priority="high") == 0
    assert sum(number for (name, _), number in before.items() if name == "dispatcher_retries_waiting") == 1
    assert value(before, "dispatcher_queue_ready", queue="parked.v1.default") == 1
    assert value(before, "dispatcher_queue_ready", queue="rejected") == 2
    assert value(before, "dispatcher_queue_consumers", queue="intake.v1") == 1
    assert value(before, "dispatcher_queue_consumers", queue="work.v1.default.low") == 1
    assert value(before, "dispatcher_queue_consumers", queue="work.v1.bulk.low") == 0
    assert value(before, "dispatcher_queues_missing") == 0


async def test_a_job_that_was_due_and_has_not_begun_is_overdue(installed: Installation, fleet: Fleet) -> None:
    """It left the ladder for a lane that nobody serves; the retry of the first test is still to come."""
    installed.publish("demo.echo", {"id": "late", "lane": "bulk", "delay": 0.5}, await installed.create_key())
    late = {"lane": "bulk", "state": "scheduled"}
    grows: list[float] = []
    for least in (0.1, 1.0):
        samples = await until(
            fleet["scheduler"],
            lambda s, least=least: value(s, "dispatcher_overdue_seconds", **late) > least,
            "it is late",
        )
        grows.append(value(samples, "dispatcher_overdue_seconds", **late))
    assert grows[1] - grows[0] < 60
    assert value(samples, "dispatcher_overdue_seconds", lane="default", state="retrying") == 0
    assert value(samples, "dispatcher_overdue_seconds", lane="default", state="scheduled") == 0


async def test_every_service_shows_its_checks_and_its_version(fleet: Fleet) -> None:
    """What /readyz says, as numbers, and counters that begin at 0 for all that is known beforehand."""
    for role, service in fleet.items():
        _, samples = await scraped(service)
        checks = json.loads((await service.get("/readyz"))[1])["checks"]
        shown = {
            dict(labels)["check"]: found for (name, labels), found in samples.items() if name == "dispatcher_ready"
        }
        assert shown == {name.removeprefix(f"{role}."): 1.0 for name in checks}
        assert value(samples, "dispatcher_build_info", version=__version__) == 1
        assert samples["dispatcher_publishing_blocked", frozenset({("role", role)})] == 0
    _, samples = await scraped(fleet["worker"])
    for name in ("suspects", "worker_given_back", "deadlines_breached", "jobs_unhandled"):
        assert samples[f"dispatcher_{name}_total", frozenset({("lane", "default")})] == 0
    _, samples = await scraped(fleet["intake"])
    assert samples["dispatcher_app_repeated_total", frozenset({("app", "shop"), ("found", "resent")})] == 0


async def test_a_queue_that_is_missing_is_counted_and_the_others_are_shown(
    installed: Installation, fleet: Fleet
) -> None:
    """A passive declaration of it costs the channel, not the figures."""
    queue = installed.names.suspect("bulk")
    with installed.channel() as channel:
        channel.queue_delete(queue)
    samples = await until(fleet["scheduler"], lambda s: value(s, "dispatcher_queues_missing") == 1, "it is missing")
    assert ("dispatcher_queue_ready", frozenset({("queue", "suspect.v1.bulk")})) not in samples
    assert ("dispatcher_queue_ready", frozenset({("queue", "unrecorded.v1")})) in samples
    await asyncio.to_thread(installed.apply)
    await until(fleet["scheduler"], lambda s: value(s, "dispatcher_queues_missing") == 0, "it is back")


@pytest.mark.parametrize("away", ["amqp", "mongo"])
async def test_what_cannot_be_asked_has_no_value(away: str) -> None:
    """With a server away its figures are absent, those of the other are there."""
    overrides = {"DISPATCHER_SCHEDULER__DEPTH_INTERVAL": "0.2"}
    installation = Installation(make_settings(**overrides))
    await asyncio.to_thread(installation.apply)
    url = {"amqp": "amqp://guest:guest@127.0.0.1:9/", "mongo": "mongodb://127.0.0.1:9/"}[away]
    env = {**overrides, f"DISPATCHER_{away.upper()}__URL": url}
    try:
        async with ServiceProcess(installation, "run", "scheduler", env=env) as service:
            shown, hidden = "dispatcher_work_ready", "dispatcher_oldest_job_age_seconds"
            if away == "amqp":
                shown, hidden = hidden, shown
            await until(service, lambda s: any(name == shown for name, _ in s), f"{shown} has values")
            names, samples = await scraped(service)
            assert hidden not in names
            assert ("dispatcher_overdue_seconds" in names) == (away == "amqp")
            check = {"amqp": "publisher", "mongo": "database"}[away]
            assert samples["dispatcher_ready", frozenset({("role", "scheduler"), ("check", check)})] == 0
    finally:
        await asyncio.to_thread(installation.remove)

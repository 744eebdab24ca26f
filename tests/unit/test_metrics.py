"""Metrics: one list that says what there is, the page that says the same, and labels that cannot grow without end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from dispatcher.core.labels import MAX_LABELS, OTHER, BoundedLabels
from dispatcher.edges import meters, metrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_list_has_every_metric_of_ours_and_no_other() -> None:
    """What is exposed under our name is in `ALL`, with the same type and help, and the other way round."""
    exposed = {
        family.name + ("_total" if family.type == "counter" else ""): (family.type, family.documentation)
        for family in REGISTRY.collect()
        if family.name.startswith("dispatcher_")
    }
    assert {each.name: (each.kind, each.help) for each in metrics.ALL} == exposed


def test_the_page_has_every_metric_with_its_type_unit_labels_and_help() -> None:
    """docs/metrics.md has a row for each, in the code's order, and says what the code says."""
    rows = re.findall(r"^\| `(dispatcher_\w+)` \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    shown = [(name, *[cell.strip() for cell in cells.split(" | ")][:5]) for name, cells in rows]
    assert shown == [
        (
            each.name,
            each.kind,
            each.unit,
            ", ".join(f"`{label}`" for label in each.labels) or "—",
            ", ".join(each.services),
            each.help,
        )
        for each in metrics.ALL
    ]


def test_names_end_as_their_type_and_unit_demand() -> None:
    """Counters in _total; whatever is in seconds says so."""
    for each in metrics.ALL:
        assert each.name.endswith("_total") == (each.kind == "counter"), each.name
        assert ("_seconds" in each.name) == (each.unit == "seconds"), each.name


def test_every_metric_that_a_page_names_exists() -> None:
    """Questions to Prometheus, and other pages, name no metric that is not there; series of rules have colons."""
    known = {each.name for each in metrics.ALL}
    for page in PAGE.parent.rglob("*.md"):
        for name in re.findall(r"(?<![\w:])dispatcher_[a-z_]+", page.read_text()):
            plain = re.sub(r"_(bucket|count|sum)$", "", name)
            assert plain in known, f"{page.name}: {name}"


def test_types_share_a_label_once_there_are_many() -> None:
    """A client that invents types makes no series without end; those reserved keep their own."""
    labels = BoundedLabels()
    labels.reserve(["mail.send", "mail.read"])
    for number in range(10 * MAX_LABELS):
        labels.of(f"invented.{number}")
    assert labels.of("mail.send") == "mail.send"
    assert labels.of("invented.0") == "invented.0"
    assert labels.of("invented.9999") == OTHER
    seen = {labels.of(f"invented.{number}") for number in range(10 * MAX_LABELS)} | {"mail.send", "mail.read"}
    assert len(seen) == MAX_LABELS + 1


def test_a_type_that_is_called_other_is_counted_with_the_rest() -> None:
    """It has no label that could be mistaken."""
    labels = BoundedLabels(2)
    assert [labels.of(each) for each in ("a", "other", "b", "c")] == ["a", "other", "b", "other"]


def test_what_is_not_known_any_more_has_no_value() -> None:
    """A gauge that is shown anew forgets the rest."""
    metrics.show(metrics.work_ready, {("default", "high"): 3, ("default", "low"): 1})
    metrics.show(metrics.work_ready, {("default", "high"): 2})
    assert values("dispatcher_work_ready") == {"high": 2}
    metrics.show(metrics.work_ready, {})
    assert values("dispatcher_work_ready") == {}


def values(name: str) -> dict[str, float]:
    """The values of a gauge, by priority."""
    text = metrics.render()[0].decode()
    (family,) = [family for family in text_string_to_metric_families(text) if family.name == name]
    return {sample.labels["priority"]: sample.value for sample in family.samples}


@pytest.mark.parametrize("name", ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"])
def test_the_process_tells_of_itself(name: str) -> None:
    """Resources stand on the same page, under the names that dashboards know."""
    assert f"\n{name} " in metrics.render()[0].decode()


def test_no_series_tells_when_it_was_made() -> None:
    """It would double the page and says nothing that the process's start does not."""
    metrics.of(metrics.starts, "default", "high").inc()
    assert "_created" not in metrics.render()[0].decode()


def test_a_process_without_keys_raises_no_alarm() -> None:
    """The time until the first key ends is infinite where no key is known; 0 would say: now."""
    command = "from dispatcher.edges import metrics; print(metrics.render()[0].decode())"
    page = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout
    assert "\ndispatcher_key_first_expiry_seconds +Inf\n" in page


def test_no_label_has_a_name_that_targets_have() -> None:
    """Prometheus would rename ours: Kubernetes' monitors give each target these labels."""
    taken = {"service", "job", "instance", "pod", "namespace", "container", "endpoint", "node", "cluster"}
    assert not {label for each in metrics.ALL for label in each.labels} & taken


def test_applications_share_a_label_once_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those without a label of their own are counted together, and all begin at 0."""
    for counter in (metrics.app_accepted, metrics.app_refused):
        counter.clear()  # other tests of this process count too
    metrics.of.cache_clear()  # and it knows the children that are gone
    monkeypatch.setattr(meters, "apps", BoundedLabels(2))
    meters.know_apps(["one", "two", "three"])
    meters.admitted("three", "default", "high")
    meters.admitted("four", "default", "high")
    meters.turned_away("one", "forbidden")
    meters.turned_away(None, "unknown_key")
    accepted, refused = (
        {sample.labels["app"]: sample.value for sample in family.samples}
        for family in text_string_to_metric_families(metrics.render()[0].decode())
        if family.name in ("dispatcher_app_accepted", "dispatcher_app_refused")
    )
    assert (accepted["one"], accepted["two"], accepted["other"]) == (0, 0, 2)
    assert (refused["one"], refused["other"]) == (1, 0)
    assert "three" not in accepted

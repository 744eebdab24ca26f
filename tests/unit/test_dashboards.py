"""The dashboards' files: made from their description, known to Grafana, and about metrics that there are."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev import dashboards
from dev.dashboards import FOLDER
from dev.dashboards.asked import Filling, captured, names, panels, questions
from dispatcher.edges import metrics
from tests.pictures import units
from tests.unit.grafana import complaints

DOCS = Path(__file__).parents[2] / "docs"
RULES = FOLDER.parent / "rules"
FILES = sorted(FOLDER.glob("*.json"))
IDS = [path.stem for path in FILES]
#: Names that client libraries give to what they measure of a process.
USUAL = re.compile(r"process_\w+|python_gc_\w+|rabbitmq_\w+|erlang_vm_\w+")
NAME = re.compile(r"\b(?:dispatcher|process|python|rabbitmq|erlang)_\w+(?=[{\[ )*]|$)")


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def named(text: str) -> set[str]:
    """Metrics in a query."""
    return set(NAME.findall(text))


def shown() -> set[str]:
    """What our processes show: of histograms the series, of each metric its name."""
    found = set()
    for metric in metrics.ALL:
        found |= (
            {f"{metric.name}{end}" for end in ("_bucket", "_sum", "_count")} if metric.kind == "histogram" else set()
        )
        found.add(metric.name)
    return found


def test_the_files_are_what_make_dashboards_writes() -> None:
    """No more and no less."""
    assert {path.name for path in FILES} == {f"{each.name}.json" for each in dashboards.ALL}
    for each in dashboards.ALL:
        assert dashboards.path_of(each).read_text() == dashboards.text_of(each), "run `make dashboards`"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_grafana_knows_every_field_and_value(path: Path) -> None:
    """As its published types have them."""
    assert complaints(read(path)) == []


def test_what_grafana_does_not_know_is_found() -> None:
    """A field with a wrong name, and a value of an enumeration with one."""
    document = read(FILES[0])
    panel = next(panel for panel in document["panels"] if panel["type"] == "timeseries")
    panel["fieldConfig"]["defaults"]["unitt"] = "s"
    panel["options"]["legend"]["placement"] = "somewhere"
    panel["gridPos"]["w"] = "8"
    found = "\n".join(complaints(document))
    assert "unitt is not known" in found
    assert "placement is 'somewhere'" in found
    assert "w is '8'" in found


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_panels_fill_the_grid_and_do_not_overlap(path: Path) -> None:
    """24 columns, each cell taken once, no gap."""
    taken: dict[tuple[int, int], str] = {}
    for panel in read(path)["panels"]:
        at = panel["gridPos"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]
    assert {x for x, _ in taken} == set(range(24))
    assert len(taken) == 24 * (max(y for _, y in taken) + 1)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_panel_says_what_it_means(path: Path) -> None:
    """What it shows, what is normal, what to do; a unit; a name for each series."""
    for panel in panels(read(path)):
        assert "Normal: " in panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert all(target["legendFormat"] for target in panel["targets"])


def test_every_metric_asked_for_exists_and_every_metric_is_asked_for() -> None:
    """The dashboards and `metrics.ALL` are held equal; the run of tests/integration/test_monitoring.py has the rest."""
    asked = {name for path in FILES for question in questions(read(path)) for name in named(question.expr)}
    ours = {name for name in asked if not USUAL.fullmatch(name)}
    assert ours - shown() == set()
    stems = {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours} | ours
    assert {metric.name for metric in metrics.ALL} - stems == set()


def test_addresses_are_one_for_each_and_stay() -> None:
    """People and alerts link to them."""
    documents = [read(path) for path in FILES]
    assert [document["uid"] for document in documents] == [f"job-dispatcher-{path.stem}" for path in FILES]
    assert all(len(document["uid"]) <= 40 for document in documents)
    links = re.findall(r"/d/([\w-]+)\?", "".join(path.read_text() for path in FILES))
    assert set(links) <= {document["uid"] for document in documents}
    assert links


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_dashboard_chooses_its_prometheus(path: Path) -> None:
    """No panel names a data source of its own, and no panel or dashboard has an id of one Grafana."""
    document = read(path)
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert all(target["datasource"] == source for panel in panels(document) for target in panel["targets"])
    assert document["templating"]["list"][0]["type"] == "datasource"
    assert "id" not in document
    assert all("id" not in panel for panel in document["panels"])


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_colours_change_in_order(path: Path) -> None:
    """Grafana wants thresholds from the lowest on, the first without a value."""
    for panel in panels(read(path)):
        first, *others = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert first is None
        assert all(one < other for one, other in pairwise(others))


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_variable_of_a_query_is_a_choice(path: Path) -> None:
    """Filled in, no variable is left."""
    document = read(path)
    filling = Filling(15, 15, 3600, {name: ["one", "two.v1"] for name in names(document)})
    for question in questions(document):
        assert not re.search(r"\$\D", filling.fill(question.expr))


def test_variables_are_filled_in_as_grafana_does_it() -> None:
    """All is everything; one value is itself; several are alternatives, with what is special escaped."""
    expr = 'x{a=~"$a"}[$__rate_interval]'
    assert Filling(15, 5, 3600, {"a": []}).fill(expr) == 'x{a=~".*"}[60s]'
    assert Filling(15, 120, 3600, {"a": ["b"]}).fill(expr) == 'x{a=~"b"}[135s]'
    assert Filling(1, 1, 60, {"a": ["b.c", "d"]}).fill(expr) == 'x{a=~"(b\\\\.c|d)"}[4s]'
    with pytest.raises(ValueError, match="without a value"):
        Filling(1, 1, 60, {}).fill(expr)


def test_a_prefix_is_taken_out_of_a_queue_s_name() -> None:
    """As the choice of a prefix does it."""
    assert captured(["a.intake.v1", "intake.v1"], r"/(.*)intake\.v1/") == ["", "a."]


def test_the_page_shows_every_dashboard() -> None:
    """Its question, and a picture that is not too large for a page."""
    page = (DOCS / "dashboards.md").read_text()
    for each in dashboards.ALL:
        assert f"\n## {each.title}\n" in page
        assert f"| {each.says} |" in page
        picture = DOCS / "images" / f"dashboard-{each.name}.png"
        assert f"(images/{picture.name})" in page
        assert picture.stat().st_size < 200_000


def test_the_page_names_every_alert() -> None:
    """With the dashboard that it belongs to, and none that does not exist."""
    groups = [group for path in RULES.glob("*.yaml") for group in yaml.safe_load(path.read_text())["groups"]]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    assert set(re.findall(r"`(Dispatcher\w+)`", (DOCS / "dashboards.md").read_text())) == alerts


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0, "s", "0 s"),
        (0.00042, "s", "420 µs"),
        (0.9999, "s", "1.00 s"),
        (90, "s", "1.50 min"),
        (2 * 86_400, "s", "2 days"),
        (0.1234, "percentunit", "12.3%"),
        (1536, "bytes", "1.50 KiB"),
        (4_010, "short", "4.01 K"),
        (3.25, "suffix: /s", "3.25 /s"),
    ],
)
def test_pictures_write_numbers_with_their_unit(value: float, unit: str, words: str) -> None:
    """As Grafana does."""
    assert units.shown(value, unit, None) == words

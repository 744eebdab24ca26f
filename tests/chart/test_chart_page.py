"""docs/deploy-kubernetes.md: its value files and names are those of the chart, its rights those that were tried."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dev.helm import CHART, ROOT
from tests.chart.charts import MINIMAL, helm, of_kind, pods, rendered

PAGE = (ROOT / "docs" / "deploy-kubernetes.md").read_text(encoding="utf-8")
VALUES = [
    block for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if "apiVersion" not in block
]


@pytest.mark.parametrize("block", VALUES, ids=[block.split("\n", 1)[0] for block in VALUES])
def test_its_values_are_taken(block: str, tmp_path: Path) -> None:
    """Each example over the minimal one, by the schema and by the templates."""
    values = tmp_path / "values.yaml"
    values.write_text(block)
    more = ("--set", "servers.managementKey=management-url,config.lanes={default,slow}")
    done = helm("template", "jobs", CHART, "--values", MINIMAL, *more, "--values", values)
    assert done.returncode == 0, done.stderr


def test_the_first_example_is_complete(tmp_path: Path) -> None:
    """Nothing else is needed for it."""
    values = tmp_path / "values.yaml"
    values.write_text(VALUES[0])
    assert "# my-values.yaml" in VALUES[0]
    manifests = rendered(values)
    assert {pod.owner for pod in pods(manifests)} >= {"Job/rel-job-dispatcher-topology"}


def test_it_names_what_there_is() -> None:
    """Commands name resources by names that the release `jobs` has."""
    done = helm("template", "jobs", CHART, "--namespace", "jobs", "--values", MINIMAL)
    manifests = [each for each in yaml.safe_load_all(done.stdout) if each]
    for kind, word in (("Deployment", "deployment"), ("Job", "job")):
        named = set(re.findall(rf"\b{word}/([a-z-]+)", PAGE))
        assert named
        assert named <= of_kind(manifests, kind).keys()


def test_every_value_that_it_names_exists() -> None:
    """As `image.tag`, in code."""
    known = yaml.safe_load((CHART / "values.yaml").read_text())
    named = set(re.findall(r"`((?:{})\.[A-Za-z.*]+)`".format("|".join(known)), PAGE))
    assert len(named) > 10
    for path in named:
        parts = path.split(".")
        if parts[0] in ("workers", "config"):
            continue
        here = known
        for part in parts:
            here = next(iter(here.values())) if part == "*" else here[part]


def test_rights_are_those_that_were_tried() -> None:
    """Each regular expression of deploy/compose/users.yaml for services, workers and clients, without a prefix."""
    users = yaml.safe_load((ROOT / "deploy" / "compose" / "users.yaml").read_text())["rabbitmq"]
    for user in ("dispatcher", "worker", "client"):
        for right in ("configure", "write", "read"):
            expression = users[user][right].replace("PREFIX", "")
            assert any(f"'{expression}'" in line for line in PAGE.splitlines()), f"{user}: {right} {expression}"

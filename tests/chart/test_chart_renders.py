"""The chart with the real Helm: it lints, renders, packages, and every manifest fits Kubernetes' own schemas."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from dev.helm import CHART
from dispatcher import __version__
from tests.chart.charts import MINIMAL, PRODUCTION, VALUE_FILES, helm, of_kind, pods, rendered, rendered_text

each_file = pytest.mark.parametrize("values", VALUE_FILES, ids=lambda path: path.stem)
#: The oldest that Chart.yaml allows, one between, and the newest whose schemas we have.
KUBERNETES = ("1.27", "1.32", kubernetes_validate.latest_version())
#: Of operators: there is no schema of them here, so other tests say what must be in them.
REPOSITORY = "registry.example.org/platform/job-dispatcher"
CUSTOM = {"TriggerAuthentication", "ScaledObject", "PodMonitor", "ServiceMonitor", "PrometheusRule"}


@each_file
def test_it_lints(values: Path) -> None:
    """Warnings count too."""
    done = helm("lint", "--strict", CHART, "--values", values)
    assert done.returncode == 0, done.stdout + done.stderr


@each_file
def test_manifests_fit_kubernetes_schemas(values: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strictly, where an unknown field is an error, for several versions; custom resources are those that we know."""
    monkeypatch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
    seen = Counter[str]()
    for manifest in rendered(values):
        kind = manifest["kind"]
        if kind in CUSTOM:
            assert manifest["apiVersion"] in ("keda.sh/v1alpha1", "monitoring.coreos.com/v1")
            continue
        for version in KUBERNETES:
            kubernetes_validate.validate(manifest, version, strict=True)
        seen[kind] += 1
    assert seen["Deployment"] >= 4


def test_what_does_not_fit_is_found() -> None:
    """The check above can fail: a misspelled field, and a word for a number."""
    deployment = next(iter(of_kind(rendered(MINIMAL), "Deployment").values()))
    deployment["spec"]["template"]["spec"]["automountServiceAccountTokn"] = False
    with pytest.raises(kubernetes_validate.ValidationError, match="automountServiceAccountTokn"):
        kubernetes_validate.validate(deployment, KUBERNETES[0], strict=True)


@each_file
def test_rendering_twice_gives_the_same(values: Path) -> None:
    """Nothing by chance or by the clock: a GitOps tool sees no change where there is none."""
    again = rendered_text.__wrapped__(values)
    assert again == rendered_text(values)


@each_file
def test_names_are_not_given_twice(values: Path) -> None:
    """Two resources of one kind have two names, but that hooks may come before their like."""
    names = Counter((m["kind"], m["metadata"]["name"]) for m in rendered(values))
    assert max(names.values()) == 1, names.most_common(2)


def test_the_package_renders_as_the_folder(tmp_path: Path) -> None:
    """`helm package` takes all that is needed, and nothing of its value files."""
    done = helm("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.tgz")
    assert rendered_text(PRODUCTION, chart=package) == rendered_text(PRODUCTION)


def test_versions_are_the_projects() -> None:
    """The image's tag, where none is given, is this version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


def test_a_newer_chart_keeps_what_is_immutable(tmp_path: Path) -> None:
    """Selectors are as they were, so that an upgrade can be applied; pods are as they were but for the image."""
    done = helm("package", CHART, "--version", "9.9.9", "--app-version", "9.9.9", "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    newer = rendered(MINIMAL, chart=tmp_path / "job-dispatcher-9.9.9.tgz")
    older = rendered(MINIMAL)
    for kind in ("Deployment", "PodDisruptionBudget", "NetworkPolicy"):
        before, after = of_kind(older, kind), of_kind(newer, kind)
        assert before.keys() == after.keys()
        for name in before:
            for key in ("selector", "podSelector"):
                assert before[name]["spec"].get(key) == after[name]["spec"].get(key)
    for old, new in zip(pods(older), pods(newer), strict=True):
        if not old.owner.startswith("Pod/"):  # that of the test is made anew each time
            assert old.labels == new.labels
        own_image = old.container["image"].endswith("mail:7")
        assert new.container["image"] == (old.container["image"] if own_image else f"{REPOSITORY}:9.9.9")


def test_notes_say_what_to_do_next() -> None:
    """And name what is there: the Deployments, the lanes without a worker, the bundled servers."""
    notes = _notes(MINIMAL)
    assert "helm test rel --namespace jobs --logs" in notes
    assert "deployment/rel-job-dispatcher-intake" in notes
    assert "dispatcher keys create --app shop" in notes
    assert "has no worker" not in notes
    assert "serves the lane" not in notes
    assert "No worker of this release serves the lane slow." in _notes(
        MINIMAL, "--set", "config.lanes={default,slow}", "--set", "workers.mail.lanes={default}"
    )
    assert "It has no worker" in _notes(MINIMAL, "--set-json", "workers=null")


def _notes(values: Path, *more: str) -> str:
    done = helm("install", "rel", CHART, "--namespace", "jobs", "--values", values, "--dry-run=client", *more)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]

"""Monitors, rules and dashboards: every pod is scraped, and files arrive as they are."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from dev.helm import CHART
from tests.chart.charts import HPA, MINIMAL, PRODUCTION, of_kind, pods, rendered, selects

RULES = """\
# of this file
groups:
- name: g
  rules:
  - alert: A
    expr: up == 0
    annotations: {summary: "{{ $labels.lane }}: {{ $value | humanize }}"}
"""
DASHBOARD = '{\n  "title": "Ü <b>",\n  "legend": "{{lane}} {{ .Values }} \\"q\\"",\n\t"x": "it\'s"\n}\n'
EVERYTHING = ("--set", "monitoring.rules=true,monitoring.dashboards=true,monitoring.labels.release=prometheus")


@pytest.fixture(scope="module")
def with_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart with a rules file and a dashboard that would be something else if Helm read them as templates."""
    chart = tmp_path_factory.mktemp("chart") / "helm"
    shutil.copytree(CHART, chart)
    for folder, name, text in (("rules", "more_rules.yaml", RULES), ("dashboards", "by-lane.json", DASHBOARD)):
        (chart / "files" / folder).mkdir(parents=True, exist_ok=True)
        (chart / "files" / folder / name).write_text(text, encoding="utf-8")
    return chart


def test_rules_arrive_as_they_are(with_files: Path) -> None:
    """Each file is a PrometheusRule with its groups, templates of alerts included."""
    found = of_kind(rendered(MINIMAL, *EVERYTHING, chart=with_files), "PrometheusRule")
    files = {f"rel-job-dispatcher-{f.stem.replace('_', '-')}": f for f in (with_files / "files/rules").glob("*.yaml")}
    assert found.keys() == files.keys()
    for name, file in files.items():
        assert found[name]["spec"] == yaml.safe_load(file.read_text())
        assert found[name]["metadata"]["labels"]["release"] == "prometheus"


def test_dashboards_arrive_byte_for_byte(with_files: Path) -> None:
    """Each file is a ConfigMap that Grafana's sidecar finds, small enough for one."""
    everything = of_kind(rendered(MINIMAL, *EVERYTHING, chart=with_files), "ConfigMap")
    found = {name: m for name, m in everything.items() if "-dashboard-" in name}
    files = list((with_files / "files/dashboards").glob("*.json"))
    assert len(found) == len(files) >= 1
    for file in files:
        manifest = found[f"rel-job-dispatcher-dashboard-{file.stem.replace('_', '-')}"]
        assert manifest["data"] == {file.name: file.read_bytes().decode()}
        assert manifest["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert len(file.read_bytes()) < 900_000


def test_they_are_left_out_unless_asked_for(with_files: Path) -> None:
    """Without the operator's resource definitions an installation with a PrometheusRule would fail."""
    kinds = {manifest["kind"] for manifest in rendered(MINIMAL, chart=with_files)}
    assert not kinds & {"PrometheusRule", "PodMonitor", "ServiceMonitor"}
    assert not any("-dashboard-" in m["metadata"]["name"] for m in rendered(MINIMAL, chart=with_files))


def test_a_pod_monitor_finds_every_service_and_worker() -> None:
    """By a port of the name that it asks for; pods that end by themselves have none."""
    manifests = rendered(PRODUCTION)
    (monitor,) = of_kind(manifests, "PodMonitor").values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["path"] == "/metrics"
    scraped = [
        pod.owner
        for pod in pods(manifests)
        if selects(monitor["spec"]["selector"], pod.labels)
        and any(port["name"] == endpoint["port"] for port in pod.container.get("ports", []))
    ]
    assert sorted(scraped) == sorted(f"Deployment/{name}" for name in of_kind(manifests, "Deployment"))
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (job,) = {pod.labels[monitor["spec"]["jobLabel"]] for pod in pods(manifests)}
    assert re.fullmatch(".*dispatcher.*", job), "the rules ask for up of such jobs"


def test_a_service_monitor_finds_them_too() -> None:
    """By a headless Service that has pods which are not ready as well."""
    manifests = rendered(HPA)
    (monitor,), (service,) = of_kind(manifests, "ServiceMonitor").values(), of_kind(manifests, "Service").values()
    assert not of_kind(manifests, "PodMonitor")
    assert selects(monitor["spec"]["selector"], service["metadata"]["labels"])
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "job-dispatcher"
    (port,), (endpoint,) = service["spec"]["ports"], monitor["spec"]["endpoints"]
    assert endpoint["port"] == port["name"]
    for pod in (pod for pod in pods(manifests) if pod.owner.startswith("Deployment/")):
        assert selects({"matchLabels": service["spec"]["selector"]}, pod.labels)
        assert any(each["name"] == port["targetPort"] for each in pod.container["ports"])

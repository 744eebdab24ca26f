"""Network policies: every pod is denied everything but what it needs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.charts import BUNDLED, HPA, MINIMAL, PRODUCTION, SHARED, Manifest, of_kind, pods, rendered, selects

DNS = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]


def policies(manifests: list[Manifest], labels: Any, *, hooks: bool = False) -> list[dict[str, Any]]:
    """What selects a pod of these labels; those of hooks alone are there before the rest."""
    found = []
    for manifest in (m for m in manifests if m["kind"] == "NetworkPolicy"):
        is_hook = "helm.sh/hook" in manifest["metadata"].get("annotations", {})
        if is_hook == hooks and selects(manifest["spec"]["podSelector"], labels):
            found.append(manifest["spec"])
    return found


def ports(policy: list[dict[str, Any]]) -> set[int]:
    """Where to a pod may connect, by port."""
    return {port["port"] for each in policy for rule in each["egress"] for port in rule["ports"]}


@pytest.mark.parametrize("values", [MINIMAL, PRODUCTION, BUNDLED, SHARED], ids=lambda path: path.stem)
def test_every_pod_is_denied_what_is_not_named(values: Any) -> None:
    """At least one policy of both kinds selects each pod, also while hooks run and nothing else is there."""
    manifests = rendered(values)
    for pod in pods(manifests):
        found = policies(manifests, pod.labels, hooks="pre-install" in pod.hooks)
        assert any(set(each["policyTypes"]) == {"Ingress", "Egress"} for each in found), pod.owner
        for rule in (rule for each in found for rule in each.get("egress", [])):
            assert rule.get("ports"), "a rule without ports allows all of them"
        for rule in (rule for each in found for rule in each.get("ingress", []) or []):
            assert rule.get("ports")
            assert rule.get("from"), "a rule without peers lets everybody in"


def test_services_reach_dns_broker_and_database() -> None:
    """And nothing else, where the values name no peers; only metrics come in, from the namespaces that are named."""
    manifests = rendered(MINIMAL)
    for pod in pods(manifests):
        found = policies(manifests, pod.labels, hooks="pre-install" in pod.hooks)
        doctor = pod.labels["app.kubernetes.io/component"] == "doctor"
        assert ports(found) == {53, 5671, 5672, 27017} | ({15671, 15672} if doctor else set())
    (everyone,) = policies(manifests, {"app.kubernetes.io/name": "job-dispatcher", "app.kubernetes.io/instance": "rel"})
    (rule,) = everyone["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8080}]
    (peer,) = rule["from"]
    assert peer["namespaceSelector"]["matchExpressions"] == [
        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["monitoring"]}
    ]


def test_peers_narrow_the_rules() -> None:
    """To where broker and database are; a worker has its own besides, which no other pod has."""
    manifests = rendered(PRODUCTION)
    by_owner = {pod.owner: policies(manifests, pod.labels) for pod in pods(manifests)}
    for owner, found in by_owner.items():
        for rule in (rule for policy in found for rule in policy["egress"]):
            assert rule["ports"] == DNS or rule["to"], owner
        smtp = any(port["port"] == 587 for policy in found for rule in policy["egress"] for port in rule["ports"])
        assert smtp is owner.endswith("worker-mail")


def test_bundled_servers_let_the_release_in_alone() -> None:
    """And the release's pods reach these servers alone."""
    manifests = rendered(BUNDLED)
    servers = {pod.labels["app.kubernetes.io/name"]: pod.labels for pod in pods(manifests) if not pod.ours}
    assert servers.keys() == {"rabbitmq", "mongodb"}
    for pod in (pod for pod in pods(manifests) if pod.ours):
        reached = [
            server
            for policy in policies(manifests, pod.labels)
            for rule in policy["egress"]
            if rule["ports"] != DNS
            for peer in rule["to"]
            for server, labels in servers.items()
            if selects(peer["podSelector"], labels)
        ]
        assert set(reached) == {"rabbitmq", "mongodb"}
        for labels in servers.values():
            (policy,) = policies(manifests, labels)
            peers = [peer["podSelector"] for rule in policy["ingress"] for peer in rule["from"]]
            assert any(selects(peer, pod.labels) for peer in peers)
    stranger = {"app.kubernetes.io/name": "job-dispatcher", "app.kubernetes.io/instance": "other"}
    for labels in servers.values():
        (policy,) = policies(manifests, labels)
        assert not any(selects(peer["podSelector"], stranger) for rule in policy["ingress"] for peer in rule["from"])


def test_they_can_be_left_out() -> None:
    """Where the platform has its own."""
    assert not of_kind(rendered(HPA), "NetworkPolicy")


def test_nobody_may_read_metrics() -> None:
    """An empty list of namespaces lets nobody in, rather than everybody."""
    manifests = rendered(MINIMAL, "--set-json", "networkPolicy.metricsNamespaces=[]")
    (everyone,) = policies(manifests, {"app.kubernetes.io/name": "job-dispatcher", "app.kubernetes.io/instance": "rel"})
    assert everyone["ingress"] == []

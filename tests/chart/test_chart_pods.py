"""What every pod of the chart must have, whatever the values say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from config import SettingsError, load_settings
from dispatcher.cli.run import STOPPING
from tests.chart.charts import (
    HPA,
    MINIMAL,
    PRODUCTION,
    VALUE_FILES,
    Pod,
    config_of,
    of_kind,
    pods,
    rendered,
    selects,
)

each_file = pytest.mark.parametrize("values", VALUE_FILES, ids=lambda path: path.stem)
SECRETS = {
    "amqp": "amqp://u:p@rabbit:5672/v",
    "mongo": "mongodb://m:27017/?replicaSet=rs0",
}


def given(values: Path) -> dict[str, object]:
    """A value file as it is."""
    loaded: dict[str, object] = yaml.safe_load(values.read_text())
    return loaded


def environment(pod: Pod, config: Path) -> dict[str, str]:
    """The variables of a pod as its container has them, where the configuration is at `config`."""
    env = {}
    for name, value in pod.env.items():
        if isinstance(value, str):
            env[name] = value.replace("$(BUNDLED_PASSWORD)", "secret")
        else:
            env[name] = SECRETS["amqp" if "AMQP" in name else "mongo"]
    return env | {"DISPATCHER_CONFIG": str(config)}


@each_file
def test_pods_keep_within_the_restricted_standard(values: Path) -> None:
    """Kubernetes' Pod Security Standard "restricted", and no token; ours cannot write to their file system either."""
    found = list(pods(rendered(values)))
    assert len(found) >= 5
    for pod in found:
        context, container = pod.spec["securityContext"], pod.container["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context.get("runAsUser") != 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["allowPrivilegeEscalation"] is False
        assert container["capabilities"] == {"drop": ["ALL"]}
        assert not {"privileged", "runAsUser", "runAsNonRoot", "seccompProfile"} & container.keys()
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.spec.keys()
        assert all("hostPath" not in volume for volume in pod.spec.get("volumes", []))
        assert pod.spec["automountServiceAccountToken"] is False
        assert "limits" in pod.container["resources"]
        assert "requests" in pod.container["resources"]
        if pod.ours:
            assert container["readOnlyRootFilesystem"] is True
            mounts = {mount["name"]: mount["mountPath"] for mount in pod.container["volumeMounts"]}
            assert mounts["tmp"] == "/tmp"
            (tmp,) = (volume for volume in pod.spec["volumes"] if volume["name"] == "tmp")
            assert "sizeLimit" in tmp["emptyDir"]


def test_a_services_variables_are_no_settings() -> None:
    """Kubernetes gives every pod variables of each Service beside it, and those of one named dispatcher are refused."""
    with pytest.raises(SettingsError, match="unknown setting"):
        load_settings({"DISPATCHER_PORT": "tcp://10.0.0.1:80"})
    for values in VALUE_FILES:
        assert all(pod.spec["enableServiceLinks"] is False for pod in pods(rendered(values)))


@each_file
def test_services_and_workers_have_probes(values: Path) -> None:
    """On the port that they listen on; what ends by itself has none."""
    manifests = rendered(values)
    for pod in pods(manifests):
        container = pod.container
        probes = {name for name in container if name.endswith("Probe")}
        if not pod.ours:
            assert probes == {"readinessProbe"}
        elif pod.owner.startswith("Deployment/"):
            assert probes == {"startupProbe", "livenessProbe", "readinessProbe"}
            paths = {name: container[name]["httpGet"] for name in probes}
            assert paths["startupProbe"] == paths["livenessProbe"] == {"path": "/healthz", "port": "http"}
            assert paths["readinessProbe"] == {"path": "/readyz", "port": "http"}
            assert {"name": "http", "containerPort": int(pod.env["DISPATCHER_HTTP__PORT"])} in container["ports"]
            assert pod.env["DISPATCHER_HTTP__HOST"] == "0.0.0.0"
        else:
            assert not probes
            assert pod.spec["restartPolicy"] == "Never"


@each_file
def test_our_own_code_takes_every_configuration(values: Path, tmp_path: Path) -> None:
    """Each pod's file and variables give settings, the lanes and limits among them that the values say."""
    manifests, said = rendered(values), given(values)
    lanes = said.get("config", {}).get("lanes", ["default"])  # type: ignore[attr-defined]
    for pod in (pod for pod in pods(manifests) if pod.ours):
        file = tmp_path / "config.yaml"
        file.write_text(config_of(manifests, pod))
        settings = load_settings(environment(pod, file))
        assert list(settings.lanes) == lanes
        if "worker" in pod.container["args"]:
            _as_said(pod, settings, said)
        # the pod outlives what a stop may take
        if pod.owner.startswith("Deployment/"):
            worker = "worker" in pod.container["args"]
            grace = settings.worker.grace if worker else 0
            assert pod.spec["terminationGracePeriodSeconds"] >= math.ceil(grace) + STOPPING


def _as_said(pod: Pod, settings: object, said: dict[str, object]) -> None:
    own = said["workers"][pod.labels["job-dispatcher/worker"]]  # type: ignore[index]
    worker = settings.worker  # type: ignore[attr-defined]
    assert pod.container["args"] == ["worker", own["handlers"]]
    assert worker.concurrency == own.get("concurrency", 100)
    assert worker.grace == own.get("grace", 30)
    assert list(worker.lanes) == own.get("lanes", [])


def test_a_null_is_kept(tmp_path: Path) -> None:
    """`retention.history: null` means for ever; if Helm dropped it, history would be deleted after 90 days."""
    manifests = rendered(PRODUCTION)
    pod = next(pod for pod in pods(manifests) if "scheduler" in pod.owner)
    (tmp_path / "config.yaml").write_text(config_of(manifests, pod))
    settings = load_settings(environment(pod, tmp_path / "config.yaml"))
    assert settings.retention.history is None
    assert settings.type_entries["report.build"]["retention"] is None
    assert settings.intake.group_bytes == 33_554_432


@each_file
def test_secrets_are_those_that_were_named(values: Path) -> None:
    """No Secret is made, none is optional, and each reference has the name and the key that the values say."""
    manifests, said = rendered(values), given(values)
    assert not of_kind(manifests, "Secret")
    servers, topology = said.get("servers", {}), said.get("topology", {})
    amqp, mongo = servers.get("amqpKey", "amqp-url"), servers.get("mongoKey", "mongo-url")  # type: ignore[attr-defined]
    for pod in pods(manifests):
        found = {}
        for name, value in ((e["name"], e.get("valueFrom")) for e in pod.container.get("env", [])):
            if value is not None:
                assert set(value) == {"secretKeyRef"}
                assert not value["secretKeyRef"].get("optional")
                found[name] = (value["secretKeyRef"]["name"], value["secretKeyRef"]["key"])
        if "bundled" in said:
            assert set(found.values()) <= {(said["bundled"]["existingSecret"], "password")}  # type: ignore[index]
            continue
        secret = servers["existingSecret"]  # type: ignore[index]
        if pod.labels["app.kubernetes.io/component"] == "topology":
            secret = topology.get("existingSecret", secret)  # type: ignore[attr-defined]
        if pod.labels["app.kubernetes.io/component"] == "worker":
            secret = said.get("workerDefaults", {}).get("existingSecret", secret)  # type: ignore[attr-defined]
        assert found.pop("DISPATCHER_AMQP__URL") == (secret, amqp)
        assert found.pop("DISPATCHER_MONGO__URL") == (secret, mongo)
        if pod.labels["app.kubernetes.io/component"] == "doctor" and "managementKey" in servers:  # type: ignore[operator]
            assert found.pop("DISPATCHER_AMQP__MANAGEMENT_URL") == (secret, servers["managementKey"])  # type: ignore[index]
        assert not found


@each_file
def test_no_variable_is_given_twice(values: Path) -> None:
    """Server-side apply refuses that, since a list of variables is a map by their names."""
    for pod in pods(rendered(values)):
        names = [each["name"] for each in pod.container.get("env", [])]
        assert len(set(names)) == len(names)


@each_file
def test_selectors_select_their_own_pods_alone(values: Path) -> None:
    """Of each Deployment; and its disruption budget and spread constraints select these pods and no others."""
    manifests = rendered(values)
    everyone = list(pods(manifests))
    for kind in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
        for name, manifest in of_kind(manifests, kind).items():
            selected = [pod for pod in everyone if selects(manifest["spec"]["selector"], pod.labels)]
            assert [pod.owner.partition("/")[2] for pod in selected] == [name], kind
    assert of_kind(manifests, "PodDisruptionBudget").keys() == of_kind(manifests, "Deployment").keys()
    for manifest in of_kind(manifests, "Deployment").values():
        spread = manifest["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert [each["topologyKey"] for each in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        for each in spread:
            assert each["labelSelector"] == manifest["spec"]["selector"]


def test_a_changed_configuration_restarts_every_pod() -> None:
    """And one that is the same restarts none."""
    before = of_kind(rendered(MINIMAL), "Deployment")
    after = of_kind(rendered(MINIMAL, "--set", "config.log.level=debug"), "Deployment")
    more = of_kind(rendered(MINIMAL, "--set", "services.intake.replicas=5"), "Deployment")
    for name in before:
        assert before[name]["spec"]["template"] != after[name]["spec"]["template"]
        assert before[name]["spec"]["template"] == more[name]["spec"]["template"]


def test_a_service_can_be_held_back() -> None:
    """By a tag of its own, where an upgrade has an order; the hook and the others have the new one."""
    held = of_kind(rendered(MINIMAL, "--set", "image.tag=0.2.0,services.intake.tag=0.1.0"), "Deployment")
    images = {name: each["spec"]["template"]["spec"]["containers"][0]["image"] for name, each in held.items()}
    repository = "registry.example.org/platform/job-dispatcher"
    assert images["rel-job-dispatcher-intake"] == f"{repository}:0.1.0"
    assert images["rel-job-dispatcher-recorder"] == f"{repository}:0.2.0"
    recorder = of_kind(rendered(PRODUCTION), "Deployment")["rel-job-dispatcher-recorder"]  # the others have a digest
    assert recorder["spec"]["template"]["spec"]["containers"][0]["image"] == f"{repository}:0.0.9"


def test_a_worker_can_have_everything_of_its_own() -> None:
    """Image, pull policy, resources, volumes, variables, annotations; maps are merged, lists replaced."""
    (reports,) = (pod for pod in pods(rendered(PRODUCTION)) if pod.owner.endswith("worker-reports"))
    assert reports.container["image"] == "registry.example.org/shop/reports:2026.11.1"
    assert reports.container["resources"] == {
        "requests": {"cpu": "2", "memory": "2Gi"},
        "limits": {"memory": "4Gi"},
    }
    assert {"name": "fonts", "mountPath": "/fonts", "readOnly": True} in reports.container["volumeMounts"]
    assert reports.spec["terminationGracePeriodSeconds"] == 1860
    assert reports.spec["priorityClassName"] == "jobs"
    assert reports.spec["imagePullSecrets"] == [{"name": "registry"}]
    (mail,) = (pod for pod in pods(rendered(PRODUCTION)) if pod.owner.endswith("worker-mail"))
    assert mail.container["image"].startswith("registry.example.org/shop/mail@sha256:fedc")
    assert mail.container["envFrom"] == [{"secretRef": {"name": "mail"}}]
    assert mail.spec["terminationGracePeriodSeconds"] == 90
    (images,) = (pod for pod in pods(rendered(HPA)) if pod.owner.endswith("worker-images"))
    assert images.spec["securityContext"]["runAsUser"] == 1234
    assert images.spec["terminationGracePeriodSeconds"] == 61  # of half a second
    assert images.spec["serviceAccountName"] == "jobs"

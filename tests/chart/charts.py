"""The chart rendered by the real Helm, and what tests look for in it."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dev.helm import CACHE, CHART, helm_program

Manifest = dict[str, Any]
VALUE_FILES = sorted((CHART / "ci").glob("*.yaml"))
PRODUCTION, MINIMAL, BUNDLED, HPA, SHARED = (
    CHART / "ci" / f"{name}.yaml" for name in ("production", "minimal", "bundled", "hpa", "shared-broker")
)


@functools.cache
def _program() -> str:
    return str(helm_program(CACHE, print))


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run helm to its end."""
    command = [_program(), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@functools.cache
def rendered_text(values: Path, *more: str | Path, chart: Path = CHART) -> str:
    """What `helm template` writes for a value file and more arguments."""
    done = helm("template", "rel", chart, "--namespace", "jobs", "--values", values, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(values: Path, *more: str | Path, chart: Path = CHART) -> list[Manifest]:
    """Its manifests; new objects every time."""
    manifests: list[Manifest] = json.loads(_parsed(rendered_text(values, *more, chart=chart)))
    return manifests


@functools.cache
def _parsed(text: str) -> str:
    """YAML as JSON, which is read some hundred times faster, and every file many times."""
    return json.dumps([each for each in yaml.safe_load_all(text) if each])


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """Those of a kind, by name."""
    found = {each["metadata"]["name"]: each for each in manifests if each["kind"] == kind}
    assert len(found) == sum(each["kind"] == kind for each in manifests), f"two of kind {kind} have one name"
    return found


@dataclass(frozen=True)
class Pod:
    """A pod of any resource that makes pods."""

    owner: str
    hooks: str
    labels: Mapping[str, str]
    spec: Manifest

    @property
    def container(self) -> Manifest:
        """Its only one."""
        (container,) = self.spec["containers"]
        return dict(container)

    @property
    def env(self) -> dict[str, Any]:
        """Variable to value, or to its source."""
        return {each["name"]: each.get("value", each.get("valueFrom")) for each in self.container["env"]}

    @property
    def ours(self) -> bool:
        """Whether Job Dispatcher runs in it, not a bundled server."""
        return self.container["name"] == "dispatcher"


def pods(manifests: list[Manifest]) -> Iterator[Pod]:
    """Every pod that the manifests make."""
    for each in manifests:
        spec = each.get("spec", {})
        pod = each if each["kind"] == "Pod" else spec.get("template") if isinstance(spec, dict) else None
        if pod is not None:
            hooks = each["metadata"].get("annotations", {}).get("helm.sh/hook", "")
            labels = pod["metadata"]["labels"]
            yield Pod(f"{each['kind']}/{each['metadata']['name']}", hooks, labels, pod["spec"])


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a selector of matchLabels alone selects these labels; an empty one selects everything."""
    assert set(selector) <= {"matchLabels"}, "teach this helper matchExpressions"
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())


def config_of(manifests: list[Manifest], pod: Pod) -> str:
    """The configuration file that a pod mounts."""
    (volume,) = (each for each in pod.spec["volumes"] if each["name"] == "config")
    text: str = of_kind(manifests, "ConfigMap")[volume["configMap"]["name"]]["data"]["config.yaml"]
    return text

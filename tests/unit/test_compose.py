"""docker-compose.yml: what can be said of it without an engine. `make containers` runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import load_settings
from dev import compose, images
from dispatcher import __version__, composition

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
TEXT = FILE.read_text(encoding="utf-8")


def substituted(text: str) -> str:
    """The file as Compose reads it with no variable set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text).replace("$$", "$")


STORED: dict[str, Any] = yaml.safe_load(substituted(TEXT))
SERVICES: dict[str, dict[str, Any]] = STORED["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("job-dispatcher:")}
LASTING = {name for name, service in SERVICES.items() if service["restart"] == "unless-stopped"}
GUIDE = (ROOT / "docs" / "deploy-compose.md").read_text("utf-8")
QUOTED = r"\s+'([^']*)'" * 3
EXAMPLE = dict(
    line.split("=", 1) for line in (ROOT / ".env.example").read_text("utf-8").splitlines() if re.match(r"\w+=", line)
)


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    """What of the project's folder a service sees: the path here, and the path there with its mode."""
    return [tuple(volume.split(":", 1)) for volume in service.get("volumes", []) if volume.startswith(".")]  # type: ignore[misc]


def test_the_file_fits_the_compose_specification() -> None:
    """By the schema that comes with check-jsonschema."""
    program = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run([program, "--builtin-schema", "vendor.compose-spec", FILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_image_is_pinned() -> None:
    """To a version, and ours to this one."""
    for name, service in SERVICES.items():
        assert re.search(r":v?\d+\.\d+", service["image"]), name
    assert {service["image"] for service in OURS.values()} == {f"job-dispatcher:{__version__}"}
    (build,) = [service["build"] for service in SERVICES.values() if "build" in service]
    assert build["args"]["VERSION"] == __version__
    base = re.search(r"^ARG BASE_IMAGE=(\S+)", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert base is not None
    assert build["args"]["BASE_IMAGE"] == base[1]


def test_tests_use_the_same_servers() -> None:
    """The images of `make test` are those of the file."""
    assert SERVICES["rabbitmq"]["image"] == images._USUAL["RabbitMQ"]
    assert SERVICES["mongo"]["image"] == images._USUAL["MongoDB"]


def test_ports_are_this_machine_s_alone() -> None:
    """The passwords have defaults, so nobody else may reach them."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_lasts_is_watched_and_what_does_not_ends() -> None:
    """Every service has a health check, or runs once and has none."""
    for name, service in SERVICES.items():
        check = service["healthcheck"]
        assert ("test" in check) if name in LASTING else (check == {"disable": True}), name
        for other, waiting in service.get("depends_on", {}).items():
            wanted = "service_healthy" if other in LASTING else "service_completed_successfully"
            assert waiting["condition"] == wanted, (name, other)


def test_every_service_of_ours_runs() -> None:
    """Those that `dispatcher run` knows, by their names, on our image's health check with readiness."""
    for name in composition.SERVICES:
        assert SERVICES[name]["command"] == ["run", name]
        assert SERVICES[name]["healthcheck"]["test"][-1] == "/readyz"
    assert SERVICES["topology"]["command"] == ["topology", "apply"]


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_do_little(name: str) -> None:
    """No capability, no new one, nothing written but to memory and volumes, no more memory than said."""
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert "user" not in service
    assert all(there.endswith(":ro") for _, there in mounts(service))


def test_a_worker_is_given_its_grace() -> None:
    """Docker waits for longer than a worker waits for its handlers, whose time is the default."""
    worker = SERVICES["worker"]
    grace = float(worker["environment"]["DISPATCHER_WORKER__GRACE"])
    assert grace == load_settings({}).worker.grace
    assert float(worker["stop_grace_period"].removesuffix("s")) >= grace + 15


def test_what_is_mounted_is_there() -> None:
    """A path that is missing would be made, as an empty folder of root's."""
    found = [here for service in SERVICES.values() for here, _ in mounts(service)]
    assert len(found) >= 8
    for here in found:
        assert (ROOT / here).exists(), here


def test_settings_are_settings() -> None:
    """What services are given as DISPATCHER_… is a setting; a variable with a typing error would stop them."""
    for name, service in OURS.items():
        environment = service.get("environment", {})
        load_settings({key: str(value) for key, value in environment.items()})
        assert name not in LASTING or "DISPATCHER_AMQP__URL" in environment or name == "demo"


def test_each_user_has_its_own_rights() -> None:
    """Services, worker and demo connect as different users, with the passwords that setup gives them."""
    users = yaml.safe_load((ROOT / "deploy" / "compose" / "users.yaml").read_text("utf-8"))
    urls = re.findall(r"(?:amqp|mongodb|http)://(\w+):\$\{(\w+):-([^}]*)\}@(\w+)", TEXT)
    assert {user for user, *_ in urls} == {"dispatcher", "worker", "client", "monitoring"}
    for user, variable, default, server in urls:
        described = users["mongodb" if server == "mongo" else "rabbitmq"][user]
        assert described["password"] == variable
        assert EXAMPLE[variable] == default
    named = {user["password"] for server in users.values() for user in server.values()}
    assert named <= SERVICES["setup"]["environment"].keys()


def test_the_guide_tells_everybody_s_rights() -> None:
    """Its table of users is users.yaml, where no prefix is configured."""
    users = yaml.safe_load((ROOT / "deploy" / "compose" / "users.yaml").read_text("utf-8"))["rabbitmq"]
    told = {}
    for line in GUIDE.splitlines():
        row = re.fullmatch(r"\| `(\w+)`[^|]*\| `(.*)` \| `(.*)` \| `(.*)` \|([^|]*)\|", line)
        if row is not None:
            rights = [row[number].replace("\\|", "|") for number in (2, 3, 4)]
            told[row[1]] = [*rights, row[5].strip().strip("`")]
    written = {}
    for name, user in users.items():
        rights = [user[right].replace("PREFIX", "") for right in ("configure", "write", "read")]
        written[name] = [*rights, ",".join(user["tags"])]
    assert told == written


def test_the_guide_for_kubernetes_tells_the_same_rights() -> None:
    """Its commands give users the rights of users.yaml."""
    users = yaml.safe_load((ROOT / "deploy" / "compose" / "users.yaml").read_text("utf-8"))["rabbitmq"]
    text = (ROOT / "docs" / "deploy-kubernetes.md").read_text("utf-8").replace("\\\n", " ")
    told = {name: rights for name, *rights in re.findall(r"set_permissions --vhost jobs (\w+)" + QUOTED, text)}
    like = {"shop": "client", "keda": "monitoring"}
    assert told.keys() == {"dispatcher", "worker", "shop", "keda"}
    for name, rights in told.items():
        user = users[like.get(name, name)]
        assert rights == [user[right].replace("PREFIX", "") for right in ("configure", "write", "read")], name


def test_the_guide_names_every_service() -> None:
    """In its table of what runs, with the profile."""
    told: dict[str, set[str]] = {}
    for names, profile in re.findall(r"(?m)^\| ((?:`[\w-]+`,? ?)+) \| (`\w+`)? ?\|", GUIDE):
        told |= {name: {profile.strip("`")} - {""} for name in re.findall(r"[\w-]+", names)}
    assert told == {name: set(service.get("profiles", [])) for name, service in SERVICES.items()}


def test_the_guide_s_own_worker_is_a_worker_of_the_file() -> None:
    """Its override extends a service of the file, and gives it the time that its handlers get."""
    (override,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    (own,) = yaml.safe_load(override)["services"].values()
    assert own["extends"]["service"] in SERVICES
    load_settings(own["environment"])
    assert int(own["stop_grace_period"][:-1]) >= int(own["environment"]["DISPATCHER_WORKER__GRACE"]) + 15


def test_the_example_has_every_variable() -> None:
    """.env.example names all variables of the file, each with the default that holds without it."""
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", TEXT))
    assert used == EXAMPLE
    assert all(len(set(values)) == 1 for values in _defaults().values())
    assert not re.search(r"\$\{\w+\}", TEXT), "a variable without a default"


def _defaults() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", TEXT):
        found.setdefault(name, []).append(default)
    return found


def test_make_knows_the_administrator() -> None:
    """The variables by which `make demo` and `make up` name it are the file's."""
    assert compose._administrator().keys() == {name for name in EXAMPLE if "_ADMIN_" in name}


def test_prometheus_scrapes_services_of_the_file() -> None:
    """Every target is one, at a port that it serves; all of ours that last are among them."""
    stored = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text("utf-8"))
    ours, others = set(), set()
    for job in stored["scrape_configs"]:
        for found in job.get("dns_sd_configs", []):
            assert found["port"] == 8080
            ours |= set(found["names"])
        others |= {target for found in job.get("static_configs", []) for target in found["targets"]}
    assert ours == (LASTING & OURS.keys()) - {"demo"}
    assert others == {"rabbitmq:15692", "localhost:9090"}
    mounted = dict(reversed(pair) for pair in mounts(SERVICES["prometheus"]))
    assert mounted["/etc/prometheus/rules:ro"] == "./helm/files/rules"
    assert stored["rule_files"] == ["/etc/prometheus/rules/*.yaml"]


def test_grafana_finds_data_and_dashboards() -> None:
    """What is provisioned names the services and folders of the file."""
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text("utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((folder / "dashboards" / "job-dispatcher.yaml").read_text("utf-8"))["providers"]
    mounted = dict(reversed(pair) for pair in mounts(SERVICES["grafana"]))
    assert mounted[f"{provider['options']['path']}:ro"] == "./helm/files/dashboards"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "helm" / "files" / home.removeprefix("/")).is_file()

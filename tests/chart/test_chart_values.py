"""Values: wrong ones are refused with a sentence, and settings reach the configuration file as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from config.settings import DEFAULTS
from dev import chart as made
from dev.helm import CHART
from tests.chart.charts import BUNDLED, MINIMAL, helm, rendered

#: How a value is set, and what the refusal says.
WRONG = [
    ("image.repositry=x", "at '/image': additional properties 'repositry' not allowed"),
    ("image.repository=", "image.repository: say where your registry has the image"),
    ("image.digest=sha256:12", "at '/image/digest': 'sha256:12' does not match pattern"),
    ("image.pullPolicy=Sometimes", "at '/image/pullPolicy': value must be one of"),
    ("servers.existingSecret=", "servers.existingSecret: name a Secret"),
    ("bundled.enabled=true", "servers.existingSecret and bundled.enabled: choose one"),
    ("config.intake.prefech=3", "at '/config/intake': additional properties 'prefech' not allowed"),
    ("config.intake.prefetch=0", "at '/config/intake/prefetch': minimum: got 0, want 1"),
    ("config.amqp.url=amqp://u:secret@h", "config.amqp.url is not set here: the Secret"),
    ("config.amqp.management_url=http://u:secret@h", "config.amqp.management_url is not set here: the Secret"),
    ("config.mongo.url=mongodb://secret", "config.mongo.url is not set here: the Secret"),
    ("config.http.port=1", "config.http.port is not set here: the chart sets it"),
    ("config.worker.grace=3", "config.worker.grace is not set here: say it in workers.NAME.grace"),
    ("config.lanes={slow}", "config.lanes: the lane default must be among them"),
    ("config.types.a.retri.base=1", "additional properties 'retri' not allowed"),
    ("services.api.replicas=1", "at '/services': additional properties 'api' not allowed"),
    ("services.intake.replicas=-1", "at '/services/intake/replicas': minimum: got -1, want 0"),
    ("workers.mail.concurency=3", "at '/workers/mail': additional properties 'concurency' not allowed"),
    ("workers.mail.concurrency=many", "at '/workers/mail/concurrency': got string, want integer"),
    ("workers.mail.handlers=billing", "at '/workers/mail/handlers': 'billing' does not match pattern"),
    ("workers.more.lanes={default}", "at '/workers/more': missing property 'handlers'"),
    ("workers.mail.lanes={fast}", 'workers.mail.lanes: lane "fast" is not declared in config.lanes'),
    ("workers.mail.image.tag=", "workers.mail.image: say tag or digest"),
    ("workers.Mail.handlers=a:b", "invalid propertyName 'Mail'"),
    ("workers.mail.env[0].name=DISPATCHER_CONFIG", "the variable DISPATCHER_CONFIG is set by the chart"),
    ("workers.mail.scaling.enabled=true,workers.mail.scaling.min=0", "scaling.min 0 needs KEDA"),
    ("workers.mail.scaling.enabled=true,workers.mail.scaling.min=50", "workers.mail.scaling: min is larger than max"),
    ("workers.mail.scaling.enabled=true,pod.resources.requests=null", "scaling on CPU needs resources.requests.cpu"),
    ("keda.enabled=true", "keda.enabled: name the Secret and the key"),
    ("monitoring.monitor=prometheus", "at '/monitoring/monitor': value must be one of"),
    ("networkPolicy.brokerPorts={0}", "at '/networkPolicy/brokerPorts/0': minimum: got 0, want 1"),
    ("podDisruptionBudget.maxUnavailable=most", "'most' does not match pattern"),
    (
        "fullnameOverride=a-name-that-is-rather-long-for-a",
        "is longer than 46 characters: set a shorter fullnameOverride",
    ),
]


@pytest.mark.parametrize(("value", "said"), WRONG, ids=[value for value, _ in WRONG])
def test_wrong_values_are_refused(value: str, said: str) -> None:
    """Before anything is installed, with a sentence that names the value; no secret is repeated."""
    more = ("--set", "workers.mail-of-the-other-shop.handlers=a:b") if value.startswith("fullname") else ()
    done = helm("template", "rel", CHART, "--values", MINIMAL, "--set", value, *more)
    assert done.returncode != 0
    assert said in done.stderr
    assert "secret@" not in done.stderr


def test_the_bundled_servers_need_a_secret() -> None:
    """No password is made up or written down in values."""
    done = helm("template", "rel", CHART, "--values", BUNDLED, "--set", "bundled.existingSecret=")
    assert done.returncode != 0
    assert "bundled.existingSecret: name a Secret with the key password" in done.stderr


def test_nothing_is_required_that_is_a_password() -> None:
    """The defaults have three gaps, each of which is told, and none of them is a secret's content."""
    done = helm("template", "rel", CHART)
    assert done.returncode != 0
    assert "image.repository" in done.stderr
    assert "assword" not in json.dumps(made.defaults())


def test_the_whole_default_configuration_is_taken(tmp_path: Path) -> None:
    """Every setting but those that are set elsewhere can stand in config, and reaches the file as it is."""
    settings = yaml.safe_load(DEFAULTS.read_text())
    del settings["http"], settings["amqp"]["url"], settings["amqp"]["management_url"], settings["mongo"]["url"]
    for name in ("lanes", "concurrency", "grace"):
        del settings["worker"][name]
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"config": settings}))
    manifests = rendered(MINIMAL, "--values", values)
    (file,) = (
        m["data"]["config.yaml"]
        for m in manifests
        if m["metadata"]["name"] == "rel-job-dispatcher" and m["kind"] == "ConfigMap"
    )
    assert yaml.safe_load(file) == settings

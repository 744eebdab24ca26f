"""What the chart's values may be: the parts of helm/values.schema.json that its comments cannot say.

JSON Schema, draft 7, which every Helm from 3.5 on reads. Nothing unknown is allowed but inside what is Kubernetes' own.
"""

from __future__ import annotations

from typing import Any

from config import Settings
from dev.settings_table import comments as setting_comments

Schema = dict[str, Any]

_LABEL = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
_IMAGE_TAG = r"^$|^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?([EPTGMk]i?)?$"


def text(pattern: str = "", **more: Any) -> Schema:
    """A string."""
    return {"type": "string", **({"pattern": pattern} if pattern else {}), **more}


def number(least: float, most: float, kind: str = "integer") -> Schema:
    """A number within bounds."""
    return {"type": kind, "minimum": least, "maximum": most}


def one_of(*words: str) -> Schema:
    """One of some words."""
    return {"type": "string", "enum": list(words)}


def listed(items: Schema, **more: Any) -> Schema:
    """A list."""
    return {"type": "array", "items": items, **more}


def section(**properties: Schema) -> Schema:
    """A map in which nothing else may stand."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def mapped(values: Schema) -> Schema:
    """A map of any names."""
    return {"type": "object", "additionalProperties": values}


#: A resource of Kubernetes' own: its API server says what may be in it.
OBJECT: Schema = {"type": "object"}
OBJECTS = listed(OBJECT)
FLAG: Schema = {"type": "boolean"}
NAME = text(r"^$|^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", maxLength=253)
KEY = text(r"^[-._a-zA-Z0-9]+$", maxLength=253)
OPTIONAL_KEY = text(r"^[-._a-zA-Z0-9]*$", maxLength=253)
LANE = text(r"^[a-z0-9_-]{1,32}$")
PORTS = listed(number(1, 65_535), minItems=1)
DIGEST = text(r"^$|^sha256:[0-9a-f]{64}$")
PULL = one_of("Always", "IfNotPresent", "Never")


def schema() -> Schema:
    """The whole, without descriptions."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the Job Dispatcher chart",
        **section(**_properties()),
    }


def _properties() -> dict[str, Schema]:
    pod, worker = _pod(), _worker_defaults()
    service = section(replicas=number(0, 1_000), tag=text(_IMAGE_TAG), **pod)
    return {
        "fullnameOverride": text(r"^$|" + _LABEL, maxLength=36),
        "image": section(
            repository=text(r"^[^\s@]*$"),
            tag=text(_IMAGE_TAG),
            digest=DIGEST,
            pullPolicy=PULL,
            pullSecrets=listed(text(minLength=1)),
        ),
        "servers": section(existingSecret=NAME, amqpKey=KEY, mongoKey=KEY, managementKey=OPTIONAL_KEY),
        "topology": section(enabled=FLAG, existingSecret=NAME, deadline=number(10, 86_400)),
        "config": settings(),
        "services": section(intake=service, recorder=service, scheduler=service),
        "workers": {
            **mapped({**section(**_worker(), **worker, **pod), "required": ["handlers"]}),
            "propertyNames": {"pattern": _LABEL, "maxLength": 30},
        },
        "workerDefaults": section(**worker),
        "keda": _keda(),
        "pod": section(**pod),
        "podDisruptionBudget": section(enabled=FLAG, maxUnavailable=_share()),
        "networkPolicy": _network_policy(),
        "monitoring": _monitoring(),
        "serviceAccount": section(create=FLAG, name=NAME, annotations=mapped(text())),
        "bundled": section(
            enabled=FLAG, existingSecret=NAME, rabbitmq=_server(), mongodb=_server(), storageClassName=NAME
        ),
        "global": {"type": "object", "description": "Helm's own; not used."},
    }


def _share() -> Schema:
    return {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^[0-9]{1,3}%$"}]}


def _server() -> Schema:
    return section(image=text(minLength=1), storage=text(_QUANTITY), resources=OBJECT)


def _worker() -> dict[str, Schema]:
    """What only a worker has: it has no default."""
    image = section(repository=text(r"^[^\s@]+$"), tag=text(_IMAGE_TAG), digest=DIGEST, pullPolicy=PULL)
    return {
        "handlers": text(r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$"),
        "image": {**image, "required": ["repository"]},
    }


def _worker_defaults() -> dict[str, Schema]:
    return {
        "replicas": number(0, 1_000),
        "existingSecret": NAME,
        "lanes": listed(LANE, uniqueItems=True),
        "concurrency": number(1, 10_000),
        "grace": number(0, 86_400, "number"),
        "egress": OBJECTS,
        "scaling": section(
            enabled=FLAG,
            min=number(0, 1_000),
            max=number(1, 1_000),
            jobsPerPod=number(0, 1_000_000),
            cpuPercent=number(1, 1_000),
            scaleDownAfter=number(0, 3_600),
        ),
    }


def _pod() -> dict[str, Schema]:
    variable = {"type": "object", "required": ["name"], "properties": {"name": text(minLength=1)}}
    spread = section(
        topologyKey=text(minLength=1),
        maxSkew=number(1, 100),
        whenUnsatisfiable=one_of("ScheduleAnyway", "DoNotSchedule"),
    )
    return {
        "resources": OBJECT,
        "env": listed(variable),
        "envFrom": OBJECTS,
        "volumes": OBJECTS,
        "volumeMounts": OBJECTS,
        "annotations": mapped(text()),
        "labels": mapped(text()),
        "nodeSelector": mapped(text()),
        "tolerations": OBJECTS,
        "affinity": OBJECT,
        "topologySpread": listed({**spread, "required": ["topologyKey"]}),
        "priorityClassName": NAME,
        "runAsUser": number(0, 2**31 - 1),
        "tmpSize": text(_QUANTITY),
    }


def _keda() -> Schema:
    return section(
        enabled=FLAG,
        existingSecret=NAME,
        key=OPTIONAL_KEY,
        vhost=text(minLength=1),
        pollingInterval=number(1, 3_600),
        cooldownPeriod=number(0, 86_400),
    )


def _network_policy() -> Schema:
    return section(
        enabled=FLAG,
        metricsNamespaces=listed(text(_LABEL)),
        brokerPorts=PORTS,
        brokerTo=OBJECTS,
        managementPorts=PORTS,
        databasePorts=PORTS,
        databaseTo=OBJECTS,
        dnsTo=OBJECTS,
    )


def _monitoring() -> Schema:
    return section(
        monitor=one_of("", "PodMonitor", "ServiceMonitor"),
        labels=mapped(text()),
        interval=text(r"^[0-9]+(ms|s|m)$"),
        rules=FLAG,
        dashboards=FLAG,
        dashboardLabels=mapped(text()),
        dashboardAnnotations=mapped(text()),
    )


def settings() -> Schema:
    """Job Dispatcher's own settings, every key optional, from their model."""
    whole = Settings.model_json_schema()
    said = dict(setting_comments())
    made: Schema = _optional(whole, whole["$defs"])
    for name, part in made["properties"].items():
        if name in said:
            part["description"] = said[name] + "."
        for key, value in part.get("properties", {}).items():
            value["description"] = said[f"{name}.{key}"] + "."
    entry = made["properties"]["types"]["patternProperties"]
    for pattern, value in entry.items():
        entry[pattern] = {"anyOf": [LANE, value]}  # the short form: a lane's name
    made["properties"]["types"]["additionalProperties"] = False
    return made


def _optional(part: Any, defined: Schema) -> Any:
    """A model's schema with its references put in, nothing required, and without words of Python."""
    if isinstance(part, list):
        return [_optional(each, defined) for each in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _optional(defined[part["$ref"].rpartition("/")[2]], defined)
    kept = {key: value for key, value in part.items() if key not in _DROPPED or not isinstance(value, _DROPPED[key])}
    return {key: _optional(value, defined) for key, value in kept.items()}


#: Keywords that say nothing here, with the type of their value: a property may have such a name.
_DROPPED: dict[str, type | tuple[type, ...]] = {
    "$defs": dict,
    "title": str,
    "description": str,
    "default": object,
    "required": list,
    "format": str,
    "writeOnly": bool,
}

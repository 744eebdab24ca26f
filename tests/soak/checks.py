"""What else must be so: huge results are refused, jobs beside them run, labels stay few, nothing dies."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.faults.fleet import Fleet

#: Series that a service's metrics page may have: lanes, priorities, outcomes and buckets explain some 300.
MAX_SERIES = 1_000

Document = Mapping[str, Any]


def huge_problems(huge: Document, beside: Iterable[Document]) -> list[str]:
    """What is wrong with a job whose result is far too large, and with those that ran beside it."""
    found = []
    outcomes = [attempt["outcome"] for attempt in huge["attempts"]]
    if (huge["state"], outcomes) != ("failed", ["failed"]):
        found.append(f"{huge['type']} is {huge['state']} after {outcomes}, not failed after one attempt")
    message = (huge.get("error") or {}).get("message", "")
    if "worker.max_result_bytes" not in message or "262144" not in message:
        found.append(f"{huge['type']}: its error names no setting or no limit: {message[:200]}")
    lost = [document["_id"] for document in beside if document["state"] != "succeeded"]
    if lost:
        found.append(f"beside {huge['type']} these did not succeed: {', '.join(lost[:5])}")
    return found


def too_many_series(fleet: Fleet) -> list[str]:
    """Members whose metrics have more series than labels of ours explain."""
    found = []
    for name, member in fleet.members.items():
        with urllib.request.urlopen(f"http://127.0.0.1:{member.port}/metrics", timeout=10) as response:
            families = text_string_to_metric_families(response.read().decode())
        count = sum(len(family.samples) for family in families)
        if count > MAX_SERIES:
            found.append(f"{name} has {count} series of metrics, at most {MAX_SERIES}")
    return found


def complaints(fleet: Fleet) -> list[str]:
    """Processes that ended by themselves."""
    return [f"{death.member} ended by itself with code {death.code}" for death in fleet.deaths if not death.ours]

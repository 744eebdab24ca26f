"""What services say of themselves over HTTP: whether they are ready, and their counters."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

from tests.faults.fleet import Fleet, Member
from tests.faults.ledger import Scrape

#: Labels that tell what was counted; lanes and priorities are added up.
_TELLING = ("outcome", "state", "code")


def all_ready(fleet: Fleet) -> bool:
    """Whether every member is ready."""
    return all(ready(member) for member in fleet.members.values())


def ready(member: Member, timeout: float = 10) -> bool:
    """Whether a member says that it is ready; no answer is a no."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{member.port}/readyz", timeout=timeout):
            return True
    except (urllib.error.HTTPError, http.client.HTTPException, OSError):
        return False


def scrape(fleet: Fleet) -> list[Scrape]:
    """The counters of every member as it runs now."""
    return [_scrape(member) for member in fleet.members.values()]


def _scrape(member: Member) -> Scrape:
    with urllib.request.urlopen(f"http://127.0.0.1:{member.port}/metrics", timeout=10) as response:
        text = response.read().decode()
    counters: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(text):
        if family.type != "counter" or not family.name.startswith("dispatcher_"):
            continue
        for sample in family.samples:
            if sample.name.endswith("_total"):
                told = next((sample.labels[name] for name in _TELLING if name in sample.labels), "")
                counters[family.name.removeprefix("dispatcher_"), told] += int(sample.value)
    return Scrape(member.kind, member.pid, counters)

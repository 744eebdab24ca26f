"""The Grafana dashboards: `make dashboards` writes helm/files/dashboards/ from what is described here."""

from __future__ import annotations

import json
from pathlib import Path

from dev.dashboards.apps import APPS
from dev.dashboards.broker import BROKER
from dev.dashboards.job_types import TYPES
from dev.dashboards.lanes import LANES
from dev.dashboards.model import Dashboard
from dev.dashboards.overview import OVERVIEW
from dev.dashboards.recorder import RECORDER
from dev.dashboards.retries import RETRIES

#: Every dashboard, in the order of docs/dashboards.md.
ALL: tuple[Dashboard, ...] = (OVERVIEW, LANES, TYPES, RETRIES, APPS, RECORDER, BROKER)
#: Where Compose and the chart take them from.
FOLDER = Path(__file__).resolve().parents[2] / "helm" / "files" / "dashboards"


def path_of(dashboard: Dashboard) -> Path:
    """Its file."""
    return FOLDER / f"{dashboard.name}.json"


def text_of(dashboard: Dashboard) -> str:
    """What stands in its file."""
    return json.dumps(dashboard.json(), indent=2, ensure_ascii=False) + "\n"

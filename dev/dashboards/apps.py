"""Which application publishes what, whose messages are refused, and whose key ends soon?"""

from __future__ import annotations

from dev.dashboards.model import Dashboard, Panel, Query, Row, above, below
from dev.dashboards.promql import count, most, one, rate
from dev.dashboards.variables import APP, INSTALLATION

THIS = 'app=~"$app"'
DAY = 86_400
ACCEPTED = count("dispatcher_app_accepted_total", "app", THIS)
REFUSED = count("dispatcher_app_refused_total", "app", THIS)

_TABLE = Row("All applications", [
    Panel(
        title="Applications in this time",
        says="What each application sent in the time shown: jobs accepted, messages refused and their share, messages "
        "that made no job of their own (an id or a unique key sent again), and when its first key ends. Normal: few "
        "refused. A high share: tell its developers; `dispatcher jobs list --state rejected --app APP`.",
        asks=[
            Query(ACCEPTED, "Accepted"),
            Query(REFUSED, "Refused"),
            Query(f"{REFUSED} / ({ACCEPTED} + {REFUSED} > 0)", "Share refused", "percentunit"),
            Query(count("dispatcher_app_repeated_total", "app", THIS), "Sent again"),
            Query(f"min by (app) ({one('dispatcher_app_key_expiry_seconds', THIS)})", "First key ends in", "s"),
        ],
        kind="table", width=24, height=6, columns={"app": "Application"},
    ),
])  # fmt: skip

_JOBS = Row("What they send", [
    Panel(
        title="Accepted, by application",
        says="Jobs accepted, a second. Normal: what you are used to. One far above its usual: ask its developers "
        "before its jobs fill the lanes of others.",
        asks=[Query(rate("dispatcher_app_accepted_total", "app", THIS), "{{app}}")],
        unit="suffix: /s", stacked=True,
    ),
    Panel(
        title="Refused, by application",
        says="Messages with a good key that intake refused, a second. Normal: hardly any. A jump after a release of "
        "that application: it sends what does not fit.",
        asks=[Query(rate("dispatcher_app_refused_total", "app", THIS), "{{app}}")],
        unit="suffix: /s", stacked=True,
    ),
    Panel(
        title="Refused, by code",
        says="Of all applications and of unknown senders, a second; docs/refusals.md explains each code. Normal: "
        "hardly any. `unknown_key` and `malformed_key`: somebody tries keys, or uses an old one.",
        asks=[Query(f"{rate('dispatcher_jobs_refused_total', 'code')} > 0", "{{code}}")],
        unit="suffix: /s", stacked=True,
    ),
    Panel(
        title="Sent again, by application",
        says="Messages that made no job of their own, a second: `resent` (the id is another job's), `duplicate` (the "
        "unique key is). Normal: few, after lost confirms. Many: the application makes ids that are not unique.",
        asks=[Query(rate("dispatcher_app_repeated_total", "app, found", THIS), "{{app}} {{found}}")],
        unit="suffix: /s",
    ),
    Panel(
        title="Ids and unique keys",
        says="Jobs with an id or a unique key, a second, by what came of it. Normal: `made`. `open`: another message "
        "is at it, and intakes die; `away`: MongoDB is away, and these wait.",
        asks=[Query(rate("dispatcher_intake_claims_total", "found"), "{{found}}")],
        unit="suffix: /s", stacked=True,
    ),
    Panel(
        title="Put off, and judged apart",
        says="Messages that intake put off because MongoDB could not be asked for their key, and messages judged in a "
        "child process because intakes died of them, a second. Normal: 0.",
        asks=[
            Query(rate("dispatcher_intake_deferred_total"), "put off: MongoDB is away"),
            Query(rate("dispatcher_intake_suspects_total"), "judged apart"),
        ],
        unit="suffix: /s", to="recorder",
    ),
])  # fmt: skip

_KEYS = Row("Keys", [
    Panel(
        title="First key ends in",
        says="Time until the first active API key without a successor ends. Normal: weeks. Below a week: `dispatcher "
        "keys list`, then `dispatcher keys rotate KEYID`. No value: no key ends.",
        asks=[Query(f"min({one('dispatcher_key_first_expiry_seconds')}) < Inf", "ends in")],
        kind="stat", unit="s", width=4, height=5, steps=below(14 * DAY, 3 * DAY), least=None,
    ),
    Panel(
        title="Keys that end soon",
        says="Active keys that end within keys.warn_days (14) and have no successor. Normal: 0. Above: rotate them; "
        "the old key works on for its grace period.",
        asks=[Query(most(one("dispatcher_keys_expiring")), "keys")],
        kind="stat", width=4, height=5, steps=above(1), decimals=0,
    ),
    Panel(
        title="First key of each application",
        says="Time until the first active key of each application ends; those with keys that never end are not here. "
        "Normal: weeks. Red: within 3 days.",
        asks=[Query(f"min by (app) ({one('dispatcher_app_key_expiry_seconds', THIS)})", "{{app}}")],
        kind="bargauge", unit="s", width=16, height=5, steps=below(14 * DAY, 3 * DAY),
    ),
    Panel(
        title="Looking up keys",
        says="Keys looked for in memory, a second: found (hit), asked for in MongoDB (miss), not there (unknown), "
        "nobody can say (away). Normal: hit. Many unknown: somebody tries keys.",
        asks=[Query(rate("dispatcher_key_cache_lookups_total", "result"), "{{result}}")],
        unit="suffix: /s", width=12, stacked=True,
    ),
    Panel(
        title="Age of the keys in memory",
        says="Time since the intakes last read the keys. Normal: below a second. It grows: MongoDB is away; above "
        "intake.key_grace (300 s) jobs wait in the broker.",
        asks=[Query(most(one("dispatcher_key_cache_age_seconds")), "oldest")],
        unit="s", steps=above(60, 300), to="recorder",
    ),
    Panel(
        title="Keys in memory",
        says="API keys that an intake knows. Normal: all that you made. 0: there is none, or it could not be read yet.",
        asks=[Query(most(one("dispatcher_key_cache_keys")), "keys")],
        kind="stat", width=4, decimals=0,
    ),
])  # fmt: skip

APPS = Dashboard(
    name="apps",
    title="Applications and keys",
    says="Which application publishes what, whose messages are refused, and whose key ends soon?",
    variables=(*INSTALLATION, APP),
    rows=[_TABLE, _JOBS, _KEYS],
)

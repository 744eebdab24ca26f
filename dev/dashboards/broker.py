"""Is RabbitMQ well, and where are messages?

The names are those of RabbitMQ's own exporter (plugin rabbitmq_prometheus) that 3.10 and 4.x have both.
"""

from __future__ import annotations

from dev.dashboards.model import Dashboard, Panel, Query, Row, above, below
from dev.dashboards.promql import broker, broker_rate, depth, most, one, quantile, rate, total
from dev.dashboards.variables import INSTALLATION, NODE, PREFIX

ALARMS = ("memory_used_watermark", "free_disk_space_watermark", "file_descriptor_limit")
CONSUMED = 'queue=~"intake.v1|history.v1|later.v1|work.v1.*"'
VERSIONS = most(broker("rabbitmq_build_info"), "instance, rabbitmq_version")
KIND = "intake|work|group|history|later|suspect|parked|stray|unrecorded"
OURS = f'queue=~"($prefix)({KIND})[.]v1.*"'
#: What is delivered and not acknowledged in queues of ours, which RabbitMQ knows with their prefix; by kind of queue.
HELD = (
    f"label_replace({broker('rabbitmq_detailed_queue_messages_unacked', OURS)}, "
    f'"kind", "$1", "queue", ".*?({KIND})[.]v1.*")'
)

_HEALTH = Row("Is it well?", [
    Panel(
        title="Alarms",
        says="Alarms of RabbitMQ's nodes: memory, disk, open files. Normal: 0. With one, RabbitMQ lets nobody publish: "
        "applications wait, retries wait. Give it memory or disk, or let workers drain the queues.",
        asks=[Query(" + ".join(f"sum({broker(f'rabbitmq_alarms_{name}')})" for name in ALARMS), "alarms")],
        kind="stat", width=4, height=4, steps=above(1), decimals=0,
    ),
    Panel(
        title="Our connections that are blocked",
        says="Connections of our services that RabbitMQ lets publish nothing. Normal: 0. Else an alarm holds.",
        asks=[Query(f"sum({one('dispatcher_publishing_blocked')})", "blocked")],
        kind="stat", width=4, height=4, steps=above(1), decimals=0,
    ),
    Panel(
        title="Nodes",
        says="Nodes of RabbitMQ that are scraped. Normal: all of the cluster. A fall: one is away; with one of three "
        "left, quorum queues stand still.",
        asks=[Query(f"count({most(broker('rabbitmq_identity_info'), 'instance')})", "nodes")],
        kind="stat", width=4, height=4, decimals=0,
    ),
    Panel(
        title="Memory until the alarm",
        says="Memory of the fullest node as a share of its limit. Normal: below 0.7. At 1 the memory alarm holds.",
        asks=[Query(most(f"{broker('rabbitmq_process_resident_memory_bytes')} / "
                         f"{broker('rabbitmq_resident_memory_limit_bytes')}"), "share")],
        kind="stat", unit="percentunit", width=4, height=4, steps=above(0.7, 0.9), most=1,
    ),
    Panel(
        title="Disk above the limit",
        says="Free disk of the fullest node, in units of the limit at which its alarm begins. Normal: above 5. At 1 "
        "the disk alarm holds.",
        asks=[Query(f"min({broker('rabbitmq_disk_space_available_bytes')} / "
                    f"{broker('rabbitmq_disk_space_available_limit_bytes')})", "times")],
        kind="stat", unit="suffix: times", width=4, height=4, steps=below(5, 2), decimals=1,
    ),
    Panel(
        title="Queues missing",
        says="Queues of the topology that RabbitMQ does not have. Normal: 0. Above: `dispatcher topology apply`.",
        asks=[Query(most(one("dispatcher_queues_missing")), "queues")],
        kind="stat", width=4, height=4, steps=above(1), decimals=0,
    ),
])  # fmt: skip

_OURS = Row("Our queues", [
    Panel(
        title="Ready, by queue",
        says="Messages that nobody holds, in each queue that is neither a work queue nor of the ladder. Normal: "
        "intake.v1 and history.v1 near 0; unrouted, stray.v1, unrecorded.v1, intake-dead.v1 at 0; rejected and "
        "parked.v1 do not grow.",
        asks=[
            Query(most(one("dispatcher_queue_ready", 'queue!~"group.*"'), "queue"), "{{queue}}"),
            Query(depth("dispatcher_queue_ready", "queue", "", 'queue=~"group.*"'), "group.v1, all"),
        ],
        width=12,
    ),
    Panel(
        title="Consumers, by queue",
        says="Consumers of the queues that a service of ours must consume, now. Normal: as many as run "
        "of that service. 0: it is missing, or the workers of that lane are, and messages wait there.",
        asks=[Query(most(one("dispatcher_queue_consumers", CONSUMED), "queue"), "{{queue}}")],
        kind="bargauge", width=12, steps=((None, "red"), (1, "green")),
    ),
    Panel(
        title="Held by consumers, by kind of queue",
        says="Messages delivered and not acknowledged, as RabbitMQ counts them. Normal: what is at work. "
        "Level and high for long: a consumer stands still, or runs long jobs (they keep the queue's log on disk).",
        asks=[Query(total(HELD, "kind"), "{{kind}}")],
        stacked=True,
    ),
    Panel(
        title="Waiting for the broker's confirm",
        says="From handing a batch of messages to the connection until RabbitMQ's last answer: 99% took no longer. "
        "Normal: below 50 ms. Above 100 ms: its disk is the limit.",
        asks=[Query(quantile(0.99, "dispatcher_publish_confirm_seconds", "role"), "{{role}} p99")],
        unit="s", steps=above(0.1, 1),
    ),
    Panel(
        title="Published again",
        says="Messages that our services published again because RabbitMQ refused them or did not answer, a second. "
        "Normal: 0. A rise: connections break, or a queue does not work.",
        asks=[Query(rate("dispatcher_publishes_again_total", "role"), "{{role}}")],
        unit="suffix: /s",
    ),
])  # fmt: skip

_MESSAGES = Row("Messages, all users of this RabbitMQ", [
    Panel(
        title="Published and confirmed",
        says="Messages that came in, that were routed to a queue and that were confirmed, a second. Normal: routed "
        "above received (events go with jobs). Confirmed below received for long: publishers wait.",
        asks=[
            Query(broker_rate("rabbitmq_global_messages_received_total"), "received"),
            Query(broker_rate("rabbitmq_global_messages_routed_total"), "routed"),
            Query(broker_rate("rabbitmq_global_messages_confirmed_total"), "confirmed"),
        ],
        unit="suffix: /s",
    ),
    Panel(
        title="Delivered and acknowledged",
        says="Messages that went out to consumers, that they acknowledged, and that were delivered once more, a "
        "second. Normal: the first two lie on each other. Redelivered: consumers die, or give back.",
        asks=[
            Query(broker_rate("rabbitmq_global_messages_delivered_total"), "delivered"),
            Query(broker_rate("rabbitmq_global_messages_acknowledged_total"), "acknowledged"),
            Query(broker_rate("rabbitmq_global_messages_redelivered_total"), "redelivered"),
        ],
        unit="suffix: /s",
    ),
    Panel(
        title="Dead-lettered",
        says="Messages that left a queue for its dead letter exchange, a second. Normal: `expired` is the delay ladder "
        "at work. `delivery limit`: consumers die of a message; `rejected`: others than we.",
        asks=[
            Query(broker_rate(f"rabbitmq_global_messages_dead_lettered_{name}_total"), name.replace("_", " "))
            for name in ("expired", "rejected", "delivery_limit", "maxlen")
        ],
        unit="suffix: /s",
    ),
    Panel(
        title="Nowhere to go",
        says="Messages that no queue wanted, a second: given back to their publisher, or dropped. Normal: 0. Ours are "
        "caught by the queue unrouted; others' may be lost.",
        asks=[
            Query(broker_rate("rabbitmq_global_messages_unroutable_returned_total"), "given back"),
            Query(broker_rate("rabbitmq_global_messages_unroutable_dropped_total"), "dropped"),
        ],
        unit="suffix: /s",
    ),
    Panel(
        title="Messages in all queues",
        says="Ready, and held by consumers, over all queues of this RabbitMQ. Normal: level. Compare with our queues "
        "above: the rest belongs to others, or waits in the ladder.",
        asks=[
            Query(total(broker("rabbitmq_queue_messages_ready")), "ready"),
            Query(total(broker("rabbitmq_queue_messages_unacked")), "held"),
        ],
    ),
    Panel(
        title="Connections and channels",
        says="Open connections, channels, and consumers. Normal: level, some connections for each of our processes "
        "and for each application. A rise without an end: an application opens and never closes.",
        asks=[
            Query(total(broker("rabbitmq_connections")), "connections"),
            Query(total(broker("rabbitmq_channels")), "channels"),
            Query(total(broker("rabbitmq_consumers")), "consumers"),
        ],
    ),
])  # fmt: skip

_NODES = Row("Nodes", [
    Panel(
        title="Memory",
        says="Memory of each node, and the limit at which its alarm begins. Normal: far below. Near it: fewer messages "
        "in flight (prefetch), or more memory.",
        asks=[
            Query(total(broker("rabbitmq_process_resident_memory_bytes"), "instance"), "{{instance}}"),
            Query(f"min({broker('rabbitmq_resident_memory_limit_bytes')})", "limit"),
        ],
        unit="bytes",
    ),
    Panel(
        title="Free disk",
        says="Free disk of each node, and the limit at which its alarm begins. Normal: far above. It falls: a queue "
        "grows, or messages are held for long, which keeps the logs of quorum queues.",
        asks=[
            Query(total(broker("rabbitmq_disk_space_available_bytes"), "instance"), "{{instance}}"),
            Query(most(broker("rabbitmq_disk_space_available_limit_bytes")), "limit"),
        ],
        unit="bytes",
    ),
    Panel(
        title="Open files",
        says="Files and sockets that each node has open, as a share of what it may. Normal: below a half. Near 1: "
        "raise the limit of the process, or look who connects.",
        asks=[Query(f"{most(broker('rabbitmq_process_open_fds'), 'instance')} / "
                    f"{most(broker('rabbitmq_process_max_fds'), 'instance')}", "{{instance}}")],
        unit="percentunit", most=1, steps=above(0.7, 0.9),
    ),
    Panel(
        title="Connections opened",
        says="Connections opened, a second. Normal: near 0. Steady: an application connects for each message, which "
        "costs RabbitMQ more than the messages do.",
        asks=[
            Query(broker_rate("rabbitmq_connections_opened_total"), "opened"),
            Query(broker_rate("rabbitmq_connections_closed_total"), "closed"),
        ],
        unit="suffix: /s",
    ),
    Panel(
        title="Waiting for a processor",
        says="Erlang processes that could run and wait for a core, by node. Normal: 0 to some. Tens for long: RabbitMQ "
        "has too few cores.",
        asks=[Query(total(broker("erlang_vm_statistics_run_queues_length"), "instance"), "{{instance}}")],
    ),
    Panel(
        title="Versions",
        says="Nodes of each version of RabbitMQ. Normal: one, two during an upgrade.",
        asks=[Query(f"count by (rabbitmq_version) ({VERSIONS})", "{{rabbitmq_version}}")],
        kind="bargauge",
    ),
])  # fmt: skip

BROKER = Dashboard(
    name="broker",
    title="Broker",
    says="Is RabbitMQ well, and where are messages?",
    variables=(*INSTALLATION, NODE, PREFIX),
    rows=[_HEALTH, _OURS, _MESSAGES, _NODES],
)

"""The checks that need RabbitMQ."""

from __future__ import annotations

from config import Settings
from dispatcher.core.diagnosis import Finding, broker, failed, fine, unchecked
from dispatcher.core.topology import PARKED_LIMITS, REJECTED_LIMITS, Names, build
from dispatcher.edges import clock
from dispatcher.edges.amqp import BrokerError, Probe, QueueCounts
from dispatcher.edges.management import Management
from dispatcher.edges.mongo import Database, DatabaseError, accepted_since
from dispatcher.services.doctor.guard import guarded, unchecked_all
from schemas import JobState

HOUR_MS = 3_600_000

#: What lists the messages that lie there.
REJECTED_LOOK, PARKED_LOOK = "dispatcher rejected list", "dispatcher dead list"

_DECLARED = ("topology", "arguments", "delivery-limits")
_CONTENTS = ("consumers", "strays", "unrecorded", "rejected", "parked")
_SERVER = ("broker-version", "broker-features", "broker-accepts")


async def check_broker(settings: Settings, longest: tuple[float, str]) -> list[Finding]:
    """All of them; ``longest`` is the longest timeout, and whose it is."""
    probe = Probe(settings.amqp.url.get_secret_value(), clock.new_id().replace("-", ""))
    found: list[Finding] = []
    try:
        await probe.open()
    except BrokerError as error:
        found.append(failed("broker", str(error), "start RabbitMQ, or set amqp.url (DISPATCHER_AMQP__URL) right"))
        found += unchecked_all((*_SERVER, *_DECLARED, "routes", *_CONTENTS), "RabbitMQ cannot be used")
    else:
        found.append(fine("broker", "connected"))
        try:
            found += await _Broker(settings, probe).findings()
        finally:
            await probe.close()
    found.append(broker.consumer_timeout(*longest, settings.amqp.consumer_timeout, probe.version))
    return found


class _Broker:
    """The checks of a broker that can be reached."""

    def __init__(self, settings: Settings, probe: Probe) -> None:
        self._settings = settings
        self._probe = probe
        self._names = Names(settings.amqp.prefix)
        self._topology = build(self._names, settings.lanes)
        url, management = settings.amqp.url.get_secret_value(), settings.amqp.management_url
        self._management = Management(management.get_secret_value(), url) if management else None

    async def findings(self) -> list[Finding]:
        return [
            broker.broker_version(self._probe.product, self._probe.version),
            *await guarded(("broker-features",), self._features),
            *await self._accepts_and_routes(),
            *await guarded(_DECLARED, self._declared),
            *await guarded(_CONTENTS, self._contents),
        ]

    async def _features(self) -> list[Finding]:
        probe = self._probe
        return [broker.broker_features(probe.version, probe.capabilities, await probe.stream_flag())]

    async def _accepts_and_routes(self) -> list[Finding]:
        taken, alarm, refusal = await self._probe.accepts()
        accepts = broker.broker_accepts(taken, alarm, refusal)
        if taken is None or alarm:
            # under an alarm a message would wait, and leave the ladder when nobody takes it any more
            return [accepts, unchecked("routes", "RabbitMQ takes no messages")]
        return [accepts, *await guarded(("routes",), self._routes)]

    async def _routes(self) -> list[Finding]:
        missing = None if self._management is None else await self._management.missing_bindings(self._topology)
        return [broker.routes(*await self._probe.through_ladder(self._names), missing)]

    async def _declared(self) -> list[Finding]:
        made = self._topology
        found = await self._probe.declared(made)
        policies = {} if self._management is None else await self._management.policies(made)
        number = len(made.exchanges) + len(made.queues)
        there = number - len(found.missing)
        return [
            broker.topology(found.missing, number),
            broker.arguments(found.different, policies, there),
            broker.delivery_limits(found.different, policies, there),
        ]

    async def _contents(self) -> list[Finding]:
        names, lanes = self._names, self._settings.lanes
        asking = QueueCounts(self._settings.amqp.url.get_secret_value(), "dispatcher doctor")
        try:
            counts = await asking.read([queue.name for queue in self._topology.queues])
        finally:
            await asking.close()
        there = {queue: count for queue, count in counts.items() if count is not None}
        ready = {queue: count.ready for queue, count in there.items()}
        parked = max((ready[queue] for lane in lanes if (queue := names.parked(lane)) in ready), default=None)
        refused, ended = await self._last_hour()
        return [
            broker.consumers(names, lanes, {queue: count.consumers for queue, count in there.items()}),
            broker.strays(names, ready),
            broker.unrecorded(names, ready),
            broker.filling("rejected", ready.get(names.rejected), REJECTED_LIMITS, refused, REJECTED_LOOK),
            broker.filling("parked", parked, PARKED_LIMITS, ended, PARKED_LOOK),
        ]

    async def _last_hour(self) -> tuple[int | None, int | None]:
        """How many jobs of the last hour were refused, and how many failed for good; None while MongoDB is away."""
        mongo, since = self._settings.mongo, clock.now_ms() - HOUR_MS
        database = Database(mongo.url.get_secret_value(), mongo.database)
        try:
            refused = await accepted_since(database, [JobState.REJECTED], since)
            return refused, await accepted_since(database, [JobState.FAILED, JobState.TIMED_OUT], since)
        except DatabaseError:
            return None, None
        finally:
            database.close()

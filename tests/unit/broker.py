"""A small broker for tests: exchanges, topic bindings, lifetimes and dead-lettering of a declared topology."""

from __future__ import annotations

from dataclasses import dataclass, field

from dispatcher.core.topology import Topology


def matches(pattern: list[str], words: list[str]) -> bool:
    """Whether a topic binding takes a routing key, straight from the protocol's text."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(matches(pattern[1:], words[i:]) for i in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and matches(pattern[1:], words[1:])


@dataclass
class Broker:
    """Exchanges, bindings, lifetimes and dead-lettering; time is a sum of lifetimes."""

    topology: Topology
    visited: list[str] = field(default_factory=list)
    waited_ms: int = 0
    arrived: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.exchanges = {exchange.name: exchange for exchange in self.topology.exchanges}
        self.queues = {queue.name: queue for queue in self.topology.queues}

    def publish(self, exchange: str, key: str) -> None:
        """Let a message go as far as it goes."""
        queues = self.route(exchange, key, set())
        for name in queues:
            arguments = self.queues[name].arguments
            if "x-message-ttl" in arguments and "x-dead-letter-exchange" in arguments:
                self.visited.append(name)
                self.waited_ms += arguments["x-message-ttl"]
                self.publish(arguments["x-dead-letter-exchange"], arguments.get("x-dead-letter-routing-key", key))
            else:
                self.arrived.append(name)

    def route(self, exchange: str, key: str, seen: set[str]) -> set[str]:
        """The queues that take a message: each at most once, however many bindings lead to it."""
        if exchange in seen:
            return set()
        seen.add(exchange)
        kind = self.exchanges[exchange].type
        found: set[str] = set()
        routed = False
        for binding in self.topology.bindings:
            if binding.source != exchange or not self.takes(kind, binding.routing_key, key):
                continue
            routed = True
            found |= self.route(binding.destination, key, seen) if binding.to_exchange else {binding.destination}
        alternate = self.exchanges[exchange].arguments.get("alternate-exchange")
        if not routed and alternate:
            return self.route(alternate, key, seen)
        return found

    @staticmethod
    def takes(kind: str, pattern: str, key: str) -> bool:
        """Whether an exchange of this type lets a binding take the key."""
        if kind == "topic":
            return matches(pattern.split("."), key.split("."))
        return kind == "fanout" or pattern == key

"""RabbitMQ. The only package that imports aio-pika, aiormq and backoff."""

from dispatcher.edges.amqp.bound import BoundPublisher
from dispatcher.edges.amqp.consumer import Consumer, Delivery, Subscription
from dispatcher.edges.amqp.counts import Count, QueueCounts
from dispatcher.edges.amqp.declare import declare, declare_again
from dispatcher.edges.amqp.link import BrokerError, Link, check_broker
from dispatcher.edges.amqp.outbox import Entry, Outbox
from dispatcher.edges.amqp.peek import Peeked, peek
from dispatcher.edges.amqp.peers import Peers
from dispatcher.edges.amqp.probe import Declared, Probe
from dispatcher.edges.amqp.publisher import Outgoing, Publisher, marked_again, routed
from dispatcher.edges.amqp.rotate import Plan, Rotated, rotate
from dispatcher.edges.amqp.sift import Sifted, sift

__all__ = [
    "BoundPublisher",
    "BrokerError",
    "Consumer",
    "Count",
    "Declared",
    "Delivery",
    "Entry",
    "Link",
    "Outbox",
    "Outgoing",
    "Peeked",
    "Peers",
    "Plan",
    "Probe",
    "Publisher",
    "QueueCounts",
    "Rotated",
    "Sifted",
    "Subscription",
    "check_broker",
    "declare",
    "declare_again",
    "marked_again",
    "peek",
    "rotate",
    "routed",
    "sift",
]

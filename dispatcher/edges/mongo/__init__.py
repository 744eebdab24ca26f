"""MongoDB. The only package that imports motor, pymongo and bson; motor itself only in ``client``."""

from dispatcher.edges.mongo.audit import AuditFilter, AuditStore
from dispatcher.edges.mongo.cancels import CancelStore
from dispatcher.edges.mongo.claims import ClaimStore
from dispatcher.edges.mongo.client import Database, DatabaseAway, DatabaseError, MongoError, explained
from dispatcher.edges.mongo.forgetting import Forgetting
from dispatcher.edges.mongo.jobs import JobStore, Unstorable, query_of
from dispatcher.edges.mongo.keys import KeyStore
from dispatcher.edges.mongo.oldest import oldest_queued, overdue_since
from dispatcher.edges.mongo.probe import accepted_since, clock_ahead, majority_write, missing_indexes, server
from dispatcher.edges.mongo.running import accepted_between, running
from dispatcher.edges.mongo.scheduled import ScheduledStore
from dispatcher.edges.mongo.stats import StatisticsStore
from dispatcher.edges.mongo.turns import Turns
from dispatcher.edges.mongo.usage import UsageStore
from dispatcher.edges.mongo.watch import DatabaseWatch

__all__ = [
    "AuditFilter",
    "AuditStore",
    "CancelStore",
    "ClaimStore",
    "Database",
    "DatabaseAway",
    "DatabaseError",
    "DatabaseWatch",
    "Forgetting",
    "JobStore",
    "KeyStore",
    "MongoError",
    "ScheduledStore",
    "StatisticsStore",
    "Turns",
    "Unstorable",
    "UsageStore",
    "accepted_between",
    "accepted_since",
    "clock_ahead",
    "explained",
    "majority_write",
    "missing_indexes",
    "oldest_queued",
    "overdue_since",
    "query_of",
    "running",
    "server",
]

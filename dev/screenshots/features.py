"""The column Features of the management UI: a sign for each argument."""

from __future__ import annotations

from collections.abc import Mapping

#: What stands for an argument, in the UI's order (KNOWN_ARGS in RabbitMQ's management plugin, js/global.js).
SIGNS = {
    "alternate-exchange": "AE",
    "x-message-ttl": "TTL",
    "x-expires": "Exp",
    "x-max-length": "Lim",
    "x-max-length-bytes": "Lim B",
    "x-delivery-limit": "DlL",
    "x-overflow": "Ovfl",
    "x-dead-letter-exchange": "DLX",
    "x-dead-letter-routing-key": "DLK",
    "x-single-active-consumer": "SAC",
}


def signs(arguments: Mapping[str, object]) -> list[str]:
    """The signs of something durable with these arguments."""
    known = [sign for argument, sign in SIGNS.items() if argument in arguments]
    return ["D", *known, *(["Args"] if arguments.keys() - SIGNS.keys() else [])]

"""Job Dispatcher: an event-driven job system on RabbitMQ.

Applications use ``from dispatcher import Client``; handlers use ``from consumers import Registry``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatcher.client import Client, PublishFailed, Receipt

__all__ = ["Client", "PublishFailed", "Receipt"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # loaded when asked for, so that the core can be imported without RabbitMQ's libraries
    if name in __all__:
        from dispatcher import client

        return getattr(client, name)
    raise AttributeError(f"module 'dispatcher' has no attribute {name!r}")

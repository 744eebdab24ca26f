"""Handlers and the worker that runs them."""

from consumers.context import BatchContext, Context
from consumers.control import Cancel, Snooze
from consumers.registry import Handler, Registry, RegistryError, Retry

__all__ = ["BatchContext", "Cancel", "Context", "Handler", "Registry", "RegistryError", "Retry", "Snooze"]

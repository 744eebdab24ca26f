"""Declaring handlers: which function runs which job type, and how."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from consumers.exception_names import exception_name
from dispatcher.core.admission import is_type
from dispatcher.core.errors import DispatcherError
from schemas import RetrySpec, sentence

Kind = Literal["async", "thread", "process"]
Function = TypeVar("Function", bound=Callable[..., Any])


class RegistryError(DispatcherError):
    """A handler was declared wrongly; the sentence says how to mend it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """When and how often a failed job is tried again; what is left out falls to the configuration.

    Seconds for ``base`` and ``max_delay``; ``on`` and ``never`` take exception classes, or their names, short or with
    their module (``"requests.exceptions.Timeout"``).
    """

    max_attempts: int | None = None
    base: float | None = None
    factor: float | None = None
    max_delay: float | None = None
    jitter: float | None = None
    on: tuple[type[BaseException] | str, ...] | None = None
    never: tuple[type[BaseException] | str, ...] | None = None

    def spec(self) -> RetrySpec:
        """As the wire format, checked.

        Raises:
            RegistryError: a value is out of bounds.
        """
        try:
            return RetrySpec(
                max_attempts=self.max_attempts,
                base=self.base,
                factor=self.factor,
                max_delay=self.max_delay,
                jitter=self.jitter,
                on=_names("on", self.on),
                never=_names("never", self.never),
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise RegistryError(f"Retry({first['loc'][0]}=…): {sentence(first)}") from None


def _names(field: str, classes: Any) -> tuple[str, ...] | None:
    if classes is None:
        return None
    if isinstance(classes, (str, type)):  # a string's characters would pass as names
        raise RegistryError(f"Retry({field}=…): give a tuple, for example {field}=(ConnectionError,)")
    try:
        return tuple(map(exception_name, classes))
    except ValueError as error:
        raise RegistryError(f"Retry({field}=…): {error}") from None


@dataclass(frozen=True, slots=True)
class Handler:
    """One declared handler.

    ``payload`` validates a message's payload by the parameter's annotation; None where any object will do. A ``batch``
    handler takes a list of payloads, and ``payload`` validates one of them.
    """

    type: str
    function: Callable[..., Any]
    kind: Kind
    timeout: float | None
    retry: RetrySpec | None
    payload: TypeAdapter[Any] | None
    takes_context: bool
    batch: bool = False

    def value(self, payload: dict[str, Any]) -> Any:
        """One payload, validated.

        Raises:
            pydantic.ValidationError: it does not fit the annotation.
        """
        return payload if self.payload is None else self.payload.validate_python(payload)

    def arguments(self, payload: dict[str, Any], context: Any) -> tuple[Any, ...]:
        """The arguments of a call with one payload; a batch handler's are made with `batch_arguments`.

        Raises:
            pydantic.ValidationError: the payload does not fit the annotation.
        """
        value = self.value(payload)
        return (value, context) if self.takes_context else (value,)

    def batch_arguments(self, values: list[Any], context: Any) -> tuple[Any, ...]:
        """The arguments of a batch handler's call with these validated payloads."""
        return (values, context) if self.takes_context else (values,)


class Registry:
    """The handlers of one worker."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def handler(
        self,
        job_type: str,
        *,
        timeout: float | None = None,
        retry: Retry | None = None,
        isolate: Literal["process"] | None = None,
        batch: bool | None = None,
    ) -> Callable[[Function], Function]:
        """Declare the function below as the handler of a job type.

        One whose payload is annotated as a list, ``list[Email]``, is a batch handler: it gets the payloads of all
        members of a batch at once, and a list of one for a job that is in no group.

        Args:
            job_type: dot-separated words of ``[a-z0-9_-]``.
            timeout: seconds for one attempt, 0.1 to 86,400.
            retry: how failures are tried again.
            isolate: ``"process"`` runs it in a child process, which is killed at the timeout.
            batch: True says that a function without an annotation takes a list; left out, the annotation says it.

        Raises:
            RegistryError: the type is malformed or taken, or the function cannot be a handler.
        """
        if not isinstance(job_type, str):  # without its arguments, the decorator would declare nothing
            raise RegistryError('a handler is declared with its job type: @jobs.handler("invoice.send")')

        def declare(function: Function) -> Function:
            self._add(_handler(job_type, function, timeout, retry, isolate, batch))
            return function

        return declare

    def include(self, *others: Registry) -> None:
        """Take over the handlers of other registries, so that one worker serves several modules.

        Raises:
            RegistryError: a job type has a handler already.
        """
        for other in others:
            for handler in other:
                self._add(handler)

    def _add(self, handler: Handler) -> None:
        if handler.type in self._handlers:
            raise RegistryError(f'job type "{handler.type}" has a handler already')
        self._handlers[handler.type] = handler

    def get(self, job_type: str) -> Handler | None:
        """The handler of a type, or None."""
        return self._handlers.get(job_type)

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._handlers.values())

    def __len__(self) -> int:
        return len(self._handlers)


def _handler(
    job_type: str,
    function: Callable[..., Any],
    timeout: float | None,
    retry: Retry | None,
    isolate: str | None,
    batch: bool | None,
) -> Handler:
    if not is_type(job_type):
        raise RegistryError(f'"{job_type}" is not a job type: use dot-separated words of [a-z0-9_-]')
    if timeout is not None and not 0.1 <= timeout <= 86_400:
        raise RegistryError(f'handler of "{job_type}": timeout must be 0.1 to 86,400 seconds')
    if isolate not in (None, "process"):
        raise RegistryError(f'handler of "{job_type}": isolate takes "process" or nothing')
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise RegistryError(f'handler of "{job_type}" must not yield: nobody would run it; return its result')
    takes_context = _takes_context(job_type, function)
    element, is_batch = _element(job_type, _annotation(job_type, function), batch)
    kind: Kind = "process" if isolate else "async" if inspect.iscoroutinefunction(function) else "thread"
    return Handler(
        job_type,
        function,
        kind,
        timeout,
        retry.spec() if retry else None,
        _adapter(job_type, element),
        takes_context,
        is_batch,
    )


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def _takes_context(job_type: str, function: Callable[..., Any]) -> bool:
    count = len(_parameters(function))
    if count not in (1, 2):
        raise RegistryError(f'handler of "{job_type}" must take (payload) or (payload, ctx)')
    return count == 2


def _annotation(job_type: str, function: Callable[..., Any]) -> Any:
    """The payload's; Any where there is none."""
    plain = inspect.unwrap(function)
    # asked here, because from Python 3.14 on get_type_hints finds no annotations in these, and does not mind
    if isinstance(plain, functools.partial) or not inspect.isroutine(plain):
        raise RegistryError(f'handler of "{job_type}" must be a function: put a def around it')
    name = _parameters(function)[0].name
    try:
        return typing.get_type_hints(function, include_extras=True).get(name, Any)
    except TypeError as error:
        raise RegistryError(f'handler of "{job_type}": the annotation of {name} is none ({error})') from None
    except NameError as error:
        raise RegistryError(
            f'handler of "{job_type}": the annotation of {name} names something that cannot be found ({error})'
        ) from None


def _element(job_type: str, annotation: Any, batch: bool | None) -> tuple[Any, bool]:
    """What one payload is to be, and whether the handler takes a list of them.

    A payload is always a JSON object, so an annotation that is a list has no other meaning.
    """
    plain = annotation
    while hasattr(plain, "__value__"):  # type Emails = list[Email]
        plain = plain.__value__
    if typing.get_origin(plain) is Annotated and _is_list(typing.get_args(plain)[0]):
        raise RegistryError(
            f'handler of "{job_type}": {annotation!r} says something of the list, which no payload is; '
            "say it of the payloads: list[Annotated[…]]"
        )
    if _is_list(plain):
        if batch is False:
            raise RegistryError(
                f'handler of "{job_type}": batch=False, but a list is annotated, and no payload is one; '
                "leave batch=False out, or annotate what one payload is"
            )
        (element,) = typing.get_args(plain) or (Any,)
        return element, True
    if batch and annotation is not Any:
        raise RegistryError(
            f'handler of "{job_type}": with batch=True the payload must be annotated as a list, such as list[Email], '
            f"not as {annotation!r}"
        )
    return annotation, bool(batch)


def _is_list(annotation: Any) -> bool:
    return (typing.get_origin(annotation) or annotation) in (list, Sequence)


def _adapter(job_type: str, annotation: Any) -> TypeAdapter[Any] | None:
    """A validator for one payload; None where any object will do."""
    if annotation in (Any, dict, dict[str, Any]):
        return None
    try:
        return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise RegistryError(
            f'handler of "{job_type}": pydantic cannot validate a payload as {annotation!r}: {error}'
        ) from None

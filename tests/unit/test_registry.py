"""Declaring handlers: what they take, and errors that name the fix."""

from __future__ import annotations

import functools
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, ValidationError
from typing_extensions import TypeAliasType, TypedDict

from consumers import BatchContext, Cancel, Context, Registry, RegistryError, Retry, Snooze
from schemas import RetrySpec


class Email(BaseModel):
    """A pydantic model."""

    to: str
    copies: int = 1


@dataclass
class Order:
    """A dataclass."""

    number: int


class Point(TypedDict):
    """A typed dict."""

    x: int


Orders = TypeAliasType("Orders", list[Order])


class Invoice(BaseModel):
    """Named by string annotations only."""

    total: float


def declare(function: Any, job_type: str = "a.b", **options: Any) -> Any:
    """The handler that a declaration makes."""
    registry = Registry()
    assert registry.handler(job_type, **options)(function) is function
    return registry.get(job_type)


def takes_model(payload: Email, ctx: Context) -> None: ...
def takes_dataclass(payload: Order) -> None: ...
def takes_typed_dict(payload: Point) -> None: ...
def takes_dict(payload: dict[str, Any]) -> None: ...
def takes_plain_dict(payload: dict) -> None: ...  # type: ignore[type-arg]
def takes_typed_values(payload: dict[str, int]) -> None: ...
def takes_anything(payload: Any) -> None: ...
def takes_unsaid(payload) -> None: ...  # type: ignore[no-untyped-def]
def takes_union(payload: Email | Order) -> None: ...
def takes_annotated(payload: Annotated[dict[str, int], Field(min_length=1)]) -> None: ...
def takes_annotated_list(payloads: Annotated[list[Email], Field(min_length=2)]) -> None: ...
async def takes_string(payload: "Invoice", ctx: "Context") -> None: ...  # noqa: UP037


@pytest.mark.parametrize(
    ("function", "payload", "value"),
    [
        (takes_model, {"to": "a"}, Email(to="a")),
        (takes_dataclass, {"number": "7"}, Order(7)),
        (takes_typed_dict, {"x": 1}, {"x": 1}),
        (takes_dict, {"a": None}, {"a": None}),
        (takes_plain_dict, {"a": [1]}, {"a": [1]}),
        (takes_typed_values, {"a": "1"}, {"a": 1}),
        (takes_anything, {"a": 1}, {"a": 1}),
        (takes_unsaid, {"a": 1}, {"a": 1}),
        (takes_union, {"number": 1}, Order(1)),
        (takes_annotated, {"a": 1}, {"a": 1}),
        (takes_string, {"total": 1}, Invoice(total=1)),
    ],
)
def test_a_payload_becomes_what_the_annotation_says(function: Any, payload: dict[str, Any], value: Any) -> None:
    """Models, dataclasses, typed dicts, unions, plain dicts; with the context where the handler takes one."""
    handler = declare(function)
    arguments = handler.arguments(payload, "the context")
    assert arguments[0] == value
    assert type(arguments[0]) is type(value)
    assert arguments[1:] == (("the context",) if function in (takes_model, takes_string) else ())


@pytest.mark.parametrize(
    ("function", "payload"),
    [
        (takes_model, {}),
        (takes_dataclass, {"number": "x"}),
        (takes_typed_dict, {"x": "y"}),
        (takes_typed_values, {"a": "b"}),
        (takes_annotated, {}),
    ],
)
def test_a_payload_that_does_not_fit_is_a_validation_error(function: Any, payload: dict[str, Any]) -> None:
    """Before the handler is called."""
    with pytest.raises(ValidationError):
        declare(function).arguments(payload, None)


def takes_models(payloads: list[Email], ctx: BatchContext) -> None: ...
def takes_sequence(payloads: Sequence[Order]) -> None: ...
def takes_typing_list(payloads: typing.List[Order]) -> None: ...  # noqa: UP006
def takes_plain_list(payloads: list) -> None: ...  # type: ignore[type-arg]
def takes_dicts(payloads: list[dict[str, Any]]) -> None: ...
def takes_annotated_elements(payloads: list[Annotated[dict[str, int], Field(min_length=1)]]) -> None: ...
def takes_alias(payloads: Orders) -> None: ...
async def takes_string_list(payloads: "list[Invoice]") -> None: ...  # noqa: UP037


@pytest.mark.parametrize(
    ("function", "payload", "value"),
    [
        (takes_models, {"to": "a"}, Email(to="a")),
        (takes_sequence, {"number": "7"}, Order(7)),
        (takes_typing_list, {"number": "7"}, Order(7)),
        (takes_plain_list, {"a": 1}, {"a": 1}),
        (takes_dicts, {"a": 1}, {"a": 1}),
        (takes_annotated_elements, {"a": "1"}, {"a": 1}),
        (takes_alias, {"number": "7"}, Order(7)),
        (takes_string_list, {"total": 1}, Invoice(total=1)),
    ],
)
def test_a_list_of_payloads_makes_a_batch_handler(function: Any, payload: dict[str, Any], value: Any) -> None:
    """However the list is written; each payload is validated by itself, and no other handler is one."""
    for options in ({}, {"batch": True}):
        handler = declare(function, **options)
        assert handler.batch
        assert handler.value(payload) == value
        assert type(handler.value(payload)) is type(value)
        assert handler.batch_arguments([1, 2], "ctx") == (([1, 2], "ctx") if function is takes_models else ([1, 2],))
    for element in (takes_plain_list, takes_dicts):
        assert declare(element).payload is None
    for lone in (takes_model, takes_dict, takes_anything, takes_unsaid, takes_union):
        assert not declare(lone).batch


def test_a_batch_handler_may_be_declared_without_an_annotation() -> None:
    """With batch=True, as any object."""
    for function in (takes_unsaid, takes_anything):
        handler = declare(function, batch=True)
        assert (handler.batch, handler.payload) == (True, None)
        assert not declare(function, batch=False).batch


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        (takes_model, {"batch": True}, r"annotated as a list, such as list\[Email\], not as .*Email"),
        (takes_dict, {"batch": True}, r"annotated as a list"),
        (takes_models, {"batch": False}, "leave batch=False out, or annotate what one payload is"),
        (takes_annotated_list, {}, r"say it of the payloads: list\[Annotated"),
    ],
)
def test_a_batch_that_contradicts_its_annotation_says_what_to_write(
    function: Any, options: dict[str, Any], said: str
) -> None:
    """At the declaration."""
    with pytest.raises(RegistryError, match=said):
        declare(function, **options)


def test_a_payload_of_a_batch_is_refused_as_a_lone_one_is() -> None:
    """By the element's annotation."""
    with pytest.raises(ValidationError):
        declare(takes_models).value({})
    with pytest.raises(ValidationError):
        declare(takes_annotated_elements).value({})


def test_where_a_handler_runs() -> None:
    """Async in the loop, sync in a thread, isolated in a process."""
    assert declare(takes_string).kind == "async"
    assert declare(takes_dict).kind == "thread"
    assert declare(takes_dict, isolate="process").kind == "process"
    assert declare(takes_string, isolate="process").kind == "process"


def test_a_generator_is_no_handler() -> None:
    """Calling it would run nothing of it."""

    def yields(payload: dict[str, Any]) -> Any:
        yield 1

    async def yields_too(payload: dict[str, Any]) -> Any:
        yield 1

    for function in (yields, yields_too):
        with pytest.raises(RegistryError, match="must not yield"):
            declare(function)


@pytest.mark.parametrize("job_type", ["", "A", "a b", ".a", "a..b", "x" * 101, "email.*"])
def test_a_malformed_type_says_what_a_type_is(job_type: str) -> None:
    """The words that are allowed."""
    with pytest.raises(RegistryError, match=r"dot-separated words of \[a-z0-9_-\]"):
        declare(takes_dict, job_type)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout": 0}, "timeout must be 0.1 to 86,400"),
        ({"timeout": 86_401}, "timeout must be 0.1 to 86,400"),
        ({"timeout": float("nan")}, "timeout must be 0.1 to 86,400"),
        ({"isolate": "thread"}, 'isolate takes "process" or nothing'),
        ({"retry": Retry(max_attempts=0)}, r"Retry\(max_attempts=…\).*greater than or equal to 1"),
        ({"retry": Retry(max_attempts=101)}, r"Retry\(max_attempts=…\).*less than or equal to 100"),
        ({"retry": Retry(base=0.1)}, r"Retry\(base=…\)"),
        ({"retry": Retry(factor=0.5)}, r"Retry\(factor=…\)"),
        ({"retry": Retry(jitter=2)}, r"Retry\(jitter=…\)"),
        ({"retry": Retry(on=("not a name",))}, r"Retry\(on=…\)"),
        ({"retry": Retry(on="ConnectionError")}, r"Retry\(on=…\).*tuple"),
        ({"retry": Retry(never=ValueError)}, r"Retry\(never=…\).*tuple"),
    ],
    ids=str,
)
def test_an_option_out_of_bounds_is_named_with_its_bounds(options: dict[str, Any], said: str) -> None:
    """At the declaration, not at the first job."""
    with pytest.raises(RegistryError, match=said):
        declare(takes_dict, **options)


def test_a_function_of_another_shape_is_refused() -> None:
    """Handlers take (payload) or (payload, ctx)."""
    for function in (lambda: None, lambda a, b, c: None):
        with pytest.raises(RegistryError, match=r"must take \(payload\) or \(payload, ctx\)"):
            declare(function)


def test_what_is_no_function_is_refused() -> None:
    """A partial or a callable object has no annotations of its own: the error says what to write."""

    class Callable:
        """An object that can be called; and so can its class."""

        def __init__(self, payload: object = None) -> None: ...

        def __call__(self, payload: Email) -> None: ...

    for function in (functools.partial(takes_model), Callable(), Callable):
        with pytest.raises(RegistryError, match="put a def around it"):
            declare(function)


def test_a_method_and_what_wraps_a_function_are_functions() -> None:
    """Their annotations are those of the function: the payload is validated."""

    class Mailer:
        """A class with a handler as a method."""

        def send(self, payload: Email) -> None: ...

    wrapped = functools.update_wrapper(functools.partial(takes_model), takes_model)
    for function in (Mailer().send, wrapped):
        assert declare(function).payload is not None


def test_an_annotation_that_cannot_be_used_is_named() -> None:
    """One that pydantic cannot validate, and one whose name cannot be found."""

    class Opaque:
        """Nothing that pydantic knows."""

    def opaque(payload: Any) -> None: ...
    def missing(payload: Any) -> None: ...

    def no_type(payload: Any) -> None: ...

    opaque.__annotations__ = {"payload": Opaque}
    missing.__annotations__ = {"payload": "NowhereToBeFound"}
    with pytest.raises(RegistryError, match=r"a\.b.*Opaque"):
        declare(opaque)
    with pytest.raises(RegistryError, match="NowhereToBeFound"):
        declare(missing)
    no_type.__annotations__ = {"payload": "1 | None"}
    with pytest.raises(RegistryError, match="the annotation of payload is none"):
        declare(no_type)


def test_one_type_has_one_handler() -> None:
    """A second declaration is an error that names the type; the first stays."""
    registry = Registry()
    registry.handler("a.b")(takes_dict)
    with pytest.raises(RegistryError, match=r'"a\.b" has a handler already'):
        registry.handler("a.b")(takes_model)
    handler = registry.get("a.b")
    assert handler is not None
    assert handler.function is takes_dict
    assert len(registry) == 1
    assert [h.type for h in registry] == ["a.b"]
    assert registry.get("other") is None


def test_a_retry_becomes_the_wire_format() -> None:
    """Classes by their names, what was left out stays out."""
    retry = Retry(max_attempts=3, base=1, on=(ConnectionError, "OrderError"), never=())
    assert declare(takes_dict, retry=retry).retry == RetrySpec(
        max_attempts=3, base=1.0, on=("ConnectionError", "OrderError"), never=()
    )
    assert declare(takes_dict).retry is None
    assert declare(takes_dict, timeout=0.1).timeout == 0.1


@pytest.mark.parametrize("seconds", [-1, 86_400.5, float("nan"), float("inf")])
def test_a_snooze_has_bounds(seconds: float) -> None:
    """0 to 86,400 seconds."""
    with pytest.raises(ValueError, match="0 to 86,400"):
        Snooze(seconds)


def test_what_snooze_and_cancel_carry() -> None:
    """Seconds and a reason."""
    assert (Snooze(0).seconds, Snooze(86_400).seconds) == (0.0, 86_400.0)
    assert (Cancel("why").reason, Cancel().reason) == ("why", "")


def test_a_decorator_without_its_type_is_an_error() -> None:
    """``@jobs.handler`` alone would declare nothing, and put a decorator in the function's place."""
    with pytest.raises(RegistryError, match="declared with its job type"):
        Registry().handler(takes_dict)  # type: ignore[arg-type]


def test_a_registry_takes_over_the_handlers_of_others() -> None:
    """So that one worker serves several modules; a type that two of them have is an error."""
    mine, mail, bills = Registry(), Registry(), Registry()
    for registry, job_type in ((mail, "mail.send"), (bills, "bill.write"), (bills, "bill.send")):
        registry.handler(job_type)(lambda payload: None)
    mine.include(mail, bills)
    assert [handler.type for handler in mine] == ["mail.send", "bill.write", "bill.send"]
    with pytest.raises(RegistryError, match="has a handler already"):
        mine.include(mail)

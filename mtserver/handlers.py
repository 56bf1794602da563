"""
Reading a handler: what it takes, how it wants to run, and whether it can be served at all.

Everything that can be wrong with a handler before the first message is found here, in one sentence for its author.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

from mtserver.app import Handler
from mtserver.client import Client
from mtserver.errors import ConfigurationError
from mtserver.messages import Codec, codec_for

Hook = Callable[..., Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How a handler is served. There is one subject per client: an instance of the handler class, or the client."""

    #: Makes the subject for a client; may raise whatever its author's ``__init__`` raises.
    make: Callable[[Client], Any]
    #: Called with the subject and a message (or a list of them); no method is bound for each client.
    received: Hook
    codec: Codec
    #: It takes lists of messages.
    batches: bool
    #: It is a plain ``def`` and may block.
    blocks: bool
    #: Its subjects have methods of these names that do something.
    connects: bool = False
    disconnects: bool = False
    authenticates: bool = False


def plan(handler: Any) -> Plan:
    """How `handler` is to be served; :class:`~mtserver.errors.ConfigurationError` if it cannot be."""
    if inspect.isclass(handler):
        return _plan_class(handler)
    if not callable(handler):
        raise ConfigurationError(f"{_name(handler)} is neither a function, a Handler class nor an App")
    annotation = _message_type(handler, ("client", "message"))
    return Plan(_itself, handler, codec_for(annotation), batches=False, blocks=not is_async(handler))


def _itself(client: Client) -> Client:
    return client


def _plan_class(handler: type) -> Plan:
    name = _name(handler)
    if not issubclass(handler, Handler):
        raise ConfigurationError(f"{name} is a class, but not a subclass of mtserver.Handler")
    batches = handler.received_batch is not None
    if batches and handler.received is not Handler.received:
        raise ConfigurationError(f"{name} has both received and received_batch; which one is meant?")
    if not batches and handler.received is Handler.received:
        raise ConfigurationError(f"{name} has no method received(self, message)")
    receiver: Any = handler.received_batch if batches else handler.received
    annotation = _message_type(receiver, ("self", "messages" if batches else "message"))
    if batches:
        annotation = typing.get_args(annotation)[0] if typing.get_args(annotation) else bytes
    check_call(handler, ("client",), f"{name}(client)")
    if handler.authenticate is not None:
        check_call(handler.authenticate, ("self", "message"), f"{name}.authenticate(self, message)")
    check_call(handler.connected, ("self",), f"{name}.connected(self)")
    check_call(handler.disconnected, ("self", "reason"), f"{name}.disconnected(self, reason)")
    return Plan(
        handler,
        receiver,
        codec_for(annotation),
        batches=batches,
        blocks=not is_async(receiver),
        connects=handler.connected is not Handler.connected,
        disconnects=handler.disconnected is not Handler.disconnected,
        authenticates=handler.authenticate is not None,
    )


def is_async(function: Any) -> bool:
    """Whether calling `function` gives a coroutine; sees through partials and callable objects."""
    return inspect.iscoroutinefunction(_function_of(function))


def _function_of(thing: Any) -> Any:
    """The function that runs when a function, partial or callable object is called."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    return thing if inspect.isroutine(thing) else thing.__call__


def check_call(function: Any, arguments: tuple[str, ...], wanted: str) -> inspect.Signature:
    """The signature of `function`; :class:`~mtserver.errors.ConfigurationError` if it does not take these arguments."""
    try:
        signature = inspect.signature(function)
        signature.bind(*arguments)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{_name(function)} cannot be called as {wanted}") from None
    return signature


def _message_type(function: Any, arguments: tuple[str, ...]) -> Any:
    """The annotation of the last argument; bytes where there is none."""
    signature = check_call(function, arguments, f"({', '.join(arguments)})")
    called = _function_of(function)
    if inspect.isasyncgenfunction(called) or inspect.isgeneratorfunction(called):
        raise ConfigurationError(f"{_name(function)} is a generator; a handler returns its reply")
    parameter = list(signature.bind(*arguments).arguments)[-1]
    try:
        # Also resolves annotations that are strings (from __future__ import annotations).
        hints = typing.get_type_hints(called)
    except Exception as error:  # evaluating an author's annotations can raise anything
        raise ConfigurationError(f"the annotations of {_name(function)} cannot be read: {error}") from None
    return hints.get(parameter, bytes)


def _name(thing: Any) -> str:
    return getattr(thing, "__qualname__", None) or repr(thing)

"""
Reading a handler: what it takes, how it wants to run, and whether it can be served at all.

Everything that can be wrong with a handler before the first message is found here, in one sentence for its author.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

from mtserver.app import Handler
from mtserver.client import Client
from mtserver.codecs import Codec, codec_for
from mtserver.errors import ConfigurationError, HandlerError
from mtserver.framing import framing_named
from mtserver.settings import DEFAULTS, Settings

Hook = Callable[..., Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How a handler is served. There is one handler per client: an instance of the handler class, or the client."""

    #: Makes the handler for a client; may raise whatever its author's ``__init__`` raises.
    make: Callable[[Client], Any]
    #: Called with the handler and a message (or a list of them); no method is bound for each client.
    received: Hook
    codec: Codec
    #: Whether it takes lists of messages.
    batches: bool
    #: Whether it is a plain ``def`` and may block.
    blocks: bool
    #: Whether ``connected``, or ``disconnected``, does something.
    connects: bool = False
    disconnects: bool = False
    #: Codec of the message that its `authenticate` is given; None where it has none.
    login: Codec | None = None
    #: The types of a message and of its reply; bytes and Any where the author has not said.
    message: Any = bytes
    reply: Any = Any


def plan(handler: Any, settings: Settings = DEFAULTS) -> Plan:
    """
    How `handler` is to be served.

    :param settings: the encoding of typed messages, and the framing that is to carry them.
    :raises ConfigurationError: if it cannot be.
    """
    if inspect.isclass(handler):
        return _plan_class(handler, settings)
    if not callable(handler):
        raise ConfigurationError(f"{_name(handler)} is neither a function, a Handler class nor an App")
    message, reply = _types(handler, ("client", "message"))
    return Plan(
        _itself,
        handler,
        _codec(message, reply, settings),
        batches=False,
        blocks=not is_async(handler),
        message=message,
        reply=reply,
    )


def _codec(message: Any, reply: Any, settings: Settings) -> Codec:
    codec = codec_for(message, reply, settings.encoding)
    if codec.needs_any_byte and not framing_named(settings.framing).carries_any_byte:
        raise ConfigurationError(
            f"--encoding {settings.encoding} cannot go with --framing {settings.framing}: any byte may occur in a "
            "message, a newline too; use --framing int32"
        )
    return codec


def _itself(client: Client) -> Client:
    return client


def _plan_class(handler: type, settings: Settings) -> Plan:
    name = _name(handler)
    if not issubclass(handler, Handler):
        raise ConfigurationError(f"{name} is a class, but not a subclass of mtserver.Handler")
    batches = handler.received_batch is not None
    if batches and handler.received is not Handler.received:
        raise ConfigurationError(f"{name} has both received and received_batch; which one is meant?")
    if not batches and handler.received is Handler.received:
        raise ConfigurationError(f"{name} has no method received(self, message)")
    receiver: Any = handler.received_batch if batches else handler.received
    message, reply = _types(receiver, ("self", "messages" if batches else "message"))
    if batches:
        message, reply = _item(message, bytes), _item(reply, Any)
    check_call(handler, ("client",), f"{name}(client)")
    login = None
    if handler.authenticate is not None:
        check_call(handler.authenticate, ("self", "message"), f"{name}.authenticate(self, message)")
        login = _codec(_types(handler.authenticate, ("self", "message"))[0], Any, settings)
    check_call(handler.connected, ("self",), f"{name}.connected(self)")
    check_call(handler.disconnected, ("self", "reason"), f"{name}.disconnected(self, reason)")
    return Plan(
        handler,
        receiver,
        _codec(message, reply, settings),
        batches=batches,
        blocks=not is_async(receiver),
        connects=handler.connected is not Handler.connected,
        disconnects=handler.disconnected is not Handler.disconnected,
        login=login,
        message=message,
        reply=reply,
    )


def _item(batch: Any, default: Any) -> Any:
    """The type of what is in a ``list[...]``, be it in a union with None; `default` where that is not said."""
    if batch in (None, type(None)):
        return None
    for member in (batch, *typing.get_args(batch)):
        if typing.get_origin(member) not in (None, typing.Annotated, typing.Union, types.UnionType):
            return typing.get_args(member)[0]
    return default


def batch_replies(outcome: Any, messages: int) -> list[Any]:
    """
    Split the return value of `received_batch` into a reply (or a refusal, or None) for each message.

    :raises HandlerError: if it is not that.
    """
    if outcome is None:
        return [None] * messages
    if isinstance(outcome, (str, bytes)) or not isinstance(outcome, Iterable):
        raise HandlerError(f"received_batch returned {type(outcome).__name__}, not a list of replies")
    replies = list(outcome)
    if len(replies) != messages:
        raise HandlerError(f"received_batch returned {len(replies)} replies to {messages} messages")
    return replies


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
    except Exception as error:  # Python 3.14 evaluates an author's annotations only here, which can raise anything
        raise ConfigurationError(f"the annotations of {_name(function)} cannot be read: {error}") from None
    return signature


def _types(function: Any, arguments: tuple[str, ...]) -> tuple[Any, Any]:
    """The annotations of the last argument, bytes where there is none, and of what is returned, Any likewise."""
    signature = check_call(function, arguments, f"({', '.join(arguments)})")
    called = _function_of(function)
    if inspect.isasyncgenfunction(called) or inspect.isgeneratorfunction(called):
        raise ConfigurationError(f"{_name(function)} is a generator; a handler returns its reply")
    parameter = list(signature.bind(*arguments).arguments)[-1]
    try:
        # get_type_hints resolves annotations that are strings, too (from __future__ import annotations).
        hints = typing.get_type_hints(called, include_extras=True)
    except Exception as error:  # evaluating an author's annotations can raise anything
        raise ConfigurationError(f"the annotations of {_name(function)} cannot be read: {error}") from None
    return hints.get(parameter, bytes), hints.get("return", Any)


def _name(thing: Any) -> str:
    return getattr(thing, "__qualname__", None) or repr(thing)

"""Reading handlers: how each shape is served, and the one sentence for each that cannot be."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Annotated, Any

from msgspec import Meta
from twisted.trial.unittest import SynchronousTestCase

from mtserver.app import Handler
from mtserver.client import Client
from mtserver.codecs import BytesCodec, TextCodec
from mtserver.dispatch.plan import Plan, is_async, plan
from mtserver.errors import BadMessage, ConfigurationError, Refusal
from mtserver.settings import Settings


class _Connection:
    peer = "192.0.2.2:50000"
    connected_at = 0.0

    def send(self, message: Any) -> None:
        raise AssertionError("nobody sends here")

    def close(self) -> None:
        raise AssertionError("nobody closes here")


def client_of(handler: Callable[..., Any]) -> Client:
    return Client(_Connection(), 1)  # type: ignore[arg-type]


def blocking(client: Client, message: bytes) -> bytes:
    return message


async def awaiting(client: Client, message: str) -> str:
    return message


class Object:
    """A handler that is an object; `func` is an attribute like any other."""

    def __init__(self) -> None:
        self.func = blocking

    async def __call__(self, client: Client, message: str) -> str:
        return message


class Functions(SynchronousTestCase):
    def test_plain(self) -> None:
        """A plain def may block, and its annotation chooses the codec."""
        made = plan(blocking)
        self.assertEqual((made.blocks, made.batches, type(made.codec)), (True, False, BytesCodec))

    def test_async(self) -> None:
        """An async def does not block; annotations that are strings are read."""
        made = plan(awaiting)
        self.assertEqual((made.blocks, made.batches, type(made.codec)), (False, False, TextCodec))

    def test_bound(self) -> None:
        """A function is given the client it was bound to, and has no other hooks."""
        seen = []

        def handler(client: Client, message: bytes) -> None:
            seen.append((client, message))

        client = client_of(handler)
        made = plan(handler)
        made.received(made.make(client), b"hello")
        self.assertEqual(seen, [(client, b"hello")])
        self.assertFalse(made.connects or made.disconnects)

    def test_no_annotation(self) -> None:
        """Without an annotation messages are bytes."""
        handler: Any = lambda client, message: message  # noqa: E731
        self.assertIs(type(plan(handler).codec), BytesCodec)

    def test_partial(self) -> None:
        """A partial is served as the function behind it, also where that is async."""

        async def handler(database: object, client: Client, message: str) -> str:
            return message

        made = plan(functools.partial(handler, object()))
        self.assertEqual((made.blocks, type(made.codec)), (False, TextCodec))
        self.assertTrue(plan(functools.partial(blocking)).blocks)

    def test_callable_object(self) -> None:
        """An object is served as its __call__ says, whatever else it has."""
        made = plan(Object())
        self.assertEqual((made.blocks, type(made.codec)), (False, TextCodec))

    def test_partial_of_object(self) -> None:
        """So is a partial of such an object."""
        made = plan(functools.partial(Object()))
        self.assertEqual((made.blocks, type(made.codec)), (False, TextCodec))

    def test_method(self) -> None:
        """A bound method is a function too."""

        class Shop:
            async def sell(self, client: Client, message: str) -> None: ...

        made = plan(Shop().sell)
        self.assertEqual((made.blocks, type(made.codec)), (False, TextCodec))

    def test_other_names(self) -> None:
        """Names of arguments are the author's business, and so are further ones with defaults."""

        def handler(who: Client, what: str, loud: bool = True) -> None: ...
        def everything(*words: str) -> None: ...

        self.assertIs(type(plan(handler).codec), TextCodec)
        self.assertIs(type(plan(everything).codec), TextCodec)


class Classes(SynchronousTestCase):
    def test_minimal(self) -> None:
        """A class with received alone has no other hooks, so they cost nothing."""

        class Minimal(Handler):
            async def received(self, message: bytes) -> None: ...

        made = plan(Minimal)
        self.assertEqual((made.blocks, made.batches, type(made.codec)), (False, False, BytesCodec))
        client = client_of(Minimal)
        instance = made.make(client)
        self.assertIs(type(instance), Minimal)
        self.assertIs(instance.client, client)
        self.assertFalse(made.connects or made.disconnects)

    def test_each_client_its_own(self) -> None:
        """Each client gets an instance of its own."""

        class Minimal(Handler):
            def received(self, message: str) -> None: ...

        made = plan(Minimal)
        self.assertTrue(made.blocks)
        one, two = (made.make(client_of(Minimal)) for _ in range(2))
        self.assertIsNot(one, two)

    def test_hooks(self) -> None:
        """Hooks that are defined are called, also inherited ones."""
        calls = []

        class Base(Handler):
            def connected(self) -> None:
                calls.append("connected")

            def disconnected(self, reason: str) -> None:
                calls.append(reason)

        class Full(Base):
            def received(self, message: str) -> None:
                calls.append(message)

        made = plan(Full)
        self.assertTrue(made.connects and made.disconnects)
        full = made.make(client_of(Full))
        full.connected()
        made.received(full, "message")
        full.disconnected("gone")
        self.assertEqual(calls, ["connected", "message", "gone"])

    def test_batches(self) -> None:
        """received_batch takes lists, and the type of their items chooses the codec."""

        class Texts(Handler):
            async def received_batch(self, messages: list[str]) -> list[str]:
                return messages

        class Bare(Handler):
            def received_batch(self, messages: list) -> None: ...  # type: ignore[type-arg]

        made = plan(Texts)
        self.assertEqual((made.blocks, made.batches, type(made.codec)), (False, True, TextCodec))
        self.assertEqual(made.received.__name__, "received_batch")
        made = plan(Bare)
        self.assertEqual((made.blocks, made.batches, type(made.codec)), (True, True, BytesCodec))

    def test_typed(self) -> None:
        """The types of messages and replies are known, of a batch those within its lists."""

        class Numbers(Handler):
            async def received(self, message: int) -> float | None: ...

        class Batches(Handler):
            async def received_batch(self, messages: Sequence[int]) -> list[float | Refusal] | None: ...

        class Silent(Handler):
            async def received_batch(self, messages: list[int]) -> None: ...

        async def noted(client: Client, message: Annotated[list[int], Meta(max_length=2)]) -> Any: ...

        async def plain(client: Client, message: Annotated[bytes, "of what"]): ...  # type: ignore[no-untyped-def]

        self.assertEqual((plan(Numbers).message, plan(Numbers).reply), (int, float | None))
        self.assertEqual((plan(Batches).message, plan(Batches).reply), (int, float | Refusal))
        self.assertEqual((plan(Silent).message, plan(Silent).reply), (int, None))
        self.assertRaises(BadMessage, plan(noted).codec.decode, b"[1,2,3]")
        self.assertIs(type(plan(plain).codec), BytesCodec)
        self.assertIs(plan(plain).reply, Any)

    def test_init_raises(self) -> None:
        """What an author's __init__ raises is raised when a client is bound, not before."""

        class Failing(Handler):
            def __init__(self, client: Client) -> None:
                raise ZeroDivisionError

            def received(self, message: bytes) -> None: ...

        made = plan(Failing)
        self.assertRaises(ZeroDivisionError, made.make, client_of(Failing))


class Mistakes(SynchronousTestCase):
    """Each names the culprit, and says in one sentence what is wrong with it."""

    def refused(self, handler: Any, *words: str) -> None:
        error = self.assertRaises(ConfigurationError, plan, handler)
        for word in words:
            self.assertIn(word, str(error))
        self.assertNotIn("\n", str(error))

    def test_not_callable(self) -> None:
        """A thing that cannot be called is no handler."""
        self.refused(5, "5 is neither a function, a Handler class nor an App")

    def test_other_class(self) -> None:
        """A class must be a Handler."""

        class Till: ...

        self.refused(Till, "Till is a class, but not a subclass of mtserver.Handler")

    def test_no_received(self) -> None:
        """A Handler must receive."""

        class Deaf(Handler): ...

        self.refused(Deaf, "Deaf has no method received(self, message)")
        self.refused(Handler, "Handler has no method received")

    def test_arguments(self) -> None:
        """A function or method must take what it is called with."""

        def one(message: bytes) -> None: ...
        def keyword(client: Client, message: bytes, *, key: str) -> None: ...

        class Deaf(Handler):
            def received(self) -> None: ...  # type: ignore[override]

        class Deafs(Handler):
            def received_batch(self) -> None: ...  # type: ignore[override]

        self.refused(one, "one cannot be called as (client, message)")
        self.refused(keyword, "keyword cannot be called as (client, message)")
        self.refused(Deaf, "Deaf.received cannot be called as (self, message)")
        self.refused(Deafs, "Deafs.received_batch cannot be called as (self, messages)")

    def test_hooks(self) -> None:
        """So must __init__, connected and disconnected."""

        class NoClient(Handler):
            def __init__(self) -> None: ...
            def received(self, message: bytes) -> None: ...

        class Connects(Handler):
            def received(self, message: bytes) -> None: ...
            def connected(self, peer: str) -> None: ...  # type: ignore[override]

        class Disconnects(Handler):
            def received(self, message: bytes) -> None: ...
            def disconnected(self) -> None: ...  # type: ignore[override]

        self.refused(NoClient, "NoClient cannot be called as", "NoClient(client)")
        self.refused(Connects, "Connects.connected cannot be called as", "Connects.connected(self)")
        self.refused(Disconnects, "Disconnects.disconnected cannot be called as", "(self, reason)")

    def test_no_signature(self) -> None:
        """Something built in that does not tell its arguments is refused, not served by luck."""
        self.refused(max, "max cannot be called as (client, message)")

    def test_generators(self) -> None:
        """A generator returns no reply, be it async or not, a function or an object."""

        def yielding(client: Client, message: bytes) -> Iterator[bytes]:
            yield message

        async def asking(client: Client, message: bytes) -> AsyncIterator[bytes]:
            yield message

        class Yielding:
            def __call__(self, client: Client, message: bytes) -> Iterator[bytes]:
                yield message

        for handler in (yielding, asking, Yielding(), functools.partial(yielding)):
            self.refused(handler, "is a generator; a handler returns its reply")

    def test_annotation(self) -> None:
        """An annotation that cannot be evaluated is told with what evaluating it raised."""

        def handler(client, message: Nowhere): ...  # type: ignore[no-untyped-def,name-defined]  # noqa: F821

        self.refused(handler, "the annotations of", "handler cannot be read", "Nowhere")

    def test_late_annotation(self) -> None:
        """So is one that Python 3.14 evaluates when it is asked for the signature."""

        class Late:
            @property
            def __signature__(self) -> Any:
                raise NameError("name 'Nowhere' is not defined")

            def __call__(self, client: Client, message: bytes) -> None: ...

        self.refused(Late(), "the annotations of", "Late", "cannot be read", "Nowhere")

    def test_type(self) -> None:
        """A message, or a reply, of a type that cannot be read cannot be served; the type, and the part, are named."""

        def handler(client: Client, message: complex) -> None: ...
        def inside(client: Client, message: list[complex]) -> None: ...
        def reply(client: Client, message: int) -> complex:
            return 1j

        class Batches(Handler):
            def received_batch(self, messages: list[complex]) -> None: ...

        for each in (handler, Batches):
            self.refused(each, "messages of type complex are not supported")
        self.refused(inside, "messages of type list[complex] are not supported: nobody knows how to read a complex")
        self.refused(reply, "replies of type complex are not supported")

    def test_framing(self) -> None:
        """MessagePack cannot go as lines, since a newline may occur in it; bytes and text, and JSON, can."""

        def typed(client: Client, message: int) -> None: ...

        settings = Settings(encoding="msgpack", framing="line")
        error = self.assertRaises(ConfigurationError, plan, typed, settings)
        self.assertTrue(str(error).startswith("--encoding msgpack cannot go with --framing line: "), str(error))
        for framing in ("netstring", "int8", "int16", "int32"):
            plan(typed, Settings(encoding="msgpack", framing=framing))
        plan(blocking, settings)
        plan(awaiting, settings)
        plan(typed, Settings(framing="line"))

    def test_both(self) -> None:
        """A class with received and received_batch does not say which one is meant."""

        class Both(Handler):
            async def received(self, message: bytes) -> None: ...

            async def received_batch(self, messages: list[bytes]) -> None: ...

        self.refused(Both, "Both has both received and received_batch")


class IsAsync(SynchronousTestCase):
    def test_each(self) -> None:
        """Whether a call gives a coroutine is seen through partials and objects, in any order."""
        client = client_of(blocking)
        asynchronous: list[Any] = [awaiting, functools.partial(awaiting, client), Object(), Object().__call__]
        asynchronous += [functools.partial(Object())]
        for function in asynchronous:
            self.assertTrue(is_async(function), function)
        for function in (blocking, functools.partial(blocking, client), len, Plan):
            self.assertFalse(is_async(function), function)

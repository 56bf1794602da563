"""A ``ReactorBuilder``, Twisted's base of test cases of reactors, that builds ours."""

from __future__ import annotations

import importlib.util
from typing import Any

from twisted.internet.test.reactormixins import ReactorBuilder

# Where there is none the factory fails, and ReactorBuilder skips the test.
if importlib.util.find_spec("uvloop") is not None:
    import uvloop

    from mtserver.transport.reactor.uv import UVReactor


class OnUV(ReactorBuilder):
    """Each reactor has a loop of its own, which is closed after the test; what nobody caught in it fails the test."""

    def reactorFactory(self: Any) -> Any:
        loop: Any = uvloop.new_event_loop()
        made: list[UVReactor] = []
        unhandled: list[Any] = []
        loop.set_exception_handler(lambda _, context: unhandled.append(context))

        def close() -> None:
            loop.call_soon(loop.stop)
            loop.run_forever()  # for what is closing
            loop.close()
            self.assertEqual(unhandled, [])
            self.assertTrue(made, "skipped, though it is ours to be made")

        self.addCleanup(close)
        made.append(UVReactor(loop))
        return made[0]

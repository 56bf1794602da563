"""A ``ReactorBuilder``, Twisted's base of test cases of reactors, that builds ours."""

from __future__ import annotations

from typing import Any

from twisted.internet.test.reactormixins import ReactorBuilder


class OnUV(ReactorBuilder):
    """Each reactor has a loop of its own, which is closed after the test; what nobody caught in it fails the test."""

    def reactorFactory(self: Any) -> Any:
        # Imported late: where uvloop is not installed, ReactorBuilder skips the test.
        import uvloop

        from mtserver.reactor.uv import UVReactor

        loop: Any = uvloop.new_event_loop()
        unhandled: list[Any] = []
        loop.set_exception_handler(lambda _, context: unhandled.append(context))

        def close() -> None:
            loop.call_soon(loop.stop)
            loop.run_forever()  # for what is closing
            loop.close()
            self.assertEqual(unhandled, [])

        self.addCleanup(close)
        return UVReactor(loop)

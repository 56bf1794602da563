"""
Negative controls: the code is broken on purpose, one line at a time, and the test of the promise must fail.

A test that passes whatever the code does protects nothing. Each control names a promise, breaks it in a copy of the
package in the way somebody might by accident, and runs the one test that should notice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

import mtserver

PACKAGE = Path(mtserver.__file__).parent
TESTS = Path(__file__).parent


class Control(NamedTuple):
    """One way to break a promise."""

    #: The module, and the lines in it that are replaced; they must stand there exactly once.
    module: str
    right: str
    wrong: str
    #: The test that has to fail.
    test: str


CONTROLS = {
    "P1_ok_without_commit": Control(
        "journal/sqlite.py",
        'connection.execute("COMMIT")',
        'connection.execute("ROLLBACK")',
        "test_journal.py::Storing::test_append",
    ),
    "P1_commit_does_not_wait_for_the_disk": Control(
        "journal/sqlite.py", "synchronous = FULL", "synchronous = NORMAL", "test_journal.py::Storing::test_durable"
    ),
    "P1_acknowledged_after_a_failed_fsync": Control(
        "journal/sqlite.py",
        "        if self._stopped:\n            raise OSError(self._stopped)\n",
        "",
        "test_journal.py::Faults::test_failed_fsync",
    ),
    "P1_written_to_a_file_nobody_will_find": Control(
        "journal/sqlite.py",
        "self._identity != _identity(self._path)",
        "False",
        "test_journal.py::Faults::test_replaced",
    ),
    "P3_reply_overtaken": Control(
        "outbox.py",
        "        if self._replies:\n            self._frame_replies()\n        self._frames.append(frame)\n",
        "        self._frames.append(frame)\n",
        "test_session.py::Replies::test_send_is_in_order",
    ),
    "P3_messages_at_the_same_time": Control(
        "dispatch.py",
        "        self.busy = True\n        self._running = coroutines.start",
        "        self._running = coroutines.start",
        "test_dispatch.py::Async::test_one_after_another",
    ),
    "P3_rest_of_a_batch_forgotten": Control(
        "session.py",
        "        self._given_back = frames\n",
        "        self._given_back = frames[1:]\n",
        "test_session.py::BackPressure::test_large_replies_to_a_batch",
    ),
    "P4_not_answered_before_the_end": Control(
        "session.py",
        "            self._pause()\n            self.holds &= ~_THROTTLED\n            self._go_on()\n",
        "            self._close('closing')\n",
        "test_factory.py::Stopping::test_drain",
    ),
    "P4_not_flushed_before_the_end": Control(
        "session.py",
        "        if not self.holds & _BLOCKED:\n            self._shut()\n",
        "        self._shut()\n",
        "test_session.py::Closing::test_close_with_unread_bytes",
    ),
    "P4_cut_off_in_silence": Control(
        "service.py",
        "            self._fail()\n        # They have been told",
        "            pass\n        # They have been told",
        "test_service.py::Cuts::test_drain_timeout",
    ),
    "P6_no_retry_after": Control(
        "messages.py",
        'f" retry-after={refusal.retry_after}"',
        '""',
        "test_factory.py::Admission::test_max_clients",
    ),
    "P6_closed_without_a_word": Control(
        "session.py",
        "            self._add_frame(self._refusal_frame(refusal))\n",
        "            pass\n",
        "test_session.py::BadInput::test_too_long",
    ),
    "P6_reset_before_it_is_read": Control(
        "protocol.py",
        "            transport.loseWriteConnection()\n",
        "            transport.abortConnection()\n",
        "test_session.py::BadInput::test_lingering",
    ),
    "P7_ok_for_what_was_not_stored": Control(
        "journal/sqlite.py",
        "outcome.set_exception(refusal)",
        "outcome.set_result([0, 0])",
        "test_apps.py::Collect::test_unavailable",
    ),
    "P8_reading_on_without_end": Control(
        "session.py",
        "if self._framing.buffered >= HIGH_WATER and",
        "if False and",
        "test_session.py::BackPressure::test_reading_pauses",
    ),
    "P8_sending_without_end": Control(
        "session.py",
        "if self._outbox.size > self._server.settings.send_buffer:",
        "if self._outbox.size > 1 << 40:",
        "test_session.py::BackPressure::test_send_buffer",
    ),
    "P8_handling_for_a_client_that_does_not_read": Control(
        "session.py",
        "            self.holds |= _BLOCKED\n            self._blocked_at",
        "            self._blocked_at",
        "test_session.py::BackPressure::test_blocked_client_is_not_handled",
    ),
    "P8_over_long_line_kept": Control(
        "framing/line.py",
        "            self._fail(TooLong(self.max_message))\n\n",
        "            pass\n\n",
        "test_session.py::BadInput::test_too_long",
    ),
    "P8_a_flood_read_to_its_end": Control(
        "session.py", "> LINGER_SIZE:", "> 1 << 40:", "test_session.py::BadInput::test_lingering_has_an_end"
    ),
    "P9_slow_reader_kept": Control(
        "session.py",
        "now - self._blocked_at >= settings.send_timeout",
        "False",
        "test_session.py::BackPressure::test_slow_reader_is_cut",
    ),
    "P9_slowloris_kept": Control(
        "session.py",
        "if begun and settings.message_timeout",
        "if False and settings.message_timeout",
        "test_session.py::Deadlines::test_message_timeout",
    ),
    "P9_idle_kept": Control(
        "session.py",
        "elif settings.idle_timeout and",
        "elif False and",
        "test_session.py::Deadlines::test_idle",
    ),
    "P9_silent_handshake_kept": Control(
        "session.py",
        "        self._deadline = self._server.seconds() + HANDSHAKE\n",
        "        pass\n",
        "test_tls.py::Tls::test_silent_handshake",
    ),
    "P9_one_client_keeps_the_loop": Control(
        "dispatch.py", "SLICE = 0.005", "SLICE = 1e9", "test_dispatch.py::Async::test_turns"
    ),
    "P9_too_many_let_in": Control(
        "factory.py",
        ">= self.max_clients:",
        "> self.max_clients:",
        "test_factory.py::Admission::test_max_clients",
    ),
    "P8_handlers_of_the_departed_without_end": Control(
        "factory.py",
        "len(self._unreleased) >= self.max_clients",
        "len(self._connections) >= self.max_clients",
        "test_factory.py::Admission::test_handlers_count",
    ),
    "P9_reply_waits_for_the_next_message": Control(
        "session.py",
        "            self._flush_soon()\n\n    def failed",
        "            pass\n\n    def failed",
        "test_dispatch.py::Async::test_replies_do_not_wait",
    ),
    "P9_rate_not_kept": Control(
        "session.py",
        "tokens = bucket.available(self._server.seconds())",
        "tokens = BATCH",
        "test_session.py::Rate::test_rate",
    ),
    "replies_lost_at_half_close": Control(
        "session.py",
        "            self._go_on()\n        elif self._phase == _SHUT:",
        "            self.abort()\n        elif self._phase == _SHUT:",
        "test_session.py::HalfClose::test_replies_come",
    ),
    "replies_lost_at_close_notify": Control(
        "tls.py",
        "        except SSL.ZeroReturnError:\n",
        "        except ZeroDivisionError:\n",
        "test_tls.py::Tls::test_close_notify",
    ),
    "a_write_per_message": Control(
        "session.py",
        "        self._outbox.add_reply(data)\n",
        "        self._outbox.add_reply(data)\n        self.flush()\n",
        "test_session.py::Replies::test_one_write_per_read",
    ),
    "a_wake_up_per_message": Control(
        "handoff.py",
        "            if self._awake:\n",
        "            if False:\n",
        "test_handoff.py::Posting::test_one_wake_up",
    ),
    "served_before_the_app_is_open": Control(
        "session.py",
        "        if self._server.is_open:\n",
        "        if True:\n",
        "test_session.py::Lifespan::test_served_after_opening",
    ),
    "terminal_sequences_in_the_log": Control(
        "logs.py",
        "        return escape(str(error))\n",
        "        return str(error)\n",
        "test_service.py::Logging::test_traceback_is_escaped",
    ),
    "a_time_of_ours_that_jumps": Control(
        "reactor/uv.py",
        "return self._began + time.monotonic()",
        "return time.time()",
        "test_reactor.py::Reactor::test_time_does_not_jump",
    ),
    "call_from_a_thread_that_raises_in_silence": Control(
        "reactor/uv.py",
        '            _log.failure("Unhandled error in a call from a thread")\n',
        "            pass\n",
        "test_reactor.py::Reactor::test_from_thread",
    ),
    "connections_forgotten_at_the_end": Control(
        "reactor/uv.py",
        "return [*super().removeAll(), *self.connections]",
        "return super().removeAll()",
        "test_reactor_connection.py::OnUs::test_stop",
    ),
    "connections_never_forgotten": Control(
        "reactor/connection.py",
        "        self._reactor.connections.discard(self)\n",
        "",
        "test_reactor_connection.py::OnUs::test_nothing_is_left",
    ),
    "a_segment_per_write_before_it_is_ready": Control(
        "reactor/connection.py",
        '            uv.write(b"".join(self._written))\n',
        "            for data in self._written:\n                uv.write(data)\n",
        "test_reactor_connection.py::OnUs::test_when_made",
    ),
    "received_while_paused": Control(
        "reactor/connection.py",
        "            _Held(connection, uv, loop)\n",
        "            uv.pause_reading()\n",
        "test_reactor_connection.py::OnUs::test_paused_when_made",
    ),
    "received_twice": Control(
        "reactor/connection.py",
        "        self._wanted = False\n        for name",
        "        for name",
        "test_reactor_connection.py::OnUs::test_resumed_later",
    ),
    "received_from_within": Control(
        "reactor/connection.py",
        "            self._loop.call_soon(self._release)\n",
        "            self._release()\n",
        "test_reactor_connection.py::OnUs::test_resumed_later",
    ),
    "received_after_the_end": Control(
        "reactor/connection.py",
        "if not self._wanted or not connection.receives:",
        "if not self._wanted or not connection.connected:",
        "test_reactor_connection.py::OnUs::test_ended_while_paused",
    ),
    "said_to_be_sent_before_it_is": Control(
        "reactor/connection.py",
        "        if self._uv.get_write_buffer_size():\n            self._uv.set",
        "        if False:\n            self._uv.set",
        "test_reactor_connection.py::OnUs::test_half_close",
    ),
    "lost_what_was_written_after_the_end": Control(
        "reactor/connection.py",
        "            self._reactor.loop.call_soon(self._look)\n",
        "            self._look()\n",
        "test_reactor_connection.py::OnUs::test_after_lose_connection",
    ),
    "aborted_politely": Control(
        "reactor/connection.py",
        "            if reason.check(error.ConnectionAborted):\n",
        "            if False:\n",
        "test_reactor_connection.py::OnUs::test_abort",
    ),
    "raised_in_silence": Control(
        "reactor/connection.py",
        '        _log.failure("Unhandled error in {protocol}", Failure(problem), protocol=self.logPrefix())\n',
        "",
        "test_reactor_connection.py::OnUs::test_data_received",
    ),
    "never_paused": Control(
        "reactor/connection.py",
        "        if self._uv.get_write_buffer_size() > _HIGH_WATER:\n",
        "        if False:\n",
        "test_reactor_connection.py::OnUs::test_push_when_made",
    ),
    "not_paused_when_it_was_full_already": Control(
        "reactor/connection.py",
        "            if self._state & _FULL:\n                self._pause_producer()\n",
        "",
        "test_reactor_connection.py::OnUs::test_push_when_full",
    ),
    "asked_for_more_before_it_is_sent": Control(
        "reactor/connection.py",
        "            producer.resumeProducing()\n",
        "            producer.resumeProducing()\n            self._look_soon()\n",
        "test_reactor_connection.py::OnUs::test_pull_that_takes_its_time",
    ),
    "asked_for_more_after_the_end": Control(
        "reactor/connection.py",
        "        if self._reason is not None:\n            return\n",
        "",
        "test_reactor_connection.py::OnUs::test_aborted",
    ),
    "no_back_pressure_in_other_programs": Control(
        "reactor/connection.py",
        "ISystemHandle, IPushProducer, IConsumer",
        "ISystemHandle, IConsumer",
        "test_reactor_connection.py::OnUs::test_interfaces",
    ),
    "lost_and_never_told": Control(
        "reactor/connection.py",
        "    except (OSError, RuntimeError) as problem:\n        failed(problem)\n",
        "    except (OSError, RuntimeError):\n        pass\n",
        "test_reactor_connection.py::OnUs::test_never_ready",
    ),
    "certificate_gone_before_the_end": Control(
        "reactor/connection.py",
        "        self._guarded(self.protocol.connectionLost, reason)\n",
        "        self.__dict__.clear()\n        self._guarded(self.protocol.connectionLost, reason)\n",
        "test_reactor_connection.py::OnUs::test_start_tls",
    ),
    "time_that_jumps": Control(
        "reactor/__init__.py",
        "        reactor.seconds = time.monotonic\n",
        "        pass\n",
        "test_reactor.py::Time::test_steady",
    ),
}


class Controls(SynchronousTestCase):
    """One method per control, made below."""

    def check(self, control: Control) -> None:
        root = Path(self.mktemp()).absolute()
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE, root / "mtserver", ignore=ignore)
        shutil.copytree(TESTS, root / "tests", ignore=ignore)
        broken = root / "mtserver" / control.module
        text = broken.read_text()
        self.assertEqual(text.count(control.right), 1, f"{control.module} no longer has: {control.right!r}")
        broken.write_text(text.replace(control.right, control.wrong))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        environment["PYTHONPATH"] = str(root)
        words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", f"tests/{control.test}"]
        done = subprocess.run(
            [sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        self.assertIn("1 failed", done.stdout, f"broken on purpose, and not noticed:\n{done.stdout}{done.stderr}")


def _method(control: Control, name: str) -> None:
    def test(self: Controls) -> None:
        self.check(control)

    test.__doc__ = f"{name.replace('_', ' ')} is noticed by {control.test}."
    test.__name__ = f"test_{name}"
    setattr(Controls, test.__name__, test)


for _name, _control in CONTROLS.items():
    _method(_control, _name)

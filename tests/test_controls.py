"""
Negative controls: the code is broken on purpose, one line at a time, and the test of the promise must fail.

A test that passes whatever the code does protects nothing. Each control names a promise, breaks it in a copy of the
package in the way somebody might by accident, and runs the one test that should notice.
"""

from __future__ import annotations

import atexit
import compileall
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SkipTest, SynchronousTestCase

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
        "journal/writer.py",
        '        connection.execute("COMMIT")\n        wrote',
        '        connection.execute("ROLLBACK")\n        wrote',
        "test_journal.py::Storing::test_append",
    ),
    "P1_commit_does_not_wait_for_the_disk": Control(
        "journal/file.py",
        "synchronous = {'NORMAL' if fast else 'FULL'}",
        "synchronous = NORMAL",
        "test_journal.py::Storing::test_durable",
    ),
    "P1_gone_on_behind_what_the_disk_never_got": Control(
        "journal/file.py",
        "                rewrite_log(connection, path)\n",
        "                sync_log(path)\n",
        "integration/test_journal_faults.py::TestJournal::test_restart_after_failed_fsync",
    ),
    "P1_acknowledged_after_a_failed_fsync": Control(
        "journal/writer.py",
        "        if self._stopped:\n            raise OSError(self._stopped)\n",
        "",
        "test_journal.py::Faults::test_failed_fsync",
    ),
    "P1_written_to_a_file_nobody_will_find": Control(
        "journal/writer.py",
        "not self._is_in_place()",
        "False",
        "test_journal.py::Faults::test_replaced",
    ),
    "group_heard_by_others": Control(
        "broadcasts.py",
        "            for run in (list(run) for _, run in itertools.groupby(unsent, key=_to_whom))",
        "            for run in [unsent]",
        "test_groups.py::Hearing::test_moment",
    ),
    "group_heard_before_joining": Control(
        "groups/memory.py",
        "            self._flush()  # what was said before is not for it\n",
        "            pass\n",
        "test_groups.py::Hearing::test_one_iteration",
    ),
    "group_not_heard_though_it_was_in_it": Control(
        "groups/memory.py",
        "        self._flush()  # what was said before is still for it\n",
        "",
        "test_groups.py::Hearing::test_one_iteration",
    ),
    "group_overtaken_by_a_reply": Control(
        "broadcasts.py",
        "        _deliver_to(listener, self.unsent[had:])\n",
        "        pass\n",
        "test_groups.py::Hearing::test_order",
    ),
    "group_with_a_write_for_each": Control(
        "broadcasts.py",
        "in owed.items():\n        listener.deliver(",
        "in owed.items():\n        listener.deliver(b'', 0)\n        listener.deliver(",
        "test_groups.py::Hearing::test_one_write",
    ),
    "P8_members_who_are_gone_kept": Control(
        "factory.py",
        "        self.groups.forget(session)\n",
        "",
        "test_groups.py::Hearing::test_gone",
    ),
    "P8_groups_without_end": Control(
        "groups/memory.py",
        "if group not in joined and len(joined) >= self._most:",
        "if False:",
        "test_groups.py::Hearing::test_most",
    ),
    "P8_sender_that_does_not_wait": Control(
        "groups/memory.py",
        "        if not full():\n",
        "        if True:\n",
        "test_groups.py::Limits::test_wait",
    ),
    "change_not_told": Control(
        "groups/memory.py",
        "        self._changed(group, before, None)\n",
        "",
        "test_groups.py::Seeing::test_watch",
    ),
    "chat_obeyed_by_terminals": Control(
        "apps/chat.py", "    return escape(text)\n", "    return text\n", "test_chat.py::Names::test_escaped"
    ),
    "chat_name_taken_twice": Control(
        "apps/chat.py",
        "[member.label.casefold() for member in self.client.app.group(room).members()].count(name.casefold())",
        "[member.label for member in self.client.app.group(room).members()].count(name)",
        "test_chat.py::Names::test_taken",
    ),
    "P2_stored_twice": Control(
        "journal/ids.py",
        "    return found\n\n\ndef remember",
        "    return {}\n\n\ndef remember",
        "test_journal_ids.py::Once::test_again",
    ),
    "P7_stranger_by_an_old_memory": Control(
        "journal/schema.py",
        'not connection.execute(has).get:\n        return "that is a database',
        "not connection.table_exists(None, 'messages'):\n        return \"that is a database",
        "test_journal.py::Faults::test_made_by_another",
    ),
    "P7_read_before_it_is_made": Control(
        "journal/sqlite.py",
        "        if self._is_made and not counts:\n",
        "        if not counts:\n",
        "test_journal_ids.py::Reading::test_new",
    ),
    "P4_second_signal_that_came_early": Control(
        "service.py",
        "        if self._stops > 1:\n",
        "        if False:\n",
        "test_service.py::Cuts::test_second_signal_at_once",
    ),
    "P7_an_empty_message_is_damage": Control(
        "journal/checking.py",
        "WHEN length(m.message) > 0 AND substr",
        "WHEN substr",
        "test_journal_damage.py::BeforeTheStart::test_empty_message",
    ),
    "P2_twice_in_one_batch": Control(
        "journal/insertion.py",
        "if not known and len(set(batch.ids)) == len(batch.ids):",
        "if not known:",
        "test_journal_ids.py::Once::test_twice_in_one_batch",
    ),
    "P2_known_though_rolled_back": Control(
        "journal/writer.py",
        "    def _roll_back(self) -> None:\n        self._insertion.forget()\n",
        "    def _roll_back(self) -> None:\n",
        "test_journal_ids.py::Once::test_nothing_of_what_was_rolled_back_is_known",
    ),
    "P2_somebody_elses_source": Control(
        "journal/insertion.py",
        "may have removed sources\n            self.forget()\n",
        "may have removed sources\n",
        "test_journal_ids.py::Once::test_sources_removed_by_somebody_else",
    ),
    "P2_ids_of_all_names_are_one": Control(
        "journal/ids.py",
        "        key = identity, name\n",
        "        key = identity, identity\n",
        "test_message_ids.py::Collect::test_names",
    ),
    "P2_anonymous_clients_share_ids": Control(
        "message_ids.py",
        "    if not (author.name or client.identity):",
        "    if False:",
        "test_message_ids.py::Collect::test_nameless",
    ),
    "P1_duplicate_of_what_is_not_on_disk": Control(
        "journal/writer.py",
        "if stored and not wrote and not self._fast:",
        "if False:",
        "test_journal_ids.py::Once::test_duplicates_are_on_disk",
    ),
    "P2_known_for_ever": Control(
        "journal/ids.py",
        "time > ?2 AND",
        "?2 IS NOT NULL AND",
        "test_journal_ids.py::Windows::test_time",
    ),
    "P8_ids_without_end": Control(
        "journal/ids.py",
        "        if seq <= last - window.messages:",
        "        if False:",
        "test_journal_ids.py::Windows::test_too_many",
    ),
    "P3_overtaken_after_a_failure": Control(
        "message_ids.py",
        "                    client.author.behind = client.author.behind or incoming[place].id\n",
        "                    pass\n",
        "test_message_ids.py::Order::test_not_overtaken",
    ),
    "P2_stored_under_the_name_before": Control(
        "message_ids.py",
        "author.is_numbered = author.is_resuming = True",
        "author.is_numbered = True",
        "test_message_ids.py::Order::test_resume_that_fails",
    ),
    "P2_history_with_an_id_stored_twice": Control(
        "journal/ids.py",
        "        found.update(connection.execute(_select(len(some)), (source, oldest, *some)))\n",
        "        found.update(connection.execute(_select(len(some)), (source, batch.time - 1, *some)))\n",
        "test_journal_machine.py::AgainstAModel::test_any_history",
    ),
    "P2_history_with_a_wrong_place_to_go_on": Control(
        "journal/insertion.py",
        "lasts[source or 0] = (following + len(messages) - 1, numbered[-1])",
        "lasts[source or 0] = (following + len(messages) - 1, batch.ids[-1])",
        "test_journal_machine.py::AgainstAModel::test_any_history",
    ),
    "P3_history_with_an_overtaking": Control(
        "message_ids.py",
        "if author.behind and message.id != author.behind:",
        "if author.behind and message.id < author.behind:",
        "test_journal_machine.py::AgainstAModel::test_any_history",
    ),
    "P3_overtaken_after_a_failed_transaction": Control(
        "message_ids.py",
        "            author.behind = incoming.id\n",
        "            pass\n",
        "test_message_ids.py::Transactions::test_away",
    ),
    "P2_half_of_it_stored_again": Control(
        "author.py",
        "        ids, self.ids = self.ids, ()\n",
        "        ids = self.ids\n",
        "test_message_ids.py::Handlers::test_in_one_go",
    ),
    "P2_effect_twice": Control(
        "journal/transaction.py",
        "        if stored.duplicates:\n            raise Duplicate(stored.sequences[0])\n",
        "",
        "test_message_ids.py::Transactions::test_once",
    ),
    "effect_without_its_message": Control(
        "journal/transaction.py",
        "        if error is not None:\n            self._journal.roll_back()\n            return\n",
        "",
        "test_journal_transaction.py::Together::test_raised",
    ),
    "transaction_without_end": Control(
        "journal/transaction.py",
        "self._ticks > TICKS",
        "False",
        "test_journal_transaction.py::Turns::test_too_long",
    ),
    "transaction_ended_by_its_handler": Control(
        "journal/guard.py",
        "if self.is_up and (",
        "if False and (",
        "test_journal_transaction.py::Together::test_forbidden",
    ),
    "P7_ok_for_a_transaction_that_failed": Control(
        "journal/transaction.py",
        "        await promise\n",
        "        pass\n",
        "test_journal_transaction.py::Failures::test_commit_fails",
    ),
    "level_lowered_in_silence": Control(
        "journal/__init__.py",
        "else DURABLE\n    if LEVELS.index(settings.ack) > LEVELS.index(level):",
        "else DURABLE\n    if False:",
        "test_journal.py::Descriptions::test_level",
    ),
    "ack_says_more_than_it_is": Control(
        "acks.py",
        "        if self.level != DURABLE:",
        "        if False:",
        "test_message_ids.py::Collect::test_level",
    ),
    "P3_reply_overtaken": Control(
        "sending.py",
        "        if self.replies:\n            outbox.add(self._framed(self.replies))\n        outbox.add(frame)\n",
        "        outbox.add(frame)\n",
        "test_session.py::Replies::test_send_is_in_order",
    ),
    "P3_messages_at_the_same_time": Control(
        "dispatch/base.py",
        "        conversation.busy = SUSPENDED\n",
        "        conversation.busy = FREE\n",
        "test_dispatch.py::Async::test_one_after_another",
    ),
    "P3_reply_of_a_task_about_to_end_lost": Control(
        "dispatch/loop.py",
        "        if conversation.replies is None:\n            conversation.replies = []\n        running",
        "        conversation.replies = []\n        running",
        "test_sending.py::Order::test_reply_of_a_task_about_to_end",
    ),
    "P3_refused_reply_takes_the_place_of_all": Control(
        "sending.py",
        "            data = self._framed_one_by_one(replies)\n",
        "            data = self._refusal_frame(refusals.INTERNAL)\n",
        "test_sending.py::Order::test_unfit_reply",
    ),
    "P3_rest_of_a_batch_forgotten": Control(
        "receiving.py",
        "            self.framing.given_back = frames\n",
        "            self.framing.given_back = frames[1:]\n",
        "test_session.py::BackPressure::test_large_replies_to_a_batch",
    ),
    "P4_not_answered_before_the_end": Control(
        "session.py",
        "            else:\n                self._go_on()\n        elif self._phase == WAITING:\n",
        "            else:\n                self._close('closing')\n        elif self._phase == WAITING:\n",
        "test_factory.py::Stopping::test_drain",
    ),
    "P4_not_flushed_before_the_end": Control(
        "session.py",
        "        if not self.holds & BLOCKED:\n            self._shut()\n",
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
        "messages/plain.py",
        'f" retry-after={refusal.retry_after}"',
        '""',
        "test_factory.py::Admission::test_max_clients",
    ),
    "P6_closed_without_a_word": Control(
        "session.py",
        "            self._hold(self._refusal_frame(refusal))\n",
        "            pass\n",
        "test_session.py::BadInput::test_too_long",
    ),
    "P6_reset_before_it_is_read": Control(
        "protocol.py",
        "            transport.loseWriteConnection()\n",
        "            transport.abortConnection()\n",
        "test_session.py::BadInput::test_lingering",
    ),
    "P1_forgotten_at_the_close": Control(
        "journal/sqlite.py",
        "        while self._waiting:\n            if type(",
        "        while False:\n            if type(",
        "test_journal.py::Storing::test_closed_at_once",
    ),
    "a_commit_per_message": Control(
        "journal/sqlite.py",
        "            self._busy = True\n            # At once",
        "            pass\n            # At once",
        "test_journal.py::Storing::test_group_commit",
    ),
    "P7_ok_for_what_was_not_stored": Control(
        "journal/writer.py",
        "            return self._failed(error)\n        if self.trouble:",
        "            return [Stored(range(9))] * 2\n        if self.trouble:",
        "test_apps.py::Collect::test_unavailable",
    ),
    "P8_read_on_though_the_journal_is_full": Control(
        "author.py",
        "        if journal.is_full:\n",
        "        if False:\n",
        "test_apps.py::Collect::test_full",
    ),
    "P8_reading_on_without_end": Control(
        "receiving.py",
        "self.framing.buffered >= HIGH_WATER:",
        "self.framing.buffered >= 1 << 40:",
        "test_session.py::BackPressure::test_reading_pauses",
    ),
    "P8_sending_without_end": Control(
        "sending.py",
        "if held > self._server.settings.send_buffer:",
        "if held > 1 << 40:",
        "test_session.py::BackPressure::test_send_buffer",
    ),
    "P8_handling_for_a_client_that_does_not_read": Control(
        "sending.py",
        "            self.holds |= BLOCKED\n            self._blocked_at",
        "            self._blocked_at",
        "test_session.py::BackPressure::test_blocked_client_is_not_handled",
    ),
    "P8_over_long_line_kept": Control(
        "framing/line.py",
        "            self.fail(TooLong(self.max_message))\n\n",
        "            pass\n\n",
        "test_session.py::BadInput::test_too_long",
    ),
    "P8_a_flood_read_to_its_end": Control(
        "receiving.py", "> LINGER_SIZE:", "> 1 << 40:", "test_session.py::BadInput::test_lingering_has_an_end"
    ),
    "P9_slow_reader_kept": Control(
        "sending.py",
        "now - self._blocked_at >= timeout",
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
        "test_openssl.py::Tls::test_silent_handshake",
    ),
    "P9_one_client_keeps_the_loop": Control(
        "dispatch/base.py", "SLICE = 0.005", "SLICE = 1e9", "test_dispatch.py::Async::test_turns"
    ),
    "P9_too_many_let_in": Control(
        "factory.py",
        ">= self.max_clients:",
        "> self.max_clients:",
        "test_factory.py::Admission::test_max_clients",
    ),
    "P8_handlers_of_the_departed_without_end": Control(
        "factory.py",
        "len(self._sessions) >= self.max_clients",
        "sum(session.has_connection for session in self._sessions.values()) >= self.max_clients",
        "test_factory.py::Admission::test_handlers_count",
    ),
    "P9_reply_waits_for_the_next_message": Control(
        "dispatch/base.py",
        "        conversation.flush()\n\n    def _find_runner",
        "        pass\n\n    def _find_runner",
        "test_dispatch.py::Async::test_replies_do_not_wait",
    ),
    "P9_rate_not_kept": Control(
        "receiving.py",
        "tokens = bucket.available(self._server.seconds())",
        "tokens = BATCH",
        "test_session.py::Rate::test_rate",
    ),
    "replies_lost_at_half_close": Control(
        "session.py",
        "            self._go_on()\n        elif self._phase == SHUT:",
        "            self.abort()\n        elif self._phase == SHUT:",
        "test_session.py::HalfClose::test_replies_come",
    ),
    "replies_lost_at_close_notify": Control(
        "openssl.py",
        "        except SSL.ZeroReturnError:\n",
        "        except ZeroDivisionError:\n",
        "test_openssl.py::Tls::test_close_notify",
    ),
    "P9_silent_handshake_kept_by_the_usual_tls": Control(
        "session.py",
        "        self._deadline = self._server.seconds() + HANDSHAKE\n",
        "        pass\n",
        "test_tls.py::Handshakes::test_silent",
    ),
    "replies_lost_at_close_notify_of_the_usual_tls": Control(
        "tls/protocol.py",
        "            if IHalfCloseableProtocol.providedBy(self._inside):\n",
        "            if False:\n",
        "test_tls.py::Ends::test_close_notify",
    ),
    "messages_lost_with_the_garbage_behind_them": Control(
        "tls/protocol.py",
        "            problem = error  # but",
        "            return self._fail(error)  # but",
        "test_tls.py::Ends::test_garbage",
    ),
    "rest_of_a_record_left_in_openssl": Control(
        "tls/protocol.py",
        "            self._begun = True\n        except",
        "            pass\n        except",
        "test_tls.py::Exchange::test_end_of_a_record",
    ),
    "kept_what_comes_after_close_notify": Control(
        "tls/protocol.py",
        "        if self._told_end:\n            return  # RFC",
        "        if False:\n            return  # RFC",
        "test_tls.py::Ends::test_after_close_notify",
    ),
    "key_updates_answered_without_end": Control(
        "tls/protocol.py", "if self._answered > ANSWERS:", "if False:", "test_tls.py::Ends::test_answers_are_bounded"
    ),
    "refusal_lost_before_the_handshake": Control(
        "tls/protocol.py",
        '            self._tls.write(b"".join(early))\n',
        '            self.write(b"".join(early))\n',
        "test_tls.py::Handshakes::test_refused",
    ),
    "goodbye_in_front_of_what_nobody_has_read": Control(
        "tls/protocol.py",
        "        self._carry()\n        return True\n",
        "        self._carry()\n        self._tell_handshake()\n        return True\n",
        "test_tls.py::Handshakes::test_refused",
    ),
    "renegotiated": Control(
        "tls/profiles.py",
        "ssl.OP_NO_RENEGOTIATION | ",
        "1 << 8 | ",  # OpenSSL 3 needs to be told: SSL_OP_ALLOW_CLIENT_RENEGOTIATION
        "test_tls.py::Handshakes::test_renegotiation",
    ),
    "ciphers_without_forward_secrecy": Control(
        "tls/profiles.py",
        "        context.set_ciphers(CIPHERS)\n",
        "",
        "test_tls.py::Handshakes::test_no_shared_cipher",
    ),
    "nobody_knows_which_key_is_encrypted": Control(
        "tls/certificates.py",
        "the private key in {private_key} is encrypted",
        "the private key is encrypted",
        "test_tls.py::Files::test_encrypted",
    ),
    "nobody_knows_which_key_is_the_wrong_one": Control(
        "tls/certificates.py",
        'if error.reason == "KEY_VALUES_MISMATCH":',
        'if error.reason == "KEY_VALUES_MISMATCH":\n                raise\n            if False:',
        "test_tls.py::Files::test_other_key",
    ),
    "goodbye_waited_for_without_end": Control(
        "session.py",
        "            self._deadline = self._server.seconds() + self._linger\n",
        "            self._deadline = 0.0\n",
        "test_tls.py::Ends::test_unanswered",
    ),
    "let_in_without_a_certificate": Control(
        "tls/trust.py",
        "context.verify_mode = ssl.CERT_REQUIRED",
        "context.verify_mode = ssl.CERT_OPTIONAL",
        "test_tls_trust.py::Refused::test_without",
    ),
    "let_in_though_revoked": Control(
        "tls/trust.py",
        "context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF",
        "pass",
        "test_tls_trust.py::Refused::test_revoked",
    ),
    "let_in_without_an_identity": Control(
        "protocol.py",
        "            if identity is None:\n",
        "            if False:\n",
        "test_tls_trust.py::Identity::test_none",
    ),
    "let_in_after_the_end_of_its_certificate": Control(
        "tls/protocol.py",
        "if self._tls.session_reused and self._has_expired():",
        "if False:",
        "test_tls_trust.py::Identity::test_resumed",
    ),
    "nobody_known_behind_garbage": Control(
        "tls/protocol.py",
        "        return self._certificate\n",
        "        return self._tls.getpeercert(binary_form=True)\n",
        "test_tls_trust.py::Identity::test_garbage",
    ),
    "trusted_for_ever": Control(
        "tls/policy.py",
        "            anyway = True\n",
        "            pass\n",
        "test_tls_trust.py::Reloaded::test_authority",
    ),
    "refused_and_nobody_knows": Control(
        "tls/protocol.py",
        "            self._tell_failure()\n",
        "            pass\n",
        "test_tls_trust.py::Refused::test_expired",
    ),
    "a_wildcard_for_an_identity": Control(
        "tls/identity.py",
        "[A-Za-z0-9_-]+(?:",
        "[A-Za-z0-9_*-]+(?:",
        "test_tls_identity.py::Identities::test_no_disguise",
    ),
    "half_a_chain_served": Control(
        "tls/pem.py",
        "if content.count(begin) != len(found) or",
        "if False and",
        "test_tls_certificates.py::Loading::test_half_a_chain",
    ),
    "chain_of_another_served": Control(
        "tls/certificates.py",
        "    _check_chain(parsed, files)\n",
        "",
        "test_tls_certificates.py::Loading::test_chain_of_another",
    ),
    "bad_pair_told_again_and_again": Control(
        "tls/watched.py",
        "        self._seen = state\n",
        "",
        "test_tls_reload.py::Changes::test_half_a_pair",
    ),
    "renewed_and_not_shown": Control(
        "tls/policy.py",
        "            user.context = self.context\n",
        "            pass\n",
        "test_tls_reload.py::Changes::test_renewed",
    ),
    "shown_by_the_wrong_name": Control(
        "tls/names.py",
        "            tls.context = found\n",
        "            pass\n",
        "test_tls_names.py::Chosen::test_names",
    ),
    "expiry_told_every_ten_seconds": Control(
        "tls/expiry.py", "if key in self._warned:", "if False:", "test_tls_reload.py::Expiring::test_each"
    ),
    "self_signed_in_silence": Control(
        "ports.py", "if self._served.is_self_signed:", "if False:", "test_ports.py::Tls::test_self_signed"
    ),
    "certificates_asked_for_where_nobody_is_asked": Control(
        "ports.py", "if not policy.is_used:", "if False:", "test_ports.py::Tls::test_options_without_tls"
    ),
    "old_ciphers_by_way_of_pyopenssl": Control(
        "openssl.py",
        "    context.set_cipher_list(CIPHERS.encode())",
        "    pass",
        "test_openssl.py::Policy::test_ciphers",
    ),
    "old_versions_by_way_of_pyopenssl": Control(
        "openssl.py",
        "    context.set_min_proto_version(policy.profile.minimum)\n",
        "",
        "test_openssl.py::Policy::test_versions",
    ),
    "a_write_per_message": Control(
        "dispatch/loop.py",
        "                            replies.append(reply)\n",
        "                            replies.append(reply)\n                            conversation.flush()\n",
        "test_session.py::Replies::test_one_write_per_read",
    ),
    "a_write_per_message_that_is_no_plain_one": Control(
        "sending.py",
        "            self.replies.append(data)\n",
        "            self.replies.append(data)\n            self.flush()\n",
        "test_sending.py::Writes::test_one_per_read_of_text",
    ),
    "a_write_per_message_that_is_sent": Control(
        "sending.py",
        "            self._server.soon(self._flush_at_last)\n",
        "            self._flush_at_last()\n",
        "test_session.py::Replies::test_send_any_time",
    ),
    "a_trip_through_the_loop_per_read": Control(
        "receiving.py",
        "                server.dispatch.handle(self, frames)\n",
        "                server.soon(lambda: server.dispatch.handle(self, frames))\n",
        "test_sending.py::Costs::test_nothing_scheduled",
    ),
    "P8_replies_collected_without_end": Control(
        "sending.py",
        "if self.replies and sum(map(len, self.replies)) > WRITE_SIZE:",
        "if False:",
        "test_sending.py::Sizes::test_many_large_replies_are_not_kept_back",
    ),
    "P8_the_idle_keep_their_framing": Control(
        "receiving.py",
        "        if framing.is_idle:\n            self.framing = None\n",
        "        if framing.is_idle:\n",
        "test_sending.py::Costs::test_nothing_left",
    ),
    "P8_those_who_waited_keep_their_context": Control(
        "dispatch/base.py",
        "            conversation.context = None  # it was kept for the wait only\n",
        "            pass\n",
        "test_dispatch.py::Contexts::test_own_one_for_those_who_change_it",
    ),
    "P8_shortcut_past_max_message": Control(
        "framing/line.py",
        "        if lines.pop() or len(data) > max_message:\n",
        "        if lines.pop():\n",
        "test_framing.py::Line::test_whole_too_long",
    ),
    "shortcut_past_the_unfinished": Control(
        "framing/line.py",
        "        if lines.pop() or len(data) > max_message:\n",
        "        if not lines.pop() and len(data) > max_message:\n",
        "test_framing.py::Line::test_whole",
    ),
    "deadlines_only_once_the_app_is_open": Control(
        "factory.py",
        "        self._watch()\n        host = host_of(addr)\n",
        "        host = host_of(addr)\n",
        "test_tls.py::Handshakes::test_silent_while_opening",
    ),
    "context_given_to_the_next": Control(
        "dispatch/loop.py",
        "                if context == self._pristine:\n"
        "                    self._spare = context\n"
        "                else:\n"
        "                    conversation.context = context\n",
        "                self._spare = context\n",
        "test_dispatch.py::Async::test_context",
    ),
    "context_given_to_the_next_by_a_worker": Control(
        "dispatch/base.py",
        "        if context is conversation.context:\n",
        "        if False:\n",
        "test_dispatch.py::Contexts::test_apart_in_a_context_with_variables",
    ),
    "context_of_one_for_another_within_it": Control(
        "dispatch/loop.py",
        "            context, self._spare = self._spare, None\n            if context is None:\n"
        "                context = self._pristine.copy()\n",
        "            context = self._spare = self._spare or self._pristine.copy()\n",
        "test_dispatch.py::Contexts::test_one_within_another",
    ),
    "sends_wait_for_the_handler": Control(
        "sending.py",
        "self.busy != IN_TURN:",
        "not self.busy:",
        "test_sending.py::Threads::test_send_from_a_busy_handler",
    ),
    "looked_at_by_the_collector_again_and_again": Control(
        "service.py",
        "            gc.freeze()\n",
        "            pass\n",
        "integration/test_handlers.py::TestReactors::test_frozen",
    ),
    "closed_by_a_worker_and_yet_handled": Control(
        "dispatch/workers.py",
        "            turn.is_last = True\n",
        "            pass\n",
        "test_sending.py::Threads::test_close",
    ),
    "set_in_a_thread_and_lost": Control(
        "dispatch/base.py",
        "                    variable.set(value)\n",
        "                    pass\n",
        "test_dispatch.py::Contexts::test_of_connected",
    ),
    "cut_off_while_it_yielded_and_never_ended": Control(
        "receiving.py",
        "        if not self.holds & ~CANCELLED:",
        "        if not self.holds:",
        "test_dispatch.py::Cancelling::test_gone_and_yielded",
    ),
    "ready_in_the_middle_of_a_task": Control(
        "coroutines/bridge.py",
        "            if yielded is READY:\n                raise StopIteration",
        "            if False:\n                raise StopIteration",
        "test_dispatch.py::Cancelling::test_cancels_itself_before_it_waits",
    ),
    "a_task_cancelled_long_after_its_turn": Control(
        "coroutines/late.py",
        "        if getrefcount(task) > _OURS_AND_ITS:\n",
        "        if False:\n",
        "test_dispatch.py::Cancelling::test_kept_task_cancelled_by_another",
    ),
    "a_task_of_two_messages": Control(
        "dispatch/loop.py",
        "conversation.busy != in_turn or getrefcount(task) > ours:",
        "conversation.busy != in_turn:",
        "test_dispatch.py::Cancelling::test_messages_of_one_read",
    ),
    "a_kept_task_is_given_to_the_next": Control(
        "coroutines/late.py",
        " and getrefcount(self) <= _OURS_AND_ITS:",
        ":",
        "test_coroutines.py::OnLoop::test_kept_after_a_promise",
    ),
    "work_for_nobody": Control(
        "offload.py",
        "            if not outcome.set_running_or_notify_cancel():\n                return",
        "            if False:\n                return",
        "test_offload.py::Threads::test_cancelled_before_it_began",
    ),
    "a_promise_that_cannot_be_cancelled": Control(
        "coroutines/promise.py",
        "            loop.call_soon(wake)\n",
        "            pass\n",
        "test_coroutines.py::OnLoop::test_promise_cancelled",
    ),
    "stored_as_its_caller_has_changed_it": Control(
        "journal/sqlite.py",
        "if type(batch.messages) is not tuple:",
        "if False:",
        "test_journal.py::Storing::test_callers_list",
    ),
    "cancelled_and_yet_handled": Control(
        "dispatch/base.py",
        "        conversation.holds |= CANCELLED\n",
        "        pass\n",
        "test_sending.py::Threads::test_cancelled",
    ),
    "a_wake_up_per_message": Control(
        "loop_calls.py",
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
    "processes_that_end_unnoticed": Control(
        "reactor/uv.py",
        "            signal.signal(signal.SIGCHLD, lambda *_: self.callFromThread(process.reapAllProcesses))\n",
        "            pass\n",
        "test_reactor.py::Reactor::test_process_without_descriptor",
    ),
    "processes_that_end_unnoticed_beside_asyncios": Control(
        "reactor/uv.py",
        "                self.loop.add_reader(descriptor, self._child_ended, descriptor)\n",
        "                pass\n",
        "test_reactor.py::Reactor::test_process_beside_asyncios",
    ),
    "connections_forgotten_at_the_end": Control(
        "reactor/uv.py",
        "return [*super().removeAll(), *self.connections]",
        "return super().removeAll()",
        "test_reactor_connection.py::OnUs::test_stop",
    ),
    "connections_never_forgotten": Control(
        "reactor/connection.py",
        "        self._reactor.connections.pop(self, None)\n",
        "",
        "test_reactor_connection.py::OnUs::test_nothing_is_left",
    ),
    "a_segment_per_write_before_it_is_ready": Control(
        "reactor/standins.py",
        '            uv.write(b"".join(self._written))\n',
        "            for data in self._written:\n                uv.write(data)\n",
        "test_reactor_connection.py::OnUs::test_when_made",
    ),
    "received_while_paused": Control(
        "reactor/connection.py",
        "            self._uv = Held(self, uv, self._reactor.loop)\n",
        "            uv.pause_reading()\n",
        "test_reactor_connection.py::OnUs::test_paused_when_made",
    ),
    "received_twice": Control(
        "reactor/standins.py",
        "        self._wanted = False\n        connection.release(uv)\n",
        "        connection.release(uv)\n",
        "test_reactor_connection.py::OnUs::test_resumed_later",
    ),
    "received_from_within": Control(
        "reactor/standins.py",
        "            self._loop.call_soon(self._release)\n",
        "            self._release()\n",
        "test_reactor_connection.py::OnUs::test_resumed_later",
    ),
    "received_after_the_end": Control(
        "reactor/standins.py",
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
    "bad_messages_without_end": Control(
        "sending.py",
        "            if isinstance(error, BadMessage):\n                self._count_bad()\n",
        "",
        "test_session.py::BadMessages::test_in_a_row",
    ),
    "bad_messages_counted_across_good_ones": Control(
        "limits.py",
        "if place == self._last + 1 else 1",
        "if True else 1",
        "test_session.py::BadMessages::test_reset",
    ),
    "waiting_replies_forgotten_between_bad_messages": Control(
        "sending.py",
        "self.answered + len(self.replies or ())",
        "self.answered",
        "test_session.py::BadMessages::test_quiet",
    ),
    "closed_for_bad_messages_and_not_recorded": Control(
        "session.py", "            self._record(refusal)\n", "", "test_session.py::BadMessages::test_recorded"
    ),
    "json_of_any_depth": Control(
        "messages/typed.py",
        "        if too_deep(frame):\n",
        "        if False:\n",
        "test_messages_typed.py::Bounds::test_depth",
    ),
    "brackets_in_text_taken_for_depth": Control(
        "messages/typed.py",
        '_STRING.sub(b"", frame)',
        "frame",
        "test_messages_typed.py::Bounds::test_depth_is_exact",
    ),
    "recursion_error_out_of_the_codec": Control(
        "messages/typed.py",
        "        except RecursionError:\n",
        "        except ZeroDivisionError:\n",
        "test_messages_typed.py::Bounds::test_depth_of_msgpack",
    ),
    "utf8_looked_at_only_where_it_is_kept": Control(
        "messages/typed.py",
        "            text = frame.decode()\n",
        '            text = frame.decode(errors="replace")\n',
        "test_messages_typed.py::Bounds::test_utf8",
    ),
    "hashes_that_a_peer_chooses": Control(
        "messages/typed.py",
        "if self._hashes and len(frame) > HASHED_SIZE:",
        "if False:",
        "test_messages_typed.py::Bounds::test_hashes",
    ),
    "refusals_that_do_not_fit": Control(
        "messages/typed.py",
        ") > REFUSAL_SIZE:\n",
        ") > 1 << 40:\n",
        "test_messages_typed.py::Laws::test_refusals_fit",
    ),
    "replies_of_another_type": Control(
        "sending.py",
        "codec.encode_reply(reply)",
        "codec.encode(reply)",
        "test_dispatch.py::Typed::test_reply_of_another_type",
    ),
    "a_batch_that_dies_of_its_authors_type": Control(
        "dispatch/base.py",
        "            except MtserverError as error:  # a",
        "            except ZeroDivisionError as error:  # a",
        "test_dispatch.py::Typed::test_error_of_a_type",
    ),
    "msgpack_cut_at_its_newlines": Control(
        "framing/line.py",
        "    carries_any_byte = False\n",
        "    carries_any_byte = True\n",
        "test_options.py::Mistakes::test_typed",
    ),
    "described_as_it_is_not_on_the_wire": Control(
        "asyncapi.py",
        '        schema = {**schema, "items"',
        '        schema = {**schema, "contains"',
        "test_asyncapi.py::Documents::test_typed",
    ),
    "auth_a_second_attempt_reaches_the_handler": Control(
        "receiving.py",
        "            if frame.startswith(verb):\n",
        "            if False:\n",
        "test_auth.py::Door::test_second_attempt",
    ),
    "auth_a_second_attempt_takes_the_shortcut": Control(
        "factory.py",
        "None if verb in data else whole(",
        "whole(",
        "test_auth.py::Door::test_second_attempt",
    ),
    "auth_an_outage_counts_against_clients": Control(
        "auth/gate.py",
        "        if failure.check(Refusal):\n",
        "        if False:\n",
        "test_auth.py::Checkers::test_refusals",
    ),
    "auth_own_logins_free_guesses": Control(
        "auth/gate.py",
        "        return found if wait else found.add",
        "        return found.add",
        "test_auth.py::Checkers::test_failures_of_a_neighbour",
    ),
    "auth_devices_try_without_end": Control(
        "auth/by_handler.py",
        "        if wait:\n",
        "        if False:\n",
        "test_auth.py::OwnExchange::test_failures",
    ),
    "auth_a_device_that_was_refused_is_waited_for": Control(
        "auth/by_handler.py",
        "        self._gate.stop(self._applicant)\n",
        "        pass\n",
        "test_auth.py::OwnExchange::test_too_late",
    ),
    "auth_two_names_become_one": Control(
        "auth/credentials.py",
        "        return identity.encode()\n",
        '        return identity.encode(errors="replace")\n',
        "test_auth_tokens.py::Verifying::test_no_text",
    ),
    "audit_through_a_link": Control(
        "audit/file.py",
        " | os.O_NONBLOCK | os.O_NOFOLLOW\n",
        " | os.O_NONBLOCK\n",
        "test_audit.py::Files::test_links",
    ),
    "certificate_renewed_by_an_expired_one": Control(
        "tls/policy.py",
        "new.ends_at <= now < old.ends_at",
        "False",
        "test_tls_reload.py::Changes::test_expired_already",
    ),
    "auth_who_never_came_in_leaves": Control(
        "session.py",
        "            self.subject = None  # never",
        "            pass  # never",
        "test_auth.py::OwnExchange::test_closes",
    ),
    "auth_secrets_in_clear_text": Control(
        "auth/gate.py",
        "        if not (self._applicant.is_private or self._gate.insecure):\n",
        "        if False:\n",
        "test_auth.py::Door::test_clear_text",
    ),
    "auth_no_deadline": Control(
        "session.py",
        "                self._entry.expire(settings.auth_timeout)\n",
        "                pass\n",
        "test_auth.py::Door::test_deadline",
    ),
    "auth_broadcasts_to_those_outside": Control(
        "sending.py",
        "self.holds & (CLOSING | NOT_READY):",
        "self.holds & CLOSING:",
        "test_auth.py::Door::test_broadcast",
    ),
    "auth_tries_without_end": Control(
        "auth/throttle.py",
        "        if count + 1 > FREE:\n",
        "        if False:\n",
        "test_auth.py::Checkers::test_failures",
    ),
    "auth_failures_counted_too_late": Control(
        "auth/throttle.py",
        "        self._counts[host] = count + 1, now\n",
        "        self._counts[host] = count, now\n",
        "test_auth.py::Checkers::test_many_at_once",
    ),
    "auth_a_token_of_another": Control(
        "auth/gate.py",
        "        if attempted.username and attempted.username != identity:\n",
        "        if False:\n",
        "test_auth.py::Checkers::test_token_of_another",
    ),
    "auth_unknown_names_are_faster": Control(
        "auth/passwords.py",
        "_verify, hashed or self._nobody, credentials.password",
        "_verify, hashed or WEAKEST, credentials.password",
        "test_auth_passwords.py::Checking::test_unknown_cost_the_same",
    ),
    "auth_others_read_the_hashes": Control(
        "auth/passwords.py",
        "    if mode & (stat.S_IRWXG | stat.S_IRWXO):\n",
        "    if False:\n",
        "test_auth_passwords.py::Files::test_who_may_read_it",
    ),
    "auth_removed_and_let_in": Control(
        "auth/passwords.py",
        "            self._right.clear()\n",
        "            pass\n",
        "test_auth_passwords.py::Checking::test_changed",
    ),
    "auth_tokens_for_others": Control(
        "auth/jwt.py",
        '            aud={"essential": True, "value": audience},\n',
        "",
        "test_auth_tokens.py::Verifying::test_claims",
    ),
    "auth_published_secrets": Control(
        "auth/keys.py",
        '(shared or key.key_type != "oct")',
        "True",
        "test_auth_tokens.py::Keys::test_no_published_secrets",
    ),
    "auth_keys_lost_in_an_outage": Control(
        "auth/keys.py",
        "            self._problem = str(error)\n",
        "            self._problem = str(error)\n            self._keys = []\n",
        "test_auth_tokens.py::Keys::test_outage",
    ),
    "auth_revoked_and_recalled": Control(
        "auth/introspection.py",
        "min(until, now + self._cache)",
        "until",
        "test_auth_tokens.py::Asking::test_cached",
    ),
    "audit_forged_by_a_control_character": Control(
        "audit/file.py", "ensure_ascii=True", "ensure_ascii=False", "test_audit.py::Files::test_forged"
    ),
    "audit_quotes_a_peer_as_it_is": Control(
        "session.py",
        "            reason = escape(refusal.text)\n",
        "            reason = refusal.text\n",
        "test_audit.py::Recording::test_of_the_handler",
    ),
    "audit_newcomer_refused_in_silence": Control(
        "factory.py",
        '            audit.record("refused", peer=format_address(addr), code=refusal.code, reason=refusal.text)\n',
        "",
        "test_audit.py::Recording::test_newcomers",
    ),
    "audit_slow_client_dropped_in_silence": Control(
        "session.py",
        "        self._record(refusals.slow())\n",
        "",
        "test_audit.py::Recording::test_slow",
    ),
    "audit_filled_by_a_flood": Control(
        "limits.py",
        "return self._seen[event] <= self._most",
        "return True",
        "test_audit.py::Rates::test_flood",
    ),
    "audit_suppressed_and_not_counted": Control(
        "audit/log.py",
        "        self._turn_call = None\n        audit.summarise()\n",
        "        self._turn_call = None\n",
        "test_audit.py::Lives::test_life",
    ),
    "audit_read_by_everyone": Control(
        "audit/file.py", "flags, 0o600)", "flags, 0o644)", "test_audit.py::Files::test_mode"
    ),
    "audit_written_to_a_file_nobody_will_find": Control(
        "audit/file.py",
        "            if not self._is_there():\n",
        "            if self._file < 0:\n",
        "test_audit.py::Files::test_rotated",
    ),
    "audit_on_a_full_disk_ends_it": Control(
        "audit/file.py",
        "        except OSError as error:\n",
        "        except FileNotFoundError as error:\n",
        "test_audit.py::Files::test_full_disk",
    ),
    "audit_half_a_line_goes_on": Control(
        "audit/file.py",
        '            line = b"\\n" + line\n',
        "            pass\n",
        "test_audit.py::Files::test_full_disk",
    ),
    "audit_event_nobody_has_heard_of": Control(
        "supervision.py",
        'audit.record("stop"',
        'audit.record("end"',
        "test_audit.py::Contract::test_every_event_is_listed",
    ),
    "watchdog_fed_late": Control(
        "notify.py", "_patience(environment) / 2", "_patience(environment) * 2", "test_notify.py::Words::test_watchdog"
    ),
    "watchdog_not_fed_while_stopping": Control(
        "notify.py",
        '        self._send("STOPPING=1"',
        '        self.close()\n        self._send("STOPPING=1"',
        "test_notify.py::Words::test_watchdog",
    ),
    "manager_away_ends_it": Control(
        "notify.py",
        "        except OSError as error:\n",
        "        except ValueError as error:\n",
        "test_notify.py::Words::test_away",
    ),
    "secret_in_a_table_shown": Control(
        "settings.py", 'f"a {type(value).__name__}"', "repr(value)", "test_settings.py::Reading::test_texts"
    ),
    "gate_and_session_tell_the_same_twice": Control(
        "session.py",
        'if refusal.code != "closing" and self._entry is None:',
        'if refusal.code != "closing":',
        "test_audit.py::Recording::test_at_the_gate",
    ),
    "log_opened_by_root": Control(
        "options.py",
        'with as_user(parent.get("uid"), parent.get("gid")):',
        "with as_user(None, None):",
        "integration/test_privileges.py::TestPrivileges::test_link",
    ),
    "root_with_groups_of_root": Control(
        "privileges.py", "            initgroups(uid, gid)\n", "", "test_privileges.py::Rights::test_root"
    ),
    "root_not_warned": Control(
        "supervision.py", "        if is_root():\n", "        if False:\n", "test_supervision.py::Life::test_root"
    ),
    "time_that_jumps": Control(
        "reactor/__init__.py",
        "        reactor.seconds = time.monotonic\n",
        "        pass\n",
        "test_reactor.py::Time::test_steady",
    ),
    "P1_database_synced_again_after_a_failed_sync": Control(
        "journal/writer.py",
        "apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)",
        "apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)",
        "test_journal_checkpoints.py::Failures::test_sync_of_the_database_fails",
    ),
    "P1_failed_sync_of_the_database_is_no_failure": Control(
        "journal/checkpoints.py",
        "file.is_loss(error) or isinstance",
        "isinstance",
        "test_journal_checkpoints.py::Failures::test_sync_of_the_database_fails",
    ),
    "P1_failed_flush_passes": Control(
        "journal/flushing.py",
        "result != apsw.SQLITE_OK",
        "result < apsw.SQLITE_OK",
        "test_journal_checkpoints.py::Failures::test_what_a_sync_says",
    ),
    "P1_checkpoint_into_a_file_put_in_its_place": Control(
        "journal/checkpoints.py",
        "            if self._connection is not None:\n",
        "            if self._connection is not None:\n"
        "                self._connection = apsw.Connection(str(self._path))\n"
        "                self._connection.execute('PRAGMA user_version').fetchall()\n",
        "test_journal_checkpoints.py::Replaced::test_replaced",
    ),
    "P9_checkpoint_inside_a_commit": Control(
        "journal/checkpoints.py",
        "        writer.set_wal_hook(self._committed)\n",
        "",
        "test_journal_checkpoints.py::Anew::test_not_in_a_commit",
    ),
    "P9_writer_does_all_of_a_checkpoint": Control(
        "journal/checkpoints.py",
        "if left <= SHORT or",
        "if left or",
        "test_journal_checkpoints.py::Anew::test_writers_part_is_short",
    ),
    "P9_database_not_flushed_by_the_thread": Control(
        "journal/flushing.py",
        "contents.xSync(pointer, apsw.SQLITE_SYNC_NORMAL)",
        "iVersion and apsw.SQLITE_OK",
        "test_journal_checkpoints.py::Failures::test_flush_is_a_sync",
    ),
    "P8_log_never_starts_anew": Control(
        "journal/checkpoints.py",
        "            if left <= SHORT or (left <= BEHIND < self._size and not self._pinned):\n",
        "            if left < 0:\n",
        "test_journal_checkpoints.py::Anew::test_writers_part",
    ),
    "P8_log_runs_away_from_its_thread": Control(
        "journal/checkpoints.py",
        "            if left >= self._begun_with + max(self._begun_with, BEHIND):\n",
        "            if left < 0:\n",
        "test_journal_checkpoints.py::Anew::test_thread_cannot_keep_up",
    ),
    "P8_long_log_stays_long": Control(
        "journal/checkpoints.py",
        '        writer.pragma("journal_size_limit", BEHIND)\n',
        "",
        "test_journal_checkpoints.py::Anew::test_what_was_long_is_cut",
    ),
    "P8_log_grows_without_limit_behind_a_reader": Control(
        "journal/checkpoints.py",
        "self._size >= LIMIT and",
        "False and",
        "test_journal_checkpoints.py::Pinned::test_limit",
    ),
    "P8_our_own_readers_pin_the_log": Control(
        "journal/sqlite.py",
        "                connection.close()\n        except",
        '                connection.execute("BEGIN").connection.execute("SELECT * FROM messages").fetchone()\n'
        "                vars(self).setdefault('kept', []).append(connection)\n        except",
        "test_journal_checkpoints.py::Pinned::test_our_own_readers",
    ),
    "P6_log_full_not_left_by_itself": Control(
        "journal/checkpoints.py",
        "        if self._is_full():\n            self._begin()\n",
        "        if self._is_full():\n",
        "test_journal_checkpoints.py::Pinned::test_limit",
    ),
    "P6_reader_warned_of_with_each_commit": Control(
        "journal/checkpoints.py",
        " and not self._warned:\n            self._warned = True\n",
        ":\n            self._warned = True\n",
        "test_journal_checkpoints.py::Pinned::test_warned_once",
    ),
    "P6_a_reader_is_the_one_who_writes": Control(
        "journal/readers.py",
        'words[3] != "READ"',
        "not words[3]",
        "test_journal_checkpoints.py::Readers::test_holders",
    ),
    "reading_loses_the_rest_of_a_page": Control(
        "journal/reading.py",
        "                end = record.sequence\n                break\n",
        "                break\n",
        "test_journal_reading.py::Pages::test_bounded",
    ),
    "reading_holds_a_snapshot_between_pages": Control(
        "journal/reading.py",
        "    finally:\n        cursor.close(force=True)\n    return Page(",
        "    finally:\n        globals().setdefault('left', []).append(cursor)\n    return Page(",
        "test_journal_reading.py::Pages::test_no_snapshot_is_held",
    ),
    "reading_looks_at_all_for_a_rare_one": Control(
        "journal/reading.py",
        "ORDER BY seq LIMIT {ROWS}",
        "ORDER BY seq",
        "test_journal_reading.py::Pages::test_bounded",
    ),
    "following_misses_what_comes_meanwhile": Control(
        "journal/following.py",
        "                self._seen = version\n",
        "                self._seen = self._connection.pragma('data_version')\n"
        "            if not page.is_last:\n                self._seen = version\n",
        "test_journal_reading.py::Following::test_filtered",
    ),
    "following_forgets_the_rest_of_the_old_file": Control(
        "journal/following.py",
        "        records = self._rest()\n        successor = None if records else self._successor()\n",
        "        successor = self._successor()\n        records = [] if successor else self._rest()\n"
        "        if successor:\n            self._go_over(*successor)\n            return self._rest()\n",
        "test_journal_reading.py::Following::test_moved",
    ),
    "following_looks_though_nothing_has_happened": Control(
        "journal/following.py",
        "        records = self._rest()\n        successor = None",
        "        self._seen = None\n        records = self._rest()\n        successor = None",
        "test_journal_reading.py::Following::test_nothing_new_is_cheap",
    ),
    "P1_new_file_shares_the_log_of_a_moved_one": Control(
        "journal/writer.py",
        "            remove_leftovers(self._path, self._shared)\n",
        "",
        "test_journal_reading.py::Following::test_reader_beside_a_new_file",
    ),
    "a_peer_drives_the_terminal": Control(
        "journal/printing.py",
        'escape(number) or "-", escape(message))',
        'escape(number) or "-", message.decode(errors="replace"))',
        "test_journal_command.py::Printing::test_lines",
    ),
    "printing_has_no_end": Control(
        "journal/__main__.py",
        "asked.wanted.up_to(end)",
        "asked.wanted",
        "test_journal_command.py::Printing::test_ends",
    ),
    "retention_removes_young_ones": Control(
        "journal/retention.py",
        "row.time < too_old",
        "gone or row.time < too_old",
        "test_journal_retention.py::Age::test_older_ones_go",
    ),
    "retention_in_one_step": Control(
        "journal/retention.py",
        "        WHERE seq > ? ORDER BY seq LIMIT {ROWS}\n",
        "        WHERE seq > ? ORDER BY seq\n",
        "test_journal_retention.py::Age::test_steps_are_bounded",
    ),
    "retention_ids_cost_messages_their_place": Control(
        "journal/retention.py",
        "            excess = self._measure.bytes - self._keep.size\n",
        "            pages = connection.pragma('page_count') - connection.pragma('freelist_count')\n"
        "            excess = pages * 4096 - self._keep.size\n",
        "test_journal_retention.py::Size::test_what_else_is_there",
    ),
    "retention_others_messages_not_measured": Control(
        "journal/retention.py",
        "sequences[0] == self._last + 1:",
        "True:",
        "test_journal_retention.py::Size::test_measured_in_steps",
    ),
    "retention_what_went_still_counts": Control(
        "journal/writer.py",
        "        self._retention.taken(step)\n",
        "",
        "test_journal_retention.py::Size::test_measured_as_it_goes",
    ),
    "retention_another_file_not_measured": Control(
        "journal/writer.py",
        "            self._retention.begin_anew()\n",
        "",
        "test_journal_retention.py::Size::test_measured_anew",
    ),
    "P9_chores_before_those_who_wait": Control(
        "journal/sqlite.py",
        "if self._due and (rested or not self._waiting):",
        "if self._due:",
        "test_journal.py::Faults::test_chores_come_second",
    ),
    "P9_statement_without_end": Control(
        "journal/sqlite.py",
        "            self._writer.interrupt()  # once more: its statement may just have been about to begin\n",
        "            pass\n",
        "test_journal_transaction.py::Turns::test_statement_without_end",
    ),
    "damage_that_only_readers_meet": Control(
        "journal/sqlite.py",
        "            if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):\n",
        "            if False:\n",
        "test_journal.py::Faults::test_damage_met_by_reading",
    ),
    "P3_a_bad_message_overtaken": Control(
        "message_ids.py",
        "        author.behind = message.id\n        raise message.error\n",
        "        raise message.error\n",
        "test_message_ids.py::Handlers::test_typed",
    ),
    "P3_a_failure_overtaken": Control(
        "message_ids.py",
        "        except BaseException:\n            author.behind",
        "        except Unavailable:\n            author.behind",
        "test_message_ids.py::Handlers::test_refused_for_good",
    ),
    "P2_second_transaction_of_a_message": Control(
        "author.py",
        "if message is not None or self.frames:",
        "if message is not None or self.ids:",
        "test_message_ids.py::Handlers::test_one_transaction",
    ),
    "retention_forgets_who_sent_what_is_left": Control(
        "journal/retention.py",
        "            self._candidates.difference_update(source for (source,) in found)\n",
        "            list(found)\n",
        "test_journal_retention.py::Sources::test_source_with_a_message_stays",
    ),
    "retention_takes_the_source_of_a_known_id": Control(
        "journal/retention.py",
        "                AND NOT EXISTS (SELECT * FROM ids WHERE ids.source = sources.source)\n",
        "",
        "test_journal_retention.py::Sources::test_sources_go_by_age",
    ),
    "retention_takes_a_source_that_sends": Control(
        "journal/retention.py",
        "DELETE FROM sources WHERE source = ? AND seen < ?",
        "DELETE FROM sources WHERE source = ? AND ?",
        "test_journal_retention.py::Sources::test_heard_of_while_it_is_looked_for",
    ),
    "a_source_that_is_gone_is_written_under": Control(
        "journal/writer.py",
        "        if step.sources:\n            self._insertion.forget()\n",
        "",
        "test_journal_retention.py::Sources::test_written_under_its_new_number",
    ),
    "chores_wait_for_a_quiet_moment": Control(
        "journal/sqlite.py",
        "        self._due = not self._closed\n        if self._due and not self._busy:\n",
        "        if not self._closed and not self._busy:\n            self._due = True\n",
        "test_journal_retention.py::Server::test_those_who_wait_come_first",
    ),
    "P7_served_from_a_damaged_file": Control(
        "journal/file.py",
        "first_damage(connection, path)\n        finally",
        '""\n        finally',
        "test_journal_damage.py::BeforeTheStart::test_page_headers",
    ),
    "P7_served_from_a_truncated_file": Control(
        "journal/file.py",
        '        return "its end is missing"\n',
        "        pass\n",
        "test_journal_damage.py::BeforeTheStart::test_truncated",
    ),
    "P1_log_of_a_lost_file_thrown_away": Control(
        "journal/file.py",
        "    if size_of(path) == 0 and header:\n",
        "    if False:\n",
        "test_journal_damage.py::Logs::test_of_another_file",
    ),
    "P1_damaged_log_ignored_for_ever": Control(
        "journal/file.py",
        "any(header) and not _is_log(header)",
        "False",
        "test_journal_damage.py::Logs::test_garbage",
    ),
    "P7_damage_found_and_nothing_done": Control(
        "journal/sqlite.py",
        "            self._worker.submit(functools.partial(self._writer.stop, damage))\n",
        "            pass\n",
        "test_journal_damage.py::Served::test_stops",
    ),
    "damage_behind_the_first_page_of_a_message": Control(
        "journal/checking.py",
        "    WHEN length(m.message) > 0 AND substr(m.message, -1) IS NULL THEN 'message ' || m.seq || ' has no end'\n",
        "",
        "test_journal_damage.py::Later::test_in_pages",
    ),
    "a_file_in_use_is_called_damaged": Control(
        "journal/file.py",
        "    if damage and _state(path) == before:",
        "    if damage:",
        "test_journal_damage.py::BeforeTheStart::test_changed_meanwhile",
    ),
    "migration_loses_the_old_version": Control(
        "journal/reading.py",
        "{_RECORD if version > 1 else _FIRST_RECORD}",
        "{_RECORD}",
        "test_journal_reading.py::Pages::test_nothing_is_written",
    ),
    "P2_two_processes_number_at_once": Control(
        "journal/writer.py",
        'connection.execute("BEGIN IMMEDIATE")',
        'connection.execute("BEGIN")',
        "test_journal_transaction.py::Together::test_alone",
    ),
    "groups_a_name_means_something_to_nats": Control(
        "groups/wire.py",
        'rb"[^A-Za-z0-9_-]"',
        'rb"[^A-Za-z0-9_.*>-]"',
        "test_groups_nats.py::Subjects::test_tokens",
    ),
    "groups_a_hash_is_taken_for_the_name": Control(
        "groups/nats.py",
        "node == self._id or name != name_with(group)",
        "node == self._id",
        "test_groups_nats.py::Hearing::test_names",
    ),
    "groups_ones_own_words_come_back": Control(
        "groups/nats.py",
        "node == self._id or name != name_with(group)",
        "name != name_with(group)",
        "test_groups_nats.py::Hearing::test_others",
    ),
    "groups_a_packet_larger_than_nats_takes": Control(
        "groups/wire.py",
        "size + _LENGTH.size + len(message) > most",
        "size + len(message) > most",
        "test_groups_nats.py::Packets::test_round_trip",
    ),
    "groups_out_of_order_to_other_nodes": Control(
        "groups/outgoing.py",
        "self._taken = group, self._held.pop(group)",
        "self._taken = group, self._held.pop(group)[::-1]",
        "test_groups_nats.py::Sending::test_together",
    ),
    "P8_outgoing_without_end": Control(
        "groups/outgoing.py",
        "if self._size + size > MOST or not (self.connected or waits):",
        "if not (self.connected or waits):",
        "test_groups_nats.py::Sending::test_bounded",
    ),
    "groups_old_words_when_nats_is_back": Control(
        "groups/outgoing.py",
        "if self._size + size > MOST or not (self.connected or waits):",
        "if self._size + size > MOST:",
        "test_groups_nats.py::Sending::test_away",
    ),
    "groups_dropped_and_not_counted": Control(
        "groups/outgoing.py",
        "            self.dropped += len(held) - len(kept)\n",
        "",
        "test_groups_nats.py::Sending::test_away",
    ),
    "groups_not_sent_and_lost": Control(
        "groups/outgoing.py",
        "        kept = [said for said in taken[count:] if said.waits]\n",
        "        kept: list[Said] = []\n",
        "test_groups_nats.py::Sending::test_not_sent",
    ),
    "groups_keep_the_journal_open": Control(
        "service.py",
        """            try:
                await self._groups.close()
            finally:
                await self._keeping.close()
""",
        """            await self._groups.close()
            await self._keeping.close()
""",
        "test_service.py::Journals::test_groups_that_cannot_be_closed",
    ),
    "nats_old_reasons": Control(
        "nats/connection.py",
        "self._err = None  # or",
        "pass  # or",
        "integration/test_nats_link.py::Links::test_a_right_that_is_missing",
    ),
    "jetstream_acknowledged_by_less_than_asked_for": Control(
        "journal/jetstream/journal.py",
        "isinstance(outcome, Stored) and not self._judgement.trouble:",
        "isinstance(outcome, Stored):",
        "test_journal_jetstream.py::Queues::test_less_than_asked_for",
    ),
    "groups_excludes_nobody_in_silence": Control(
        "app.py",
        "if exclude is not None and not isinstance(exclude, Client):",
        "if False:",
        "test_groups.py::Hearing::test_mistakes",
    ),
    "jetstream_the_leader_for_every_page": Control(
        "journal/jetstream/reading.py",
        "if page and more:",
        "if page and not more:",
        "test_journal_jetstream.py::Reading::test_pages",
    ),
    "groups_missed_and_not_logged": Control(
        "groups/nats.py",
        "        if dropped or doubtful:",
        "        if False:",
        "test_groups_nats.py::Hearing::test_missed",
    ),
    "groups_a_join_that_others_have_not_heard_of": Control(
        "groups/nats.py",
        "return self._presence.confirm()",
        "return done()",
        "integration/test_groups.py::OverNats::test_moment",
    ),
    "groups_nobody_waits_for_nats": Control(
        "groups/nats.py",
        "behind() or not outgoing.has_room",
        "behind()",
        "test_groups_nats.py::Hearing::test_wait",
    ),
    "groups_told_here_and_refused": Control(
        "groups/nats.py",
        "        self.check_size(group, message)\n        listeners = self._deliver(group, message, exclude)\n",
        "        listeners = self._deliver(group, message, exclude)\n        self.check_size(group, message)\n",
        "test_groups_nats.py::Hearing::test_too_large",
    ),
    "presence_the_dead_stay": Control(
        "groups/roster.py",
        "if now - node.heard_at > SILENCE]",
        "if False]",
        "test_groups_nats.py::Nodes::test_alive",
    ),
    "presence_of_the_dead_as_stored": Control(
        "groups/roster.py",
        "        if node.alive:\n            yield from self._show(name, sheet, had",
        "        if True:\n            yield from self._show(name, sheet, had",
        "test_groups_nats.py::Nodes::test_alive",
    ),
    "presence_we_sleep_and_all_die": Control(
        "groups/roster.py",
        "            node.heard_at += seconds",
        "            node.heard_at += 0",
        "test_groups_nats.py::Nodes::test_our_own_sleep",
    ),
    "presence_an_old_sheet_counts": Control(
        "groups/roster.py",
        "had.version >= sheet.version",
        "had.version == sheet.version",
        "test_groups_nats.py::Nodes::test_behind",
    ),
    "presence_a_member_that_moves_is_lost": Control(
        "groups/roster.py",
        "if before is not None and stands == number:",
        "if before is not None:",
        "test_groups_nats.py::Nodes::test_moved",
    ),
    "presence_a_write_for_each_member": Control(
        "groups/roster.py",
        "        # The one that is written anyway, if there is one.\n",
        "        self._with_room.clear()\n",
        "test_groups_nats.py::Sheets::test_few",
    ),
    "presence_a_stop_leaves_members": Control(
        "groups/presence.py",
        "            self._tell(self._others.gone(name))\n            return",
        "            return",
        "test_groups_nats.py::Hearing::test_goodbye",
    ),
    "presence_never_asked_for_what_was_missed": Control(
        "groups/presence.py",
        "if self._others.behind(name) > 1 and",
        "if False and",
        "integration/test_nats.py::Servers::test_without_jetstream",
    ),
    "nats_a_password_is_repeated": Control(
        "nats/checks.py",
        'option if "@" in text else described',
        "described",
        "test_nats_link.py::Addresses::test_password",
    ),
    "nats_authorities_without_tls": Control(
        "nats/checks.py",
        "if settings.nats_ca and not address.tls:",
        "if False:",
        "test_nats_link.py::Checks::test_ca_in_clear_text",
    ),
    "nats_any_reactor": Control(
        "nats/checks.py",
        "if reactor is not None and not isinstance(reactor, AsyncioSelectorReactor):",
        "if False:",
        "test_nats_link.py::Checks::test_without_asyncio",
    ),
    "nats_an_old_server": Control(
        "nats/link.py",
        "            _check_version(client.info)\n",
        "",
        "integration/test_nats.py::Servers::test_old",
    ),
    "nats_clear_text_in_place_of_tls": Control(
        "nats/connection.py",
        '            if not (info.get("tls_required") or info.get("tls_available")):\n',
        "            if True:\n                return\n            if False:\n",
        "integration/test_nats.py::Security::test_tls",
    ),
    "nats_credentials_of_the_start": Control(
        "nats/link.py",
        "read_credentials(self.address.credentials))",
        "self.__dict__.setdefault('_first', read_credentials(self.address.credentials)))",
        "integration/test_nats.py::Security::test_credentials",
    ),
    "nats_a_stopped_server_is_waited_for": Control(
        "nats/connection.py",
        "flush_timeout=CONNECT_TIMEOUT,",
        "",
        "integration/test_groups.py::Stopped::test_stopped",
    ),
    "groups_bucket_never_copied": Control(
        "groups/bucket.py",
        "has = found.num_replicas or 1 if found is not None else 0",
        "has = 3 if found is not None else 0",
        "integration/test_nats.py::Servers::test_more_servers",
    ),
    "groups_doubtful_and_not_counted": Control(
        "groups/outgoing.py",
        "        self.doubtful += sum(many for when, many in self._under_way.items() if when >= answered)\n",
        "",
        "integration/test_nats_link.py::Counting::test_all_counted",
    ),
    "groups_waited_for_and_lost": Control(
        "groups/awaiting.py",
        "if self._until and not self._awaited:",
        "if self._until:",
        "integration/test_nats_link.py::Counting::test_waited_for",
    ),
    "nats_one_dead_server_is_all": Control(
        "nats/link.py",
        "                lost = asyncio.Event()  # of each",
        "                lost = self.__dict__.setdefault('_lost', asyncio.Event())  # of each",
        "integration/test_nats_link.py::Links::test_one_of_two_dead",
    ),
    "nats_subscribed_while_connecting": Control(
        "nats/link.py",
        "            self._line = client\n",
        "",
        "integration/test_nats_link.py::Links::test_subjects_while_connecting",
    ),
    "nats_ping_that_overtakes": Control(
        "nats/connection.py",
        "        self._say(PING_PROTO)\n",
        "        self._transport.write(PING_PROTO)\n",
        "integration/test_nats_link.py::Links::test_round_trip",
    ),
    "nats_unheard_without_bound": Control(
        "nats/connection.py",
        "elif self._unheard_size > UNHEARD:",
        "elif False:",
        "integration/test_nats_link.py::Links::test_bounded",
    ),
    "nats_errors_kept_or_told_again": Control(
        "limits.py",
        "if text in self._seen or len(self._seen) >= self._most:",
        "if False:",
        "integration/test_nats_link.py::Links::test_misheard",
    ),
    "nats_without_rights_all_seems_well": Control(
        "nats/link.py",
        "            if said:\n                raise said[0]\n",
        "",
        "integration/test_nats_link.py::Links::test_rights",
    ),
    "jetstream_an_acknowledgement_of_another_stream": Control(
        "journal/jetstream/publishing.py",
        'if answer.get("stream") != self._stream or type(number)',
        "if type(number)",
        "test_journal_jetstream.py::Publishing::test_another_stream",
    ),
    "jetstream_an_acknowledgement_of_less": Control(
        "journal/jetstream/publishing.py",
        'if answer.get("batch") != name or answer.get("count") != len(pending):',
        "if False:",
        "test_journal_jetstream.py::Publishing::test_another_stream",
    ),
    "jetstream_no_success_told_as_one": Control(
        "journal/jetstream/waiting.py",
        "            self._fail(entry, unavailable())\n",
        "            entry.promise.keep(Stored([1] * 99))\n",
        "integration/test_journal_jetstream.py::Faults::test_full",
    ),
    "jetstream_overtaken": Control(
        "journal/jetstream/publishing.py",
        "rest[:1] if MESSAGE_ID in rest[0].headers else rest[:WINDOW]",
        "rest[:WINDOW]",
        "test_journal_jetstream.py::Publishing::test_once_and_never_overtaken",
    ),
    "jetstream_duplicates_told_as_new": Control(
        "journal/jetstream/delivery.py",
        "        if not is_new:\n",
        "        if False:\n",
        "test_journal_jetstream.py::Publishing::test_known_and_new",
    ),
    "jetstream_refused_for_one_that_was_known": Control(
        "journal/jetstream/publishing.py",
        "if refused.number in (DUPLICATE_IN_BATCH, IN_PROCESS):",
        "if False:",
        "integration/test_journal_jetstream.py::Once::test_two_nodes",
    ),
    "jetstream_one_is_refused_and_all_are": Control(
        "journal/jetstream/publishing.py",
        "if refused.is_of_messages:",
        "if refused.number == DUPLICATE_IN_BATCH:",
        "integration/test_journal_jetstream.py::Cluster::test_at_the_same_time",
    ),
    "jetstream_one_is_full_and_all_are": Control(
        "journal/jetstream/publishing.py",
        "if refused.is_of_messages:",
        "if refused.number in (DUPLICATE_IN_BATCH, IN_PROCESS):",
        "integration/test_journal_jetstream.py::Faults::test_one_is_full",
    ),
    "jetstream_refused_for_one_that_is_on_its_way": Control(
        "journal/jetstream/publishing.py",
        "if refused.number != IN_PROCESS or not delivery",
        "if True or not delivery",
        "test_journal_jetstream.py::Publishing::test_on_its_way_elsewhere",
    ),
    "jetstream_a_gap": Control(
        "journal/jetstream/publishing.py",
        "                _fail(pending, error)\n                return\n",
        "                _fail([delivery], error)\n                continue\n",
        "test_journal_jetstream.py::Publishing::test_once_and_never_overtaken",
    ),
    "jetstream_a_gap_between_two_goes": Control(
        "journal/jetstream/waiting.py",
        "        if clients:\n",
        "        if False:\n",
        "test_journal_jetstream.py::Queues::test_behind_what_was_refused",
    ),
    "jetstream_all_wait_for_one": Control(
        "journal/jetstream/publishing.py",
        "\nSLICE = 16\n",
        "\nSLICE = 1000\n",
        "test_journal_jetstream.py::Publishing::test_slices",
    ),
    "jetstream_refusals_fill_the_log": Control(
        "journal/jetstream/health.py",
        "        if why in self._refusals:\n",
        "        if False:\n",
        "test_journal_jetstream.py::Healths::test_refused_in_turn_with_others",
    ),
    "jetstream_a_refusal_is_the_end_of_all": Control(
        "journal/jetstream/journal.py",
        "if isinstance(outcome, Refused) and outcome.is_of_messages:",
        "if False:",
        "integration/test_journal_jetstream.py::Faults::test_one_is_full",
    ),
    "jetstream_waits_for_an_answer_that_cannot_come": Control(
        "journal/jetstream/journal.py",
        "            self._give_up()\n        self._waiting.refuse_all()\n\n    def",
        "            pass\n        self._waiting.refuse_all()\n\n    def",
        "test_journal_jetstream.py::Queues::test_given_up",
    ),
    "jetstream_drops_what_it_has_acknowledged": Control(
        "journal/jetstream/stream.py",
        "    if drops:\n",
        "    if False:\n",
        "integration/test_journal_jetstream.py::Faults::test_dropping",
    ),
    "jetstream_drops_the_oldest_of_a_source": Control(
        "journal/jetstream/stream.py",
        'not (is_new and found.get("discard_new_per_subject"))',
        "not is_new",
        "test_journal_jetstream.py::Streams::test_dropped",
    ),
    "jetstream_keeps_less_in_silence": Control(
        "journal/jetstream/stream.py",
        'if age != ours["max_age"]:',
        'if wanted.keep.age and age != ours["max_age"]:',
        "test_journal_jetstream.py::Streams::test_kept_for_less",
    ),
    "jetstream_a_handlers_ids_are_forgotten": Control(
        "journal/jetstream/waiting.py",
        "if entry.has_ids and not judgement.knows_ids:",
        "if False:",
        "integration/test_journal_jetstream.py::Once::test_a_handlers_ids_known_for_less",
    ),
    "jetstream_more_in_one_go_than_a_server_takes": Control(
        "journal/jetstream/delivery.py",
        "TOGETHER = 1000",
        "TOGETHER = 1001",
        "test_journal_jetstream.py::Publishing::test_larger_than_a_go",
    ),
    "jetstream_ids_of_all_names_are_one": Control(
        "journal/jetstream/envelope.py",
        'MESSAGE_ID: f"{prefix}.{header(each)',
        'MESSAGE_ID: f"{header(each)',
        "test_journal_jetstream.py::Envelopes::test_ids",
    ),
    "jetstream_a_name_means_something_to_nats": Control(
        "journal/jetstream/envelope.py",
        'errors="surrogatepass").replace(".", "%2E")\n    if',
        'errors="surrogatepass")\n    if',
        "test_journal_jetstream.py::Envelopes::test_tokens",
    ),
    "jetstream_replicated_without_replicas": Control(
        "journal/jetstream/stream.py",
        'found.get("num_replicas", 1) >= 3',
        'found.get("num_replicas", 1) >= 2',
        "test_journal_jetstream.py::Streams::test_level",
    ),
    "jetstream_durable_without_a_sync": Control(
        "journal/jetstream/stream.py",
        'if not syncs or found.get("storage")',
        'if found.get("storage")',
        "test_journal_jetstream.py::Streams::test_level",
    ),
    "jetstream_lowered_in_silence": Control(
        "journal/jetstream/stream.py",
        "if LEVELS.index(level) < LEVELS.index(wanted.ack):",
        "if False:",
        "integration/test_journal_jetstream.py::Levels::test_memory",
    ),
    "jetstream_ids_known_for_two_minutes": Control(
        "journal/jetstream/stream.py",
        '        "duplicate_window": round(max(_window(wanted), _SHORTEST) * _NANOSECONDS),\n',
        "",
        "integration/test_journal_jetstream.py::Once::test_how_a_stream_is_made",
    ),
    "jetstream_a_short_window_in_silence": Control(
        "journal/jetstream/stream.py",
        "if wanted.ids and _known_for(found) < _window(wanted):",
        "if False:",
        "integration/test_journal_jetstream.py::Once::test_ids_known_for_less",
    ),
    "jetstream_a_server_that_takes_less": Control(
        "journal/jetstream/stream.py",
        "if size < wanted.size + _AROUND:",
        "if False:",
        "test_journal_jetstream.py::Streams::test_larger_messages",
    ),
    "jetstream_resume_elsewhere": Control(
        "journal/jetstream/reading.py",
        "subject_of(stream, source(identity, name))}",
        "subject_of(stream, source(identity, identity))}",
        "integration/test_journal_jetstream.py::Once::test_two_nodes",
    ),
    "jetstream_one_page_only": Control(
        "journal/jetstream/reading.py",
        "            if page and more:\n                continue\n",
        "            return records\n",
        "integration/test_journal_jetstream.py::Collecting::test_reading",
    ),
    "jetstream_back_when_it_is_only_seen": Control(
        "journal/jetstream/health.py",
        "        if self._until_stored:\n            return\n",
        "",
        "test_journal_jetstream.py::Healths::test_seen_and_not_stored",
    ),
    "jetstream_end_where_a_replica_says": Control(
        "journal/jetstream/reading.py",
        "        if message is None:\n            break\n",
        "        if message is None or is_direct:\n            break\n",
        "test_journal_jetstream.py::Reading::test_behind",
    ),
    "jetstream_larger_than_the_server_takes": Control(
        "journal/jetstream/waiting.py",
        "if entry.largest > judgement.size:",
        "if False:",
        "integration/test_journal_jetstream.py::Collecting::test_larger_than_the_server_takes",
    ),
    "jetstream_another_one_in_silence": Control(
        "journal/jetstream/watching.py",
        'if self._created not in ("", created):',
        "if False:",
        "integration/test_journal_jetstream.py::Faults::test_deleted",
    ),
    "jetstream_gone_for_good": Control(
        "journal/jetstream/watching.py",
        "if refused.number != NO_STREAM:",
        "if self._created:",
        "integration/test_journal_jetstream.py::Faults::test_deleted",
    ),
    "jetstream_a_stream_that_takes_nothing_of_ours": Control(
        "journal/jetstream/stream.py",
        "    if not all(any(_covers(",
        "    if False and not all(any(_covers(",
        "test_journal_jetstream.py::Streams::test_what_cannot_be_used",
    ),
    "jetstream_any_reactor": Control(
        "journal/__init__.py",
        '        check_reactor(f"--journal {settings.journal}")\n',
        "",
        "integration/test_journal_jetstream.py::Levels::test_refused_at_the_start",
    ),
    "chat_guests_of_two_nodes_named_alike": Control(
        "apps/chat.py",
        "NODE = secrets.token_hex(3)",
        'NODE = ""',
        "test_chat.py::Names::test_guests",
    ),
    "chat_name_taken_while_joining": Control(
        "apps/chat.py",
        "            await self.client.join(room, label=self.name)\n",
        "            await history(self.client.app, room)\n            await self.client.join(room, label=self.name)\n",
        "test_chat.py::Names::test_taken_while_joining",
    ),
    "chat_name_taken_on_another_node": Control(
        "apps/chat.py",
        "                await self.client.leave(room)\n                return taken\n",
        "                pass\n",
        "test_chat.py::Names::test_taken_elsewhere",
    ),
    "chat_nick_taken_on_another_node": Control(
        "apps/chat.py",
        "                await self.be_called(before)\n                return",
        "                return",
        "test_chat.py::Names::test_taken_elsewhere",
    ),
    "chat_said_while_joining_and_lost": Control(
        "apps/chat.py",
        "            await self.client.join(room, label=self.name)\n",
        "            await self.tell_history(room)\n            await self.client.join(room, label=self.name)\n",
        "test_chat.py::History::test_meanwhile",
    ),
    "chat_history_of_another_journal": Control(
        "apps/chat.py",
        "if kept and not await is_there(app, kept[-1][0]):",
        "if kept and await app.journal.position() < kept[-1][0][0]:",
        "test_chat.py::History::test_made_anew",
    ),
    "groups_wait_ignored": Control(
        "groups/memory.py",
        "        if wait:\n            return self._wait_while",
        "        if False:\n            return self._wait_while",
        "test_groups.py::Promises::test_wait_for_room",
    ),
    "groups_one_too_many_from_a_thread": Control(
        "session.py",
        "            self._check_room(group)\n",
        "",
        "test_groups.py::Hearing::test_refused_in_threads",
    ),
    "groups_unfit_from_a_thread": Control(
        "factory.py",
        "        self.encode([data])\n        self.groups",
        "        self.groups",
        "test_groups.py::Hearing::test_refused_in_threads",
    ),
    "groups_watched_from_a_thread": Control(
        "factory.py",
        '        if not self.loop_calls.in_loop():\n            raise HandlerError(f"{what}',
        '        if False:\n            raise HandlerError(f"{what}',
        "test_groups.py::Hearing::test_looking_from_threads",
    ),
    "groups_nonsense_fills_the_log": Control(
        "groups/oddities.py",
        'if self._rate.admits("not understood"):',
        "if True:",
        "test_groups.py::OtherNodes::test_presence",
    ),
    "bucket_deleted_and_never_made_again": Control(
        "groups/bucket.py",
        "                self._stored.clear()\n                self._usable = False\n",
        "                self._stored.clear()\n",
        "integration/test_nats.py::Servers::test_bucket_deleted",
    ),
    "bucket_made_again_and_empty": Control(
        "groups/bucket.py",
        "                self._stored.clear()\n                self._usable = False\n",
        "                self._usable = False\n",
        "integration/test_nats.py::Servers::test_bucket_deleted",
    ),
    "bucket_refuses_in_silence": Control(
        "groups/bucket.py",
        'self._trouble(refused.get("description", "refused"))',
        "pass",
        "integration/test_nats.py::Servers::test_bucket_refuses",
    ),
    "bucket_refuses_at_each_beat": Control(
        "groups/bucket.py",
        "        if not owed:\n",
        "        if owed:\n",
        "integration/test_nats.py::Servers::test_bucket_refuses",
    ),
}


#: Twice as many at a time as there are processors: each is a process that waits for half of its time.
_AT_ONCE = 2 * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
#: How many are begun before they are asked for, so that one that takes its time keeps no processor idle.
_AHEAD = 4 * _AT_ONCE
_pool = ThreadPoolExecutor(_AT_ONCE, "control")
_runs: dict[str, Future[str]] = {}


def outcome(name: str) -> str:
    """What became of a control: see `run`. Of whoever runs two in turn the next are begun, too: it may be all."""
    names = sorted(CONTROLS)  # the order in which the runners take the methods below
    at = names.index(name)
    ahead = _AHEAD if at and names[at - 1] in _runs else 0
    for each in names[at : at + 1 + ahead]:
        if each not in _runs:
            _runs[each] = _pool.submit(run, CONTROLS[each], compiled())
    return _runs[name].result()


@functools.cache
def compiled() -> Path:
    """A copy of the package and the tests that Python need not compile for each control: that is half of the time."""
    root = Path(tempfile.mkdtemp(prefix="mtserver-controls-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for folder in (PACKAGE, TESTS):
        shutil.copytree(folder, root / folder.name)
    compileall.compile_dir(root, quiet=2)
    return root


def run(control: Control, whole: Path) -> str:
    """Break a copy and run the test on it: ``noticed``, ``skipped``, or what was printed by a test that passes."""
    with tempfile.TemporaryDirectory(prefix="mtserver-control-") as folder:
        root = Path(folder)
        shutil.copytree(whole, root, dirs_exist_ok=True)
        broken = root / "mtserver" / control.module
        text = broken.read_text()
        if text.count(control.right) != 1:
            return f"{control.module} no longer has: {control.right!r}"
        broken.write_text(text.replace(control.right, control.wrong))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        environment["PYTHONPATH"] = str(root)
        environment["MTSERVER_TEST_DEADLINE"] = "3"
        plugins = [f"-pno:{name}" for name in ("cacheprovider", "hypothesispytest", "cov")]
        # Whose assertions pytest rewrites it compiles again.
        words = ["-m", "pytest", "-q", "--assert=plain", *plugins, f"tests/{control.test}"]
        # Some of these breaks race with what notices them. One run that does shows that the test can fail.
        for _ in range(3):
            done = subprocess.run(
                [sys.executable, *words],
                cwd=root,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            if "1 failed" in done.stdout:
                return "noticed"
            if "1 skipped" in done.stdout:
                return "skipped"
        return f"broken on purpose, and not noticed:\n{done.stdout}{done.stderr}"


class Controls(SynchronousTestCase):
    """One method per control, made below."""

    def check(self, name: str) -> None:
        found = outcome(name)
        if found == "skipped":
            raise SkipTest(f"{CONTROLS[name].test} is skipped here")
        self.assertEqual(found, "noticed")


def _method(control: Control, name: str) -> None:
    def test(self: Controls) -> None:
        self.check(name)

    test.__doc__ = f"{name.replace('_', ' ')} is noticed by {control.test}."
    test.__name__ = f"test_{name}"
    setattr(Controls, test.__name__, test)


for _name, _control in CONTROLS.items():
    _method(_control, _name)

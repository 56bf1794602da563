"""A file of hashes: who knows a password in it, and what the file may be."""

from __future__ import annotations

import getpass
import io
import stat
import sys
import time
from pathlib import Path
from typing import Any

import argon2
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred

from mtserver.auth import __main__ as command
from mtserver.auth import passwords
from mtserver.auth import passwords as module
from mtserver.auth.passwords import AT_ONCE, RECALLED, WAITING, Passwords, read
from mtserver.errors import ConfigurationError, Refusal
from tests.authcase import AuditCase
from tests.controls import ControlCase

#: As weak as argon2 gets: these tests are not about its price.
WEAK = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class PasswordsCase(AuditCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(module, "HASHER", WEAK)
        self.patch(command, "HASHER", WEAK)
        self.path = Path(self.mktemp())
        self.run_command("add", "alice", password="wonder\n")

    def run_command(self, word: str, *words: str, password: str = "") -> str:
        """Run the command; return what it prints."""
        self.patch(sys, "stdin", io.StringIO(password))
        printed = io.StringIO()
        self.patch(sys, "stdout", printed)
        command.main([word, str(self.path), *words])
        return printed.getvalue()

    def checker(self) -> Passwords:
        """A checker that computes hashes in place, and counts them."""
        checker = module.checker(str(self.path))
        self.hashed: list[str] = []

        def here(function: Any, hashed: str, password: bytes) -> Deferred[Any]:
            self.hashed.append(hashed)
            return maybeDeferred(function, hashed, password)

        self.patch(checker, "_in_thread", here)
        return checker

    def ask(self, checker: Passwords, name: str, password: str) -> Deferred[Any]:
        return checker.requestAvatarId(UsernamePassword(name.encode(), password.encode()))


class Checking(PasswordsCase):
    def test_right_and_wrong(self) -> None:
        """The right password gives the identity it belongs to; every other one is refused."""
        checker = self.checker()
        self.assertEqual(self.successResultOf(self.ask(checker, "alice", "wonder")), b"alice")
        for name, password in (("alice", "wander"), ("bob", "wonder"), ("alice", ""), ("alice\udc80", "x")):
            credentials = UsernamePassword(name.encode(errors="surrogateescape"), password.encode())
            self.failureResultOf(checker.requestAvatarId(credentials), UnauthorizedLogin)

    def test_unknown_cost_the_same(self) -> None:
        """A name that is not in the file takes a hash like any other, with the same parameters."""
        checker = self.checker()
        for name in ("alice", "nobody"):
            self.failureResultOf(self.ask(checker, name, "wrong"), UnauthorizedLogin)
        known, unknown = self.hashed
        self.assertNotEqual(known, unknown)
        self.assertEqual(argon2.extract_parameters(known), argon2.extract_parameters(unknown))

    def test_unusable(self) -> None:
        """A hash that wants more memory than there is is no wrong password: the operator is told."""
        self.path.write_text(self.path.read_text().replace("m=8,", "m=4294967295,"))
        asked = self.ask(self.checker(), "alice", "wonder")
        self.failureResultOf(asked, argon2.exceptions.VerificationError)

    def test_recalled(self) -> None:
        """A password that was right needs no hash for a minute; a wrong one always does."""
        now = [1000.0]
        self.patch(time, "monotonic", lambda: now[0])
        checker = self.checker()
        for _ in range(3):
            self.successResultOf(self.ask(checker, "alice", "wonder"))
            self.failureResultOf(self.ask(checker, "alice", "wrong"), UnauthorizedLogin)
        self.assertEqual(len(self.hashed), 4)
        now[0] += RECALLED
        self.successResultOf(self.ask(checker, "alice", "wonder"))
        self.assertEqual(len(self.hashed), 5)
        self.assertNotIn("wonder", str(vars(checker)))

    def test_recalled_at_most(self) -> None:
        """No more of them than a bound, the latest."""
        self.patch(module, "RECALLED_AT_MOST", 1)
        self.run_command("add", "bob", password="builder")
        checker = self.checker()
        for name, password in (("alice", "wonder"), ("bob", "builder")):
            self.successResultOf(self.ask(checker, name, password))
        self.assertFalse(checker.recalls(UsernamePassword(b"alice", b"wonder")))
        self.assertTrue(checker.recalls(UsernamePassword(b"bob", b"builder")))

    def test_busy(self) -> None:
        """No more than a bound wait for a hash; others are told to come again."""
        checker = self.checker()
        waiting: list[Deferred[Any]] = []

        def later(*_args: Any) -> Deferred[Any]:
            waiting.append(Deferred())
            return waiting[-1]

        self.patch(checker, "_in_thread", later)
        asked = [self.ask(checker, "alice", "wonder") for _ in range(AT_ONCE + WAITING)]
        refusal = self.assertRaises(Refusal, self.ask, checker, "alice", "wonder")
        self.assertEqual(refusal.code, "busy")
        waiting.pop().callback(True)
        self.assertEqual(self.successResultOf(asked[-1]), b"alice")
        self.ask(checker, "alice", "other")

    def test_changed(self) -> None:
        """The file is read again when it has changed: new users come in, those removed and old passwords do not."""
        checker = self.checker()
        self.successResultOf(self.ask(checker, "alice", "wonder"))
        self.run_command("add", "bob", password="builder")
        self.run_command("add", "alice", password="new")
        self.assertEqual(self.successResultOf(self.ask(checker, "bob", "builder")), b"bob")
        self.failureResultOf(self.ask(checker, "alice", "wonder"), UnauthorizedLogin)
        self.successResultOf(self.ask(checker, "alice", "new"))
        self.run_command("remove", "bob")
        self.failureResultOf(self.ask(checker, "bob", "builder"), UnauthorizedLogin)
        self.assertEqual(self.recorded("passwords-reloaded", "users"), [2, 1])

    def test_changed_while_it_is_checked(self) -> None:
        """A user who is removed while the hash is computed does not come in by it."""
        checker = self.checker()
        waiting: list[Deferred[Any]] = []

        def later(*_args: Any) -> Deferred[Any]:
            waiting.append(Deferred())
            return waiting[-1]

        self.patch(checker, "_in_thread", later)
        asked = self.ask(checker, "alice", "wonder")
        self.run_command("remove", "alice")
        self.ask(checker, "bob", "x").addErrback(lambda _: None)  # it is read again with the next attempt
        waiting[0].callback(True)
        self.failureResultOf(asked, UnauthorizedLogin)

    def test_changed_for_the_worse(self) -> None:
        """A file that has become bad, or is gone, changes nothing, and is said once to have."""
        checker = self.checker()
        good = self.path.read_text()
        for spoil in (
            lambda: self.path.write_text(good + "half a li"),
            lambda: self.path.chmod(0o644),
            self.path.unlink,
        ):
            spoil()
            for _ in range(2):
                self.successResultOf(self.ask(checker, "alice", "wonder"))
        self.assertEqual(len(self.recorded("passwords-refused", "reason")), 3)


class Files(PasswordsCase):
    def test_what_it_may_hold(self) -> None:
        """Comments and empty lines are passed over; everything else is a name and an argon2id hash."""
        line = self.path.read_text()
        self.path.write_text(f"# users\n\n{line}\n")
        self.assertEqual(list(read(self.path)), ["alice"])
        for text, problem in (
            ("alice", "line 1 of .* is not NAME:HASH"),
            ("alice:secret", "line 1 of .* is not NAME:HASH"),
            (line + ":$argon2id$x", "line 2 of .* is not NAME:HASH"),
            ("alice:$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA", "is not NAME:HASH"),
            ("alice:$argon2id$v=19$m=8", "line 1 of .* has a damaged hash"),
            (line + line, "line 2 of .* has a name that stands there already"),
        ):
            self.path.write_text(text)
            error = self.assertRaises(ConfigurationError, read, self.path)
            self.assertRegex(str(error), problem)
            self.assertNotIn("secret", str(error))

    def test_who_may_read_it(self) -> None:
        """The owner alone may read or write the file."""
        for mode in (0o640, 0o604, 0o666, 0o610):
            self.path.chmod(mode)
            self.assertRaisesRegex(ConfigurationError, "others may read or write .*: chmod 600", read, self.path)
        self.path.chmod(0o400)
        read(self.path)

    def test_none(self) -> None:
        """One that is not there, or no text, is named."""
        self.assertRaisesRegex(ConfigurationError, "cannot be read", read, self.path.with_name("nothing"))
        self.path.write_bytes(b"\xff")
        self.assertRaisesRegex(ConfigurationError, "cannot be read", read, self.path)


class Command(PasswordsCase):
    def test_made(self) -> None:
        """The file is its owner's alone from the beginning, and has no password in it."""
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertNotIn("wonder", self.path.read_text())

    def test_link(self) -> None:
        """Where the file is a link, what it points to is changed."""
        link = self.path.with_name("link")
        link.symlink_to(self.path.absolute())
        self.run_command("add", "bob", password="builder")
        command.write(link, read(self.path))
        self.assertTrue(link.is_symlink())
        self.assertEqual(list(read(link)), ["alice", "bob"])

    def test_list(self) -> None:
        """The users are listed, without their hashes."""
        self.run_command("add", "bob", password="builder\r\n")
        self.assertEqual(self.run_command("list"), "alice\nbob\n")

    def test_mistakes(self) -> None:
        """Each is one line, and changes nothing."""
        before = self.path.read_text()
        for words, password, text in (
            (("remove", "bob"), "", "has no user bob"),
            (("add", "bob"), "\n", "there is no password without characters"),
            (("add", "bob"), "a\0b", "or with NUL"),
        ):
            error = self.assertRaises(SystemExit, self.run_command, *words, password=password)
            self.assertIn(text, str(error))
        self.patch(sys, "stderr", io.StringIO())
        for name in ("a:b", "", "#a", " a", "a\nb"):
            self.assertRaises(SystemExit, self.run_command, "add", name, password="x")
        self.assertEqual(self.path.read_text(), before)
        self.assertEqual([each.name for each in self.path.parent.glob(f"{self.path.name}?*")], [])

    def test_asked_twice(self) -> None:
        """The command asks twice at a terminal, and wants the same answer."""

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        self.patch(sys, "stdin", Terminal())
        for answers, fails in ((["one", "two"], True), (["one", "one"], False)):
            self.patch(getpass, "getpass", lambda _prompt, answers=answers: answers.pop(0))
            if fails:
                self.assertRaisesRegex(SystemExit, "two different", command.main, ["add", str(self.path), "bob"])
            else:
                command.main(["add", str(self.path), "bob"])
        self.assertEqual(list(read(self.path)), ["alice", "bob"])


class Controls(ControlCase):
    def test_wrong_ones(self) -> None:
        """Any password is right."""
        with self.noticed_by(Checking, "test_unknown_cost_the_same"):
            self.patch(passwords, "_verify", lambda *_: True)

    def test_removed_and_let_in(self) -> None:
        """Who was let in once is let in again, whatever the file says by now."""
        with self.noticed_by(Checking, "test_changed"):
            self.patch(Passwords, "_read_again", lambda _: None)

    def test_others_read_the_hashes(self) -> None:
        """A file that others may read is taken."""
        with self.noticed_by(Files, "test_who_may_read_it"):
            self.patch(stat, "S_IRWXG", 0)
            self.patch(stat, "S_IRWXO", 0)

"""Whose rights files are opened with. That twistd gives the rest up is shown in tests/integration."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mtserver.process import privileges
from mtserver.process.privileges import as_user, is_root


def rights() -> tuple[int, int, list[int]]:
    return os.geteuid(), os.getegid(), sorted(os.getgroups())


class Rights(SynchronousTestCase):
    def test_not_root(self) -> None:
        """Nobody but root is changed, nor is root without a wish."""
        before = rights()
        with as_user(None, None):
            self.assertEqual(rights(), before)
        self.patch(privileges, "is_root", lambda: False)
        with as_user(1, 1):
            self.assertEqual(rights(), before)

    def test_root(self) -> None:
        """Inside, root has the user's rights and groups, and no others; afterwards its own, whatever happened."""
        if not is_root():
            raise SkipTest("needs root")
        self.addCleanup(os.setgroups, os.getgroups())
        os.setgroups([0, 1])
        before, nobody = rights(), pwd.getpwnam("nobody")
        with self.assertRaisesRegex(PermissionError, "denied"), as_user(nobody.pw_uid, None):
            self.assertEqual(rights()[:2], (nobody.pw_uid, nobody.pw_gid))
            self.assertNotIn(0, os.getgroups())
            Path("/proc/1/environ").read_bytes()
        self.assertEqual(rights(), before)
        with as_user(None, nobody.pw_gid):
            self.assertEqual(rights()[:2], (0, nobody.pw_gid))
        self.assertEqual(rights(), before)

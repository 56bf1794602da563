"""malloc's thresholds: set with glibc, and only where the operator has not set them."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mtserver.process import malloc


class Glibc:
    """As much of it as is asked for."""

    gnu_get_libc_version = None

    def __init__(self, answer: int = 1) -> None:
        self.calls: list[tuple[int, int]] = []
        self._answer = answer

    def mallopt(self, parameter: int, value: int) -> int:
        self.calls.append((parameter, value))
        return self._answer


class Musl:
    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class Tune(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(os, "environ", {})

    def test_glibc(self) -> None:
        """Both thresholds are set: blocks of up to 4 MiB come from the heap, and it keeps 8 MiB."""
        glibc = Glibc()
        self.assertTrue(malloc.tune(glibc))
        self.assertEqual(glibc.calls, [(-3, 4194304), (-1, 8388608)])

    def test_refused(self) -> None:
        """A C library that does not take them is left as it is."""
        self.assertFalse(malloc.tune(Glibc(0)))

    def test_others(self) -> None:
        """Other C libraries are left alone."""
        self.assertFalse(malloc.tune(Musl()))

    def test_environment(self) -> None:
        """An operator who has chosen keeps that choice."""
        for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
            self.patch(os, "environ", {name: "1"})
            glibc = Glibc()
            self.assertFalse(malloc.tune(glibc), name)
            self.assertEqual(glibc.calls, [])

    def test_here(self) -> None:
        """It does not raise on whatever this is."""
        self.assertIn(malloc.tune(), {True, False})

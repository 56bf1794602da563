"""What pytest needs on top of trial: a folder per test, and errors that nobody asked for."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a test makes in its working directory, as trial's ``mktemp`` does, are not left in the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def strict(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    A failure that is logged, or that a Deferred takes to its grave, fails the test.

    trial's own test cases look after that themselves; pytest-twisted does not.
    """
    if request.cls is not None:
        yield
        return
    failures: list[str] = []

    @implementer(ILogObserver)
    def note(event: LogEvent) -> None:
        if "log_failure" in event:
            failures.append(event["log_failure"].getTraceback())

    globalLogPublisher.addObserver(note)
    try:
        yield
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(note)
    assert not failures, "\n".join(failures)

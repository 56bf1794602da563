"""
Rounds in which all servers of a workload take turns, and what is made of them.

A machine is faster in one minute than in the next. Servers that take turns meet the same minutes, and a ratio within
a round compares neighbours; the median of those ratios is what a bar is held against.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from benchmarks.servers import MeasurementError
from benchmarks.workloads import Bar, Entry, Workload

#: At most so many rounds go into the rate that half load is half of.
CALIBRATION = 3


@dataclass(frozen=True, slots=True)
class Measurement:
    """One server under one load in one round: the values, or why there are none."""

    workload: str
    server: str
    round: int
    values: dict[str, float]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the ends of some values."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """None of none."""
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1]) if found else None


class Measure(Protocol):
    """As :meth:`benchmarks.servers.Bench.measure`."""

    def __call__(
        self, workload: Workload, entry: Entry, seconds: float, warmup: float, rate: float = 0
    ) -> dict[str, float]: ...


def turns(names: Sequence[str], round_: int, seed: int) -> list[str]:
    """The order of one round: shuffled anew, so that nobody always runs after the same neighbour."""
    order = list(names)
    # Not hash(): a run can be repeated with its seed.
    random.Random(f"{seed}-{round_}").shuffle(order)
    return order


class Run:
    """
    Runs workloads and keeps what was measured.

    :param missing: why a server cannot be measured in a workload, or None.
    :param told: called with a line for whoever waits.
    """

    def __init__(
        self,
        measure: Measure,
        missing: Callable[[Entry, Workload], str | None],
        *,
        rounds: int,
        seconds: float,
        warmup: float,
        seed: int = 1,
        told: Callable[[str], Any] = print,
    ) -> None:
        self._measure = measure
        self._missing = missing
        self._rounds = rounds
        self._seconds = seconds
        self._warmup = warmup
        self._seed = seed
        self._told = told
        self.measurements: list[Measurement] = []
        #: Why a server was not measured, by workload and server.
        self.missing: dict[str, dict[str, str]] = {}
        #: The messages a second that were offered, by workload; of those at half rate only.
        self.offered: dict[str, float] = {}

    def run(self, workload: Workload) -> None:
        reasons = {entry.server: self._missing(entry, workload) for entry in workload.entries}
        self.missing[workload.name] = {server: reason for server, reason in reasons.items() if reason}
        entries = {entry.server: entry for entry in workload.entries if not reasons[entry.server]}
        for server, reason in self.missing[workload.name].items():
            self._told(f"{workload.name}: {server} is missing: {reason}")
        rate = 0.0
        if workload.at_half_rate and entries:
            try:
                rate = self._half_rate(workload, next(iter(entries.values())))
            except MeasurementError as error:
                self.missing[workload.name] |= dict.fromkeys(entries, f"the rate could not be found: {error}")
                return
            self.offered[workload.name] = rate
        for round_ in range(self._rounds):
            for server in turns(list(entries), round_, self._seed):
                self._take(workload, entries[server], round_, rate)

    def _half_rate(self, workload: Workload, entry: Entry) -> float:
        """
        Half of what one server reaches in a closed loop.

        The same load for all of them, so that latencies compare: half of each one's own would flatter the slow.
        """
        closed = replace(workload, load=workload.load.replace("--rate {rate}", ""))
        times = min(self._rounds, CALIBRATION)
        found = [self._measure(closed, entry, self._seconds, self._warmup)["rate"] for _ in range(times)]
        rate = round(statistics.median(found) / 2)
        self._told(f"{workload.name}: {rate:,} messages/s are half of what {entry.server} reaches")
        return rate

    def _take(self, workload: Workload, entry: Entry, round_: int, rate: float) -> None:
        try:
            values = self._measure(workload, entry, self._seconds, self._warmup, rate)
            found, error = f"{values[workload.metric.key]:,.0f} {workload.metric.unit}", ""
        except MeasurementError as failure:
            values, error = {}, str(failure)
            found = f"failed: {error}"
        except KeyError as failure:
            values, error = {}, f"the load did not report {failure}"
            found = f"failed: {error}"
        self._told(f"{workload.name}, round {round_ + 1} of {self._rounds}: {entry.server}: {found}")
        self.measurements.append(Measurement(workload.name, entry.server, round_, values, error))


def values(measurements: Iterable[Measurement], workload: str, server: str, key: str) -> dict[int, float]:
    """What was measured, by round; without the rounds that failed."""
    return {
        taken.round: taken.values[key]
        for taken in measurements
        if (taken.workload, taken.server) == (workload, server) and key in taken.values
    }


def ratios(measurements: Sequence[Measurement], workload: str, server: str, than: str, key: str) -> list[float]:
    """One value divided by the other, of each round that has both."""
    ours, theirs = values(measurements, workload, server, key), values(measurements, workload, than, key)
    return [ours[round_] / theirs[round_] for round_ in sorted(ours.keys() & theirs.keys()) if theirs[round_]]


def differences(measurements: Sequence[Measurement], workload: str, server: str, than: str, key: str) -> list[float]:
    """What one has more than the other, of each round that has both."""
    ours, theirs = values(measurements, workload, server, key), values(measurements, workload, than, key)
    return [ours[round_] - theirs[round_] for round_ in sorted(ours.keys() & theirs.keys())]


def held_against(bar: Bar, workload: Workload, measurements: Sequence[Measurement]) -> tuple[Spread | None, bool]:
    """What was measured of a bar, and whether it is met; (None, False) if nothing was."""
    key = workload.metric.key
    if bar.than is None:
        found = Spread.of(values(measurements, bar.workload, bar.server, key).values())
    else:
        found = Spread.of(ratios(measurements, bar.workload, bar.server, bar.than, key))
    if found is None:
        return None, False
    return found, found.median <= bar.wanted if workload.metric.less_is_better else found.median >= bar.wanted

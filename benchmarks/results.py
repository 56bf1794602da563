"""
The results of one run: everything that was measured, as JSON to keep, so that a report can be made of it again.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.run import Measurement, Spread, values
from benchmarks.workloads import WORKLOADS, Workload

#: The share of its core at which the load generator, not the server, may be what is measured.
SATURATED = 0.95


@dataclass(frozen=True, slots=True)
class Results:
    """One run."""

    #: Of the machine and the run, for a reader who judges the numbers.
    facts: Mapping[str, str]
    measurements: list[Measurement]
    #: Why a server was not measured, by workload and server.
    missing: Mapping[str, Mapping[str, str]]
    #: Messages a second, by workload; where it was not as many as can be.
    offered: Mapping[str, float]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        found: dict[str, Any] = json.loads(text)
        measurements = [Measurement(**taken) for taken in found.pop("measurements")]
        return cls(measurements=measurements, **found)

    def workloads(self) -> list[Workload]:
        """Those that were run, each with the servers that were, or should have been."""
        ran = {(taken.workload, taken.server) for taken in self.measurements}
        ran |= {(workload, server) for workload, servers in self.missing.items() for server in servers}
        chosen = []
        for workload in WORKLOADS:
            entries = tuple(entry for entry in workload.entries if (workload.name, entry.server) in ran)
            if entries:
                chosen.append(dataclasses.replace(workload, entries=entries))
        return chosen

    def spread(self, workload: Workload, server: str, key: str) -> Spread | None:
        return Spread.of(values(self.measurements, workload.name, server, key).values())

    def trouble(self, workload: Workload, server: str) -> str:
        """Why there are no values, or not of all rounds; empty if nothing was wrong."""
        if reason := self.missing.get(workload.name, {}).get(server):
            return f"missing: {reason}"
        taken = [one for one in self.measurements if (one.workload, one.server) == (workload.name, server)]
        errors = [one.error for one in taken if one.error]
        return f"failed in {len(errors)} of {len(taken)} rounds: {errors[0]}" if errors else ""

    def held_back(self, workload: Workload, server: str) -> str:
        """Says so where the load generator had no more to give, and a server may be faster than it seems."""
        load = self.spread(workload, server, "cpu")
        return "the load was at its limit" if load and load.median > SATURATED else ""


def number(value: float) -> str:
    """Three digits that mean something, and none behind the point of a large one."""
    if not value:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(0, digits)}f}"


def ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else number(value)

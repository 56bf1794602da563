"""
The command line::

    python -m benchmarks --quick                      all that bars speak of, in two minutes
    python -m benchmarks --output FOLDER              everything, in an hour and a quarter
    python -m benchmarks --only echo-50x16,tls --servers mtserver,go
    python -m benchmarks --from FOLDER/results.json --update-docs
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine, report
from benchmarks.results import Results
from benchmarks.run import Run
from benchmarks.servers import ROOT, Bench, find_tools, missing
from benchmarks.workloads import WORKLOADS, Workload, choose

#: Where programs are built; stays, so that the second run is faster.
BUILT = ROOT / "build" / "benchmarks"
DOCS = ROOT / "docs"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="mtserver beside what people use instead")

    def names(text: str) -> list[str]:
        return text.split(",")

    parser.add_argument("--quick", action="store_true", help="two short rounds of fewer servers: does it all work?")
    parser.add_argument("--only", type=names, default=[], metavar="WORKLOAD,...", help="these, or families of them")
    parser.add_argument("--servers", type=names, default=[], metavar="NAME,...", help="these servers only")
    parser.add_argument("--rounds", type=int, help="in how many every server has a turn (default: 7; quick: 2)")
    parser.add_argument("--seconds", type=float, help="of each measurement (default: 3; quick: 0.3)")
    parser.add_argument("--warmup", type=float, help="seconds before it (default: 0.5; quick: 0.1)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of servers in a round (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="for results.json, benchmarks.md, benchmarks.svg")
    parser.add_argument("--temp", type=Path, default=Path(tempfile.gettempdir()), metavar="FOLDER",
                        help="for journals, on a real disk (default: %(default)s)")  # fmt: skip
    parser.add_argument("--update-docs", action="store_true", help="also put the report into docs/")
    parser.add_argument("--from", dest="again", type=Path, metavar="FILE", help="report an earlier run's results.json")
    parser.add_argument("--list", action="store_true", help="list workloads and servers, and end")
    options = parser.parse_args(arguments)
    usual = (2, 0.3, 0.1) if options.quick else (7, 3.0, 0.5)
    for name, value in zip(("rounds", "seconds", "warmup"), usual, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, value)
    try:
        options.workloads = choose(options.only, options.servers, quick=options.quick)
    except ValueError as error:
        parser.error(f"{error}; see --list")
    if options.rounds < 1 or options.seconds <= 0 or options.warmup < 0:
        parser.error("there must be a round, and it must last")
    return options


def listing(workloads: list[Workload] | tuple[Workload, ...] = WORKLOADS) -> str:
    lines = []
    for workload in workloads:
        lines += [f"{workload.name}: {workload.title}", f"    {', '.join(entry.server for entry in workload.entries)}"]
    return "\n".join(lines)


def measure(options: argparse.Namespace) -> Results:
    from benchmarks.build import build

    BUILT.mkdir(parents=True, exist_ok=True)
    tools = find_tools(build(BUILT))
    if isinstance(tools["load"], str):
        raise SystemExit(f"benchmarks: there is no load generator: {tools['load']}")
    cores = machine.Cores.split(os.sched_getaffinity(0))
    machine.allow_many_files()
    versions = {
        "Go": ["go", "version"],
        "gcc": ["gcc", "-dumpfullversion"],
        "Redis": [str(tools["redis"]), "--version"],
        "nats-server": [str(tools["nats_server"]), "--version"],
        "mosquitto": [str(tools["mosquitto"]), "-h"],
    }
    facts = machine.describe(cores, options.temp, versions)
    facts["rounds"] = f"{options.rounds} of {options.seconds:g} s each, after {options.warmup:g} s of warm-up"
    facts["seed"] = str(options.seed)
    facts["started"] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    disk = machine.filesystem(options.temp)
    with Bench(tools, cores, options.temp) as bench:
        run = Run(
            bench.measure,
            lambda entry, workload: missing(entry, workload, tools, disk),
            rounds=options.rounds,
            seconds=options.seconds,
            warmup=options.warmup,
            seed=options.seed,
            told=lambda line: print(line, file=sys.stderr, flush=True),
        )
        results = Results(facts, run.measurements, run.missing, run.offered)
        for workload in options.workloads:
            run.run(workload)
            if options.output:
                # After each workload: an hour's work is not lost to the last minute.
                report.write(results, options.output)
    return results


def update_docs(results: Results) -> None:
    from benchmarks.chart import chart

    page = DOCS / "benchmarks.md"
    page.write_text(report.put_between_markers(page.read_text(), report.markdown(results)))
    (DOCS / "benchmarks.svg").write_text(chart(results))


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.list:
        print(listing(options.workloads))
        return
    if options.again:
        results = Results.from_json(options.again.read_text())
    else:
        results = measure(options)
    if options.output:
        report.write(results, options.output)
    if options.update_docs:
        update_docs(results)
    print(report.markdown(results), end="")


def _terminated(*_: object) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    # Without it nothing would be left to end the servers.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("benchmarks: interrupted") from None

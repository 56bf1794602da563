"""The benchmarks compare what was measured together, in turns, and name what was not. No load, no sockets here."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree as ET

from twisted.trial.unittest import SynchronousTestCase

import benchmarks.handlers
from benchmarks import __main__ as command
from benchmarks import machine, protocols, report, servers, workloads
from benchmarks.chart import chart
from benchmarks.results import Results, number, ratio
from benchmarks.run import Measurement, Run, Spread, differences, held_against, ratios, turns
from benchmarks.servers import MeasurementError
from benchmarks.workloads import BARS, SERVERS, WORKLOADS, Bar, Entry, Workload, choose
from mtserver.dispatch.plan import plan

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "benchmarks" / "peers"
SVG = "{http://www.w3.org/2000/svg}"


def named(name: str) -> Workload:
    return next(workload for workload in WORKLOADS if workload.name == name)


def measured(workload: str, key: str = "rate", **by_server: Iterable[float]) -> list[Measurement]:
    """What these servers reached, round by round; underscores stand for hyphens."""
    return [
        Measurement(workload, server.replace("_", "-"), round_, {key: value})
        for server, values in by_server.items()
        for round_, value in enumerate(values)
    ]


def results(
    measurements: Iterable[Measurement],
    missing: dict[str, dict[str, str]] | None = None,
    offered: dict[str, float] | None = None,
) -> Results:
    return Results({"processor": "a | b"}, list(measurements), missing or {}, offered or {})


def rows(text: str) -> list[list[str]]:
    """The cells of all tables in a Markdown text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


class Tables(SynchronousTestCase):
    def test_bars(self) -> None:
        """Every bar is about servers that are in its workload."""
        for bar in BARS:
            inside = {entry.server for entry in named(bar.workload).entries}
            self.assertLessEqual({bar.server, bar.than} - {None}, inside, bar)

    def test_names(self) -> None:
        """Names are unique, a workload has each server once, and mtserver comes first."""
        self.assertEqual(len({workload.name for workload in WORKLOADS}), len(WORKLOADS))
        for workload in WORKLOADS:
            names = [entry.server for entry in workload.entries]
            self.assertEqual(len(set(names)), len(names), workload.name)
            self.assertLessEqual(set(names), SERVERS.keys())
            self.assertTrue(workload.baseline.startswith("mtserver"), workload.name)

    def test_commands(self) -> None:
        """Every placeholder of a command is known, and every peer and handler that one names is there."""
        built: dict[str, servers.Tool] = {"load": "", "echo_epoll": "/c echo", "go": "/go"}
        values = {name: str(tool) for name, tool in servers.find_tools(built).items()}
        values |= dict.fromkeys(workloads.PORTS, "1")
        for workload in WORKLOADS:
            for entry in workload.entries:
                self.assertLessEqual(entry.tools(), values.keys())
                for beside in entry.beside:
                    self.assertIn(f"{{{beside.port}}}", beside.command)
                    workloads.words(beside.command, values)
                words = workloads.words(entry.command, values)
                self.assertNotIn("{", " ".join(words))
                if "-m" in words:
                    name = words[words.index("-m") + 1].rpartition(".")[2]
                    self.assertTrue((PEERS / f"{name}.py").exists(), name)
                if "--app" in words and (app := words[words.index("--app") + 1]) != "echo":
                    plan(getattr(benchmarks.handlers, app.partition(":")[2]))

    def test_files(self) -> None:
        """Every file that a load is made of is written."""
        for workload in WORKLOADS:
            for entry in workload.entries:
                for option, value in re.findall(r"--(\S+) (\S+)", entry.load):
                    if "prelude" in option or option in {"request", "delivery"}:
                        self.assertIn(value, protocols.FILES)

    def test_nodes(self) -> None:
        """What runs is the same on one node and across two; who publishes where is all that differs."""
        one, two = workloads.NODES
        self.assertEqual((one.command, one.beside), (two.command, two.beside))
        self.assertEqual((one.load, two.load), ("", "--publisher-port {other_port}"))

    def test_peers_compile(self) -> None:
        """The peers are Python, and each says what it is."""
        for path in sorted(PEERS.glob("*.py")):
            source = path.read_text()
            compile(source, str(path), "exec")
            self.assertTrue(ast.get_docstring(ast.parse(source)), path.name)

    def test_handlers(self) -> None:
        """Those that are to run in threads block, and the others do not."""
        blocking = {"echo_in_thread", "sleep_in_thread"}
        for name in ("echo", "echo_in_thread", "EchoBatch", "sleep", "sleep_in_thread", "broadcast", "Room"):
            handler = plan(getattr(benchmarks.handlers, name))
            self.assertEqual(handler.blocks, name in blocking, name)

    def test_not_in_wheel(self) -> None:
        """What is shipped does not import them."""
        for path in (ROOT / "mtserver").rglob("*.py"):
            self.assertNotRegex(path.read_text(), r"(?m)^\s*(import|from) benchmarks")


class Choosing(SynchronousTestCase):
    def test_all(self) -> None:
        """Nothing asked, everything is run."""
        self.assertEqual(choose([], []), list(WORKLOADS))

    def test_families(self) -> None:
        """A family's name stands for its workloads, a whole name for one."""
        self.assertEqual([workload.name for workload in choose(["tls"], [])], ["tls-50x1", "tls-50x16"])
        self.assertEqual([workload.name for workload in choose(["idle", "echo-1x1"], [])], ["echo-1x1", "idle"])

    def test_servers(self) -> None:
        """Servers are run where they have an entry; a workload without any is left out."""
        (workload,) = choose(["echo-50x1", "collect"], ["c", "go"])
        self.assertEqual([entry.server for entry in workload.entries], ["go", "c"])

    def test_quick(self) -> None:
        """A quick run still has everything that a bar speaks of."""
        quick = {workload.name: {entry.server for entry in workload.entries} for workload in choose([], [], quick=True)}
        self.assertEqual(quick.keys(), {workload.name for workload in WORKLOADS})
        for bar in BARS:
            self.assertLessEqual({bar.server, bar.than} - {None}, quick[bar.workload])
        self.assertNotIn("gevent", quick["echo-50x1"])

    def test_unknown(self) -> None:
        """A name that nobody has is refused, also at the command line."""
        self.assertRaises(ValueError, choose, ["ech"], [])
        self.assertRaises(ValueError, choose, [], ["nginx"])
        for arguments in (["--only", "ech"], ["--servers", "nginx"], ["--rounds", "0"], ["--seconds", "-1"]):
            with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit):
                command.parse(arguments)

    def test_defaults(self) -> None:
        """Seven rounds, two in a quick run, as many as wanted in any."""
        self.assertEqual(command.parse([]).rounds, 7)
        self.assertEqual(command.parse(["--quick"]).rounds, 2)
        self.assertEqual(command.parse(["--quick", "--rounds", "3"]).rounds, 3)

    def test_list(self) -> None:
        """What there is can be listed without building or measuring anything."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            command.main(["--list"])
        for workload in WORKLOADS:
            self.assertIn(f"{workload.name}: {workload.title}\n", out.getvalue())


class Missing(SynchronousTestCase):
    tools: dict[str, servers.Tool] = {  # noqa: RUF012 - never changed
        "python": Path("/p"), "twistd": Path("/t"), "openssl": "no openssl", "go": "no compiler", "redis": Path("/r"),
        "gevent": "gevent is not installed", "twisted": Path("/t"), "nats": Path("/n"), "nats_server": "no server",
    }  # fmt: skip

    def reason(self, name: str, server: str, disk: str = "ext4") -> str | None:
        workload = named(name)
        entry = next(entry for entry in workload.entries if entry.server == server)
        return servers.missing(entry, workload, self.tools, disk)

    def test_nothing(self) -> None:
        self.assertIsNone(self.reason("echo-50x1", "threads"))

    def test_program(self) -> None:
        """A program that could not be built or found is the reason, in its own words."""
        self.assertEqual(self.reason("echo-50x1", "go"), "no compiler")

    def test_certificate(self) -> None:
        """Without openssl nothing speaks TLS, and everything else runs."""
        self.assertEqual(self.reason("tls-50x1", "mtserver"), "no openssl")
        self.assertIsNone(self.reason("echo-50x1", "mtserver"))

    def test_beside(self) -> None:
        """What a server does not work without is as much of a reason."""
        self.assertEqual(self.reason("nodes-1000x16", "mtserver-nodes"), "no server")

    def test_module(self) -> None:
        """A package that is not installed is the reason, where a peer is made of it."""
        self.assertEqual(self.reason("echo-50x1", "gevent"), "gevent is not installed")
        self.assertIsNone(self.reason("echo-50x1", "twisted"))

    def test_memory_disk(self) -> None:
        """What is durable is not measured on a disk that is none."""
        self.assertIn("--temp", str(self.reason("collect-100x1", "redis", disk="tmpfs")))
        self.assertIsNone(self.reason("collect-100x1", "redis"))


class Fake:
    """A bench that measures nothing, and tells who had a turn."""

    def __init__(self, rate: float = 1000) -> None:
        self.turns: list[str] = []
        self.loads: list[str] = []
        self.rates: list[float] = []
        self.broken: set[str] = set()
        self._rate = rate

    def measure(
        self, workload: Workload, entry: Entry, seconds: float, warmup: float, rate: float = 0
    ) -> dict[str, float]:
        self.turns.append(entry.server)
        self.loads.append(workload.load)
        self.rates.append(rate)
        if entry.server in self.broken:
            raise MeasurementError("it fell over")
        return {"rate": self._rate, "p99": 5.0}


class Rounds(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Fake()
        self.told: list[str] = []

    def run_workload(self, name: str, rounds: int = 4, **missing: str) -> Run:
        run = Run(
            self.bench.measure,
            lambda entry, _: missing.get(entry.server),
            rounds=rounds,
            seconds=1,
            warmup=0,
            told=self.told.append,
        )
        run.run(named(name))
        return run

    def test_turns(self) -> None:
        """In each round every server has one turn, and the order changes."""
        names = sorted(entry.server for entry in named("echo-50x1").entries)
        self.run_workload("echo-50x1")
        orders = [tuple(self.bench.turns[i : i + len(names)]) for i in range(0, 4 * len(names), len(names))]
        self.assertEqual(len(self.bench.turns), 4 * len(names))
        for order in orders:
            self.assertEqual(sorted(order), names)
        self.assertEqual(len(set(orders)), 4)

    def test_repeatable(self) -> None:
        """The same seed gives the same order, another seed another one."""
        names = [str(number) for number in range(12)]
        self.assertEqual(turns(names, 3, seed=1), turns(names, 3, seed=1))
        self.assertNotEqual(turns(names, 3, seed=1), turns(names, 3, seed=2))

    def test_failure(self) -> None:
        """A server that fails is noted with the reason, and has its turn in the next round; the others go on."""
        self.bench.broken = {"redis"}
        run = self.run_workload("collect-100x1", rounds=2)
        failed = [taken for taken in run.measurements if taken.error]
        self.assertEqual([(taken.server, taken.round, taken.error) for taken in failed],
                         [("redis", 0, "it fell over"), ("redis", 1, "it fell over")])  # fmt: skip
        self.assertEqual(len(run.measurements), 4)

    def test_missing(self) -> None:
        """A server that is missing has no turn; its reason is kept and told."""
        run = self.run_workload("collect-100x1", redis="not here")
        self.assertNotIn("redis", self.bench.turns)
        self.assertEqual(run.missing, {"collect-100x1": {"redis": "not here"}})
        self.assertIn("collect-100x1: redis is missing: not here", self.told)

    def test_half_rate(self) -> None:
        """Half of mtserver's own rate, found without a rate, is offered to everybody."""
        run = self.run_workload("latency")
        self.assertEqual(self.bench.turns[:3], ["mtserver"] * 3)
        for load in self.bench.loads[:3]:
            self.assertNotIn("--rate", load)
        self.assertEqual(set(self.bench.rates[3:]), {500})
        self.assertIn("--rate {rate}", self.bench.loads[3])
        self.assertEqual(run.offered, {"latency": 500})

    def test_no_half_rate(self) -> None:
        """Where the rate cannot be found nobody is measured, and all are told to be missing."""
        self.bench.broken = {"mtserver"}
        run = self.run_workload("latency")
        self.assertEqual(run.measurements, [])
        self.assertEqual(run.missing["latency"]["go"], "the rate could not be found: it fell over")


class Statistics(SynchronousTestCase):
    def test_spread(self) -> None:
        self.assertEqual(Spread.of([3, 1, 2, 10]), Spread(2.5, 1, 10))
        self.assertIsNone(Spread.of([]))

    def test_ratios(self) -> None:
        """Ratios are of the same round. Here their median is not the ratio of medians."""
        taken = measured("echo-50x1", mtserver=[10, 40, 90], go=[10, 20, 100])
        self.assertEqual(ratios(taken, "echo-50x1", "mtserver", "go", "rate"), [1, 2, 0.9])
        found = Spread.of(ratios(taken, "echo-50x1", "mtserver", "go", "rate"))
        assert found is not None
        self.assertEqual(found.median, 1)

    def test_differences(self) -> None:
        """What is added is the difference within a round, where both have been measured."""
        taken = measured("nodes-1000x16", "p50", mtserver_node=[10, 40, 90], mtserver_nodes=[15, 60])
        self.assertEqual(differences(taken, "nodes-1000x16", "mtserver-nodes", "mtserver-node", "p50"), [5, 20])

    def test_failed_rounds(self) -> None:
        """A round in which one of the two failed has no ratio."""
        taken = measured("echo-50x1", mtserver=[10, 20, 30], go=[10])
        taken += [Measurement("echo-50x1", "go", 1, {}, "it fell over"), Measurement("echo-50x1", "go", 2, {"rate": 3})]
        self.assertEqual(ratios(taken, "echo-50x1", "mtserver", "go", "rate"), [1, 10])

    def held(self, bar: Bar, measurements: list[Measurement]) -> tuple[float | None, bool]:
        found, met = held_against(bar, named(bar.workload), measurements)
        return found.median if found else None, met

    def test_bar(self) -> None:
        """A ratio at the bar meets it, one below does not."""
        bar = Bar("echo-50x1", "mtserver", "go", 0.9)
        self.assertEqual(self.held(bar, measured("echo-50x1", mtserver=[90], go=[100])), (0.9, True))
        self.assertEqual(self.held(bar, measured("echo-50x1", mtserver=[89], go=[100])), (0.89, False))

    def test_bar_of_less(self) -> None:
        """Where less is better, the bar is the most that is allowed."""
        bar = Bar("latency", "mtserver", "go", 1.5)
        self.assertEqual(self.held(bar, measured("latency", "p99", mtserver=[15], go=[10])), (1.5, True))
        self.assertEqual(self.held(bar, measured("latency", "p99", mtserver=[16], go=[10])), (1.6, False))

    def test_bar_of_a_value(self) -> None:
        """A bar need not speak of another server."""
        bar = Bar("idle", "mtserver", None, 2000)
        self.assertEqual(self.held(bar, measured("idle", "bytes", mtserver=[1999, 2001, 1000])), (1999, True))
        self.assertEqual(self.held(bar, measured("idle", "bytes", mtserver=[2001])), (2001, False))

    def test_not_measured(self) -> None:
        """What was not measured is not met."""
        for bar in BARS:
            self.assertEqual(self.held(bar, []), (None, False))


class Report(SynchronousTestCase):
    def setUp(self) -> None:
        taken = measured("echo-50x1", mtserver=[48000, 45500], go=[50000, 50000], asyncio_streams=[9000, 9100])
        taken += [Measurement("echo-50x1", "threads", 0, {}, "a | b\nc"),
                  Measurement("echo-50x1", "threads", 1, {"rate": 7000, "cpu": 0.99})]  # fmt: skip
        self.results = results(taken, {"echo-50x1": {"c": "there is <no> compiler"}})

    def row(self, server: str, of: Results | None = None) -> list[str]:
        name = SERVERS[server][0]
        return next(row for row in rows(report.markdown(of or self.results)) if row[0] == name)

    def test_numbers(self) -> None:
        """Three digits that mean something."""
        told = {48123: "48,100", 999.6: "1,000", 123.4: "123", 12.34: "12.3", 1.234: "1.23", 0.01234: "0.0123", 0: "0"}
        for value, text in told.items():
            self.assertEqual(number(value), text)
        self.assertEqual([ratio(value) for value in (0.9049, 4.5, 12.34)], ["0.90", "4.50", "12.3"])

    def test_medians(self) -> None:
        """A row has the median, the ends and the median of the ratios."""
        self.assertEqual(self.row("go")[:4], [SERVERS["go"][0], "50,000", "50,000 to 50,000", "0.94"])
        self.assertEqual(self.row("mtserver")[1:4], ["46,800", "45,500 to 48,000", ""])

    def test_missing(self) -> None:
        """A server that is missing has its row, with the reason."""
        self.assertEqual(self.row("c")[-1], "missing: there is <no> compiler")

    def test_failed(self) -> None:
        """So has one that failed, and no text of an error ends a cell or a row."""
        remark = "failed in 1 of 2 rounds: a \\| b c; the load was at its limit"
        self.assertEqual(self.row("threads")[-1], remark)

    def test_whole_tables(self) -> None:
        """All rows of a table have as many cells as its head."""
        for table in re.split(r"\n\n", report.markdown(self.results)):
            if table.startswith("|"):
                self.assertEqual(len({len(row) for row in rows(table)}), 1, table)

    def test_bars(self) -> None:
        """Every bar has a row: met, missed, not measured with the reason, or not run."""
        table = rows(report.markdown(self.results).split("### Bars")[1].split("###")[0])[2:]
        self.assertEqual(len(table), len(BARS))
        verdicts = dict(zip(BARS, table, strict=True))
        go, c = BARS[0], BARS[1]
        self.assertEqual(verdicts[go][2:], ["0.94", "0.91 to 0.96", "met"])
        self.assertEqual(verdicts[c][4], "not measured; missing: there is <no> compiler")
        self.assertEqual({row[4] for bar, row in verdicts.items() if bar.workload != "echo-50x1"}, {"not run"})
        slow = results(measured("echo-50x1", mtserver=[1], go=[2]))
        self.assertIn("| 0.50 | 0.50 to 0.50 | **missed** |", report.markdown(slow))

    def test_offered(self) -> None:
        """The load that was offered stands beside the latencies."""
        text = report.markdown(results(measured("latency", "p99", mtserver=[1]), offered={"latency": 31234}))
        self.assertIn("Less is better. 31,234 messages/s were offered to each.", text)

    def test_added(self) -> None:
        """Where servers are compared by difference, a row has that, with its ends."""
        text = report.markdown(
            results(measured("nodes-latency-1000x1", "p50", mtserver_node=[10, 11], mtserver_nodes=[15, 18]))
        )
        name = SERVERS["mtserver-nodes"][0]
        (row,) = [row for row in rows(text) if row[0] == name]
        self.assertEqual(row[1:4], ["16.5", "15.0 to 18.0", "6.00 (5.00 to 7.00)"])

    def test_json(self) -> None:
        """What is kept gives the same report again."""
        again = Results.from_json(self.results.to_json())
        self.assertEqual(again, self.results)
        self.assertEqual(report.markdown(again), report.markdown(self.results))

    def test_files(self) -> None:
        """A folder gets all three, and the command line reports from it again."""
        folder = Path(self.mktemp())
        report.write(self.results, folder)
        names = {"results.json", "benchmarks.md", "benchmarks.svg"}
        self.assertEqual({path.name for path in folder.iterdir()}, names)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            command.main(["--from", str(folder / "results.json"), "--output", str(folder / "again")])
        self.assertEqual(out.getvalue(), (folder / "benchmarks.md").read_text())
        self.assertEqual({path.name for path in (folder / "again").iterdir()}, names)

    def test_docs(self) -> None:
        """The report replaces what stands between the markers of the page, and nothing else."""
        page = (ROOT / "docs" / "benchmarks.md").read_text()
        once = report.put_between_markers(page, "first")
        again = report.put_between_markers(once, "second\n")
        self.assertIn(f"{report.BEGIN}\n\nsecond\n\n{report.END}", again)
        self.assertNotIn("\nfirst\n", again)
        self.assertEqual(again.partition(report.BEGIN)[0], page.partition(report.BEGIN)[0])
        self.assertEqual(again.partition(report.END)[2], page.partition(report.END)[2])
        self.assertRaises(ValueError, report.put_between_markers, "no markers", "text")


class Chart(SynchronousTestCase):
    def parse(self, of: Results) -> ET.Element:
        return ET.fromstring(chart(of))

    def words(self, root: ET.Element) -> list[str]:
        return [text.text or "" for text in root.iter(f"{SVG}text")]

    def test_whole(self) -> None:
        """Every workload and server can be drawn; the document is well-formed and everything is inside it."""
        taken = [
            Measurement(workload.name, entry.server, 0, {workload.metric.key: 10.0 * place})
            for workload in WORKLOADS
            for place, entry in enumerate(workload.entries)
        ]
        root = self.parse(results(taken))
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        for panel in root.iter(f"{SVG}g"):
            left, top = map(float, re.findall(r"[\d.]+", panel.attrib["transform"]))
            for rect in panel.iter(f"{SVG}rect"):
                right = left + float(rect.attrib["x"]) + float(rect.attrib["width"])
                self.assertLess(right, width)
                self.assertLess(top + float(rect.attrib["y"]), height)
        self.assertEqual(len(list(root.iter(f"{SVG}g"))), len({bar.workload for bar in BARS}))
        self.assertNotIn("`", "".join(self.words(root)))

    def test_order(self) -> None:
        """The best is on top, whether that is the most or the least."""
        words = self.words(self.parse(results(measured("echo-50x1", go=[1], mtserver=[2], c=[3]))))
        self.assertEqual([word for word in words if word in {"1.00", "2.00", "3.00"}], ["3.00", "2.00", "1.00"])
        words = self.words(self.parse(results(measured("idle", "bytes", go=[1], mtserver=[2], c=[3]))))
        self.assertEqual([word for word in words if word in {"1.00", "2.00", "3.00"}], ["1.00", "2.00", "3.00"])

    def test_missing(self) -> None:
        """What was not measured is named, without a bar."""
        root = self.parse(results(measured("echo-50x1", mtserver=[2]), {"echo-50x1": {"go": "<none>"}}))
        self.assertEqual(self.words(root)[-2:], [SERVERS["go"][0], "not measured"])
        self.assertEqual(len(list(root.iter(f"{SVG}rect"))), 2, "the paper and one bar")

    def test_colours(self) -> None:
        """Ours stand out, and every colour has a second one for the dark."""
        text = chart(results(measured("echo-50x1", mtserver=[2], mtserver_epoll=[1], go=[3])))
        self.assertEqual((text.count('class="ours"'), text.count('class="other"')), (2, 1))
        light, dark = text.split("@media (prefers-color-scheme: dark)")
        kinds = re.compile(r"\.(\w+) { (?:fill|stroke): #")
        self.assertEqual(set(kinds.findall(light)), set(kinds.findall(dark.split("</style>")[0])))

    def test_others(self) -> None:
        """A run of workloads without a bar has a chart, and one of nothing at all too."""
        self.assertIn("New connections", self.words(self.parse(results(measured("connect", mtserver=[2])))))
        self.parse(results([]))
        self.parse(results(measured("idle", "bytes", mtserver=[-1])))


class Machine(SynchronousTestCase):
    def test_cores(self) -> None:
        """The first core serves, the others load; a single one has to do both."""
        self.assertEqual(machine.Cores.split({3, 1, 2}), machine.Cores(frozenset({1}), frozenset({2, 3})))
        self.assertEqual(machine.Cores.split({5}), machine.Cores(frozenset({5}), frozenset({5})))

    def test_describe(self) -> None:
        """A machine is described on which half of the programs are not there."""
        versions = {"Python again": [sys.executable, "--version"], "none": ["/nonexistent"]}
        facts = machine.describe(machine.Cores.split({0, 1}), Path(), versions)
        self.assertEqual(facts["Python again"], facts["Python"])
        self.assertNotIn("none", facts)
        one = machine.describe(machine.Cores.split({0}), Path(), {})
        self.assertIn("share the only core", one["cores"])

    def test_filesystem(self) -> None:
        self.assertEqual(machine.filesystem(Path("/proc/self")), "proc")

    def test_own_numbers(self) -> None:
        """Memory and processor time of a process can be read."""
        import os

        self.assertGreater(machine.memory(os.getpid()), 1 << 20)
        self.assertGreater(machine.cpu_seconds(os.getpid()), 0)


class LoadReport(SynchronousTestCase):
    def test_report(self) -> None:
        self.assertEqual(servers.read_report('{"rate": 2, "p99": 1.5}\n', "", 0), {"rate": 2.0, "p99": 1.5})

    def test_failures(self) -> None:
        """Whatever is no report is an error that says what it was."""
        for output, errors, status, told in (
            ("", "first\nload: port closed\n", 1, "load: port closed"),
            ("", "", -9, "status -9"),
            ("", "", 0, "status 0"),
            ("no json", "", 0, "no json"),
            ('{"rate": null}', "", 0, "null"),
            ("[1]", "", 0, r"\[1\]"),
        ):
            with self.assertRaisesRegex(MeasurementError, told):
                servers.read_report(output, errors, status)

    def test_redis_request(self) -> None:
        """Redis stores as many bytes as `collect` does of a line of 64."""
        self.assertEqual(len(workloads.LINE.question), len(workloads.LINE.answer))
        self.assertIn(b"$63\r\n" + protocols.PAYLOAD + b"\r\n", protocols.RPUSH)
        self.assertEqual(len(protocols.PAYLOAD), 63)

    def test_mqtt(self) -> None:
        """The packets are those of MQTT 3.1.1, byte for byte."""
        connect = bytes.fromhex("100c 0004 4d515454 04 02 0000 0000")
        self.assertEqual(protocols.MQTT_CONNECT, connect)
        self.assertEqual(protocols.MQTT_CONNECTED, bytes.fromhex("2002 00 00"))
        self.assertEqual(protocols.MQTT_SUBSCRIBE, connect + bytes.fromhex("8209 0001 0004 726f6f6d 00"))
        self.assertEqual(protocols.MQTT_SUBSCRIBED, bytes.fromhex("9003 0001 00"))
        self.assertEqual(protocols.MQTT_PUBLISH, bytes.fromhex("3045 0004 726f6f6d") + protocols.PAYLOAD)

    def test_end(self) -> None:
        """A process is ended, and ending one that has ended does no harm."""
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        assert process.stdin is not None
        servers.end(process)
        servers.end(process)
        process.stdin.close()
        self.assertIsNotNone(process.returncode)

"""
The report on what was measured: Markdown to read, made from :class:`~benchmarks.results.Results`.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.results import Results, number, ratio
from benchmarks.run import Spread, differences, held_against, ratios
from benchmarks.workloads import BARS, SERVERS, WORKLOADS, Bar, Entry, Workload

#: Between these lines of docs/benchmarks.md a report stands.
BEGIN, END = "<!-- report: begin -->", "<!-- report: end -->"


def markdown(results: Results) -> str:
    facts = [f"| {name} | {_cell(fact)} |" for name, fact in results.facts.items()]
    parts = ["\n".join(["| | |", "| --- | --- |", *facts]), "### Bars", _bars_table(results)]
    for workload in results.workloads():
        parts += [f"### {workload.title}", _table(results, workload)]
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    # A bar or a line's end would end the cell.
    return " ".join(text.replace("|", "\\|").split())


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _bars_table(results: Results) -> str:
    ran = {workload.name: workload for workload in results.workloads()}
    rows = [_row("workload", "bar", "measured", "least to most", ""), _row(*["---"] * 5)]
    for bar in BARS:
        workload = next(workload for workload in WORKLOADS if workload.name == bar.workload)
        found, met = held_against(bar, workload, results.measurements)
        if found:
            show = ratio if bar.than else number
            told = [show(found.median), f"{show(found.least)} to {show(found.most)}", "met" if met else "**missed**"]
        elif bar.workload in ran:
            troubles = [results.trouble(workload, name) for name in (bar.server, bar.than) if name]
            told = ["", "", "; ".join(["not measured", *filter(None, dict.fromkeys(troubles))])]
        else:
            told = ["", "", "not run"]
        rows.append(_row(workload.title, bar_in_words(bar, workload), *map(_cell, told)))
    return "\n".join(rows)


def bar_in_words(bar: Bar, workload: Workload) -> str:
    sign = "at most" if workload.metric.less_is_better else "at least"
    server = SERVERS[bar.server][0]
    if bar.than is None:
        return f"{server}: {sign} {bar.wanted:,g} {workload.metric.unit}"
    return f"{server}: {sign} {bar.wanted:.2f} of {SERVERS[bar.than][0]}"


def _table(results: Results, workload: Workload) -> str:
    metric = workload.metric
    ours = SERVERS[workload.baseline][0]
    rows = [
        _row(
            "server",
            metric.unit,
            "least to most",
            f"{ours} ÷ this" if not metric.by_difference else "added, µs",
            *(head for _, head in metric.more),
            "",
        ),
        _row("---", *["---:"] * (3 + len(metric.more)), "---"),
    ]
    rows += [_table_row(results, workload, entry) for entry in workload.entries]
    told = []
    if metric.less_is_better:
        told.append("Less is better.")
    if offered := results.offered.get(workload.name):
        told.append(f"{offered:,.0f} messages/s were offered to each.")
    return "\n\n".join([*([" ".join(told)] if told else []), "\n".join(rows)])


def _table_row(results: Results, workload: Workload, entry: Entry) -> str:
    metric = workload.metric
    name = SERVERS[entry.server][0]
    remarks = [entry.note, results.trouble(workload, entry.server), results.held_back(workload, entry.server)]
    remark = "; ".join(filter(None, remarks))
    found = results.spread(workload, entry.server, metric.key)
    if found is None:
        return _row(name, *[""] * (3 + len(metric.more)), _cell(remark))
    cells = [number(found.median), f"{number(found.least)} to {number(found.most)}"]
    cells.append(_compared(results, workload, entry.server))
    for key, _ in metric.more:
        more = results.spread(workload, entry.server, key)
        cells.append(number(more.median) if more else "")
    return _row(name, *cells, _cell(remark))


def _compared(results: Results, workload: Workload, server: str) -> str:
    """The first server beside this one; nothing for itself."""
    if server == workload.baseline:
        return ""
    if workload.metric.by_difference:
        more = differences(results.measurements, workload.name, server, workload.baseline, workload.metric.key)
        added = Spread.of(more)
        return f"{number(added.median)} ({number(added.least)} to {number(added.most)})" if added else ""
    compared = Spread.of(ratios(results.measurements, workload.name, workload.baseline, server, workload.metric.key))
    return ratio(compared.median) if compared else ""


def put_between_markers(document: str, text: str) -> str:
    """`document` with `text` between its markers; ValueError where they are not."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there are no lines {BEGIN} and {END} in it")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"


def write(results: Results, folder: Path) -> None:
    """Put ``results.json``, ``benchmarks.md`` and ``benchmarks.svg`` there."""
    from benchmarks.chart import chart

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(results.to_json())
    (folder / "benchmarks.md").write_text(markdown(results))
    (folder / "benchmarks.svg").write_text(chart(results))

"""
A chart of a run as SVG: a panel for each workload that a bar speaks of, a line for each server, mtserver's in colour.

It brings its own background, so that it can be read wherever it is put, and follows the reader's light or dark.
"""

from __future__ import annotations

from xml.sax.saxutils import escape

from benchmarks.results import Results, number
from benchmarks.run import Spread
from benchmarks.workloads import BARS, SERVERS, Workload

COLUMNS, WIDTH, GAP = 2, 460, 28
#: Of a panel: its title, and each of its lines.
HEAD, LINE = 46, 20
#: Of a line: the server's name, and the value beside the end of its bar.
NAME, VALUE = 196, 70

STYLE = """
  svg { font: 12px system-ui, sans-serif; }
  .paper { fill: #ffffff; } .text { fill: #1f2328; } .faint { fill: #59636e; }
  .other { fill: #afb8c1; } .ours { fill: #0969da; } .spread { stroke: #59636e; stroke-width: 1.5; }
  .title { font-weight: 600; font-size: 13px; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; } .text { fill: #e6edf3; } .faint { fill: #9198a1; }
    .other { fill: #484f58; } .ours { fill: #4493f8; } .spread { stroke: #9198a1; }
  }
"""


def chart(results: Results) -> str:
    """An SVG document."""
    in_bars = {bar.workload for bar in BARS}
    workloads = results.workloads()
    # A run of other workloads only is charted too.
    charted = [workload for workload in workloads if workload.name in in_bars] or workloads
    bottoms = [GAP] * COLUMNS
    panels = []
    for workload in charted:
        column = bottoms.index(min(bottoms))
        lines, height = _panel(results, workload)
        left = GAP + column * (WIDTH + GAP)
        panels.append(f'<g transform="translate({left} {bottoms[column]})">\n{lines}\n</g>')
        bottoms[column] += height + GAP
    width, height = GAP + COLUMNS * (WIDTH + GAP), max(bottoms)
    size = f'width="{width}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {height}" role="img">',
            "<title>mtserver and what people would use instead</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="paper" {size} rx="6"/>',
            *panels,
            "</svg>\n",
        ]
    )


def _panel(results: Results, workload: Workload) -> tuple[str, int]:
    metric = workload.metric
    found = {entry.server: results.spread(workload, entry.server, metric.key) for entry in workload.entries}
    scale = max((spread.most for spread in found.values() if spread), default=0)
    better = "less is better" if metric.less_is_better else "more is better"
    lines = [
        f'<text class="text title" y="12">{_plain(workload.title)}</text>',
        f'<text class="faint" y="30">{escape(metric.unit)}: median, least to most; {better}</text>',
    ]
    # The best on top; what was not measured is named last.
    order = sorted(found.items(), key=lambda item: _rank(item[1], less_is_better=metric.less_is_better))
    for place, (server, spread) in enumerate(order):
        lines += _line(server, spread, scale, HEAD + place * LINE)
    return "\n".join(lines), HEAD + len(order) * LINE


def _rank(spread: Spread | None, *, less_is_better: bool) -> tuple[bool, float]:
    if spread is None:
        return True, 0
    return False, spread.median if less_is_better else -spread.median


def _plain(markdown: str) -> str:
    return escape(markdown.replace("`", ""))


def _line(server: str, spread: Spread | None, scale: float, top: int) -> list[str]:
    kind = "ours" if server.startswith("mtserver") else "other"
    base = top + 11
    name = _plain(SERVERS[server][0])
    lines = [f'<text class="text" x="{NAME - 8}" y="{base}" text-anchor="end">{name}</text>']
    if spread is None:
        return [*lines, f'<text class="faint" x="{NAME}" y="{base}">not measured</text>']

    def width(value: float) -> float:
        return round((WIDTH - NAME - VALUE) * max(0, value) / scale, 1) if scale > 0 else 0

    middle = top + 7
    return [
        *lines,
        f'<rect class="{kind}" x="{NAME}" y="{top}" width="{max(1, width(spread.median))}" height="14" rx="2"/>',
        f'<path class="spread" d="M{NAME + width(spread.least)} {middle}H{NAME + width(spread.most)}"/>',
        f'<text class="text" x="{NAME + width(spread.most) + 6}" y="{base}">{number(spread.median)}</text>',
    ]

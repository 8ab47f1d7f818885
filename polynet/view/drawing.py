"""Drawing a graph as Graphviz source, and as SVG with a layout that is computed here.

The layout is that of Sugiyama, Tagawa and Toda, "Methods for Visual Understanding of
Hierarchical System Structures", IEEE Trans. SMC 11 (1981). Nodes are placed in rows, each row is
ordered by the mean position of its nodes' neighbours, and long edges pass between the boxes of the
rows that they cross.

A graph is given by `labels`, the text of each node as a list of lines, and by `inputs`, the
numbers of the nodes that each node was computed from, which are all smaller than its own. `result`
is the number of the node to mark.
"""

from __future__ import annotations

from collections import defaultdict
from html import escape
from itertools import pairwise

Node = int | tuple[int, int]
"""A box; or (box, row), the point at which edges from that box cross the row."""

LETTER, LEADING, PADDING = 7.3, 16, 10  # 12 px monospace text: width, line height, box padding
GAP, TRACK, BETWEEN = 28, 12, 46  # distance of boxes, width for a crossing edge, distance of rows
COLOURS = {
    "leaf": ("#e7f4e9", "#2b8a3e"),
    "op": ("#edf2fb", "#3b5f94"),
    "result": ("#fdeedd", "#b35900"),
}
"""The colours of fill and border."""

HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" \
viewBox="0 0 {width} {height}" font-family="monospace" font-size="12">
<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" \
orient="auto"><path d="M0 1 L9 5 L0 9 z" fill="#555"/></marker></defs>
<rect width="100%" height="100%" fill="white"/>"""


def dot(labels: list[list[str]], inputs: list[list[int]], result: int | None) -> str:
    """The graph in the language of Graphviz."""
    text = ["digraph record {", '  node [shape=box, style=filled, fontname="monospace"];']
    for i, rows in enumerate(labels):
        fill, border = COLOURS[_kind(i, inputs, result)]
        label = "".join(row.replace("\\", "\\\\").replace('"', '\\"') + "\\l" for row in rows)
        text.append(f'  n{i} [label="{label}", fillcolor="{fill}", color="{border}"];')
    text += [f"  n{a} -> n{b};" for b, sources in enumerate(inputs) for a in sources]
    return "\n".join([*text, "}", ""])


def svg(labels: list[list[str]], inputs: list[list[int]], result: int | None) -> str:
    """The graph as SVG: rows from top to bottom, and arrows from the inputs of a result to it."""
    width = LETTER * max((len(row) for rows in labels for row in rows), default=0) + 2 * PADDING
    height = LEADING * max(map(len, labels), default=0) + 2 * PADDING
    depths = _depths(inputs)
    links = _links(inputs, depths)
    rows = _ordered(_rows(depths, links), links)
    x = _places(rows, links, width)
    right = max((at + _half(n, width) for n, at in x.items()), default=0) + GAP
    bottom = len(rows) * (height + BETWEEN) - BETWEEN + 2 * GAP

    def top(node: Node) -> float:
        depth = depths[node] if isinstance(node, int) else node[1]
        return GAP + depth * (height + BETWEEN)

    text = [HEAD.format(width=round(right), height=round(bottom))]
    for a, b in links:
        start, end = top(a) + height, top(b)
        middle = (start + end) / 2
        curve = f"M{x[a]:.1f} {start} C{x[a]:.1f} {middle} {x[b]:.1f} {middle} {x[b]:.1f} {end}"
        source = a if isinstance(a, int) else a[0]
        if isinstance(b, int):
            head = f'data-to="{b}" marker-end="url(#arrow)"'
        else:
            curve += f" V{end + height}"
            head = ""
        text.append(f'<path d="{curve}" fill="none" stroke="#555" data-from="{source}" {head}/>')
    for i, lines in enumerate(labels):
        fill, border = COLOURS[_kind(i, inputs, result)]
        left = x[i] - width / 2
        text.append(
            f'<g id="line-{i}"><rect x="{left:.1f}" y="{top(i)}" width="{width:.1f}" '
            f'height="{height}" rx="5" fill="{fill}" stroke="{border}"/>'
        )
        for k, line in enumerate(lines):
            y = top(i) + PADDING + LEADING * (k + 0.75)
            bold = ' font-weight="bold"' if k == 0 else ""
            text.append(
                f'<text x="{left + PADDING:.1f}" y="{y}" fill="#1a1a1a" xml:space="preserve"{bold}>'
                f"{escape(line)}</text>"
            )
        text.append("</g>")
    return "\n".join([*text, "</svg>", ""])


def _kind(node: int, inputs: list[list[int]], result: int | None) -> str:
    if node == result:
        return "result"
    return "op" if inputs[node] else "leaf"


def _depths(inputs: list[list[int]]) -> list[int]:
    """The row of each node: below what it was computed from, just above its first use."""
    depths: list[int] = []
    for sources in inputs:
        depths.append(1 + max((depths[a] for a in sources), default=-1))
    uses: defaultdict[int, list[int]] = defaultdict(list)
    for b in reversed(range(len(inputs))):
        if uses[b]:
            depths[b] = min(uses[b]) - 1
        for a in inputs[b]:
            uses[a].append(depths[b])
    return depths


def _links(inputs: list[list[int]], depths: list[int]) -> list[tuple[Node, Node]]:
    """The edges, cut where they cross a row; edges from the same node share their pieces."""
    links: dict[tuple[Node, Node], None] = {}
    for b, sources in enumerate(inputs):
        for a in sources:
            path: list[Node] = [a, *((a, d) for d in range(depths[a] + 1, depths[b])), b]
            links.update(dict.fromkeys(pairwise(path)))
    return list(links)


def _rows(depths: list[int], links: list[tuple[Node, Node]]) -> list[list[Node]]:
    rows: list[list[Node]] = [[] for _ in range(max(depths, default=-1) + 1)]
    for node, depth in enumerate(depths):
        rows[depth].append(node)
    for path in dict.fromkeys(b for _, b in links if isinstance(b, tuple)):
        rows[path[1]].append(path)
    return rows


def _neighbours(links: list[tuple[Node, Node]]) -> tuple[dict, dict]:
    """The nodes above each node, and those below."""
    above, below = defaultdict(list), defaultdict(list)
    for a, b in links:
        above[b].append(a)
        below[a].append(b)
    return above, below


def _mean(weighted: list[tuple[float, float]], default: float) -> float:
    """The mean of values, each with its weight; `default` if there are none."""
    if not weighted:
        return default
    return sum(value * weight for value, weight in weighted) / sum(w for _, w in weighted)


def _ordered(rows: list[list[Node]], links: list[tuple[Node, Node]]) -> list[list[Node]]:
    """The rows, ordered by the mean position of each node's neighbours, so that few edges cross."""
    above, below = _neighbours(links)
    place = {node: float(k) for row in rows for k, node in enumerate(row)}
    for _ in range(8):
        for order, near in ((rows, above), (rows[::-1], below)):
            for row in order:
                wanted = {n: _mean([(place[m], 1) for m in near[n]], place[n]) for n in row}
                row.sort(key=wanted.__getitem__)
                place.update((n, k - len(row) / 2) for k, n in enumerate(row))
    return rows


def _places(
    rows: list[list[Node]], links: list[tuple[Node, Node]], width: float
) -> dict[Node, float]:
    """The horizontal centre of each node: near its neighbours, without overlap within its row.

    Leaves have a small weight, so that results stand one below the other.
    """
    above, below = _neighbours(links)
    weights = {node: 1.0 if above[node] else 0.02 for row in rows for node in row}
    x = {node: 0.0 for row in rows for node in row}
    for _ in range(20):
        for order, near in ((rows, above), (rows[::-1], below)):
            for row in order:
                sizes = [width + GAP if isinstance(n, int) else TRACK for n in row]
                wanted = [_mean([(x[m], weights[m]) for m in near[n]], x[n]) for n in row]
                places = _without_overlap(wanted, sizes, [weights[n] for n in row])
                x.update(zip(row, places, strict=True))
    left = min((at - _half(n, width) for n, at in x.items()), default=0) - GAP
    return {n: at - left for n, at in x.items()}


def _half(node: Node, width: float) -> float:
    return width / 2 if isinstance(node, int) else 0


def _without_overlap(wanted: list[float], sizes: list[float], weights: list[float]) -> list[float]:
    """The positions nearest to the wanted ones, in the same order, that leave room for every size.

    This is weighted isotonic regression, by pooling adjacent violators.
    """
    offsets = [0.0]
    for a, b in pairwise(sizes):
        offsets.append(offsets[-1] + (a + b) / 2)
    pools: list[tuple[float, float, int]] = []  # the pool's start, its weight, how many members
    for at, offset, weight in zip(wanted, offsets, weights, strict=True):
        pool = (at - offset, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            start, w, count = pools.pop()
            pool = (_mean([(start, w), pool[:2]], 0), w + pool[1], count + pool[2])
        pools.append(pool)
    starts = [start for start, _, count in pools for _ in range(count)]
    return [start + offset for start, offset in zip(starts, offsets, strict=True)]

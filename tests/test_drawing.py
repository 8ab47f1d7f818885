"""The picture of a graph: where its boxes, their texts and the edges lie."""

import re
import xml.etree.ElementTree as ET
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polynet.view.drawing import (
    BETWEEN,
    COLOURS,
    GAP,
    LEADING,
    LETTER,
    PADDING,
    _without_overlap,
    svg,
)

SPACE = "{http://www.w3.org/2000/svg}"
NUMBER = r"(-?[\d.]+)"
CURVE = re.compile(
    rf"M{NUMBER} {NUMBER} C{NUMBER} {NUMBER} {NUMBER} {NUMBER} {NUMBER} {NUMBER}(?: V{NUMBER})?"
)


@st.composite
def graphs(draw):
    """The labels and the inputs of some nodes, and the number of the result."""
    count = draw(st.integers(1, 25))
    inputs = [
        sorted(draw(st.sets(st.integers(0, i - 1), max_size=3))) if i else [] for i in range(count)
    ]
    lines = st.lists(st.text("ab<&", max_size=30), min_size=1, max_size=4)
    labels = draw(st.lists(lines, min_size=count, max_size=count))
    return labels, inputs, draw(st.one_of(st.none(), st.integers(0, count - 1)))


def floats(element, *names):
    return [float(element.get(name)) for name in names]


def boxes_of(root):
    """Left, top, width and height of each box, in the order of the nodes."""
    groups = sorted(root.iter(SPACE + "g"), key=lambda g: int(g.get("id").removeprefix("line-")))
    return groups, [floats(g.find(SPACE + "rect"), "x", "y", "width", "height") for g in groups]


@given(graph=graphs())
@settings(max_examples=40, deadline=None)
def test_boxes_hold_their_texts_and_the_picture_holds_the_boxes(graph):
    labels, inputs, result = graph
    root = ET.fromstring(svg(*graph))
    groups, boxes = boxes_of(root)
    width = LETTER * max(len(row) for rows in labels for row in rows) + 2 * PADDING
    height = LEADING * max(map(len, labels)) + 2 * PADDING
    for i, (group, (left, top, wide, high)) in enumerate(zip(groups, boxes, strict=True)):
        assert (wide, high) == (pytest.approx(width, abs=0.1), height)
        rect, texts = group.find(SPACE + "rect"), group.findall(SPACE + "text")
        kind = "result" if i == result else "op" if inputs[i] else "leaf"
        assert (rect.get("fill"), rect.get("stroke")) == COLOURS[kind]
        assert [t.text or "" for t in texts] == labels[i]
        assert [t.get("font-weight") for t in texts] == ["bold"] + [None] * (len(texts) - 1)
        for k, text in enumerate(texts):  # three quarters of a line are above its base
            x, base = floats(text, "x", "y")
            assert x == pytest.approx(left + PADDING, abs=0.11)
            assert base == top + PADDING + LEADING * (k + 0.75)
    assert min(top for _, top, _, _ in boxes) == GAP
    assert max(top for _, top, _, _ in boxes) + height + GAP == float(root.get("height"))
    ways = [float(curve[6]) for curve, _ in curves(root)]
    left = min([left for left, _, _, _ in boxes] + ways)
    right = max([left + width for left, _, _, _ in boxes] + ways)
    assert left == pytest.approx(GAP, abs=0.1)
    assert right + GAP == pytest.approx(float(root.get("width")), abs=0.6)
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"


def curves(root):
    """The numbers of each piece of an edge, and its element."""
    for path in root.iter(SPACE + "path"):
        if path.get("data-from"):
            yield CURVE.fullmatch(path.get("d")).groups(), path


@given(graph=graphs())
@settings(max_examples=40, deadline=None)
def test_edges_lead_from_box_to_box(graph):
    """Each piece begins below its box or where another piece ends, and ends above its box."""
    _, inputs, _ = graph
    root = ET.fromstring(svg(*graph))
    _, boxes = boxes_of(root)
    height, found = boxes[0][3], defaultdict(set)
    ends = {i: {(left + w / 2, top + h)} for i, (left, top, w, h) in enumerate(boxes)}
    for numbers, path in curves(root):  # in the order in which they are drawn
        x, y, *bends, to_x, to_y = map(float, numbers[:8])
        source, target = int(path.get("data-from")), path.get("data-to")
        assert any(abs(x - a) < 0.2 and y == b for a, b in ends[source])
        assert bends == [x, (y + to_y) / 2, to_x, (y + to_y) / 2]
        assert to_y == y + BETWEEN
        assert (target is None) == (numbers[8] is not None) == (path.get("marker-end") is None)
        if target is None:  # it passes a row, straight down
            assert float(numbers[8]) == to_y + height
            ends[source].add((to_x, to_y + height))
        else:
            left, top, wide, _ = boxes[int(target)]
            assert (to_x, to_y) == (pytest.approx(left + wide / 2, abs=0.2), top)
            found[int(target)].add(source)
    assert [sorted(found[i]) for i in range(len(inputs))] == inputs


@given(graph=graphs())
@settings(max_examples=40, deadline=None)
def test_a_node_is_in_the_row_above_its_first_use(graph):
    _, inputs, _ = graph
    _, boxes = boxes_of(ET.fromstring(svg(*graph)))
    rows = [(top - GAP) / (height + BETWEEN) for _, top, _, height in boxes]
    longest = []
    for sources in inputs:
        longest.append(1 + max((longest[a] for a in sources), default=-1))
    for i, row in enumerate(rows):
        uses = [rows[b] for b, sources in enumerate(inputs) if i in sources]
        assert row == (min(uses) - 1 if uses else longest[i])


def test_chains_are_drawn_straight_and_cross_nowhere():
    """Each node has one input, and the nodes of a row come in another order in each row."""
    count, order = 5, np.random.default_rng(0)
    inputs, last = [[] for _ in range(count)], list(range(count))
    for _ in range(4):
        chain = order.permutation(count)
        for c in chain:
            inputs.append([last[c]])
            last[c] = len(inputs) - 1
    _, boxes = boxes_of(ET.fromstring(svg([["box"]] * len(inputs), inputs, None)))
    for i, sources in enumerate(inputs):
        for a in sources:
            assert boxes[i][0] == pytest.approx(boxes[a][0], abs=0.1)
    first = sorted(left for left, *_ in boxes[:count])
    width = boxes[0][2]
    assert np.diff(first) == pytest.approx(width + GAP, abs=0.2)  # as near as boxes come


NEAR = st.floats(-100, 100)


@given(
    rows=st.lists(
        st.tuples(NEAR, st.floats(1, 50), st.sampled_from([0.02, 1.0, 2.0]), st.floats(0, 9)),
        min_size=1,
        max_size=8,
    )
)
@settings(deadline=None)
def test_places_are_the_nearest_to_those_wanted_that_leave_room(rows):
    """No other places that leave room are nearer, by weighted squares: the slope says so."""
    wanted, sizes, weights, more = map(np.asarray, zip(*rows, strict=True))
    room = (sizes[1:] + sizes[:-1]) / 2
    found = np.asarray(_without_overlap(*map(list, (wanted, sizes, weights))))
    assert (np.diff(found) >= room - 1e-9).all()
    for start in (-200, wanted.mean(), 200):
        other = start + np.concatenate([[0], np.cumsum(room + more[1:])])
        assert np.sum(weights * (found - wanted) * (other - found)) >= -1e-6

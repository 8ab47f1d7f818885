"""The learner's view: what it shows is what was computed, and it draws all of it."""

import gc
import inspect
import re
import weakref
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import polynet
from polynet import functional, losses, nn
from polynet.backend import backend_of, to_numpy
from polynet.errors import RecordError
from polynet.tensor import plain_value
from polynet.testing.suite.cases import arrays, by_name, dtypes, with_arrays
from polynet.testing.suite.test_ops import CASES
from polynet.tree import leaves
from polynet.view.drawing import svg
from polynet.view.recorded import shown

FUNCTIONS = by_name()
X = np.asarray([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
Y = np.asarray([0, 1, 1, 0])


def host(array):
    return np.asarray(to_numpy(array))


def network(backend="numpy", dtype="float64"):
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))
    return net.init(seed=0, backend=backend, dtype=dtype)


def loss_of(net, backend):
    kind = str(next(iter(net.parameters().values())).dtype).rpartition(".")[2]
    x = polynet.asarray(X.astype(kind), backend=backend)
    y = polynet.asarray(Y.astype("int32"), backend=backend)
    return lambda parameters: losses.cross_entropy(net.bind(parameters)(x), y)


@pytest.fixture
def xor():
    net = network()
    return polynet.record(loss_of(net, "numpy"), net.parameters())


# What the lines say


def test_each_line_of_a_small_function():
    def f(w, b):
        y = w @ b
        return polynet.array_namespace(w).sum(y * y * 3.0)

    w, b = np.asarray([[1.0, 2.0], [3.0, 4.0]]), np.asarray([1.0, -1.0])
    record = polynet.record(f, w, b)
    assert [(line.op, line.name, line.inputs, line.within) for line in record.lines] == [
        ("leaf", "w", (), ""),
        ("leaf", "b", (), ""),
        ("matmul", "", (0, 1), "f"),
        ("multiply", "", (2, 2), "f"),
        ("multiply", "", (3, None), "f"),
        ("sum", "", (4,), "f"),
    ]
    assert record.result == 5
    assert list(record) == list(record.lines)
    expected = [
        (w, np.outer([-6.0, -6.0], b)),
        (b, w.T @ [-6.0, -6.0]),
        ([-1.0, -1.0], [-6.0, -6.0]),
        ([1.0, 1.0], [3.0, 3.0]),
        ([3.0, 3.0], [1.0, 1.0]),
        (6.0, 1.0),
    ]
    for line, (value, gradient) in zip(record.lines, expected, strict=True):
        np.testing.assert_array_equal(line.value, value)
        np.testing.assert_array_equal(line.gradient, gradient)
        assert line.shape == line.value.shape == line.gradient.shape
        assert line.dtype == line.value.dtype == line.gradient.dtype == np.float64


def test_a_network_on_every_backend(backend):
    net = network(backend, dtype=dtypes(backend)[-1])
    rtol = 1e-12 if len(dtypes(backend)) > 1 else 1e-5
    f, parameters = loss_of(net, backend), net.parameters()
    record = polynet.record(f, parameters)
    value, slopes = polynet.value_and_grad(f)(parameters)
    assert [line.name for line in record.lines[:4]] == list(parameters)
    for line, array, slope in zip(record.lines, parameters.values(), slopes.values(), strict=False):
        np.testing.assert_array_equal(host(line.value), host(array))
        np.testing.assert_allclose(host(line.gradient), host(slope), rtol=rtol, atol=rtol / 10)
    result = record.lines[record.result]
    np.testing.assert_allclose(host(result.value), host(value), rtol=rtol)
    assert host(result.gradient) == 1.0
    for line in record.lines:
        for array in (line.value, line.gradient):
            assert backend_of(array).name == backend.name
            assert backend.device_of(array) == backend.device(None)
            assert (tuple(array.shape), array.dtype) == (line.shape, line.dtype)
    functions = [line.within for line in record.lines[4:]]
    assert functions[:4] == ["linear", "linear", "linear", "tanh"]
    assert functions[-1] == "cross_entropy"
    assert str(record).count("\n") == len(record.lines)


def squares(result):
    """The sum of all squares: its slope by each number is twice that number."""
    xp = polynet.array_namespace(leaves(result)[0])
    return sum(xp.sum(xp.real(y * xp.conj(y)) if is_complex(y) else y * y) for y in leaves(result))


def is_complex(y):
    return polynet.array_namespace(y).isdtype(y.dtype, "complex floating")


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_every_op_and_composition(name, sample):
    def f(inputs):
        return squares(FUNCTIONS[name](*with_arrays(sample, inputs), **sample.options))

    given = arrays(sample)
    if not given or any(a.dtype.kind == "c" for a in given):
        pytest.skip("takes no real array")
    record = polynet.record(f, given)
    value, slopes = polynet.value_and_grad(f)(given)
    if record.result is None:  # a function that is constant everywhere
        assert not any(slope.any() for slope in slopes)
        return
    np.testing.assert_allclose(record.lines[record.result].value, value, rtol=1e-9)
    for line, array, slope in zip(record.lines, given, slopes, strict=False):
        assert line.op == "leaf"
        np.testing.assert_array_equal(line.value, array)
        np.testing.assert_allclose(line.gradient, slope, rtol=1e-9, atol=1e-12)
    for number, line in enumerate(record.lines):
        assert all(at is None or at < number for at in line.inputs)
        assert line.value.shape == line.gradient.shape
    if hasattr(FUNCTIONS[name], "rule"):
        assert name.rpartition(".")[2] in [line.op for line in record.lines]
    ET.fromstring(record.to_svg())


@polynet.op
def both(xp, x, y, /):
    """x·y and x + y: several results, and gradients that share work."""

    def pullback(g, needs):
        return g[0] * y + g[1], (g[0] * x + g[1] if needs[1] else None)

    return (x * y, x + y), pullback


def test_an_op_with_several_results():
    x, y = np.asarray([2.0, 3.0]), np.asarray([5.0, 7.0])

    def f(x, y):
        product, total = both(x, y)
        return polynet.array_namespace(x).sum(product * total)

    record = polynet.record(f, x, y)
    assert [(line.op, line.name, line.inputs) for line in record.lines[2:4]] == [
        ("both", "0", (0, 1)),
        ("both", "1", (0, 1)),
    ]
    np.testing.assert_array_equal(record.lines[2].gradient, x + y)
    np.testing.assert_array_equal(record.lines[3].gradient, x * y)
    np.testing.assert_array_equal(record.lines[0].gradient, y * (x + y) + x * y)
    assert record.lines[4].inputs == (2, 3)
    with pytest.raises(KeyError, match="unknown leaf '1'"):
        record["1"]

    one = polynet.record(lambda x, y: polynet.array_namespace(x).sum(both(x, y)[1]), x, y)
    np.testing.assert_array_equal(one.lines[2].gradient, [0.0, 0.0])
    np.testing.assert_array_equal(one.lines[3].gradient, [1.0, 1.0])
    np.testing.assert_array_equal(one.lines[0].gradient, [1.0, 1.0])


def test_a_list_of_arrays_and_an_index():
    def f(x, y):
        xp = polynet.array_namespace(x)
        return xp.sum(xp.concat([x, np.ones(2), y])[1:5] ** 2)

    record = polynet.record(f, np.asarray([1.0, 2.0]), np.asarray([3.0, 4.0]))
    assert [(line.op, line.inputs) for line in record.lines[2:]] == [
        ("concat", (0, None, 1)),
        ("getitem", (2, None)),
        ("pow", (3, None)),
        ("sum", (4,)),
    ]
    np.testing.assert_array_equal(record.lines[2].gradient, [0, 4, 2, 2, 6, 0])


def test_definitions_run_and_a_function_with_pullbacks_is_one_line():
    x = np.asarray([[0.5, -1.0]])
    record = polynet.record(lambda x: polynet.array_namespace(x).sum(functional.gelu(x)), x)
    ops = [line.op for line in record.lines]
    assert ops == ["leaf", "multiply", "erf", "multiply", "add", "multiply", "sum"]
    within = [line.within for line in record.lines[1:6]]
    assert within == ["gelu", "erf", "gelu", "gelu", "gelu"]


def test_what_does_not_reach_the_result_has_gradient_zero():
    def f(x):
        y = x * x
        x + 1.0  # recorded, and no part of the result
        return y

    record = polynet.record(f, np.asarray(3.0))
    assert [float(line.gradient) for line in record.lines] == [6.0, 1.0, 0.0]
    assert record.result == 1

    with pytest.warns(RuntimeWarning, match="computed of none of the arrays"):
        constant = polynet.record(lambda x: np.asarray(1.0), np.asarray([3.0]))
    assert constant.result is None
    assert str(constant).endswith("depends on none of these lines: all gradients are 0.")
    np.testing.assert_array_equal(constant.lines[0].gradient, [0.0])

    itself = polynet.record(lambda x: x, np.asarray(3.0))
    assert (itself.result, float(itself.lines[0].gradient)) == (0, 1.0)


def test_a_derivative_inside_is_recorded_too():
    def slope(x):
        return polynet.grad(lambda t: t**3)(x)

    record = polynet.record(slope, np.asarray(2.0))
    assert float(record.lines[record.result].value) == 12.0
    assert float(record.lines[0].gradient) == 12.0  # the second derivative of x³: 6x


def test_leaves_are_named_by_argument_and_path():
    def f(a, *others, **_):
        return polynet.array_namespace(a["x"]).sum(a["x"] * others[0] * others[1])

    x = np.ones(2)
    record = polynet.record(f, {"x": x}, x, x)
    assert [line.name for line in record.lines[:3]] == ["a.x", "others.0", "others.1"]
    for only in ([x, x], (x, x), {"0": x, "1": x}):
        record = polynet.record(
            lambda both: polynet.namespace("numpy").sum(sum(leaves(both))), only
        )
        assert [line.name for line in record.lines[:2]] == ["0", "1"]
    f.__signature__ = inspect.Signature()  # as a wrapper may say that adds arguments
    record = polynet.record(f, {"x": x}, x, x)
    assert [line.name for line in record.lines[:3]] == ["0.x", "1", "2"]
    of_polynet = polynet.record(losses.mse, x, x)
    assert [line.name for line in of_polynet.lines[:2]] == ["outputs", "targets"]


def test_values_are_copies():
    x = np.asarray([1.0, 2.0])
    record = polynet.record(lambda x: polynet.array_namespace(x).sum(x + 0.0), x)
    x[0] = 77.0
    np.testing.assert_array_equal(record.lines[0].value, [1.0, 2.0])
    record.lines[2].gradient[...] = 77.0
    np.testing.assert_array_equal(record.lines[0].gradient, [1.0, 1.0])


def test_the_engine_keeps_nothing_alive():
    seen = []

    def f(x):
        y = x * 2.0
        seen.append(weakref.ref(plain_value(y)))
        return polynet.array_namespace(y).sum(y * y)

    gc.disable()
    try:
        record = polynet.record(f, np.asarray([1.0, 2.0]))
        assert seen[0]() is None
        shown = weakref.ref(record.lines[1].value)
        assert shown() is not None
        del record
        assert shown() is None
    finally:
        gc.enable()


def test_other_derivatives_are_as_before():
    x = np.asarray([[0.5, -1.0]])

    def f(x):
        return polynet.array_namespace(x).sum(functional.gelu(x))

    before = polynet.value_and_grad(f)(x)
    polynet.record(f, x)
    after = polynet.value_and_grad(f)(x)
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])


# Errors


def test_bad_input():
    with pytest.raises(TypeError, match="at least one array"):
        polynet.record(lambda: np.asarray(1.0))
    with pytest.raises(TypeError, match="int64"):
        polynet.record(lambda x: x, np.asarray(1))
    with pytest.raises(TypeError, match=r"shape \(2,\)"):
        polynet.record(lambda x: x * x, np.ones(2))
    with pytest.raises(RecordError, match="stop_gradient"):
        polynet.grad(lambda x: polynet.record(lambda y: y * y, x))(np.asarray(1.0))


# Pictures


def edges(record):
    return {(a, b) for b, line in enumerate(record.lines) for a in line.inputs if a is not None}


def parts(picture):
    """The boxes with their texts, and the edges, that an SVG shows."""
    space = "{http://www.w3.org/2000/svg}"
    root = ET.fromstring(picture)
    boxes = {
        int(g.get("id").removeprefix("line-")): (
            {k: float(g.find(space + "rect").get(k)) for k in ("x", "y", "width", "height")},
            [t.text for t in g.iter(space + "text")],
        )
        for g in root.iter(space + "g")
    }
    arrows = {
        (int(p.get("data-from")), int(p.get("data-to")))
        for p in root.iter(space + "path")
        if p.get("data-to")
    }
    return root, boxes, arrows


def test_the_svg_has_every_line_and_edge(xor):
    root, boxes, arrows = parts(xor.to_svg())
    assert arrows == edges(xor)
    assert sorted(boxes) == list(range(len(xor.lines)))
    for i, (box, text) in boxes.items():
        line = xor.lines[i]
        within = f"  (in {line.within})" if line.within else ""
        assert text[0] == f"{i}  {line.op} {line.name}".rstrip() + within
        assert text[1] == f"{line.shape} float64"
        first = float(text[2].split()[1]), float(text[3].split()[1])
        assert first[0] == pytest.approx(line.value.ravel()[0], rel=1e-3)
        assert first[1] == pytest.approx(line.gradient.ravel()[0], rel=1e-3)
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= float(root.get("width"))
        assert box["y"] + box["height"] <= float(root.get("height"))
        assert max(map(len, text)) * 7.22 < box["width"]  # 0.602 em a letter, of 12 px


def apart(a, b):
    return (
        a["x"] + a["width"] <= b["x"]
        or b["x"] + b["width"] <= a["x"]
        or a["y"] + a["height"] <= b["y"]
        or b["y"] + b["height"] <= a["y"]
    )


@pytest.mark.parametrize("seed", range(20))
def test_boxes_do_not_overlap_and_ways_go_between_them(seed):
    draw = np.random.default_rng(seed)
    inputs = [[]] + [
        sorted({int(a) for a in draw.integers(0, i, size=draw.integers(0, 4))})
        for i in range(1, 60)
    ]
    root, boxes, arrows = parts(svg([["label"]] * 60, inputs, 59))
    assert arrows == {(a, b) for b, sources in enumerate(inputs) for a in sources}
    rectangles = [boxes[i][0] for i in range(60)]
    for i, box in enumerate(rectangles):
        assert all(apart(box, other) for other in rectangles[:i])
    for a, b in arrows:
        assert rectangles[a]["y"] + rectangles[a]["height"] < rectangles[b]["y"]
    for path in root.iter("{http://www.w3.org/2000/svg}path"):
        way = re.fullmatch(r"M.* ([\d.]+) ([\d.]+) V([\d.]+)", path.get("d"))
        if way:  # where an edge passes a row
            x, top, bottom = map(float, way.groups())
            assert x > 0
            spot = {"x": x, "y": top + 1, "width": 0, "height": bottom - top - 2}
            assert all(apart(spot, box) for box in rectangles)


def test_the_dot_source_has_every_line_and_edge(xor):
    text = xor.to_dot()
    assert text.startswith("digraph record {\n")
    assert text.endswith("}\n")
    nodes = re.findall(r'^  n(\d+) \[label="((?:[^"\\]|\\.)*)", ', text, flags=re.MULTILINE)
    assert [int(n) for n, _ in nodes] == list(range(len(xor.lines)))
    arrows = re.findall(r"^  n(\d+) -> n(\d+);$", text, flags=re.MULTILINE)
    assert {(int(a), int(b)) for a, b in arrows} == edges(xor)
    assert len(text.splitlines()) == 3 + len(nodes) + len(arrows)


def test_names_are_escaped():
    name = 'a"<b>&\\'
    record = polynet.record(lambda p: p[name] * 2.0, {name: np.asarray(1.0)})
    _, boxes, _ = parts(record.to_svg())
    assert boxes[0][1][0] == f"0  leaf {name}"
    assert r'label="0  leaf a\"<b>&\\\l' in record.to_dot()


def test_save_writes_what_the_name_says(xor, tmp_path):
    xor.save(tmp_path / "record.svg")
    xor.save(str(tmp_path / "record.dot"))
    assert (tmp_path / "record.svg").read_text(encoding="utf-8") == xor.to_svg()
    assert (tmp_path / "record.dot").read_text(encoding="utf-8") == xor.to_dot()
    with pytest.raises(ValueError, match=r"record\.png"):
        xor.save(tmp_path / "record.png")
    assert repr(xor).startswith(f"<record of {len(xor.lines)} lines")


def test_a_notebook_draws_it(xor):
    assert xor._repr_svg_() == xor.to_svg()


def test_a_leaf_by_its_name(xor):
    assert xor["0.weight"] is xor.lines[0]
    assert np.array_equal(xor["2.bias"].gradient, xor.lines[3].gradient)
    with pytest.raises(KeyError, match=r"unknown leaf '0.weigth'. Did you mean '0.weight'\?"):
        xor["0.weigth"]
    with pytest.raises(KeyError, match=r"unknown leaf 4\. Expected one of: 0.weight, 0.bias, "):
        xor[4]


def test_the_table_stands_in_any_console(xor):
    assert [shown(np.arange(n, dtype=float)) for n in (0, 3, 4)] == ["", "0 1 2", "0 1 2 ..."]
    str(xor).encode("ascii")


def test_the_table(xor):
    rows = str(xor).splitlines()
    assert rows[0].split() == ["line", "op", "from", "in", "shape", "value", "gradient"]
    assert rows[5].split()[:4] == ["4", "matrix_transpose", "0", "linear"]
    assert rows[6].split()[:4] == ["5", "matmul", "constant,", "4"]

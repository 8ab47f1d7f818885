"""The engine in 60 lines: its length, and that it computes what polynet's engine computes."""

import io
import sys
import tokenize
from pathlib import Path

import numpy as np
import pytest
from printed import ASCII

import polynet

FILE = Path(__file__).parents[1] / "examples" / "engine_in_60_lines.py"
IMPORTS_OF_THE_ENGINE = 3
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def engine_source():
    text = FILE.read_text(encoding="utf-8")
    _, begun = text.split("# ---- The engine begins here.\n")
    return begun.split("# ---- The engine ends here.")[0]


def test_the_engine_has_at_most_60_lines_and_says_how_many(example):
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(engine_source()).readline):
        if token.type not in NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    count = len(lines) + IMPORTS_OF_THE_ENGINE
    assert count <= 60
    assert f"in {count} lines" in example.__doc__
    assert f"The {count} lines are" in example.__doc__


def test_the_engine_needs_numpy_and_three_imports_alone():
    names = {"np": np}
    exec("from collections import namedtuple\nfrom types import SimpleNamespace", names)
    exec(engine_source(), names)
    record = names["forward"](lambda x: x * x, np.asarray(3.0))
    assert names["backward"](record)[0] == 6.0


def two_layers(x, w, b, v):
    xp = w.__array_namespace__()
    return xp.mean(xp.tanh(x @ w + b) @ v)


def squares(x, w, b, v):
    off = x @ w - b * b
    return w.__array_namespace__().mean(off * off + off)


def used_twice(x, w, b, v):
    y = x @ w
    return y.__array_namespace__().mean(y * y - y + (y + b) * (b - y))


def stretched(x, w, b, v):
    xp = b.__array_namespace__()
    return xp.mean(b * (x @ w)) * xp.mean(v) + xp.mean(b * v)


def numbers_on_the_left(x, w, b, v):
    xp = w.__array_namespace__()
    return xp.mean(1.5 - xp.tanh(2.0 * (0.5 + x @ w))) * xp.mean(1.0 - b)


def one_not_used(x, w, b, v):
    return b.__array_namespace__().mean(b - 2.0)


COMPUTATIONS = [two_layers, squares, used_twice, stretched, numbers_on_the_left, one_not_used]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("f", COMPUTATIONS, ids=lambda f: f.__name__)
def test_values_and_gradients_are_those_of_the_real_engine(example, f, seed):
    draw = np.random.default_rng(seed).standard_normal
    leaves = [draw((5, 4)), draw((4, 3)), draw(3), draw((3, 1))]
    record = example.forward(f, *leaves)
    gradients = example.backward(record)[: len(leaves)]
    value, real = polynet.value_and_grad(f, argnums=(0, 1, 2, 3))(*leaves)
    np.testing.assert_allclose(record[-1].value, value, rtol=1e-15, atol=0)
    for ours, theirs, leaf in zip(gradients, real, leaves, strict=True):
        assert ours.shape == theirs.shape == leaf.shape
        scale = float(np.max(np.abs(theirs)))
        np.testing.assert_allclose(ours, theirs, rtol=1e-15, atol=1e-15 * scale)


def test_every_op_of_the_engine_was_compared(example):
    leaves = [np.ones((5, 4)), np.ones((4, 3)), np.ones(3), np.ones((3, 1))]
    met = {line.op for f in COMPUTATIONS for line in example.forward(f, *leaves)}
    ops = {n for n, thing in vars(example).items() if getattr(thing, "__name__", "") == "call"}
    assert met == ops | {"leaf"}
    assert len(ops) == 6


def test_what_was_computed_after_the_result_does_not_count(example):
    def f(x):
        result = x * x
        x + x  # recorded, and no part of the result
        return result

    record = example.forward(f, np.asarray(3.0))
    assert [line.op for line in record] == ["leaf", "multiply"]
    assert example.backward(record)[0] == 6.0


def test_a_line_says_from_which_lines_it_was_computed(example):
    record = example.forward(example.loss, *example.first_params(seed=0))
    assert [(line.op, line.inputs) for line in record[4:]] == [
        ("matmul", (None, 0)),
        ("add", (4, 1)),
        ("tanh", (5,)),
        ("matmul", (6, 2)),
        ("add", (7, 3)),
        ("subtract", (8, None)),
        ("multiply", (9, 9)),
        ("mean", (10,)),
    ]


def test_it_learns_exclusive_or(example):
    params, losses = example.train(example.first_params(seed=0))
    assert losses[-1] < 1e-4 < 0.1 < losses[0]
    answers = example.network(example.CORNERS, *params)
    np.testing.assert_allclose(answers, example.TARGETS, atol=0.03)
    assert max(example.differences(params)) <= 1e-15


def test_the_program(run_python, tmp_path):
    pytest.importorskip("matplotlib", reason="the picture is drawn with matplotlib")
    from matplotlib.image import imread

    result = run_python("-W", "error", FILE, "--out", tmp_path / "pictures", **ASCII)
    assert (result.returncode, result.stderr) == (0, "")
    rows = [row.split()[:2] for row in result.stdout.splitlines()]
    assert ["4", "matmul"] in rows
    assert ["11", "mean"] in rows
    picture = imread(tmp_path / "pictures" / "engine.png")
    assert min(picture.shape[:2]) > 300
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 100


def test_without_matplotlib_it_says_how_to_install_it(example, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit, match=r"pip install 'polynet-array\[examples\]'"):
        example.main(["--out", str(tmp_path)])

"""The example of the line: the numbers that it prints are true."""

import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from printed import ASCII

import polynet
from polynet import losses
from polynet.backend import registry

FILE = Path(__file__).parents[1] / "examples" / "line.py"
WHERE = {"backend": "numpy", "device": None, "dtype": "float64"}


@pytest.fixture(scope="module")
def points(example):
    return example.measurements(seed=0)


@pytest.fixture
def guess(example):
    return {name: polynet.asarray(number, **WHERE) for name, number in example.GUESS.items()}


def test_the_measurements_come_from_the_seed(example):
    (x, y), (same_x, same_y), (_, others) = map(example.measurements, (0, 0, 1))
    assert np.array_equal(x, same_x)
    assert np.array_equal(y, same_y)
    assert not np.array_equal(y, others)
    assert np.max(np.abs(y - (0.8 * x + 1))) < 0.5


def test_the_mean_loss_is_the_mean_of_squares(example, points, guess):
    x, y = points
    right = np.mean((1.8 * x + 0.8 - y) ** 2)
    np.testing.assert_allclose(example.mean_loss(guess, x, y), right, rtol=1e-14)


def test_a_line_is_found_by_trying_as_by_the_gradient(example, points, guess):
    slopes = example.slopes_by_trying(lambda p: example.mean_loss(p, *points), guess, nudge=0.01)
    _, gradient = polynet.value_and_grad(example.mean_loss)(guess, *points)
    for name in guess:
        np.testing.assert_allclose(slopes[name], gradient[name], rtol=1e-13)


def network_loss(example, points, width=4):
    x, y = (a[:, None] for a in points)
    net = example.network(width).init(seed=3, **WHERE)
    return lambda params: losses.mse(net.bind(params)(x), y), net.parameters()


def test_a_network_is_found_by_trying_as_by_the_gradient(example, points):
    loss, params = network_loss(example, points)
    slopes = example.slopes_by_trying(loss, params, nudge=1e-5)
    _, gradient = polynet.value_and_grad(loss)(params)
    for name, p in params.items():
        assert slopes[name].shape == p.shape
        np.testing.assert_allclose(slopes[name], gradient[name], rtol=0, atol=1e-9)


def test_two_tries_a_parameter(example, points):
    loss, params = network_loss(example, points)
    tries = []
    example.slopes_by_trying(lambda p: tries.append(1) or loss(p), params, nudge=1e-5)
    parameters = sum(p.size for p in params.values())
    cost = example.cost(loss, params, "float64")
    assert (cost.parameters, cost.tries, cost.tried) == (parameters, len(tries), True)
    assert len(tries) == 2 * parameters
    assert cost.difference < 1e-8


def test_trying_is_given_up_where_it_would_take_too_long(example, points, monkeypatch):
    loss, params = network_loss(example, points, width=98)
    tries = []
    monkeypatch.setattr(example, "MOST_SECONDS", 1e-3)
    cost = example.cost(lambda p: tries.append(1) or loss(p), params, "float64")
    assert (cost.parameters, cost.tries, cost.tried) == (9997, 19994, False)
    assert len(tries) < 1000
    assert cost.by_trying > 1e-3
    assert cost.difference < 1e-8


def test_the_largest_network_has_about_a_million_parameters(example):
    count = {w: w * w + 4 * w + 1 for w in example.WIDTHS}
    table = example.network(example.WIDTHS[0]).summary()
    assert table.split()[-1] == str(count[example.WIDTHS[0]])
    assert count[max(example.WIDTHS)] == 999_997


@pytest.mark.parametrize("name", ["good", "almost too large"])
def test_the_walk_arrives_at_least_squares(example, points, guess, name):
    x, y = points
    rows = np.stack([x, np.ones_like(x)], axis=1)
    best = np.linalg.lstsq(rows, y, rcond=None)[0]
    np.testing.assert_array_equal(example.least_squares(x, y)[0], best)
    path, seen = example.walk(guess, x, y, example.STEPS[name], count=800)
    assert path.shape == (801, 2)
    assert len(seen) == 801
    np.testing.assert_allclose(path[-1], best, rtol=1e-12)


def test_a_step_that_is_too_small_is_on_its_way(example, points, guess):
    path, seen = example.walk(guess, *points, example.STEPS["too small"], count=200)
    best, _ = example.least_squares(*points)
    assert all(b < a for a, b in pairwise(seen))
    assert np.max(np.abs(path[-1] - best)) > 0.05


def test_the_limit_parts_the_steps_that_arrive_from_those_that_diverge(example, points, guess):
    best, limit = example.least_squares(*points)
    below, _ = example.walk(guess, *points, 0.99 * limit, count=2000)
    _, above = example.walk(guess, *points, 1.01 * limit, count=2000)
    np.testing.assert_allclose(below[-1], best, rtol=1e-10)
    assert above[-1] > 1e6 * above[0]
    assert example.STEPS["almost too large"] < limit < example.STEPS["too large"]
    _, seen = example.walk(guess, *points, example.STEPS["too large"], count=100)
    assert seen[-1] > 1e6 * seen[0]


def test_the_sign_turned_climbs(example, points, guess):
    _, down = example.walk(guess, *points, 0.2, count=5)
    _, up = example.walk(guess, *points, -0.2, count=5)
    assert all(b < a for a, b in pairwise(down))
    assert all(b > a for a, b in pairwise(up))
    assert up[-1] > 100 * up[0]


def test_the_update_by_hand(example):
    after = example.step_downhill({"a": 3.0, "b": 1.0}, {"a": 2.0, "b": -4.0}, step=0.5)
    assert after == {"a": 2.0, "b": 3.0}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (2e-4, "200 us"),
        (0.25, "250.0 ms"),
        (90, "1.5 min"),
        (7200, "2.0 hours"),
        (1e6, "11.6 days"),
    ],
)
def test_durations_for_people(example, seconds, said):
    assert example.duration(seconds) == said


def check_picture(path):
    from matplotlib.image import imread

    picture = imread(path)
    assert min(picture.shape[:2]) > 600
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 100


def table_of_costs(text):
    rows = re.findall(r"^ +([\d,]+) +([\d,]+) .* (measured|estimated) ", text, re.MULTILINE)
    return [(int(p.replace(",", "")), int(t.replace(",", "")), how) for p, t, how in rows]


@pytest.mark.parametrize("name", ["numpy", "strict", "torch", "jax"])
def test_the_program_on_every_backend(example, name, monkeypatch, capsys, tmp_path):
    pytest.importorskip("matplotlib", reason="the picture is drawn with matplotlib")
    status = registry.status(name)
    if not status.available:
        pytest.skip(f"{name}: {status.reason}")
    monkeypatch.setattr(example, "WIDTHS", (3, 30))
    monkeypatch.setattr(example, "MOST_SECONDS", 0.5)
    example.main(["--backend", name, "--out", str(tmp_path)])
    said = capsys.readouterr().out
    first, second = said.splitlines()[:2]
    assert first.startswith(f"backend {name}, device ")
    assert ("float32" in first) == second.startswith("(This backend")
    assert "(0.32 - 1)**2 = 0.4624" in said
    assert re.search(r"0\.2 +good +0\.8179 +0\.9733 +0\.00854 +arrived", said)
    assert re.search(r"0\.5 +too large .* diverges", said)
    assert [(p, t) for p, t, _ in table_of_costs(said)] == [(2, 4), (22, 44), (1021, 2042)]
    check_picture(tmp_path / "line.png")


def test_the_whole_program(run_python, tmp_path):
    pytest.importorskip("matplotlib", reason="the picture is drawn with matplotlib")
    result = run_python("-W", "error", FILE, "--out", tmp_path / "pictures", **ASCII)
    assert (result.returncode, result.stderr) == (0, "")
    rows = table_of_costs(result.stdout)
    assert rows[0] == (2, 4, "measured")
    assert rows[-1] == (999_997, 1_999_994, "estimated")
    assert "plus: it rises" in result.stdout
    check_picture(tmp_path / "pictures" / "line.png")


def test_without_matplotlib_it_says_how_to_install_it(example, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit, match=r"pip install 'polynet-array\[examples\]'"):
        example.main([])

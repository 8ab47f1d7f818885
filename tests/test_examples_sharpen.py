"""The example that sharpens a photograph: its gradient, its walk, and the picture it makes."""

import re
from pathlib import Path

import numpy as np
import pytest

import polynet
from polynet.backend import registry

FILE = Path(__file__).parents[1] / "examples" / "sharpen.py"

pytest.importorskip("skimage", reason="the photograph comes with scikit-image")
pytest.importorskip("scipy", minversion="1.16", reason="SciPy 1.16 is not there")


@pytest.fixture(scope="module")
def truth(example):
    return example.read_photograph()


def arrays_of(name):
    dtype = "float32" if name == "jax" else "float64"
    return lambda numbers: polynet.asarray(numbers, backend=name, dtype=dtype)


def test_the_photograph_and_the_spot(example, truth):
    assert truth.shape == (example.SIDE, example.SIDE)
    assert 0 <= truth.min() < 0.1 < 0.6 < truth.max() <= 1
    spot = example.disc(2)
    on = np.asarray([[0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [1] * 5, [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]])
    np.testing.assert_allclose(spot, on / 13, rtol=1e-15)


def test_the_lens_spreads_every_point_over_the_spot(example, truth):
    spot = example.disc(3)
    seen = example.through_lens(truth, spot)
    assert seen.shape == (example.SIDE - 6, example.SIDE - 6)
    for row, column in ((0, 0), (40, 17), (121, 121)):
        under = truth[row : row + 7, column : column + 7]
        assert seen[row, column] == pytest.approx(np.sum(under * spot), rel=1e-12)


def test_roughness_by_hand(example):
    photograph = np.asarray([[0.0, 3.0, 3.0], [4.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    lengths = [
        5.0,
        3.0,
        4 * np.sqrt(2),
        0.0,
    ]  # of (right, down) = (3, 4), (0, -3), (-4, -4), (0, 0)
    by_hand = np.sum(np.sqrt(np.square(lengths) + 1e-4))
    assert float(example.roughness(photograph)) == pytest.approx(by_hand, rel=1e-14)


@pytest.mark.parametrize("name", ["numpy", "strict", "torch", "jax"])
def test_the_slope_by_nudging_is_the_gradient(example, truth, name):
    if not registry.status(name).available:
        pytest.skip(f"{name} is not available here: {registry.status(name).reason}")
    there, spot = arrays_of(name), example.disc(2)
    seen = example.taken(truth, spot, seed=0)
    loss, guess = example.loss_of(there(seen), there(spot)), example.first_guess(seen, 2)
    value, gradient = polynet.value_and_grad(loss)(there(guess))
    gradient = polynet.to_numpy(gradient)
    assert gradient.shape == guess.shape
    plain = example.loss_of(seen, spot)
    assert float(value) == pytest.approx(float(plain(guess)), rel=1e-6)
    nudge = example.NUDGES["float64"]
    for place in ((0, 0), (1, 64), (64, 64), (127, 3), (127, 127)):
        nudged = example.slope_by_nudging(plain, guess, place, nudge, np.asarray)
        assert gradient[place] == pytest.approx(nudged, rel=1e-4, abs=1e-6), place


def test_it_sharpens_a_photograph(example, truth):
    spot, margin = example.disc(3), 3
    seen = example.taken(truth, spot, seed=1)
    guess = example.first_guess(seen, margin)
    found, losses = example.sharpened(example.loss_of(seen, spot), guess, np.asarray)
    assert found.shape == truth.shape
    assert losses[-1] == min(losses) < losses[0] / 20
    before, after = (example.mistake(p, truth, margin) for p in (guess, found))
    assert after < 0.45 * before


def test_without_roughness_noise_is_sharpened_too(example, truth, monkeypatch):
    spot, margin = example.disc(3), 3
    seen = example.taken(truth, spot, seed=1)
    mistakes = []
    for rough in (example.ROUGH, 0.0):
        monkeypatch.setattr(example, "ROUGH", rough)
        found, _ = example.sharpened(
            example.loss_of(seen, spot), example.first_guess(seen, margin), np.asarray
        )
        mistakes.append(example.mistake(found, truth, margin))
    assert mistakes[0] < 0.8 * mistakes[1]


def test_the_program(run_python, tmp_path):
    result = run_python("-W", "error", FILE, "--radius", "2", "--out", tmp_path / "out")
    assert (result.returncode, result.stderr) == (0, "")
    fell = re.search(r"fell from (0\.\d+) to (0\.\d+)", result.stdout)
    assert float(fell[2]) < 0.6 * float(fell[1])
    assert (tmp_path / "out" / "sharpen.png").stat().st_size > 10_000


@pytest.mark.parametrize("radius", ["0", "21"])
def test_a_radius_that_is_no_lens_is_refused(example, radius, capsys):
    with pytest.raises(SystemExit):
        example.parse(["--radius", radius])
    assert f"--radius is {radius}; expected 1 to 20 pixels" in capsys.readouterr().err

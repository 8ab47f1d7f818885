"""The forger example: which network learns from which part of the loss, and the result."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import polynet
from polynet import nn
from polynet.backend import registry

FILE = Path(__file__).parents[1] / "examples" / "forger.py"


@pytest.fixture(scope="module")
def real(example):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    return example.read_digits()


def test_the_digits(real):
    assert real.picture.shape == (1797, 64)
    assert (real.picture.min(), real.picture.max()) == (0, 1)
    assert np.bincount(real.digit).min() > 170


def slopes(example, net, terms, x):
    """The gradient of only these terms of the loss, always with the same masks and noise."""
    keys = {name: polynet.random.key(0, "stream", name) for name in net.streams()}
    step, buffers = np.zeros(1, dtype=np.int32), net.buffers()

    def of(params):
        context = nn.Context(np, step, keys)
        verdicts = net.bind({**params, **buffers}, context)(**x)
        kept = {n: v if n in terms else polynet.stop_gradient(v) for n, v in verdicts.items()}
        return example.loss(kept, None)

    return polynet.grad(of)(net.parameters())


def test_each_learns_from_terms_of_its_own(example):
    rng = np.random.default_rng(0)
    x = {"picture": rng.random((6, 64)), "digit": np.arange(6, dtype=np.int32)}
    net = example.Adversaries().init(0, backend="numpy", dtype="float64")
    whole = slopes(example, net, ("real", "forged", "passed"), x)
    of_judge = slopes(example, net, ("real", "forged"), x)
    of_forger = slopes(example, net, ("passed",), x)
    for name, g in whole.items():
        mine, others = (
            (of_forger, of_judge) if name.startswith("forger.") else (of_judge, of_forger)
        )
        assert np.any(g != 0), name
        np.testing.assert_allclose(mine[name], g, rtol=1e-12, atol=1e-15)
        assert not np.any(others[name]), name


def test_the_same_numbers_on_every_backend(example, real):
    """The noise is the same too. NumPy and JAX must take the step as one program."""
    x = {"picture": real.picture[:192], "digit": real.digit[:192]}
    found = {}
    for name in ("numpy", "strict", "torch", "jax"):
        if registry.status(name).available:
            compiled = "require" if name in ("numpy", "jax") else "auto"
            trainer = example.make_trainer(seed=3, backend=name, compile=compiled)
            history = trainer.fit(x, np.zeros(192), epochs=2, batch_size=64, progress=False)
            found[name] = history.step_losses
    assert len(found["numpy"]) == 6
    for name, losses in found.items():
        np.testing.assert_allclose(losses, found["numpy"], rtol=1e-4, err_msg=name)


def test_a_fifteenth_of_the_training_goes_much_of_the_way(example, real):
    trainer = example.make_trainer(seed=0, backend="numpy")
    reader = example.make_reader(real, 0, backend="numpy")
    digit = np.repeat(np.arange(10, dtype=np.int32), 20)
    found = []
    for epochs in (1, 19):
        x = real._asdict()
        trainer.fit(x, np.zeros(1797), epochs=epochs, batch_size=64, progress=False)
        forged = example.forge(trainer.net, digit, 0, backend="numpy")
        found.append(reader.evaluate(forged, digit)["accuracy"])
    assert found[0] < 0.5
    assert found[1] > 0.6
    assert example.distance_to_nearest(forged, real.picture).min() > 0.2  # no picture is a copy
    assert 0.01 < example.spread(example.Digits(forged, digit)) < example.spread(real)


def test_distance_to_nearest(example):
    pictures = np.array([[0.0, 0], [3, 4], [3, 5]])
    found = example.distance_to_nearest(pictures, pictures)
    np.testing.assert_allclose(found, [5, 1, 1])
    near = example.distance_to_nearest(np.array([[0.0, 1]]), pictures)
    np.testing.assert_allclose(near, [1])


def test_the_program(run_python, tmp_path):
    for library in ("sklearn", "matplotlib"):
        pytest.importorskip(library, reason="the example needs it")
    options = ["--epochs", "3", "--out", tmp_path]
    result = run_python("-W", "error", FILE, *options)
    assert (result.returncode, result.stderr) == (0, "")
    kept = re.search(r"reads ([\d.]+) of other real digits", result.stdout)[1]
    assert float(kept) > 0.95
    assert 0 <= float(re.search(r"reads ([\d.]+) of the forged", result.stdout)[1]) <= 1
    assert (tmp_path / "forger.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("module", "name"), [("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")]
)
def test_what_is_missing_is_said(example, monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as raised:
        example.main([])
    assert name in str(raised.value)
    assert "pip install 'polynet-array[examples]'" in str(raised.value)

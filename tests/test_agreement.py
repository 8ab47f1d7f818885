"""One seed, one program, all backends: the same bits at the start, the same losses for 200 steps.

The networks are a dense one, a convolutional one, one with batch normalisation, a transformer, a
bag of letters and an LSTM, each with dropout, trained by Adam with a step of 1e-3, as is usual. In
float64 the losses agree to the last digits; in float32 rounding grows as training goes, so that
they are compared over several seeds, with an eps that keeps Adam from dividing rounding by
rounding; and, where it does, with what rounding does inside one library when the order of the
hidden units is another.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import polynet
from polynet import Trainer, losses, nn, optim
from polynet.backend import Backend, to_numpy
from polynet.testing.suite.cases import dtypes

STEPS, COUNT, BATCH = 200, 64, 16
EPOCHS = STEPS * BATCH // COUNT
LABELS = np.arange(COUNT) % 4


def data(*shape: int) -> np.ndarray:
    centres = np.random.default_rng(1).normal(size=(4, *shape))
    return centres[LABELS] + np.random.default_rng(2).normal(size=(COUNT, *shape))


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Linear(20, 32),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(32, 16),
        nn.Tanh(),
        nn.Linear(16, 4),
    )


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3),
        nn.GELU(),
        nn.Dropout(0.1),
        nn.Flatten(),
        nn.Linear(8 * 2 * 2, 4),
    )


def normalised() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 3 * 3, 16, bias=False),
        nn.BatchNorm1d(16, momentum=None),
        nn.Tanh(),
        nn.Dropout(0.1),
        nn.Linear(16, 4),
    )


class Reader(nn.Module):
    """A transformer that reads a word of six letters and says which of four kinds it is."""

    def __init__(self) -> None:
        self.letters = nn.Embedding(9, 16)
        self.places = nn.Parameter((6, 16), nn.init.normal(0.0, 0.1))
        self.layers = [nn.TransformerEncoderLayer(16, 2, 24, batch_first=True) for _ in range(2)]
        self.out = nn.Linear(16, 4)

    def forward(self, x: Any) -> Any:
        x = self.letters(x) + self.places
        for layer in self.layers:
            x = layer(x)
        xp = polynet.array_namespace(x)
        return self.out(xp.mean(x, axis=1))


class Bag(nn.Module):
    """A word's letters looked up and added, then a dense network."""

    def __init__(self) -> None:
        self.letters = nn.Embedding(9, 16)
        self.dense = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Dropout(0.1), nn.Linear(24, 4))

    def forward(self, x: Any) -> Any:
        x = self.letters(x)
        xp = polynet.array_namespace(x)
        return self.dense(xp.sum(x, axis=1))


class Listener(nn.Module):
    """An LSTM that hears a word letter by letter, and answers from what it remembers."""

    def __init__(self) -> None:
        self.letters = nn.Embedding(9, 8)
        self.read = nn.LSTM(8, 16, batch_first=True)
        self.out = nn.Sequential(nn.Dropout(0.1), nn.Linear(16, 4))

    def forward(self, x: Any) -> Any:
        outputs, _ = self.read(self.letters(x))
        return self.out(outputs[:, -1, :])


WORDS = np.argsort(data(9), axis=1)[:, :6]
NETWORKS: dict[str, tuple[Callable[[], nn.Module], np.ndarray]] = {
    "dense": (dense, data(20)),
    "convolutional": (convolutional, data(1, 8, 8)),
    "normalised": (normalised, data(1, 8, 8)),
    "transformer": (Reader, WORDS),
    "embedding": (Bag, WORDS),
    "LSTM": (Listener, WORDS),
}


def trainer(name: str, backend: str, dtype: str, seed: int, eps: float = 1e-5) -> Trainer:
    return Trainer(
        NETWORKS[name][0](),
        losses.cross_entropy,
        optim.Adam(1e-3, eps=eps),
        seed=seed,
        backend=backend,
        dtype=dtype,
    )


@cache
def trained(name: str, backend: str, dtype: str, seed: int, eps: float = 1e-5) -> np.ndarray:
    """The losses of 200 steps."""
    found = trainer(name, backend, dtype, seed, eps)
    history = found.fit(NETWORKS[name][1], LABELS, epochs=EPOCHS, batch_size=BATCH)
    assert len(history.step_losses) == STEPS
    return np.asarray(history.step_losses)


def drift(losses: np.ndarray, others: np.ndarray) -> float:
    return float(np.max(np.abs(losses / others - 1)))


@pytest.mark.parametrize("name", NETWORKS)
def test_initial_weights_are_the_same_bits(backend: Backend, name: str) -> None:
    for dtype in dtypes(backend):
        here, there = (
            NETWORKS[name][0]().init(7, backend=b, dtype=dtype).parameters()
            for b in (backend, "numpy")
        )
        assert list(here) == list(there)
        for path, parameter in here.items():
            assert to_numpy(parameter).tobytes() == to_numpy(there[path]).tobytes(), path


@pytest.mark.parametrize("name", NETWORKS)
def test_losses_in_float64(backend: Backend, name: str) -> None:
    if "float64" not in dtypes(backend):
        pytest.skip(f"{backend.name} has no float64 here")
    found, expected = (trained(name, b, "float64", 0) for b in (backend.name, "numpy"))
    assert expected[-20:].mean() < 0.9 * expected[:20].mean()  # it learnt, so there was drift
    assert drift(found, expected) < 1e-11


@pytest.mark.parametrize("name", NETWORKS)
def test_losses_in_float32(backend: Backend, name: str) -> None:
    found = [
        drift(trained(name, backend.name, "float32", seed), trained(name, "numpy", "float32", seed))
        for seed in range(5)
    ]
    assert np.median(found) < 1e-5, found


def permuted(net: nn.Module) -> nn.Module:
    """The dense network with its hidden units in another order: the same function."""
    p = {name: to_numpy(a) for name, a in net.parameters().items()}
    first, second = (np.random.default_rng(3).permutation(n) for n in (32, 16))
    p["0.weight"], p["0.bias"] = p["0.weight"][first], p["0.bias"][first]
    p["3.weight"], p["3.bias"] = p["3.weight"][second][:, first], p["3.bias"][second]
    p["5.weight"] = p["5.weight"][:, second]
    return net.replace(p)


def test_a_rougher_regime_drifts_as_one_library_does(backend: Backend) -> None:
    """Adam's own eps, 1e-8, and no dropout, whose masks would not follow the permutation."""
    net = nn.Sequential(
        *(nn.Linear(20, 32), nn.ReLU(), nn.Identity()),
        *(nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 4)),
    )

    def run(net: nn.Module, seed: int, where: str) -> np.ndarray:
        trainer = Trainer(net, losses.cross_entropy, optim.Adam(1e-3), seed=seed, backend=where)
        history = trainer.fit(NETWORKS["dense"][1], LABELS, epochs=EPOCHS, batch_size=BATCH)
        return np.asarray(history.step_losses)

    inside, across = [], []
    for seed in range(5):
        start = net.init(seed, backend="numpy")
        reference = run(start, seed, "numpy")
        inside.append(drift(run(permuted(start), seed, "numpy"), reference))
        across.append(drift(run(start.to(backend=backend), seed, backend.name), reference))
    assert np.median(across) < 10 * np.median(inside), (across, inside)

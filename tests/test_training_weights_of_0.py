"""Weights of samples: a step's loss is their weighted mean, and those of weight 0 do nothing."""

from __future__ import annotations

import numpy as np
import pytest

from polynet import Trainer, data, losses, nn, optim
from polynet.backend import Backend, get_backend
from polynet.step import initial_state, make_step

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y = np.arange(12) % 3


@pytest.mark.parametrize("part", [None, 2, 3])
def test_the_loss_of_a_step_is_the_weighted_mean_of_its_batch(part: int | None) -> None:
    net = nn.Linear(4, 3).init(seed=0, backend="numpy", dtype="float64")
    step = make_step(net, losses.cross_entropy, optim.SGD(0.1), get_backend("numpy").xp, part)
    x, weight, rows = X.astype("float64"), np.arange(12) / 3, np.asarray([3, 0, 7, 11, 2])
    state = initial_state(net, optim.SGD(0.1), 0)
    new, value = step(state, (x, Y, weight), rows)
    each = [float(losses.cross_entropy(net(x[[i]]), Y[[i]])) for i in rows]
    np.testing.assert_allclose(value, np.average(each, weights=weight[rows]))
    assert new["step"] == state["step"] + 1
    shown, found = x[rows], new["params"]["bias"] - net.bias
    slope = np.exp(net(shown)) / np.exp(net(shown)).sum(axis=1, keepdims=True) - np.eye(3)[Y[rows]]
    np.testing.assert_allclose(found, -0.1 * np.average(slope, axis=0, weights=weight[rows]))


def test_targets_that_do_not_count_may_hold_anything() -> None:
    """Padding has the weight 0."""
    y = np.where(np.arange(len(X)) % 2, 1.0, -1.0)[:, None]
    weight = np.ones(len(X))
    y[3], weight[3] = 0, 0
    job = Trainer(nn.Linear(X.shape[1], 1), losses.hinge, optim.SGD(0.1), backend="numpy")
    job.fit(X, y, sample_weight=weight, validation_data=(X, y, weight))
    job.fit(data.arrays(X, y, weight))
    for given in ((X, y), (data.arrays(X, y),), (data.arrays(X, y, weight + 1),)):
        with pytest.raises(ValueError, match="hinge takes -1 and 1"):
            job.fit(*given)


def test_a_step_of_padding_alone_changes_nothing(backend: Backend) -> None:
    """Its targets may be no classes: its loss is 0, not NaN."""
    y = np.where(np.arange(12) < 10, -100, Y)
    weight = (y >= 0).astype(float)
    net = nn.Linear(4, 3)
    job = Trainer(net, losses.cross_entropy, optim.Adam(), backend=backend)
    losses_of = job.fit(X, y, sample_weight=weight, batch_size=3, epochs=3).step_losses
    padding = np.asarray(job.history.step_weights) == 0
    assert 0 < padding.sum() < len(padding)
    assert np.array_equal(np.asarray(losses_of) == 0, padding)

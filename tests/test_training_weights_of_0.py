"""Samples with the weight 0: whatever their targets hold, they change nothing."""

from __future__ import annotations

import numpy as np
import pytest

from polynet import Trainer, data, losses, nn, optim
from polynet.backend import Backend

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y = np.arange(12) % 3


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

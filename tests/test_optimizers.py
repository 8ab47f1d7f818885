"""Optimizers on a hard valley, and their settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polynet import optim, value_and_grad
from polynet.ops import OPS

square, total = OPS["square"], OPS["sum"]


def rosenbrock(p: dict[str, Any]) -> Any:
    """(1 - x)² + 100 (y - x²)², whose minimum is 0 at (1, 1)."""
    return total(square(1 - p["x"]) + 100 * square(p["y"] - square(p["x"])))


@pytest.mark.parametrize(
    "optimizer",
    [
        optim.SGD(lr=1e-3, momentum=0.9),
        optim.RMSprop(lr=1e-3, eps=1e-6),
        optim.Adam(lr=0.02),
        optim.AdamW(lr=0.02, weight_decay=0.0),
    ],
    ids=["SGD", "RMSprop", "Adam", "AdamW"],
)
def test_rosenbrocks_valley_is_descended(optimizer: optim.Optimizer) -> None:
    params = {"x": np.asarray(-0.5), "y": np.asarray(0.5)}
    state = optimizer.init(params)
    for t in range(4000):
        _, grads = value_and_grad(rosenbrock)(params)
        params, state = optimizer.update(params, grads, state, np.full(1, t, dtype=np.int32))
    assert float(rosenbrock(params)) < 1e-3

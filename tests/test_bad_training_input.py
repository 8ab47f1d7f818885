"""What a Trainer, its data or its callbacks are given and cannot be: what came, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polynet
from polynet import Trainer, array_namespace, data, losses, metrics, nn, optim
from polynet.backend import Backend

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y = np.arange(12) % 3
SEVERAL = (X[:, :3] > 0).astype("float32")
"""Several labels a sample, or none."""


def trainer(loss: Any = losses.cross_entropy, outputs: int = 3, **options: Any) -> Trainer:
    return Trainer(nn.Linear(4, outputs), loss, optim.Adam(1e-3), **options)


def binary(y: np.ndarray) -> tuple[Trainer, np.ndarray]:
    return trainer(losses.binary_cross_entropy_with_logits, 1), y.astype("float32")[:, None]


class Short(data.Source):
    """A source that leaves out what it cannot read."""

    def __len__(self) -> int:
        return 12

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return X[rows[1:]], Y[rows[1:]]


def constant(outputs: Any, targets: Any) -> Any:
    return array_namespace(targets).mean(targets)


def of_signs(outputs: Any, targets: Any) -> Any:
    xp = array_namespace(outputs)
    return xp.mean(xp.astype(outputs > 0, targets.dtype) - targets)


def stopped(outputs: Any, targets: Any) -> Any:
    return losses.mse(polynet.stop_gradient(outputs), targets)


def fit(pair: tuple[Trainer, np.ndarray], **options: Any) -> Any:
    return pair[0].fit(X, pair[1], **options)


# name: (what is done, the error, words that its message must hold)
CASES: dict[str, tuple[Callable[[], Any], type[BaseException], list[str]]] = {
    # targets
    "signs as targets": (
        lambda: fit(binary(Y % 2 * 2 - 1)),
        ValueError,
        ["y holds numbers from -1.0 to 1.0", "binary_cross_entropy_with_logits", "(y + 1) / 2"],
    ),
    "0 and 2 as targets": (
        lambda: fit(binary(Y % 2 * 2)),
        ValueError,
        ["y holds numbers from 0.0 to 2.0", "y == label"],
    ),
    "signs in evaluate": (
        lambda: binary(Y)[0].evaluate(X, Y.astype("float32")[:, None] - 1),
        ValueError,
        ["y holds numbers from -1.0 to 1.0"],
    ),
    "signs in a source": (
        lambda: binary(Y)[0].fit(data.arrays(X, Y.astype("float32")[:, None] - 1)),
        ValueError,
        ["y holds numbers from -1.0 to 1.0"],
    ),
    "signs in validation": (
        lambda: fit(binary(Y % 2), validation_data=(X, binary(Y - 1)[1])),
        ValueError,
        ["validation y holds numbers from -1.0"],
    ),
    "accuracy of several labels": (
        lambda: metrics.accuracy(SEVERAL, X[:, :3]),
        ValueError,
        ["accuracy: row 0", "not one-hot", "np.mean((outputs > 0) == targets)"],
    ),
    "accuracy of probabilities": (
        lambda: metrics.accuracy(np.asarray([[0.0, 1.0], [0.6, 0.4]]), X[:2, :2]),
        ValueError,
        ["row 1", "targets.argmax(axis=1)"],
    ),
    "the best of several labels": (
        lambda: metrics.top_k(2)(SEVERAL, X[:, :3]),
        ValueError,
        ["top_2: row 0", "not one-hot"],
    ),
    # sources
    "a short batch": (
        lambda: trainer().fit(Short(), batch_size=4),
        ValueError,
        ["asked for 4 rows", "has 3 samples", "batch(rows)"],
    ),
    "a short batch in evaluate": (lambda: trainer().evaluate(Short()), ValueError, ["12 rows"]),
    "an augmentation that drops": (
        lambda: trainer().fit(data.arrays(X, Y).augmented(lambda x, rng: x[1:]), batch_size=4),
        ValueError,
        ["asked for 4 rows", "has 3 samples"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_error_says_what_and_where_and_what_to_do(case: str) -> None:
    action, kind, words = CASES[case]
    with pytest.raises(kind) as caught:
        action()
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("loss", [constant, of_signs, stopped])
def test_a_loss_that_depends_on_no_parameter_is_refused(backend: Backend, loss: Any) -> None:
    job = trainer(loss, backend=backend)
    with pytest.raises(ValueError, match="does not depend on the parameters that are trained"):
        job.fit(X, SEVERAL)
    assert job.history.step_losses == []
    job.evaluate(X, SEVERAL)

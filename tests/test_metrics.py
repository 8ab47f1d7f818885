"""Metrics: scikit-learn's numbers, ties, NaN, and labels that are no class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as scores

from polynet import Trainer, losses, metrics, nn, optim

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y = np.arange(12) % 3


def test_metrics_are_scikit_learns() -> None:
    logits = np.random.default_rng(1).normal(size=(60, 5))
    labels = np.random.default_rng(2).integers(0, 5, size=60)
    for k in (1, 2, 4):
        wanted = scores.top_k_accuracy_score(labels, logits, k=k)
        assert metrics.top_k(k)(labels, logits) == pytest.approx(wanted)
        assert metrics.top_k(k)(np.eye(5)[labels], logits) == pytest.approx(wanted)
    assert metrics.accuracy(labels, logits) == metrics.top_k(1)(labels, logits)

    def f1(targets: np.ndarray, outputs: np.ndarray) -> float:
        return scores.f1_score(targets, metrics.classes(outputs), average="macro")

    every = [metrics.accuracy, metrics.top_k(2), f1]
    run = Trainer(nn.Linear(4, 3), losses.cross_entropy, optim.SGD(), metrics=every)
    found = run.evaluate(X, Y)
    outputs = run.predict(X)
    assert found["f1"] == pytest.approx(scores.f1_score(Y, outputs.argmax(1), average="macro"))
    assert found["accuracy"] == pytest.approx(scores.accuracy_score(Y, outputs.argmax(1)))
    assert found["top_2"] == pytest.approx(scores.top_k_accuracy_score(Y, outputs, k=2))

    numbers = Trainer(nn.Linear(4, 1), losses.mse, optim.SGD(), metrics=[scores.r2_score])
    y = X.sum(axis=1, keepdims=True)
    assert numbers.evaluate(X, y)["r2_score"] == pytest.approx(
        scores.r2_score(y, numbers.predict(X))
    )


@pytest.mark.parametrize(
    ("one", "other"), [(1, 0), (1.0, 0.0), (True, False), (1.0, -1.0), (1, -1)]
)
def test_accuracy_of_two_classes_as_their_losses_have_them(one: Any, other: Any) -> None:
    """0 and 1, or -1 and 1 as hinge's: of those the second class alone was seen as right."""
    outputs = np.asarray([[2.0], [-2.0], [-1.0], [-3.0]])
    targets = np.where(outputs > 0, one, other)
    assert metrics.accuracy(targets, outputs) == 1
    assert metrics.accuracy(targets[::-1], outputs) == 0.5
    assert metrics.accuracy(targets[:, 0], outputs[:, 0]) == 1


def test_classes_of_one_output_are_two() -> None:
    assert metrics.classes(np.asarray([0.5, -0.5, 0.0])).tolist() == [1, 0, 0]
    assert metrics.classes(np.asarray([[0.5], [-0.5]])).tolist() == [1, 0]
    places = np.arange(24.0).reshape(2, 3, 4) * np.asarray([[[1.0]], [[-1.0]]])
    assert metrics.classes(places).tolist() == [[2] * 4, [0] * 4]
    assert metrics.accuracy(np.asarray([[2] * 4, [0, 0, 1, 1]]), places) == 0.75


def test_equal_logits_are_taken_in_order() -> None:
    flat = np.zeros((3, 3))
    assert metrics.top_k(2)(np.asarray([0, 1, 2]), flat) == pytest.approx(2 / 3)
    many = np.arange(50.0) % 2  # NumPy's other sort keeps the order of up to 16
    for label in (1, 3, 5):
        assert metrics.top_k(3)(np.asarray([label]), many[None]) == 1


def test_a_sample_with_a_nan_counts_as_wrong() -> None:
    """It was the largest for accuracy, the smallest for top_k, and class 0 as a single output."""
    nan = float("nan")
    outputs = np.asarray([[nan, 1.0, 0.0], [0.0, 1.0, nan], [0.0, 2.0, 1.0]])
    for metric in (metrics.accuracy, metrics.top_k(1), metrics.top_k(3)):
        for labels in ([0, 1, 1], [1, 2, 1]):
            assert metric(np.asarray(labels), outputs) == pytest.approx(1 / 3)
    for shape in ((3,), (3, 1)):
        single = np.asarray([nan, -1.0, 1.0]).reshape(shape)
        for label in (0, 1):
            targets = np.asarray([label, 0, 1]).reshape(shape)
            assert metrics.accuracy(targets, single) == pytest.approx(2 / 3)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "bool", "float32"])
def test_the_largest_is_the_largest_in_any_dtype(dtype: str) -> None:
    """-x of whole numbers wraps round: of uint8, 0 was the largest, and of int8, -128."""
    least = -128 if dtype == "int8" else 0
    outputs = np.asarray([[least, 1, least], [1, least, least]]).astype(dtype)
    for labels, right in (([1, 0], 1.0), ([0, 1], 0.0)):
        assert metrics.top_k(1)(np.asarray(labels), outputs) == right
        assert metrics.accuracy(np.asarray(labels), outputs) == right


@pytest.mark.parametrize("label", [0.5, 1.5, np.nan, np.inf, -1.0, 2.0])
def test_a_label_between_two_classes_is_none(label: float) -> None:
    outputs = np.asarray([[1.0, 0.0], [0.0, 1.0]])
    for metric in (metrics.accuracy, metrics.top_k(1)):
        assert metric(np.asarray([0.0, 1.0]), outputs) == 1
        with pytest.raises(ValueError, match=f"targets hold {label}; the outputs are of classes 0"):
            metric(np.asarray([0.0, label]), outputs)

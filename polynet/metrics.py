"""Metrics: numbers that tell people how good a network's outputs are.

A metric is any function `(targets, outputs) -> number` of NumPy arrays, known by its `__name__`.
Metrics of scikit-learn are such functions. Those for numbers (`r2_score`) and for scores
(`roc_auc_score` for two classes) work as they are; those for classes need `classes`:

    def f1(targets, outputs):
        return f1_score(targets, metrics.classes(outputs), average="macro")
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from polynet.integers import positive

__all__ = ["accuracy", "classes", "top_k"]


def classes(outputs: np.ndarray) -> np.ndarray:
    """The class that each sample's logits stand for.

    `outputs` are (batch, classes, …), and the class is the index of the largest along axis 1. For
    two classes, they may also be (batch,) or (batch, 1): the class is 1 where they are above 0. The
    result has no axis of classes. Of a sample whose logits hold NaN, the class means nothing.

    >>> classes(np.asarray([[0.1, 0.9], [0.8, 0.2]]))
    array([1, 0])
    >>> classes(np.asarray([[1.5], [-0.5]]))
    array([1, 0])
    """
    outputs = np.asarray(outputs)
    if outputs.ndim > 1 and outputs.shape[1] > 1:
        return outputs.argmax(axis=1)
    flat = outputs if outputs.ndim == 1 else outputs[:, 0]
    return (flat > 0).astype(np.int64)


def accuracy(targets: np.ndarray, outputs: np.ndarray) -> float:
    """The share of samples whose class is right, from 0 to 1.

    `outputs` are logits, as for `classes`. `targets` are integers without the axis of classes, or
    one-hot rows. For two classes with a single output, they have the outputs' shape, and are 0 and
    1, or -1 and 1. A sample with a NaN among its logits counts as wrong. Raises ValueError for
    other shapes, for a label that is no class, such as one that the loss ignores, and for rows that
    are not one-hot, such as several labels a sample.

    >>> accuracy(np.asarray([1, 0]), np.asarray([[0.1, 0.9], [0.2, 0.8]]))
    0.5
    """
    targets, outputs = np.asarray(targets), np.asarray(outputs)
    several = outputs.ndim == 2 or targets.ndim == outputs.ndim - 1
    if several and outputs.ndim > 1 and outputs.shape[1] > 1:
        answers, truth = classes(outputs), _labels("accuracy", targets, outputs)
    else:
        answers, truth = outputs > 0, targets
    if answers.shape != truth.shape:
        raise ValueError(
            f"accuracy: targets of shape {targets.shape} do not fit outputs of {outputs.shape}"
        )
    if answers.dtype == bool:
        right = (answers == _of_two(truth)) & ~np.isnan(outputs)
    else:
        _check_classes("accuracy", truth, outputs.shape[1])
        right = (answers == truth) & ~np.isnan(outputs).any(axis=1)
    return float(np.mean(right))


def top_k(k: int) -> Callable[[np.ndarray, np.ndarray], float]:
    """A metric: the share of samples whose class is among the k largest logits.

    It takes integer targets (batch,) or one-hot rows, and outputs (batch, classes). Among equal
    logits, those of the first classes count as the largest; a sample with a NaN among its logits
    counts as wrong. Raises ValueError where k is not a positive integer, where there are fewer than
    k classes, for other shapes, and for a label that is no class.

    >>> metric = top_k(2)
    >>> metric(np.asarray([0, 2]), np.asarray([[0.5, 0.4, 0.1], [0.3, 0.5, 0.2]]))
    0.5
    >>> metric.__name__
    'top_2'
    """
    k = positive("top_k: k", k)

    def metric(targets: np.ndarray, outputs: np.ndarray) -> float:
        targets, outputs = np.asarray(targets), np.asarray(outputs)
        truth = _labels(f"top_{k}", targets, outputs)
        if outputs.ndim != 2 or outputs.shape[1] < k or truth.shape != outputs.shape[:1]:
            raise ValueError(
                f"top_{k}: expected outputs (batch, {k} classes or more) and a label a sample; got "
                f"outputs of {outputs.shape} and targets of {targets.shape}"
            )
        _check_classes(f"top_{k}", truth, outputs.shape[1])
        signed = outputs if outputs.dtype.kind == "f" else outputs.astype(np.float64)
        best = np.argsort(-signed, axis=1, kind="stable")[:, :k]  # of uint8, -1 would be 255
        right = (best == truth[:, None]).any(axis=1) & ~np.isnan(outputs).any(axis=1)
        return float(np.mean(right))

    metric.__name__ = f"top_{k}"
    return metric


def _of_two(targets: np.ndarray) -> np.ndarray:
    """Whether each target is class 1; the other class is 0, or -1 as for `losses.hinge`."""
    other = -1 if (targets == -1).any() else 0
    odd = targets[(targets != 1) & (targets != other)]
    if odd.size:
        raise ValueError(
            f"accuracy: the targets hold {odd.flat[0]}; with a single output they are 0 and 1, "
            "or -1 and 1. For numbers, use scikit-learn's r2_score; for others write a metric, "
            "such as np.mean((outputs > 0) == (targets > 0.5))"
        )
    return targets == 1


def _check_classes(name: str, labels: np.ndarray, classes: int) -> None:
    odd = labels[(labels < 0) | (labels >= classes) | (labels != np.floor(labels))]
    if odd.size:
        raise ValueError(
            f"{name}: the targets hold {odd.flat[0]}; the outputs are of classes 0 to {classes - 1}"
            ". Where a loss ignores a label, such as -100, write a metric of the others: "
            "(metrics.classes(outputs) == targets)[targets != -100].mean()"
        )


def _labels(name: str, targets: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """The targets as labels; one-hot rows of the outputs' shape are turned into labels."""
    if targets.shape != outputs.shape or targets.ndim != 2:
        return targets
    single = ((targets == 1).sum(axis=1) == 1) & ((targets != 0).sum(axis=1) == 1)
    if not single.all():
        raise ValueError(
            f"{name}: row {single.argmin()} of the targets is not one-hot, a single 1 among zeros. "
            "For several labels a sample, write a metric such as np.mean((outputs > 0) == targets) "
            "or scikit-learn's f1_score of outputs > 0; for probabilities, one that compares with "
            "targets.argmax(axis=1)"
        )
    return targets.argmax(axis=1)

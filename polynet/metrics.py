"""Metrics: how good a network's outputs are, for people.

A metric is any function `(targets, outputs) -> number` of NumPy arrays, so scikit-learn's
serve too.
"""

from __future__ import annotations

import numpy as np


def accuracy(targets: np.ndarray, outputs: np.ndarray) -> float:
    """The share of samples whose class is right, from 0 to 1.

    `outputs` are logits: (batch, classes), whose largest is the answer, with integer targets
    (batch,) or one-hot rows; or, for two classes, of the targets' shape, where above 0 means 1.

    >>> accuracy(np.asarray([1, 0]), np.asarray([[0.1, 0.9], [0.2, 0.8]]))
    0.5
    """
    targets, outputs = np.asarray(targets), np.asarray(outputs)
    if outputs.ndim == 2 and outputs.shape[1] > 1:
        answers = outputs.argmax(axis=1)
        truth = targets.argmax(axis=1) if targets.shape == outputs.shape else targets
    else:
        answers, truth = (outputs > 0).astype(targets.dtype), targets
    if answers.shape != truth.shape:
        raise ValueError(
            f"accuracy: targets of shape {targets.shape} do not fit outputs of {outputs.shape}"
        )
    return float(np.mean(answers == truth))

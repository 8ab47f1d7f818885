"""Samples of losses: with and without weights, and over their options."""

from __future__ import annotations

from typing import Any

import numpy as np

from polynet.testing.samples.sample import Sample

_rng = np.random.default_rng(20241103)


def _in(low: float, high: float, *shape: int) -> np.ndarray:
    return np.asarray(_rng.uniform(low, high, size=shape))


def _labels(classes: int, *shape: int) -> np.ndarray:
    return _rng.integers(0, classes, size=shape)


def _chances(*shape: int) -> np.ndarray:
    """Probabilities along axis 1."""
    x = _in(0.2, 2.0, *shape)
    return np.asarray(x / x.sum(axis=1, keepdims=True))


def _alike(*options: dict[str, Any]) -> list[Sample]:
    """Outputs far from targets, without weights and with them."""
    given = (
        (_in(-3, 0, 6, 2), _in(0.1, 0.9, 6, 2)),
        (_in(1, 3, 4), _in(0.1, 0.9, 4)),
        (_in(-3, 0, 3, 2, 2), _in(0.1, 0.9, 3, 2, 2), _in(0.2, 2, 3)),
    )
    return [Sample(args, option) for option in ({}, *options) for args in given]


SAMPLES: dict[str, list[Sample]] = {
    "mse": _alike(),
    "l1": _alike(),
    "smooth_l1": _alike({"beta": 0.7}, {"beta": 0.0}),
    "huber": _alike({"delta": 0.7}),
    "cosine_distance": _alike(),
    "kl_div": _alike({"log_target": True}),
    "hinge": _alike(),
    "binary_cross_entropy_with_logits": [
        *_alike(),
        Sample((_in(-3, 3, 4, 2), _in(0.1, 0.9, 4, 2), None, 2.5)),
        Sample((_in(-3, 3, 4, 2), _in(0.1, 0.9, 4, 2), _in(0.2, 2, 4), _in(0.5, 3, 2))),
        Sample((_in(-3, 3, 4, 2), _in(0.1, 0.9, 4, 2), None, [0.5, 3.0])),
    ],
    "cross_entropy": [
        Sample((_in(-3, 3, 6, 4), _labels(4, 6))),
        Sample((_in(-30, 30, 3, 2), _labels(2, 3))),
        Sample((_in(-3, 3, 2, 33), _labels(33, 2))),  # more classes than a kernel takes at once
        Sample((_in(-3, 3, 2, 36), _labels(36, 2))),
        Sample((_in(-3, 3, 5, 3), _chances(5, 3))),
        Sample((_in(-3, 3, 5, 3), _labels(3, 5), _in(0.2, 2, 5))),
        Sample((_in(-3, 3, 5, 3), _labels(3, 5), None, _in(0.2, 2, 3)), {"label_smoothing": 0.1}),
        Sample((_in(-3, 3, 5, 3), _labels(3, 5), None, [0.5, 2.0, 1.0]), {"ignore_index": 1}),
        Sample((_in(-3, 3, 5, 3), np.full(5, 1)), {"ignore_index": 1}),
        Sample((_in(-3, 3, 2, 3, 4), _labels(3, 2, 4))),
        Sample(
            (_in(-3, 3, 2, 3, 2, 2), _labels(3, 2, 2, 2), _in(0.2, 2, 2), _in(0.2, 2, 3)),
            {"label_smoothing": 0.2, "ignore_index": 0},
        ),
        Sample((_in(-3, 3, 2, 3, 4), _chances(2, 3, 4), _in(0.2, 2, 2)), {"label_smoothing": 0.3}),
        Sample((_in(-3, 3, 4, 3), _chances(4, 3), None, _in(0.2, 2, 3))),
    ],
    "nll": [
        Sample((_in(-3, -0.1, 6, 4), _labels(4, 6))),
        Sample((_in(-3, -0.1, 2, 4, 3), _labels(4, 2, 3), _in(0.2, 2, 2)), {"ignore_index": 2}),
        Sample((_in(-3, -0.1, 5, 3), _labels(3, 5), None, _in(0.2, 2, 3))),
    ],
    "multi_margin": [
        Sample((_in(-3, 3, 6, 4), _labels(4, 6))),
        Sample((_in(-3, 3, 5, 3), _labels(3, 5), _in(0.2, 2, 5), _in(0.2, 2, 3)), {"p": 2}),
        Sample((_in(-3, 3, 5, 3), _labels(3, 5)), {"margin": 0.5}),
    ],
}
"""Samples by the name of the loss."""

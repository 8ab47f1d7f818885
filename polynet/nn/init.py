"""Initialisers: how a parameter is drawn. On the host, in float64, from a stream of its own.

An initialiser is a function `(key, shape) -> NumPy array`. For a weight (out, in, …), fan-in
is in times the size of the rest, fan-out is out times it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from polynet import random
from polynet.errors import unknown

Initialiser = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


def constant(value: float) -> Initialiser:
    """Every element is `value`."""
    return lambda _key, shape: np.full(shape, float(value))


zeros = constant(0.0)
ones = constant(1.0)


def uniform(low: float, high: float) -> Initialiser:
    """Uniform in [low, high)."""
    return lambda key, shape: (
        low + (high - low) * random.uniform(key, math.prod(shape)).reshape(shape)
    )


def normal(mean: float = 0.0, std: float = 1.0) -> Initialiser:
    """Normal with the given mean and standard deviation."""
    return lambda key, shape: mean + std * random.normal(key, math.prod(shape)).reshape(shape)


def xavier_uniform(gain: float = 1.0) -> Initialiser:
    """Uniform in ±gain·√(6 / (fan_in + fan_out)).

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010.
    """

    def draw(key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        bound = gain * math.sqrt(6.0 / sum(_fans(shape)))
        return uniform(-bound, bound)(key, shape)

    return draw


def xavier_normal(gain: float = 1.0) -> Initialiser:
    """Normal with standard deviation gain·√(2 / (fan_in + fan_out)); see `xavier_uniform`."""
    return lambda key, shape: normal(0.0, gain * math.sqrt(2.0 / sum(_fans(shape))))(key, shape)


def kaiming_uniform(gain: float = math.sqrt(2.0), mode: str = "fan_in") -> Initialiser:
    """Uniform in ±gain·√(3 / fan); the gain √2 is ReLU's.

    He et al., "Delving Deep into Rectifiers", ICCV 2015. `mode` is "fan_in" or "fan_out".
    """
    _check_mode(mode)

    def draw(key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        bound = gain * math.sqrt(3.0 / _fan(shape, mode))
        return uniform(-bound, bound)(key, shape)

    return draw


def kaiming_normal(gain: float = math.sqrt(2.0), mode: str = "fan_in") -> Initialiser:
    """Normal with standard deviation gain / √fan; see `kaiming_uniform`."""
    _check_mode(mode)
    return lambda key, shape: normal(0.0, gain / math.sqrt(_fan(shape, mode)))(key, shape)


def _check_mode(mode: str) -> None:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(unknown("mode", mode, ("fan_in", "fan_out")))


def _fan(shape: tuple[int, ...], mode: str) -> int:
    fan_in, fan_out = _fans(shape)
    return fan_in if mode == "fan_in" else fan_out


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) < 2:
        raise ValueError(
            f"fan-in and fan-out need a weight of two axes or more, not of shape {shape}"
        )
    rest = math.prod(shape[2:])
    return shape[1] * rest, shape[0] * rest

"""Initialisers: functions that draw a parameter on the host, in float64.

An initialiser is a function `(key, shape) -> NumPy array`; the key is that of the parameter's own
random stream. For a weight (out, in, …), fan-in is `in` times the size of the other axes, and
fan-out is `out` times that size. The initialisers here are partial functions, not closures, so
that networks can be pickled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from polynet import random
from polynet.errors import did_you_mean, unknown

__all__ = [
    "Initialiser",
    "constant",
    "kaiming_normal",
    "kaiming_uniform",
    "normal",
    "ones",
    "orthogonal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

Initialiser = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


def check_initialiser(given: Any) -> None:
    """Raise TypeError unless `given` is an initialiser, and not a function that makes one."""
    for name in __all__:
        if given is globals()[name] and not isinstance(given, partial):
            raise TypeError(f"nn.init.{name} makes an initialiser: call it, nn.init.{name}(…)")
    if not callable(given):
        hint = did_you_mean(f"nn.init.{given}", (f"nn.init.{name}" for name in __all__), near=0.85)
        raise TypeError(
            "an initialiser is a function (key, shape) -> NumPy array, such as nn.init.zeros; got "
            f"{given!r}{hint and f'.{hint}'}"
        )


def text_of(given: Initialiser) -> str:
    """An initialiser in words: `uniform(0.0, 1.0)`, or the name of a function of your own."""
    if isinstance(given, partial):
        settings = [*map(repr, given.args), *(f"{k}={v!r}" for k, v in given.keywords.items())]
        return f"{text_of(given.func).lstrip('_')}({', '.join(settings)})"
    return getattr(given, "__name__", type(given).__name__)


def constant(value: float) -> Initialiser:
    """Every element is `value`."""
    return partial(_constant, value)


def _constant(value: float, _key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, float(value))


zeros = constant(0.0)
ones = constant(1.0)


def uniform(low: float, high: float) -> Initialiser:
    """Uniform in [low, high)."""
    return partial(_uniform, low, high)


def _uniform(low: float, high: float, key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return low + (high - low) * random.uniform(key, math.prod(shape)).reshape(shape)


def normal(mean: float = 0.0, std: float = 1.0) -> Initialiser:
    """Normal with the given mean and standard deviation."""
    return partial(_normal, mean, std)


def _normal(mean: float, std: float, key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return mean + std * random.normal(key, math.prod(shape)).reshape(shape)


def xavier_uniform(gain: float = 1.0) -> Initialiser:
    """Uniform in ±gain·√(6 / (fan_in + fan_out)).

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010.
    """
    return partial(_xavier_uniform, gain)


def _xavier_uniform(gain: float, key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    bound = gain * math.sqrt(6.0 / sum(_fans(shape)))
    return _uniform(-bound, bound, key, shape)


def xavier_normal(gain: float = 1.0) -> Initialiser:
    """Normal with standard deviation gain·√(2 / (fan_in + fan_out)); see `xavier_uniform`."""
    return partial(_xavier_normal, gain)


def _xavier_normal(gain: float, key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return _normal(0.0, gain * math.sqrt(2.0 / sum(_fans(shape))), key, shape)


def kaiming_uniform(gain: float = math.sqrt(2.0), mode: str = "fan_in") -> Initialiser:
    """Uniform in ±gain·√(3 / fan); the gain √2 is ReLU's.

    He et al., "Delving Deep into Rectifiers", ICCV 2015. `mode` is "fan_in" or "fan_out".
    """
    _check_mode(mode)
    return partial(_kaiming_uniform, gain, mode)


def _kaiming_uniform(gain: float, mode: str, key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    bound = gain * math.sqrt(3.0 / _fan(shape, mode))
    return _uniform(-bound, bound, key, shape)


def kaiming_normal(gain: float = math.sqrt(2.0), mode: str = "fan_in") -> Initialiser:
    """Normal with standard deviation gain / √fan; see `kaiming_uniform`."""
    _check_mode(mode)
    return partial(_kaiming_normal, gain, mode)


def _kaiming_normal(gain: float, mode: str, key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return _normal(0.0, gain / math.sqrt(_fan(shape, mode)), key, shape)


def orthogonal(gain: float = 1.0) -> Initialiser:
    """Rows, or columns where there are fewer of them, at right angles, each of the length `gain`.

    The axes after the first count as one. Every such matrix is equally likely: it is Q of the QR
    decomposition of normal numbers, with a positive diagonal of R. NumPy's LAPACK computes it on
    the host, the same for every backend; another LAPACK may differ in the last places, as in
    `random.normal`.

    Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks", ICLR 2014.

    >>> from polynet import nn
    >>> lstm = nn.LSTM(3, 4)
    >>> lstm.weight_hh_l0 = nn.Parameter((16, 4), nn.init.orthogonal())
    >>> w = lstm.init(seed=0, backend="numpy").weight_hh_l0
    >>> bool(abs(w.T @ w - np.eye(4)).max() < 1e-6)
    True
    """
    return partial(_orthogonal, gain)


def _orthogonal(gain: float, key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) < 2:
        raise ValueError(f"orthogonal needs a weight of two axes or more, not of shape {shape}")
    sides = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(_normal(0.0, 1.0, key, (max(sides), min(sides))))
    q = gain * q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return (q if sides[0] >= sides[1] else q.T).reshape(shape)


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

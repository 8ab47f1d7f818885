"""Smooth activations, in few passes over memory: pieces of an array stay in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from polynet_numpy.results import like, run

PIECE = 16384
"""Elements at a time."""


def sigmoid(xp: Any, x: Any) -> Any:
    """y = 1 / (1 + exp(-x)); its gradient is g·y·(1 - y)."""
    if x.dtype.char not in "fd":
        return NotImplemented
    y = like(x)
    run(_sigmoid, x, y)

    def pullback(g: Any) -> Any:
        back = like(y)
        run(_of_sigmoid, y, g, back)
        return back

    return y, (pullback,)


def _sigmoid(x: np.ndarray, out: np.ndarray) -> None:
    with np.errstate(over="ignore"):  # where exp(-x) is ∞, the result is 0
        np.exp(np.negative(x, out=out), out=out)
    np.reciprocal(np.add(out, 1, out=out), out=out)


def _of_sigmoid(y: np.ndarray, g: np.ndarray, out: np.ndarray) -> None:
    np.multiply(np.subtract(1, y, out=out), y, out=out)
    np.multiply(out, g, out=out)


def gelu(xp: Any, x: Any, *, approximate: str = "none") -> Any:
    """x·Φ(x), of float32; its gradient is g·(Φ(x) + x·φ(x))."""
    if approximate != "none" or x.dtype.char != "f" or not x.flags.c_contiguous:
        return NotImplemented
    y, share = like(x), like(x)
    run(_gelu, x, share, y)

    def pullback(g: Any) -> Any:
        back = like(y)
        run(_of_gelu, x, share, g, back)
        return back

    return y, (pullback,)


def _pieces(*arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
    """The same elements of each, piece by piece."""
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, flat[0].size, PIECE):
        yield [a[start : start + PIECE] for a in flat]


def _gelu(x: np.ndarray, share: np.ndarray, out: np.ndarray) -> None:
    """Φ(x) into `share`, and x·Φ(x) into `out`."""
    work = np.empty((3, min(PIECE, x.size)), x.dtype)
    for part, p, y in _pieces(x, share, out):
        z, z2, q = work[:, : part.size]
        np.multiply(part, np.float32(math.sqrt(0.5)), out=z)
        np.maximum(np.minimum(z, FAR, out=z), -FAR, out=z)
        np.multiply(z, z, out=z2)
        _polynomial(z2, ABOVE, p)
        _polynomial(z2, BELOW, q)
        np.divide(np.multiply(p, z, out=p), q, out=p)
        np.maximum(np.minimum(p, ONE, out=p), -ONE, out=p)
        np.add(np.multiply(p, HALF, out=p), HALF, out=p)
        np.multiply(part, p, out=y)


def _polynomial(x: np.ndarray, coefficients: tuple[np.float32, ...], out: np.ndarray) -> None:
    """Horner's rule, highest power first."""
    first, second, *others = coefficients
    np.add(np.multiply(x, first, out=out), second, out=out)
    for c in others:
        np.add(np.multiply(out, x, out=out), c, out=out)


def _of_gelu(x: np.ndarray, share: np.ndarray, g: np.ndarray, out: np.ndarray) -> None:
    for part, p, y in _pieces(x, share, out):
        with np.errstate(over="ignore"):  # where x² is ∞, φ is 0
            np.multiply(np.multiply(part, part, out=y), -HALF, out=y)
        np.multiply(np.exp(y, out=y), part, out=y)
        np.add(np.multiply(y, np.float32(1 / math.sqrt(2 * math.pi)), out=y), p, out=y)
    np.multiply(out, g, out=out)


ONE, HALF = np.float32(1), np.float32(0.5)
FAR = np.float32(4)
"""Beyond ±4 erf is ±1 in float32; the approximation is clipped to that."""
ABOVE = tuple(map(np.float32, (
    2.0504874504620854e-06, 0.00028483636979681785, 0.0037634945061143644,
    0.052742181853919656, 0.19035688687874797, 1.1283791467003081,
)))  # fmt: skip
BELOW = tuple(map(np.float32, (
    3.809343382472088e-05, 0.0011620233365450846, 0.014964966109980406,
    0.114088632031472, 0.5020321494167135, 1.0,
)))  # fmt: skip
"""erf(z) ≈ z·above(z²) / below(z²), to 5e-7: fitted up to 3.92 by least squares, with weights that
make the largest relative error, 2e-8, small (Sanathanan and Koerner, 1963); the rest is rounding.
"""

KERNELS: Mapping[str, Callable[..., Any]] = {"gelu": gelu, "sigmoid": sigmoid}

"""Probabilities, linear maps, dropout; `erf` and `sigmoid`, which the standard lacks."""

from __future__ import annotations

import math

from polynet.tensor import composition, real_composition, with_pullbacks

# Functions that the standard lacks

_ERF_SMALL = (
    (
        1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2,
        3.77485237685302021e2, 3.20937758913846947e3,
    ),
    (
        1.0, 2.36012909523441209e1, 2.44024637934444173e2,
        1.28261652607737228e3, 2.84423683343917062e3,
    ),
)  # fmt: skip
_ERFC_LARGE = (
    (
        2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594,
        6.61191906371416295e1, 2.98635138197400131e2, 8.81952221241769090e2,
        1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3,
    ),
    (
        1.0, 1.57449261107098347e1, 1.17693950891312499e2,
        5.37181101862009858e2, 1.62138957456669019e3, 3.29079923573345963e3,
        4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3,
    ),
)  # fmt: skip
_ERFC_SCALED = tuple(tuple(c / 4096 for c in polynomial) for polynomial in _ERFC_LARGE)
"""The same ratio, to the bit, of polynomials whose values up to x = 6 fit into float16."""


def _polynomial(x, coefficients):
    """Horner's rule, highest power first."""
    y = x * coefficients[0] + coefficients[1]
    for c in coefficients[2:]:
        y = y * x + c
    return y


def _ratio(x, above, below):
    return _polynomial(x, above) / _polynomial(x, below)


@real_composition
def erf(xp, x, /):
    """The error function 2/√π ∫₀ˣ exp(-t²) dt, elementwise, to the precision of the dtype.

    Rational approximations of W. J. Cody, "Rational Chebyshev Approximations for the Error
    Function", Math. Comp. 23 (1969).
    """
    return _erf(x)


@with_pullbacks(lambda xp, g, x: g * (2 / math.sqrt(math.pi)) * xp.exp(-x * x))
def _erf(xp, x, /):
    size = xp.minimum(xp.abs(x), 6.0)  # beyond 6, erf is 1 to the last bit of float64
    small = xp.minimum(size, 0.5)
    near = x * _ratio(small * small, *_ERF_SMALL)
    far = 1 - xp.exp(-size * size) * _ratio(size, *_ERFC_SCALED)
    return xp.where(size <= 0.5, near, xp.sign(x) * far)


@real_composition
def sigmoid(xp, x, /):
    """1 / (1 + exp(-x)), elementwise, without overflow.

    >>> import numpy as np
    >>> sigmoid(np.asarray([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    return _sigmoid(x)


@with_pullbacks(lambda xp, g, out: g * out * (1 - out))
def _sigmoid(xp, x, /):
    e = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1, e) / (1 + e)


# Scores and probabilities


@real_composition
def logsumexp(xp, x, /, *, axis=-1, keepdims=False):
    """log Σ exp(x) along `axis`, without overflow."""
    y = _logsumexp(x, axis=axis)
    return y if keepdims else xp.squeeze(y, axis=axis)


def _of_logsumexp(xp, g, x, axis):
    """g softmax(x); where the largest x is infinite, those equal to it share g equally."""
    limit = float(xp.finfo(x.dtype).max)
    is_largest = x == _largest(xp, x, axis)
    return g * _softmax(xp.where(is_largest, xp.clip(x, -limit, limit), x), axis=axis)


@with_pullbacks(_of_logsumexp)
def _logsumexp(xp, x, /, *, axis):
    top = _largest(xp, x, axis)
    top = xp.where(xp.isfinite(top), top, 0)
    return xp.log(xp.sum(xp.exp(x - top), axis=axis, keepdims=True)) + top


@real_composition
def softmax(xp, x, /, *, axis=-1):
    """exp(x) / Σ exp(x) along `axis`: probabilities that sum to 1.

    >>> import numpy as np
    >>> softmax(np.asarray([0.0, 0.0]))
    array([0.5, 0.5])
    """
    return _softmax(x, axis=axis)


@real_composition
def softmin(xp, x, /, *, axis=-1):
    """softmax(-x) along `axis`."""
    return softmax(-x, axis=axis)


def _of_softmax(xp, g, out, axis):
    return (g - xp.sum(g * out, axis=axis, keepdims=True)) * out


@with_pullbacks(_of_softmax)
def _softmax(xp, x, /, *, axis):
    e = xp.exp(x - _top(xp, x, axis))
    return e / xp.sum(e, axis=axis, keepdims=True)


@real_composition
def log_softmax(xp, x, /, *, axis=-1):
    """log softmax(x) along `axis`, without overflow, and without cancellation for large x."""
    return _log_softmax(x, axis=axis)


def _of_log_softmax(xp, g, out, axis):
    return g - xp.sum(g, axis=axis, keepdims=True) * xp.exp(out)


@with_pullbacks(_of_log_softmax)
def _log_softmax(xp, x, /, *, axis):
    z = x - _top(xp, x, axis)
    return z - xp.log(xp.sum(xp.exp(z), axis=axis, keepdims=True))


def _top(xp, x, axis):
    """The maximum along `axis`, to subtract so that exp does not overflow; 0 where all are -∞."""
    top = _largest(xp, x, axis)
    return xp.where(top == -math.inf, 0, top)


def _largest(xp, x, axis):
    """The maximum along `axis`, with keepdims=True; -∞ where the axis is empty."""
    if 0 not in x.shape:
        return xp.max(x, axis=axis, keepdims=True)
    return xp.sum(x, axis=axis, keepdims=True) - math.inf


# Linear maps


@composition
def linear(xp, x, weight, bias=None):
    """x Wᵀ + b, for `x` (…, in), `weight` (out, in) and `bias` (out,)."""
    if x.ndim > 2:
        return by_rows(xp, linear, x, weight, bias)
    y = xp.matmul(x, weight.mT)
    return y if bias is None else y + bias


def by_rows(xp, f, x, weight, bias):
    """`f` of the rows of x as one matrix, so that it and its gradients are products of matrices."""
    rows = xp.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
    return xp.reshape(f(rows, weight, bias), (*x.shape[:-1], weight.shape[0]))


# Regularisation

SELU_SCALE = 1.0507009873554804934
SELU_ALPHA = 1.6732632423543772848
"""The constants with which `selu` keeps mean 0 and variance 1."""


@composition
def dropout(xp, x, mask, /, *, keep):
    """x / `keep` where `mask` is true, else 0: the mean over masks is x.

    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
    JMLR 15 (2014).
    """
    return xp.where(mask, x / keep, 0)


@composition
def alpha_dropout(xp, x, mask, /, *, keep):
    """a·x + b where `mask` is true, else a·α + b, where α = -1.7581 is the limit of `selu` at -∞.

    a = 1 / √(keep·(1 + (1 - keep)·α²)) and b = -a·(1 - keep)·α keep mean 0 and variance 1.
    Klambauer et al., "Self-Normalizing Neural Networks" (2017).
    """
    drop, floor = 1 - keep, -SELU_SCALE * SELU_ALPHA
    a = 1 / math.sqrt(keep * (1 + drop * floor * floor))
    return xp.where(mask, x, floor) * a - a * drop * floor

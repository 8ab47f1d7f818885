"""Elementary functions that the standard lacks: `erf` and `sigmoid`."""

from __future__ import annotations

import math

from polynet.tensor import real_composition, with_pullbacks

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

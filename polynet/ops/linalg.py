"""The extension `linalg`: inverses, norms and products, each with its derivative.

The formulas are those of Giles, "An extended collection of matrix derivative results" (2008),
unless another source is named. All functions take stacks of matrices, real or complex.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from polynet.integers import integer
from polynet.ops import indexing
from polynet.ops.complex_numbers import is_complex
from polynet.ops.decompositions import (
    cholesky,
    eig,
    eigh,
    eigvals,
    eigvalsh,
    qr,
    svd,
    svdvals,
)
from polynet.ops.linear_algebra import matmul, matrix_transpose, tensordot, vecdot
from polynet.ops.matrices import adjoint, as_column, as_row, conj, identity
from polynet.ops.statistical import keepdims_shape, reduced_axes
from polynet.tensor import composition, in_dtype, op, plain_value, with_pullbacks

__all__ = [
    "cholesky",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "matmul",
    "matrix_transpose",
    "qr",
    "svd",
    "svdvals",
    "tensordot",
    "vecdot",
]


class SlogdetResult(NamedTuple):
    """Sign and logarithm of the absolute value of the determinant."""

    sign: Any
    logabsdet: Any


# Determinants and inverses


@op
def inv(xp, x, /):
    y = xp.linalg.inv(x)
    return y, (lambda g: -xp.matmul(y.mT, xp.matmul(g, y.mT)),)


@op
def det(xp, x, /):
    return xp.linalg.det(x), (lambda g: as_column(xp, as_column(xp, g)) * _cofactors(x),)


def _of_cofactors(xp, g, out, x):
    try:
        t = xp.linalg.inv(x).mT
    except Exception as error:  # each library has one of its own
        error.add_note("second derivatives of linalg.det need the inverse of its matrix")
        raise
    total = xp.sum(g * out, axis=(-2, -1), keepdims=True)
    return total * t - xp.matmul(out, xp.matmul(g.mT, t))


@with_pullbacks(_of_cofactors)
def _cofactors(xp, x, /):
    """The cofactor matrix, the derivative of the determinant: det(x) x⁻ᵀ where x has an inverse.

    It is computed from the singular values, and so exists for singular x too: Stewart, "On the
    adjugate matrix" (1998). Its own derivative needs the inverse.
    """
    u, s, vh = xp.linalg.svd(x, full_matrices=False)
    n = x.shape[-1]
    others = xp.where(identity(xp, s, n, dtype=xp.bool), 1.0, as_row(xp, s))
    sign = xp.linalg.det(u) * xp.linalg.det(vh)
    y = xp.matmul(xp.conj(u) * as_row(xp, xp.prod(others, axis=-1)), xp.conj(vh))
    return as_column(xp, as_column(xp, sign)) * y


@op
def slogdet(xp, x, /):
    sign, logarithm = xp.linalg.slogdet(x)

    def pullback(g, _needs):
        to_log = in_dtype(xp, g[1], logarithm.dtype)
        if is_complex(xp, x):  # a real sign is constant
            to_log = to_log + xp.imag(g[0] * sign) * 1j
        return (as_column(xp, as_column(xp, to_log)) * xp.linalg.inv(x).mT,)

    return SlogdetResult(sign, logarithm), pullback


@op
def solve(xp, x, y, /):
    z = xp.linalg.solve(x, y)
    vector = y.ndim == 1

    def pullback(g, needs):
        g = as_column(xp, g) if vector else g
        to_y = xp.linalg.solve(x.mT, g)
        solution = as_column(xp, z) if vector else z
        to_x = -xp.matmul(to_y, solution.mT) if needs[0] else None
        return to_x, xp.squeeze(to_y, axis=-1) if vector else to_y

    return z, pullback


@op
def pinv(xp, x, /, *, rtol=None):
    """Golub and Pereyra, "The differentiation of pseudo-inverses" (1973), for constant rank."""
    y = xp.linalg.pinv(x, rtol=plain_value(rtol))

    def pullback(g):
        t, h = y.mT, adjoint(xp, g)
        cx, cy = conj(xp, x), conj(xp, y)
        left = xp.matmul(h - xp.matmul(cx, xp.matmul(cy, h)), xp.matmul(cy, t))
        right = xp.matmul(xp.matmul(t, cy), h - xp.matmul(xp.matmul(h, cy), cx))
        return left + right - xp.matmul(t, xp.matmul(g, t))

    return y, (pullback,)


@op
def matrix_rank(xp, x, /, *, rtol=None):  # an integer
    return xp.linalg.matrix_rank(x, rtol=plain_value(rtol)), None


@composition
def matrix_power(xp, x, n, /):
    """xⁿ: the n-th power of the inverse where n < 0, the identity where n is 0."""
    whole = integer(n, least=-math.inf)
    if whole is None:
        raise TypeError(f"linalg.matrix_power: the exponent is an integer; got {n!r}")
    n = whole
    if n < 0:
        x, n = xp.linalg.inv(x), -n
    power = None
    while n:  # multiply those of x, x², x⁴, … whose bit is set in n
        if n % 2:
            power = x if power is None else xp.matmul(power, x)
        n //= 2
        x = xp.matmul(x, x) if n else x
    return xp.broadcast_to(identity(xp, x, x.shape[-1]), x.shape) if power is None else power


# Norms; where several elements attain a maximum, they share its gradient


@op
def vector_norm(xp, x, /, *, axis=None, keepdims=False, ord=2):  # noqa: A002 (the standard's name)
    """(Σ|x|^ord)^(1/ord); at x = 0 the derivatives of every order are 0."""
    y = xp.linalg.vector_norm(x, axis=axis, keepdims=keepdims, ord=ord)
    if ord == 0:  # a count
        return y, None
    axes = reduced_axes(x, axis)
    kept, dtype = keepdims_shape(x, axes), y.dtype

    def pullback(g):
        g, norm = xp.reshape(in_dtype(xp, g, dtype), kept), xp.reshape(y, kept)
        if ord == 2:
            return xp.where(norm == 0, 0, g) / xp.where(norm == 0, 1, norm) * xp.conj(x)
        direction = xp.conj(xp.sign(x))
        if ord == 1:
            return g * direction
        if math.isinf(ord):
            attained = xp.astype(xp.abs(x) == norm, dtype)
            return g / xp.sum(attained, axis=axes, keepdims=True) * attained * direction
        g, norm = xp.where(norm == 0, 0, g), xp.where(norm == 0, 1, norm)
        share = xp.where(x == 0, 1, xp.abs(x)) / norm
        return g * direction * share ** (ord - 1)

    return y, (pullback,)


@composition
def matrix_norm(xp, x, /, *, keepdims=False, ord="fro"):  # noqa: A002 (the standard's name)
    """Frobenius ("fro"), nuclear ("nuc"), or induced by the vector norms 1, 2, ∞.

    With a minus sign: the least column sum, singular value or row sum in place of the largest.
    """
    matrix = (-2, -1)
    if ord == "fro":
        return xp.linalg.vector_norm(x, axis=matrix, keepdims=keepdims)
    if ord in ("nuc", 2, -2):
        norms = xp.linalg.svdvals(x)
    elif ord in (1, -1, math.inf, -math.inf):
        norms = xp.sum(xp.abs(x), axis=-2 if abs(ord) == 1 else -1)
    else:
        raise ValueError(f"ord is {ord!r}; expected 'fro', 'nuc', 1, -1, 2, -2, inf or -inf")
    summed = ord == "nuc" or (ord > 0 and norms.shape[-1] == 0)  # the largest of none is 0
    y = (xp.sum if summed else xp.max if ord > 0 else xp.min)(norms, axis=-1)
    return as_column(xp, as_column(xp, y)) if keepdims else y


# Products and diagonals


@op
def cross(xp, x, y, /, *, axis=-1):
    for vectors in (x, y):
        if vectors.shape[indexing.normalise_axis(axis, vectors.ndim)] != 3:
            raise ValueError(
                f"linalg.cross takes vectors of 3 numbers, along axis {axis} of both arrays; got "
                f"{tuple(x.shape)} and {tuple(y.shape)}"
            )

    def times(g, other):
        return xp.linalg.cross(g, other, axis=axis)

    return xp.linalg.cross(x, y, axis=axis), (lambda g: -times(g, y), lambda g: times(g, x))


@op
def outer(xp, x, y, /):
    return xp.linalg.outer(x, y), (lambda g: xp.matmul(g, y), lambda g: xp.matmul(g.mT, x))


@op
def diagonal(xp, x, /, *, offset=0):
    y = xp.linalg.diagonal(x, offset=offset)
    m, n = x.shape[-2:]
    length = y.shape[-1]
    start = max(-offset, 0) if length else 0

    def pullback(g):  # each number into its row, and there onto the diagonal
        whole = tuple(map(range, g.shape[:-1]))
        rows = indexing.put_slice(g, (*whole, range(start, start + length)), (*g.shape[:-1], m))
        return xp.where(identity(xp, g, m, n, k=offset, dtype=xp.bool), as_column(xp, rows), 0)

    return y, (pullback,)


@op
def trace(xp, x, /, *, offset=0, dtype=None):
    m, n = x.shape[-2:]
    before = x.dtype

    def pullback(g):
        g = in_dtype(xp, g, before) if dtype is not None else g
        on_diagonal = identity(xp, g, m, n, k=offset, dtype=xp.bool)
        return xp.where(on_diagonal, as_column(xp, as_column(xp, g)), 0)

    return xp.linalg.trace(x, offset=offset, dtype=dtype), (pullback,)

"""Decompositions of the extension `linalg`, each with its derivative.

The formulas hold for complex matrices, since the gradients here are the conjugates of the usual
ones (see `complex_numbers`). Of a matrix that is meant to be symmetric, or Hermitian, only one
triangle is read, but its gradient is symmetric, or Hermitian. Complex singular vectors and
eigenvectors times a number of absolute value 1 are such vectors too: their gradient is that of
functions which do not depend on this number.
"""

from __future__ import annotations

from operator import truediv
from typing import Any, NamedTuple

import array_api_compat

from polynet.ops.complex_numbers import is_complex
from polynet.ops.matrices import adjoint, as_column, as_row, conj, identity
from polynet.tensor import in_dtype, op


class EigResult(NamedTuple):
    """Complex eigenvalues (…, n), in any order, and eigenvectors (…, n, n), as columns."""

    eigenvalues: Any
    eigenvectors: Any


class EighResult(NamedTuple):
    """Eigenvalues (…, n), rising, and eigenvectors (…, n, n), as columns."""

    eigenvalues: Any
    eigenvectors: Any


class QRResult(NamedTuple):
    """Orthonormal columns (…, m, k), and an upper triangular matrix (…, k, n)."""

    Q: Any
    R: Any


class SVDResult(NamedTuple):
    """Left singular vectors (columns), singular values, right singular vectors (rows)."""

    U: Any
    S: Any
    Vh: Any


@op
def _divide_or_0(xp, x, y, /):
    """x / y, and 0 where both are 0: a zero gradient stays 0 where two eigenvalues are equal."""
    z = x / xp.where((x == 0) & (y == 0), 1, y)
    return z, (lambda g: _divide_or_0(g, y), lambda g: -_divide_or_0(g * z, y))


def _hermitian(xp, x):
    return (x + adjoint(xp, x)) / 2


def _lower(xp, x, *, diagonal):
    """The lower triangle of `x`, with its diagonal multiplied by `diagonal`."""
    n = x.shape[-1]
    ones = xp.ones((n, n), dtype=x.dtype, device=array_api_compat.device(x))
    return x * (xp.tril(ones) - (1 - diagonal) * identity(xp, x, n))


@op
def cholesky(xp, x, /, *, upper=False):
    """Murray, "Differentiation of the Cholesky decomposition" (2016)."""
    y = xp.linalg.cholesky(x, upper=upper)

    def pullback(g):
        t = conj(xp, y) if upper else y.mT
        middle = _lower(xp, xp.matmul(t, adjoint(xp, g) if upper else g), diagonal=0.5)
        half = adjoint(xp, xp.linalg.solve(t, adjoint(xp, middle)))
        return _hermitian(xp, xp.linalg.solve(t, half))

    return y, (pullback,)


@op
def eigh(xp, x, /):
    """Seeger and others, "Auto-differentiating linear algebra" (2017).

    Eigenvectors have no derivative where two eigenvalues are equal: a gradient that comes from
    them is not finite there. A gradient that comes from the eigenvalues is finite.
    """
    return _eigh(xp, x, _divide_or_0)


@op
def _eigh_of_values(xp, x, /):
    """`eigh` for `eigvalsh`: where eigenvalues are equal, second derivatives are NaN, not 0."""
    return _eigh(xp, x, truediv)


def _eigh(xp, x, divide):
    w, v = xp.linalg.eigh(x)

    def pullback(g, _needs):
        to_w, to_v = g
        eye = identity(xp, v, v.shape[-1])
        gaps = as_row(xp, w) - as_column(xp, w) + eye
        rotation = divide(xp.matmul(v.mT, to_v), gaps) * (1 - eye)
        middle = rotation + eye * as_row(xp, in_dtype(xp, to_w, w.dtype))
        return (_hermitian(xp, xp.matmul(conj(xp, v), xp.matmul(middle, v.mT))),)

    return EighResult(w, v), pullback


@op
def eigvalsh(xp, x, /):
    w, v = _eigh_of_values(x)

    def pullback(g):
        return xp.matmul(conj(xp, v) * as_row(xp, in_dtype(xp, g, w.dtype)), v.mT)

    return w, (pullback,)


@op
def eig(xp, x, /):
    """Boeddeker and others, "On the computation of complex-valued gradients" (2017).

    Eigenvectors have no derivative where two eigenvalues are equal: a gradient that comes from
    them is not finite there.
    """
    return _eig(xp, x, _divide_or_0)


@op
def _eig_of_values(xp, x, /):
    """`eig` for `eigvals`: where eigenvalues are equal, second derivatives are NaN, not 0."""
    return _eig(xp, x, truediv)


def _eig(xp, x, divide):
    w, v = (_as_complex(xp, z) for z in xp.linalg.eig(x))

    def pullback(g, _needs):
        to_w, to_v = g
        eye = identity(xp, v, v.shape[-1])
        gaps = as_row(xp, w) - as_column(xp, w) + eye
        product = xp.matmul(v.mT, to_v)
        along = xp.sum(product * eye, axis=-2, keepdims=True)  # what only makes a vector longer
        turn = product - xp.matmul(v.mT, xp.conj(v)) * along
        middle = divide(turn, gaps) * (1 - eye) + eye * as_row(xp, to_w)
        return (in_dtype(xp, xp.linalg.solve(v.mT, xp.matmul(middle, v.mT)), x.dtype),)

    return EigResult(w, v), pullback


@op
def eigvals(xp, x, /):
    w, v = _eig_of_values(x)

    def pullback(g):
        return in_dtype(xp, xp.linalg.solve(v.mT, as_column(xp, g) * v.mT), x.dtype)

    return w, (pullback,)


def _as_complex(xp, z):
    """NumPy's own functions give real numbers where the imaginary parts are 0."""
    return z if is_complex(xp, z) else z + 0j


@op
def qr(xp, x, /, *, mode="reduced"):
    """Walter and Lehmann, "Algorithmic differentiation of linear algebra functions" (2010)."""
    q, r = xp.linalg.qr(x, mode=mode)
    m, n = x.shape[-2:]
    rest = x[..., m:] if n > m else None  # x = [x₁ x₂], r = [r₁ r₂], x₁ = q r₁ and x₂ = q r₂
    cq = conj(xp, q)

    def tall(g_q, g_r, r):
        product = xp.matmul(conj(xp, r), adjoint(xp, g_r)) - xp.matmul(adjoint(xp, g_q), cq)
        lower = _lower(xp, product, diagonal=0.5)
        middle = g_q + xp.matmul(cq, lower + adjoint(xp, lower))
        return xp.linalg.solve(r, middle.mT).mT

    def pullback(g, _needs):
        g_q, g_r = g
        if m >= n:
            if mode == "complete" and m > n:
                raise ValueError(
                    f"linalg.qr(mode='complete') has no derivative for {m} rows and {n} columns: "
                    "the last columns of Q may be any that complete it; use mode='reduced'"
                )
            return (tall(g_q, g_r, r),)
        g_rest = g_r[..., m:]
        whole = g_q + xp.matmul(conj(xp, rest), adjoint(xp, g_rest))
        first = tall(whole, g_r[..., :m], r[..., :m])
        return (xp.concat([first, xp.matmul(cq, g_rest)], axis=-1),)

    return QRResult(q, r), pullback


@op
def svd(xp, x, /, *, full_matrices=True):
    """Townsend, "Differentiating the singular value decomposition" (2016).

    Singular vectors have no derivative where two singular values are equal: a gradient that
    comes from them is not finite there. A gradient that comes from the singular values is finite.
    """
    return _svd(xp, x, _divide_or_0, full_matrices)


@op
def _svd_of_values(xp, x, /):
    """`svd` for `svdvals`: where singular values are equal, second derivatives are NaN, not 0."""
    return _svd(xp, x, truediv, full_matrices=False)


def _svd(xp, x, divide, full_matrices):
    u, s, vh = xp.linalg.svd(x, full_matrices=full_matrices)
    m, n = x.shape[-2:]

    def pullback(g, _needs):
        if full_matrices and m != n:
            raise ValueError(
                f"linalg.svd(full_matrices=True) has no derivative for {m} rows and {n} columns: "
                "the last singular vectors may be any that complete them; use "
                "full_matrices=False, or svdvals"
            )
        g_u, g_s, g_v = g[0], g[1], adjoint(xp, g[2])
        v, cu, cvh = adjoint(xp, vh), conj(xp, u), conj(xp, vh)
        eye = identity(xp, u, min(m, n))
        row, column = as_row(xp, s), as_column(xp, s)
        gaps = (row - column) * (row + column) + eye

        def skew(basis, to_basis):
            product = xp.matmul(basis.mT, to_basis)
            return product - adjoint(xp, product)

        of_u = skew(u, g_u)
        middle = divide(of_u, gaps) * row + column * divide(skew(v, g_v), gaps)
        middle = middle + eye * as_row(xp, in_dtype(xp, g_s, s.dtype))
        if is_complex(xp, u):  # its diagonal: the angles of u's columns against those of v
            middle = middle + eye * divide(of_u, 2 * row)
        out = xp.matmul(cu, xp.matmul(middle, cvh))
        if m > n:  # the part of g_u outside the space that the columns of u span
            rest = g_u - xp.matmul(cu, xp.matmul(u.mT, g_u))
            out = out + xp.matmul(divide(rest, row), cvh)
        if n > m:
            rest = g_v - xp.matmul(conj(xp, v), xp.matmul(v.mT, g_v))
            out = out + xp.matmul(cu, adjoint(xp, divide(rest, row)))
        return (out,)

    return SVDResult(u, s, vh), pullback


@op
def svdvals(xp, x, /):
    u, s, vh = _svd_of_values(x)

    def pullback(g):
        return xp.matmul(conj(xp, u) * as_row(xp, in_dtype(xp, g, s.dtype)), conj(xp, vh))

    return s, (pullback,)

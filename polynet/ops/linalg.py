"""The extension `linalg`: decompositions, inverses and norms, each with its derivative.

The formulas are those of Giles, "An extended collection of matrix derivative results" (2008),
unless another source is named; they hold for complex matrices, since the gradients here are the
conjugates of the usual ones (see `complex_numbers`). All functions take stacks of matrices. Of a
matrix that is meant to be symmetric, or Hermitian, only one triangle is read, but its gradient is
symmetric, or Hermitian. Complex singular vectors and eigenvectors times a number of absolute value
1 are such vectors too: their gradient is that of functions which do not depend on this number.
"""

from __future__ import annotations

import math
from operator import truediv
from typing import Any, NamedTuple

import array_api_compat

from polynet.integers import integer
from polynet.ops import indexing
from polynet.ops.complex_numbers import is_complex
from polynet.ops.linear_algebra import matmul, matrix_transpose, tensordot, vecdot
from polynet.ops.statistical import keepdims_shape, reduced_axes
from polynet.tensor import composition, in_dtype, op, plain_value, with_pullbacks

__all__ = ["matmul", "matrix_transpose", "tensordot", "vecdot"]


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


class SlogdetResult(NamedTuple):
    """Sign and logarithm of the absolute value of the determinant."""

    sign: Any
    logabsdet: Any


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


def _eye(xp, x, n, m=None, *, k=0, dtype=None):
    return xp.eye(
        n, m, k=k, dtype=x.dtype if dtype is None else dtype, device=array_api_compat.device(x)
    )


def _column(xp, x):
    return xp.expand_dims(x, axis=-1)


def _row(xp, x):
    return xp.expand_dims(x, axis=-2)


def _conj(xp, x):
    return xp.conj(x) if is_complex(xp, x) else x


def _adjoint(xp, x):
    """The conjugate transpose."""
    return _conj(xp, x).mT


def _hermitian(xp, x):
    return (x + _adjoint(xp, x)) / 2


def _lower(xp, x, *, diagonal):
    """The lower triangle of `x`, with its diagonal multiplied by `diagonal`."""
    n = x.shape[-1]
    ones = xp.ones((n, n), dtype=x.dtype, device=array_api_compat.device(x))
    return x * (xp.tril(ones) - (1 - diagonal) * _eye(xp, x, n))


# Determinants and inverses


@op
def inv(xp, x, /):
    y = xp.linalg.inv(x)
    return y, (lambda g: -xp.matmul(y.mT, xp.matmul(g, y.mT)),)


@op
def det(xp, x, /):
    return xp.linalg.det(x), (lambda g: _column(xp, _column(xp, g)) * _cofactors(x),)


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
    others = xp.where(_eye(xp, s, n, dtype=xp.bool), 1.0, _row(xp, s))
    sign = xp.linalg.det(u) * xp.linalg.det(vh)
    y = xp.matmul(xp.conj(u) * _row(xp, xp.prod(others, axis=-1)), xp.conj(vh))
    return _column(xp, _column(xp, sign)) * y


@op
def slogdet(xp, x, /):
    sign, logarithm = xp.linalg.slogdet(x)

    def pullback(g, _needs):
        to_log = in_dtype(xp, g[1], logarithm.dtype)
        if is_complex(xp, x):  # a real sign is constant
            to_log = to_log + xp.imag(g[0] * sign) * 1j
        return (_column(xp, _column(xp, to_log)) * xp.linalg.inv(x).mT,)

    return SlogdetResult(sign, logarithm), pullback


@op
def solve(xp, x, y, /):
    z = xp.linalg.solve(x, y)
    vector = y.ndim == 1

    def pullback(g, needs):
        g = _column(xp, g) if vector else g
        to_y = xp.linalg.solve(x.mT, g)
        solution = _column(xp, z) if vector else z
        to_x = -xp.matmul(to_y, solution.mT) if needs[0] else None
        return to_x, xp.squeeze(to_y, axis=-1) if vector else to_y

    return z, pullback


@op
def pinv(xp, x, /, *, rtol=None):
    """Golub and Pereyra, "The differentiation of pseudo-inverses" (1973), for constant rank."""
    y = xp.linalg.pinv(x, rtol=plain_value(rtol))

    def pullback(g):
        t, h = y.mT, _adjoint(xp, g)
        cx, cy = _conj(xp, x), _conj(xp, y)
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
    return xp.broadcast_to(_eye(xp, x, x.shape[-1]), x.shape) if power is None else power


# Decompositions


@op
def cholesky(xp, x, /, *, upper=False):
    """Murray, "Differentiation of the Cholesky decomposition" (2016)."""
    y = xp.linalg.cholesky(x, upper=upper)

    def pullback(g):
        t = _conj(xp, y) if upper else y.mT
        middle = _lower(xp, xp.matmul(t, _adjoint(xp, g) if upper else g), diagonal=0.5)
        half = _adjoint(xp, xp.linalg.solve(t, _adjoint(xp, middle)))
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
        eye = _eye(xp, v, v.shape[-1])
        gaps = _row(xp, w) - _column(xp, w) + eye
        rotation = divide(xp.matmul(v.mT, to_v), gaps) * (1 - eye)
        middle = rotation + eye * _row(xp, in_dtype(xp, to_w, w.dtype))
        return (_hermitian(xp, xp.matmul(_conj(xp, v), xp.matmul(middle, v.mT))),)

    return EighResult(w, v), pullback


@op
def eigvalsh(xp, x, /):
    w, v = _eigh_of_values(x)

    def pullback(g):
        return xp.matmul(_conj(xp, v) * _row(xp, in_dtype(xp, g, w.dtype)), v.mT)

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
        eye = _eye(xp, v, v.shape[-1])
        gaps = _row(xp, w) - _column(xp, w) + eye
        product = xp.matmul(v.mT, to_v)
        along = xp.sum(product * eye, axis=-2, keepdims=True)  # what only makes a vector longer
        turn = product - xp.matmul(v.mT, xp.conj(v)) * along
        middle = divide(turn, gaps) * (1 - eye) + eye * _row(xp, to_w)
        return (in_dtype(xp, xp.linalg.solve(v.mT, xp.matmul(middle, v.mT)), x.dtype),)

    return EigResult(w, v), pullback


@op
def eigvals(xp, x, /):
    w, v = _eig_of_values(x)

    def pullback(g):
        return in_dtype(xp, xp.linalg.solve(v.mT, _column(xp, g) * v.mT), x.dtype)

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
    cq = _conj(xp, q)

    def tall(g_q, g_r, r):
        product = xp.matmul(_conj(xp, r), _adjoint(xp, g_r)) - xp.matmul(_adjoint(xp, g_q), cq)
        lower = _lower(xp, product, diagonal=0.5)
        middle = g_q + xp.matmul(cq, lower + _adjoint(xp, lower))
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
        whole = g_q + xp.matmul(_conj(xp, rest), _adjoint(xp, g_rest))
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
        g_u, g_s, g_v = g[0], g[1], _adjoint(xp, g[2])
        v, cu, cvh = _adjoint(xp, vh), _conj(xp, u), _conj(xp, vh)
        eye = _eye(xp, u, min(m, n))
        row, column = _row(xp, s), _column(xp, s)
        gaps = (row - column) * (row + column) + eye

        def skew(basis, to_basis):
            product = xp.matmul(basis.mT, to_basis)
            return product - _adjoint(xp, product)

        of_u = skew(u, g_u)
        middle = divide(of_u, gaps) * row + column * divide(skew(v, g_v), gaps)
        middle = middle + eye * _row(xp, in_dtype(xp, g_s, s.dtype))
        if is_complex(xp, u):  # its diagonal: the angles of u's columns against those of v
            middle = middle + eye * divide(of_u, 2 * row)
        out = xp.matmul(cu, xp.matmul(middle, cvh))
        if m > n:  # the part of g_u outside the space that the columns of u span
            rest = g_u - xp.matmul(cu, xp.matmul(u.mT, g_u))
            out = out + xp.matmul(divide(rest, row), cvh)
        if n > m:
            rest = g_v - xp.matmul(_conj(xp, v), xp.matmul(v.mT, g_v))
            out = out + xp.matmul(cu, _adjoint(xp, divide(rest, row)))
        return (out,)

    return SVDResult(u, s, vh), pullback


@op
def svdvals(xp, x, /):
    u, s, vh = _svd_of_values(x)

    def pullback(g):
        return xp.matmul(_conj(xp, u) * _row(xp, in_dtype(xp, g, s.dtype)), _conj(xp, vh))

    return s, (pullback,)


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
    return _column(xp, _column(xp, y)) if keepdims else y


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
        return xp.where(_eye(xp, g, m, n, k=offset, dtype=xp.bool), _column(xp, rows), 0)

    return y, (pullback,)


@op
def trace(xp, x, /, *, offset=0, dtype=None):
    m, n = x.shape[-2:]
    before = x.dtype

    def pullback(g):
        g = in_dtype(xp, g, before) if dtype is not None else g
        on_diagonal = _eye(xp, g, m, n, k=offset, dtype=xp.bool)
        return xp.where(on_diagonal, _column(xp, _column(xp, g)), 0)

    return xp.linalg.trace(x, offset=offset, dtype=dtype), (pullback,)

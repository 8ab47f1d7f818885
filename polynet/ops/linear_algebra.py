"""Linear algebra of the standard's main namespace, each function with its derivative."""

from __future__ import annotations

import math

from polynet.ops.indexing import inverse_permutation, normalise_axis
from polynet.tensor import op, with_pullbacks


def _to_left(xp, g, x, y):
    if x.ndim > 1 and y.ndim > 1:
        return xp.matmul(g, y.mT)
    left = xp.matmul(_matrix(xp, g, x, y), (xp.expand_dims(y, axis=-1) if y.ndim == 1 else y).mT)
    return xp.squeeze(left, axis=-2) if x.ndim == 1 else left


def _to_right(xp, g, x, y):
    if x.ndim > 2 and y.ndim == 2:  # a stack of matrices times one: all rows form one matrix
        return xp.matmul(_rows(xp, x).mT, _rows(xp, g))
    if x.ndim > 1 and y.ndim > 1:
        return xp.matmul(x.mT, g)
    right = xp.matmul((xp.expand_dims(x, axis=0) if x.ndim == 1 else x).mT, _matrix(xp, g, x, y))
    return xp.squeeze(right, axis=-1) if y.ndim == 1 else right


def _rows(xp, a):
    return xp.reshape(a, (math.prod(a.shape[:-1]), a.shape[-1]))


def _matrix(xp, g, x, y):
    """`g` as a matrix: with the axis that matmul dropped for a vector x (a row) or y (a column)."""
    g = xp.expand_dims(g, axis=-1) if y.ndim == 1 else g
    return xp.expand_dims(g, axis=-2) if x.ndim == 1 else g


@with_pullbacks(_to_left, _to_right)
def matmul(xp, x, y, /):
    return xp.matmul(x, y)


@op
def matrix_transpose(xp, x, /):
    return xp.matrix_transpose(x), (lambda g: g.mT,)


@op
def vecdot(xp, x, y, /, *, axis=-1):  # Σ conj(x) y
    def spread(g):
        return xp.expand_dims(g, axis=axis)

    return xp.vecdot(x, y, axis=axis), (
        lambda g: xp.conj(spread(g) * y),
        lambda g: spread(g) * xp.conj(x),
    )


@op
def tensordot(xp, x, y, /, *, axes=2):
    if isinstance(axes, int):
        summed_x, summed_y = list(range(x.ndim - axes, x.ndim)), list(range(axes))
    else:
        summed_x, summed_y = (
            [normalise_axis(a, z.ndim) for a in s] for s, z in zip(axes, (x, y), strict=True)
        )
    free_x = [a for a in range(x.ndim) if a not in summed_x]
    free_y = [a for a in range(y.ndim) if a not in summed_y]
    of_x, of_y = range(len(free_x)), range(len(free_x), len(free_x) + len(free_y))

    def to_x(g):  # its axes are those of free_x, then the summed ones in the order they have in y
        back = xp.tensordot(g, y, axes=(tuple(of_y), tuple(free_y)))
        return xp.permute_dims(back, inverse_permutation(free_x + _partners(summed_y, summed_x)))

    def to_y(g):
        back = xp.tensordot(g, x, axes=(tuple(of_x), tuple(free_x)))
        return xp.permute_dims(back, inverse_permutation(free_y + _partners(summed_x, summed_y)))

    return xp.tensordot(x, y, axes=axes), (to_x, to_y)


def _partners(axes, others):
    """The `others`, each summed with one of `axes`, in ascending order of `axes`."""
    return [other for _, other in sorted(zip(axes, others, strict=True))]

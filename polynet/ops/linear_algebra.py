"""Linear algebra of the standard's main namespace, each function with its derivative."""

from __future__ import annotations

import math

from polynet.tensor import op


@op
def matmul(xp, x, y, /):
    z = xp.matmul(x, y)
    if x.ndim > 2 and y.ndim == 2:
        return z, (
            lambda g: xp.matmul(g, y.mT),
            lambda g: xp.matmul(_rows(xp, x).mT, _rows(xp, g)),
        )
    if x.ndim > 1 and y.ndim > 1:
        return z, (
            lambda g, xp=xp, y=y: xp.matmul(g, y.mT),
            lambda g, xp=xp, x=x: xp.matmul(x.mT, g),
        )
    return z, _with_vector(xp, x, y)


def _rows(xp, x):
    """A stack of matrices as one, of all their rows: its product is the sum of theirs."""
    return xp.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


def _with_vector(xp, x, y):
    """The pullbacks where a vector stands for a matrix of one row (left) or column (right)."""
    row, column = x.ndim == 1, y.ndim == 1
    left = xp.expand_dims(x, axis=0) if row else x
    right = xp.expand_dims(y, axis=-1) if column else y

    def matrix(g):
        g = xp.expand_dims(g, axis=-1) if column else g
        return xp.expand_dims(g, axis=-2) if row else g

    def to_left(g):
        out = xp.matmul(matrix(g), right.mT)
        return xp.squeeze(out, axis=-2) if row else out

    def to_right(g):
        out = xp.matmul(left.mT, matrix(g))
        return xp.squeeze(out, axis=-1) if column else out

    return to_left, to_right


@op
def matrix_transpose(xp, x, /):
    return xp.matrix_transpose(x), (lambda g: g.mT,)

"""Linear algebra of the standard's main namespace, each function with its derivative."""

from __future__ import annotations

from polynet.tensor import op


@op
def matmul(xp, x, y, /):
    row, column = x.ndim == 1, y.ndim == 1

    def matrices(g):
        """`x`, `y` and `g` with a vector as a matrix of one row (left) or one column (right)."""
        g = xp.expand_dims(g, axis=-1) if column else g
        g = xp.expand_dims(g, axis=-2) if row else g
        return (
            xp.expand_dims(x, axis=0) if row else x,
            xp.expand_dims(y, axis=-1) if column else y,
            g,
        )

    def to_left(g):
        _, right, g = matrices(g)
        out = xp.matmul(g, xp.matrix_transpose(right))
        return xp.squeeze(out, axis=-2) if row else out

    def to_right(g):
        left, _, g = matrices(g)
        out = xp.matmul(xp.matrix_transpose(left), g)
        return xp.squeeze(out, axis=-1) if column else out

    return xp.matmul(x, y), (to_left, to_right)


@op
def matrix_transpose(xp, x, /):
    return xp.matrix_transpose(x), (lambda g: xp.matrix_transpose(g),)

"""Sorting of the standard, with its derivative."""

from __future__ import annotations

from polynet.tensor import op


@op
def sort(xp, x, /, *, axis=-1, descending=False, stable=True):
    order = xp.argsort(x, axis=axis, descending=descending, stable=stable)

    def pullback(g):  # the argsort of a permutation is its inverse
        return xp.take_along_axis(g, xp.argsort(order, axis=axis), axis=axis)

    return xp.take_along_axis(x, order, axis=axis), (pullback,)

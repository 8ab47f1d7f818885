"""Indexing and searching of the standard, each function with its derivative."""

from __future__ import annotations

import math

import array_api_compat
import numpy as np

from polynet.tensor import op


@op
def getitem(xp, x, key, /):
    """`x[key]` for integers, slices, `...` and None.

    The key is known on the host, so where each element came from is worked out there, and the
    gradient is a gather: no assignment, which some libraries' arrays do not allow.
    """
    keys = key if isinstance(key, tuple) else (key,)
    for k in keys:
        if not (k is None or k is Ellipsis or isinstance(k, int | slice)):
            raise TypeError(
                f"no derivative of indexing by {type(k).__name__}; use integers, slices, ... and "
                "None, or where(mask, x, 0)"
            )
    shape, device = x.shape, array_api_compat.device(x)

    def gather(flat, rows):
        index_type = xp.__array_namespace_info__().default_dtypes(device=device)["indexing"]
        return xp.take(flat, xp.asarray(rows, dtype=index_type, device=device), axis=0)

    def pullback(g):
        count, source = math.prod(shape), _sources(shape, key).reshape(-1)
        place = np.full(count, source.size)
        place[source] = np.arange(source.size)
        zero = xp.zeros((1,), dtype=g.dtype, device=device)
        return xp.reshape(gather(xp.concat([xp.reshape(g, (-1,)), zero]), place), shape)

    if any(isinstance(k, slice) and (k.step or 1) < 0 for k in keys):  # PyTorch has none of these
        rows = _sources(shape, key)
        return xp.reshape(gather(xp.reshape(x, (-1,)), rows.reshape(-1)), rows.shape), (pullback,)
    return x[key], (pullback,)


def _sources(shape, key):
    """For each element of `x[key]`, where in `x`, read in order, it came from."""
    return np.arange(math.prod(shape)).reshape(shape)[key]


@op
def where(xp, condition, x, y, /):
    return xp.where(condition, x, y), (
        None,
        lambda g: xp.where(condition, g, 0),
        lambda g: xp.where(condition, 0, g),
    )

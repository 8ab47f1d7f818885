"""Indexing and searching of the standard, each function with its derivative."""

from __future__ import annotations

import math

import array_api_compat
import numpy as np

from polynet.tensor import Tensor, op


@op
def getitem(xp, x, key, /):
    """`x[key]` for integers, slices, `...` and None.

    The key is known on the host, so where each element came from is worked out there, and the
    gradient is a gather: no assignment, which some libraries' arrays do not allow.
    """
    shape = x.shape
    for k in key if isinstance(key, tuple) else (key,):
        if not (k is None or k is Ellipsis or isinstance(k, int | slice | np.integer)):
            raise TypeError(
                f"no derivative of indexing by {type(k).__name__}; use integers, slices, ... and "
                "None, or where(mask, x, 0)"
            )

    def pullback(g):
        source, place = _places(shape, key)
        return xp.reshape(_move(xp.reshape(g, (-1,)), here=place, there=source.reshape(-1)), shape)

    if _has_negative_step(key):  # PyTorch has none of these
        source, place = _places(shape, key)
        flat = _move(xp.reshape(x, (-1,)), here=source.reshape(-1), there=place)
        return xp.reshape(flat, source.shape), (pullback,)
    return x[key], (pullback,)


def _has_negative_step(key):
    keys = key if isinstance(key, tuple) else (key,)
    return any(isinstance(k, slice) and (k.step or 1) < 0 for k in keys)


def _places(shape, key):
    """For each element of `x[key]`, where in `x` it came from; for each of `x`, where it went.

    Places count in reading order; the one after the last stands for "nowhere".
    """
    source = np.arange(math.prod(shape)).reshape(shape)[key]
    place = np.full(math.prod(shape), source.size)
    place[source.reshape(-1)] = np.arange(source.size)
    return source, place


def _moved(xp, x, here):
    device = array_api_compat.device(x)
    index_type = xp.__array_namespace_info__().default_dtypes(device=device)["indexing"]
    rows = xp.asarray(here, dtype=index_type, device=device)
    with_zero = xp.concat([x, xp.zeros((1,), dtype=x.dtype, device=device)])
    return xp.take(with_zero, rows, axis=0)


@op
def _move(xp, x, /, *, here, there):
    """Elements of a vector to other places: result[i] is x[here[i]], or 0 where that is nowhere.

    `there` says it the other way round: so the gradient moves back, to any order.
    """
    y = _move(x, here=here, there=there) if type(x) is Tensor else _moved(xp, x, here)
    return y, (lambda g: _move(g, here=there, there=here),)


@op
def where(xp, condition, x, y, /):
    return xp.where(condition, x, y), (
        None,
        lambda g: xp.where(condition, g, 0),
        lambda g: xp.where(condition, 0, g),
    )

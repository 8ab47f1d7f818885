"""Probabilities from scores: `softmax`, its logarithm, and `logsumexp`."""

from __future__ import annotations

import math

from polynet.tensor import real_composition, with_pullbacks


@real_composition
def logsumexp(xp, x, /, *, axis=-1, keepdims=False):
    """log Σ exp(x) along `axis`, without overflow."""
    y = _logsumexp(x, axis=axis)
    return y if keepdims else xp.squeeze(y, axis=axis)


def _of_logsumexp(xp, g, x, axis):
    """g softmax(x); where the largest x is infinite, those equal to it share g equally."""
    limit = float(xp.finfo(x.dtype).max)
    is_largest = x == _largest(xp, x, axis)
    return g * _softmax(xp.where(is_largest, xp.clip(x, -limit, limit), x), axis=axis)


@with_pullbacks(_of_logsumexp)
def _logsumexp(xp, x, /, *, axis):
    top = _largest(xp, x, axis)
    top = xp.where(xp.isfinite(top), top, 0)
    return xp.log(xp.sum(xp.exp(x - top), axis=axis, keepdims=True)) + top


@real_composition
def softmax(xp, x, /, *, axis=-1):
    """exp(x) / Σ exp(x) along `axis`: probabilities that sum to 1.

    >>> import numpy as np
    >>> softmax(np.asarray([0.0, 0.0]))
    array([0.5, 0.5])
    """
    return _softmax(x, axis=axis)


@real_composition
def softmin(xp, x, /, *, axis=-1):
    """softmax(-x) along `axis`."""
    return softmax(-x, axis=axis)


def _of_softmax(xp, g, out, axis):
    return (g - xp.sum(g * out, axis=axis, keepdims=True)) * out


@with_pullbacks(_of_softmax)
def _softmax(xp, x, /, *, axis):
    e = xp.exp(x - _top(xp, x, axis))
    return e / xp.sum(e, axis=axis, keepdims=True)


@real_composition
def log_softmax(xp, x, /, *, axis=-1):
    """log softmax(x) along `axis`, without overflow, and without cancellation for large x."""
    return _log_softmax(x, axis=axis)


def _of_log_softmax(xp, g, out, axis):
    return g - xp.sum(g, axis=axis, keepdims=True) * xp.exp(out)


@with_pullbacks(_of_log_softmax)
def _log_softmax(xp, x, /, *, axis):
    z = x - _top(xp, x, axis)
    return z - xp.log(xp.sum(xp.exp(z), axis=axis, keepdims=True))


def _top(xp, x, axis):
    """The maximum along `axis`, to subtract so that exp does not overflow; 0 where all are -∞."""
    top = _largest(xp, x, axis)
    return xp.where(top == -math.inf, 0, top)


def _largest(xp, x, axis):
    """The maximum along `axis`, with keepdims=True; -∞ where the axis is empty."""
    if 0 not in x.shape:
        return xp.max(x, axis=axis, keepdims=True)
    return xp.sum(x, axis=axis, keepdims=True) - math.inf

"""Loops over arrays, written for Numba: one pass over memory instead of several.

They do the same operations in the same order as NumPy's functions, so that the results are the
same to the last bit. `compiled.py` decides when they run.
"""

from __future__ import annotations

import math

import numpy as np


def where_not_0(y, g, out):
    for i in range(y.size):
        out[i] = g[i] if y[i] != 0 else 0


def take_rows(x, rows, out):
    """Copy the rows `rows` of x; returns False if one is out of range."""
    for i in range(rows.size):
        row = rows[i]
        if row < 0 or row >= x.shape[0]:
            return False
        for j in range(x.shape[1]):
            out[i, j] = x[row, j]
    return True


def summed(x, start, n):
    """NumPy's pairwise sum: the sums of both halves, down to 128 numbers, are added.

    NumPy adds this to the first number of a sum, or to 0.
    """
    if n <= 128:
        return summed_by_8(x, start, n)
    starts, sizes = np.empty(64, np.int64), np.empty(64, np.int64)  # a stack of parts to sum
    sums = np.empty(64, x.dtype)  # a part's size of -1 means: add the last two sums
    starts[0], sizes[0], todo, done = start, n, 1, 0
    while todo:
        todo -= 1
        at, size = starts[todo], sizes[todo]
        if size == -1:
            done -= 1
            sums[done - 1] += sums[done]
        elif size <= 128:
            sums[done] = summed_by_8(x, at, size)
            done += 1
        else:
            half = size // 2 - size // 2 % 8
            sizes[todo] = -1
            starts[todo + 1], sizes[todo + 1] = at + half, size - half
            starts[todo + 2], sizes[todo + 2] = at, half
            todo += 3
    return sums[0]


def summed_by_8(x, start, n):
    if n < 8:
        total = x.dtype.type(-0.0)
        for i in range(start, start + n):
            total += x[i]
        return total
    a, b, c, d, e, f, g, h = sums_by_8(x, start, n // 8)
    total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for i in range(start + n - n % 8, start + n):
        total += x[i]
    return total


def sums_by_8(x, start, count):
    """Eight sums of 8·count numbers; number i is in sum i mod 8. For Numba, see `vectors.py`."""
    return tuple(np.add.accumulate(x[start : start + 8 * count].reshape(count, 8))[-1])


def largest(x, start, n):
    """The largest of numbers, of which none is NaN."""
    top = x[start]
    if n >= 8:
        a, b, c, d, e, f, g, h = largest_by_8(x, start, n // 8)
        top = max(a, b, c, d, e, f, g, h)
    for i in range(start + n - n % 8, start + n):
        top = max(top, x[i])
    return top


def largest_by_8(x, start, count):
    """As `sums_by_8`, the largest of each eighth number."""
    return tuple(np.maximum.reduce(x[start : start + 8 * count].reshape(count, 8)))


def segment_sum(x, segments, order, ends, row, out):
    """Sum rows by segment; False if a segment is out of range. `order`, `ends`, `row` are scratch.

    As in `np.add.reduceat`, the rows after a segment's first row are added up, and this sum is
    added to the first row.
    """
    out[...] = 0
    ends[:] = 0
    for i in range(segments.size):
        if segments[i] < 0 or segments[i] >= out.shape[0]:
            return False
        ends[segments[i]] += 1
    for s in range(1, ends.size):
        ends[s] += ends[s - 1]
    for i in range(segments.size - 1, -1, -1):  # this turns the ends into starts
        ends[segments[i]] -= 1
        order[ends[segments[i]]] = i
    for s in range(ends.size):
        start = ends[s]
        n = (ends[s + 1] if s + 1 < ends.size else segments.size) - start
        if n == 1:
            out[s] = x[order[start]]
        elif n == 2:
            out[s] = x[order[start]] + x[order[start + 1]]
        elif n:
            for j in range(x.shape[1]):
                for i in range(n):
                    row[i] = x[order[start + i], j]
                out[s, j] = row[0] + summed(row, 1, n - 1)
    return True


def shift(logits, targets, e, truth):
    """x - max x of each sample, and its value for the sample's class.

    Returns False where a label is out of range, or a sample has a NaN.
    """
    for i in range(logits.shape[0]):
        label = targets[i]
        if label < 0 or label >= logits.shape[1]:
            return False
        top = logits[i, 0]
        for j in range(logits.shape[1]):
            if not logits[i, j] <= top:
                top = logits[i, j]
            if math.isnan(top):
                return False
        for j in range(logits.shape[1]):
            e[i, j] = logits[i, j] - top
        truth[i] = e[i, label]
    return True


def sum_columns(x, out):
    flat, n = x.reshape(x.size), x.shape[1]
    for i in range(x.shape[0]):
        out[i, 0] = x.dtype.type(0) + summed(flat, i * n, n)


def shift_rows(x, out):
    """x - max x of each row; returns False where one is not finite, but for -∞ beside others."""
    flat, n, wrong = x.reshape(x.size), x.shape[1], False
    for i in range(x.shape[0]):
        top = largest(flat, i * n, n)
        for j in range(n):
            out[i, j] = x[i, j] - top
            wrong |= out[i, j] != out[i, j]
    return not wrong


def share_rows(x):
    """Divide each row by its sum."""
    flat, n = x.reshape(x.size), x.shape[1]
    for i in range(x.shape[0]):
        total = x.dtype.type(0) + summed(flat, i * n, n)
        for j in range(n):
            x[i, j] /= total


def of_softmax(g, y, out):
    flat, n = out.reshape(out.size), out.shape[1]
    for i in range(g.shape[0]):
        for j in range(n):
            out[i, j] = g[i, j] * y[i, j]
        total = g.dtype.type(0) + summed(flat, i * n, n)
        for j in range(n):
            out[i, j] = (g[i, j] - total) * y[i, j]


def mean_of_difference(x, y, out):
    """The mean of x - y into `out`; y is overwritten by x - y."""
    for i in range(y.size):
        y[i] = x[i, 0] - y[i]
    out[()] = (y.dtype.type(0) + summed(y, 0, y.size)) / y.dtype.type(y.size)


def of_cross_entropy(e, total, targets, g, out):
    count, classes = e.shape
    scale = g[()] / e.dtype.type(count)
    for i in range(count):
        for j in range(classes):
            out[i, j] = e[i, j] / total[i, 0]
        out[i, targets[i]] -= 1
        for j in range(classes):
            out[i, j] *= scale


def add_bias(x, bias):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] += bias[j]


def add_bias_relu(x, bias):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y = x[i, j] + bias[j]
            x[i, j] = y
            if y <= 0:  # false for a NaN, which stays
                x[i, j] = 0


# Normalisation


def standardise(x, eps, mean, variance, r, y, work):
    """y = (x - mean)·r of each row, where r = 1 / √(variance + eps); `work` holds the squares."""
    size, n, zero = x.shape[1], x.dtype.type(x.shape[1]), x.dtype.type(0)
    flat, squares = x.reshape(x.size), work.reshape(x.size)
    for i in range(x.shape[0]):
        middle = (zero + summed(flat, i * size, size)) / n
        for j in range(size):
            difference = x[i, j] - middle
            y[i, j] = difference
            work[i, j] = difference * difference
        spread = (zero + summed(squares, i * size, size)) / n
        scale = x.dtype.type(1) / math.sqrt(spread + eps)
        for j in range(size):
            y[i, j] *= scale
        mean[i, 0], variance[i, 0], r[i, 0] = middle, spread, scale


def scale_columns(y, weight, bias, out):
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            out[i, j] = y[i, j] * weight[j] + bias[j]


def scale_rows(y, weight, bias, out):
    for i in range(y.shape[0]):
        slope, level = weight[i, 0], bias[i, 0]
        for j in range(y.shape[1]):
            out[i, j] = y[i, j] * slope + level


def of_standardised_rows(g, y, r, weight, work, out):
    n, size = g.dtype.type(g.shape[1]), g.shape[1]
    zero, flat_out, flat_work = g.dtype.type(0), out.reshape(g.size), work.reshape(g.size)
    for i in range(g.shape[0]):
        for j in range(size):
            out[i, j] = g[i, j] * weight[j]
            work[i, j] = out[i, j] * y[i, j]
        level = (zero + summed(flat_out, i * size, size)) / n
        slope = (zero + summed(flat_work, i * size, size)) / n
        for j in range(size):
            out[i, j] = (out[i, j] - level - y[i, j] * slope) * r[i, 0]


def of_standardised_columns(g, y, r, weight, to_mean, to_variance, total, slope, work, out):
    n, size = g.dtype.type(g.shape[1]), g.shape[1]
    zero, two = g.dtype.type(0), g.dtype.type(2)
    flat, flat_work = g.reshape(g.size), work.reshape(g.size)
    for i in range(g.shape[0]):
        for j in range(size):
            work[i, j] = g[i, j] * y[i, j]
        total[i, 0] = zero + summed(flat, i * size, size)
        slope[i, 0] = zero + summed(flat_work, i * size, size)
        scale = r[i, 0] * weight[i, 0]
        level = (to_mean[i, 0] - scale * total[i, 0]) / n
        tilt = (two * to_variance[i, 0] / r[i, 0] - scale * slope[i, 0]) / n
        for j in range(size):
            out[i, j] = g[i, j] * scale + level + y[i, j] * tilt

"""Utility functions of the standard that have a derivative."""

from __future__ import annotations

from polynet.ops.indexing import normalise_axis, put_slice, slice_axis
from polynet.tensor import op


@op
def diff(xp, x, /, prepend=None, append=None, *, axis=-1, n=1):
    axis = normalise_axis(axis, x.ndim)
    for a in (prepend, append):
        if a is not None and not hasattr(a, "dtype"):
            raise TypeError(
                f"diff: expected an array to prepend or append, got {a!r}; n and axis have names"
            )
    if n == 0:  # then nothing is prepended or appended either
        return xp.diff(x, axis=axis, n=0), (lambda g: g, None, None)
    pieces = [a for a in (prepend, x, append) if a is not None]
    whole = pieces[0] if len(pieces) == 1 else xp.concat(pieces, axis=axis)
    y = xp.diff(whole, axis=axis, n=n)
    length, start = whole.shape[axis], 0 if prepend is None else prepend.shape[axis]
    stop = start + x.shape[axis]

    def to_whole(g):  # (-1)ⁿ times the n-th differences of g, padded with n zeros at both ends
        padded = [n + m + n if a == axis else m for a, m in enumerate(g.shape)]
        inner = [range(n, n + m) if a == axis else range(m) for a, m in enumerate(g.shape)]
        out = xp.diff(put_slice(g, tuple(inner), tuple(padded)), axis=axis, n=n)
        return slice_axis(out if n % 2 == 0 else -out, axis, 0, length)

    return y, (
        lambda g: slice_axis(to_whole(g), axis, start, stop),
        lambda g: slice_axis(to_whole(g), axis, 0, start),
        lambda g: slice_axis(to_whole(g), axis, stop, length),
    )

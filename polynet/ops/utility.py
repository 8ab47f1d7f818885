"""Utility functions of the standard that have a derivative."""

from __future__ import annotations

from polynet.ops.indexing import part, place_of, put_slice
from polynet.tensor import op


@op
def diff(xp, x, /, prepend=None, append=None, *, axis=-1, n=1):
    place = place_of(axis, x.ndim)
    if n == 0:  # nothing is put before or after what has no differences
        return xp.diff(x, axis=place, n=0), (lambda g: g, None, None)
    pieces = [a for a in (prepend, x, append) if a is not None]
    whole = pieces[0] if len(pieces) == 1 else xp.concat(pieces, axis=place)
    y = xp.diff(whole, axis=place, n=n)
    shape, start = whole.shape, 0 if prepend is None else prepend.shape[place]
    stop = start + x.shape[place]

    def to_whole(g):  # the differences of g between zeros, with the other sign
        lengths = [n + m + n if a == place else m for a, m in enumerate(g.shape)]
        places = [range(n, n + m) if a == place else range(m) for a, m in enumerate(g.shape)]
        out = xp.diff(put_slice(g, tuple(places), tuple(lengths)), axis=place, n=n)
        return part(out if n % 2 == 0 else -out, place, 0, shape[place])

    return y, (
        lambda g: part(to_whole(g), place, start, stop),
        lambda g: part(to_whole(g), place, 0, start),
        lambda g: part(to_whole(g), place, stop, shape[place]),
    )

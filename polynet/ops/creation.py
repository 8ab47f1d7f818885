"""Functions of the standard that create arrays from arrays, each with its derivative."""

from __future__ import annotations

from polynet.tensor import in_dtype, op


@op
def full_like(xp, x, /, fill_value, *, dtype=None, device=None):
    """As the standard's; `fill_value` may also be a 0-d array, and then has a gradient."""
    if not hasattr(fill_value, "dtype"):
        return xp.full_like(x, fill_value, dtype=dtype, device=device), None
    zeros = xp.zeros_like(x, dtype=dtype, device=device)
    y = xp.where(xp.equal(zeros, zeros), xp.astype(fill_value, zeros.dtype), zeros)
    if not xp.isdtype(y.dtype, ("real floating", "complex floating")):
        return y, None
    before = fill_value.dtype
    return y, (None, lambda g: in_dtype(xp, g, before))


@op
def tril(xp, x, /, *, k=0):
    return xp.tril(x, k=k), (lambda g: xp.tril(g, k=k),)


@op
def triu(xp, x, /, *, k=0):
    return xp.triu(x, k=k), (lambda g: xp.triu(g, k=k),)


@op
def meshgrid(xp, *arrays, indexing="xy"):
    axes = list(range(len(arrays)))
    if indexing == "xy":
        axes[:2] = axes[1::-1]  # the axis along which each array varies
    shapes = [a.shape for a in arrays]

    def pullback(g, needs):
        def along(i):
            others = tuple(a for a in axes if a != axes[i])
            return xp.reshape(xp.sum(g[i], axis=others), shapes[i])

        return [along(i) if need else None for i, need in enumerate(needs)]

    return tuple(xp.meshgrid(*arrays, indexing=indexing)), pullback

"""Small functions of stacks of matrices, for the formulas of linear algebra."""

from __future__ import annotations

import array_api_compat

from polynet.ops.complex_numbers import is_complex


def identity(xp, x, n, m=None, *, k=0, dtype=None):
    return xp.eye(
        n, m, k=k, dtype=x.dtype if dtype is None else dtype, device=array_api_compat.device(x)
    )


def as_column(xp, x):
    return xp.expand_dims(x, axis=-1)


def as_row(xp, x):
    return xp.expand_dims(x, axis=-2)


def conj(xp, x):
    return xp.conj(x) if is_complex(xp, x) else x


def adjoint(xp, x):
    """The conjugate transpose."""
    return conj(xp, x).mT

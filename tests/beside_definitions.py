"""CuPy's kernels on the host, beside what they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
from plugins.cuda_on_host.cuda_on_host import CudaOnHost

from polynet import use_backend, value_and_grad
from polynet.ops import OPS

HOST = CudaOnHost()
total = OPS["sum"]


def both(f: Any, *args: Any) -> list[tuple[Any, list[Any]]]:
    """Value and gradients of a weighted sum, by kernels and by the definitions."""
    places = tuple(i for i, a in enumerate(args) if np.asarray(a).dtype.kind == "f")

    def number(*given: Any) -> Any:
        y = f(*given)
        return total(y * np.cos(np.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    results = []
    for backend in (HOST, HOST.without_kernels()):
        with use_backend(backend), np.errstate(all="ignore"):
            value = f(*args)
            results.append((value, list(value_and_grad(number, places)(*args)[1])))
    return results


def agree(f: Any, *args: Any, rtol: float = 1e-12, atol: float = 1e-12) -> None:
    (value, slopes), (expected, wanted) = both(f, *args)
    np.testing.assert_allclose(value, expected, rtol=rtol, atol=atol)
    for actual, slope in zip(slopes, wanted, strict=True):
        assert actual.dtype == slope.dtype
        np.testing.assert_allclose(actual, slope, rtol=rtol, atol=atol)

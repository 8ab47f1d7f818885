"""Compare CuPy's kernels, run on the host, with the definitions that they replace."""

from __future__ import annotations

from typing import Any

import numpy as np
from plugins.cuda_on_host.cuda_on_host import BACKWARDS, CudaOnHost

from polynet import use_backend, value_and_grad
from polynet.backend import Backend
from polynet.ops import OPS
from polynet.tree import leaves

HOST = CudaOnHost()
total = OPS["sum"]


def both(f: Any, *args: Any) -> list[tuple[Any, list[Any]]]:
    """The value of `f`, and the gradients of a weighted sum of it, by kernels and by definitions.

    The kernels run twice, with threads and blocks in opposite orders. Both runs must give the same
    bits. They would differ if one thread read what another writes without waiting for it.
    """
    places = tuple(i for i, a in enumerate(args) if np.asarray(a).dtype.kind == "f")

    def number(*given: Any) -> Any:
        y = f(*given)
        return total(y * np.cos(np.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    def found(backend: Backend, backwards: bool = False) -> tuple[Any, list[Any]]:
        token = BACKWARDS.set(backwards)
        with use_backend(backend), np.errstate(all="ignore"):
            value, slopes = f(*args), value_and_grad(number, places)(*args)[1]
        BACKWARDS.reset(token)
        return value, list(slopes)

    by_kernels, again = found(HOST), found(HOST, backwards=True)
    for a, b in zip(leaves(by_kernels), leaves(again), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    return [by_kernels, found(HOST.without_kernels())]


def agree(f: Any, *args: Any, rtol: float = 1e-12, atol: float = 1e-12) -> None:
    (value, slopes), (expected, wanted) = both(f, *args)
    np.testing.assert_allclose(value, expected, rtol=rtol, atol=atol)
    for actual, slope in zip(slopes, wanted, strict=True):
        assert actual.dtype == slope.dtype
        np.testing.assert_allclose(actual, slope, rtol=rtol, atol=atol)


def stepped(backend: Backend, optimizer: Any, params: Any, steps: int = 3) -> Any:
    """Parameters and state after some steps with random gradients."""
    grads = [
        {n: np.random.default_rng(i).normal(size=p.shape).astype(p.dtype)
         for n, p in params.items()}
        for i in range(steps)
    ]  # fmt: skip
    with use_backend(backend):
        state = optimizer.init(params)
        for i, g in enumerate(grads):
            params, state = optimizer.update(params, g, state, np.asarray([i], np.int32))
    return params, state

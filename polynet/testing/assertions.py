"""Assertions that look at kind, shape, dtype and device as well as at values."""

from __future__ import annotations

from typing import Any

import numpy as np

from polynet.backend import Backend, to_numpy


def supports_float64(backend: Backend) -> bool:
    """Whether the backend's default device computes in float64 as it is set up now."""
    try:
        array = backend.from_host(np.zeros(1), backend.device(None))
    except TypeError:
        return False
    return bool(array.dtype == backend.xp.float64)


def tolerance(dtype: str) -> dict[str, float]:
    """Relative and absolute tolerance of one op: 64 units in the last place of 1."""
    ulp = float(np.finfo(dtype).eps)
    return {"rtol": 64 * ulp, "atol": 64 * ulp}


def assert_close(
    actual: Any,
    expected: np.ndarray,
    backend: Backend,
    *,
    dtype: str | None = None,
    rtol: float,
    atol: float,
) -> None:
    """Assert that `actual` is an array of `backend` on its default device, equal to `expected`."""
    assert backend.is_array(actual), f"expected an array of {backend.name}, got {type(actual)}"
    assert tuple(actual.shape) == np.shape(expected)
    if dtype is not None:
        assert actual.dtype == backend.dtype(dtype), f"expected {dtype}, got {actual.dtype}"
    assert backend.device_of(actual) == backend.device(None)
    try:
        np.testing.assert_allclose(to_numpy(actual), expected, rtol=rtol, atol=atol)
    except AssertionError as error:  # NumPy's first line, which pytest's summary shows, is empty
        raise AssertionError(str(error).strip()) from None

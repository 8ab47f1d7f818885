"""Samples as a backend's arrays, and the functions of samples that the suite differentiates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any

import numpy as np
import pytest

from polynet import functional
from polynet.backend import Backend, get_backend, use_backend
from polynet.ops import OPS
from polynet.testing.assertions import supports_float64
from polynet.testing.samples import Sample, functions, is_differentiable


def by_name() -> dict[str, Callable[..., Any]]:
    """Every function that has samples: the standard's first, then what is composed of them.

    So the first test to fail is the one of the function at fault.
    """
    found = functions()
    first = sorted(found, key=lambda name: (name not in OPS, name))
    return {name: one_result(found[name]) for name in first}


def one_result(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, whose results, where there are several, are one vector."""

    def call(*args: Any, **options: Any) -> Any:
        result = f(*args, **options)
        return (
            OPS["concat"](list(result), axis=None) if isinstance(result, tuple | list) else result
        )

    return update_wrapper(call, f)


def require(backend: Backend, name: str, needs: str = "") -> None:
    """Skip the test of a function, or of a call with `needs`, if the backend's library lacks it."""
    extension, dot, _ = name.partition(".")
    if dot and not hasattr(backend.xp, extension):
        pytest.skip(f"xp has no extension {extension!r}")
    if not dot and is_standard(name) and not hasattr(backend.xp, name):
        pytest.skip(f"xp has no {name!r}")
    if needs and not is_capable(backend, needs):
        pytest.skip(f"xp has no {needs}, as its capabilities() say")


def is_standard(name: str) -> bool:
    """Whether a function is the standard's, not a composition that NumPy happens to have too."""
    known = hasattr(get_backend("numpy").xp, name)
    return known and (name in OPS or not hasattr(functional, name))


def is_capable(backend: Backend, capability: str) -> bool:
    """Whether a library has a capability: unless it says no, and then refuses it indeed.

    JAX says that it has none, since inside its compiler it cannot; outside, these are tested.
    """
    info = getattr(backend.xp, "__array_namespace_info__", None)
    if info is None or info().capabilities().get(capability, True):
        return True
    x = backend.from_host(np.asarray([1.0, -1.0], np.float32), backend.device(None))
    use = {
        "boolean indexing": lambda: x[x > 0],
        "data-dependent shapes": lambda: backend.xp.nonzero(x > 0)[0],
    }
    try:
        return bool(backend.to_host(use[capability]()).shape == (1,))
    except Exception:  # noqa: BLE001 (each library has an error of its own)
        return False


def dtypes(backend: Backend) -> list[str]:
    """The floating dtypes that the backend computes in."""
    return ["float32", "float64"] if supports_float64(backend) else ["float32"]


@contextmanager
def about(what: str) -> Iterator[None]:
    """Begin the message of every error inside with `what`, in an AssertionError."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{what}: {str(error).strip()}") from error
    except Exception as error:
        raise AssertionError(f"{what} raised {type(error).__name__}: {error}") from error


def what(name: str, sample: Sample, backend: Backend) -> str:
    """A call as text: of the plug-in's kernel, or of polynet's rule on the plug-in's `xp`."""
    who = f"the kernel {name!r}" if name in backend.kernels else f"{name!r} by xp"
    return f"{who} of {sample}"


def to_backend(value: Any, backend: Backend, dtype: str, device: Any = None) -> Any:
    """An argument of a sample as `backend` takes it; floats in `dtype`, integers as indices."""
    if isinstance(value, list | tuple):
        return type(value)(to_backend(v, backend, dtype, device) for v in value)
    if not isinstance(value, np.ndarray):
        return value
    device = backend.device(None) if device is None else device
    if value.dtype.kind == "f":
        value = value.astype(dtype)
    elif value.dtype.kind == "i":
        info = backend.xp.__array_namespace_info__()
        short = info.default_dtypes(device=device)["indexing"] == backend.xp.int32
        value = value.astype(np.int32 if short else np.int64)
    return backend.from_host(value, device)


def arrays(sample: Sample) -> list[np.ndarray]:
    """The differentiable arguments of a sample, lists opened."""
    found = []
    for a in sample.args:
        found += [v for v in (a if isinstance(a, list) else [a]) if is_differentiable(v)]
    return found


def with_arrays(sample: Sample, new: list[Any]) -> tuple[Any, ...]:
    """The arguments of a sample with other arrays in place of the differentiable ones."""
    left = iter(new)

    def put(a: Any) -> Any:
        if isinstance(a, list):
            return [put(v) for v in a]
        return next(left) if is_differentiable(a) else a

    return tuple(put(a) for a in sample.args)


def placed(sample: Sample, backend: Backend, dtype: str) -> Sample:
    """The sample with those of its arrays on the backend that no gradient goes to."""

    def put(a: Any) -> Any:
        if isinstance(a, list):
            return [put(v) for v in a]
        return a if is_differentiable(a) else to_backend(a, backend, dtype)

    return Sample(tuple(put(a) for a in sample.args), sample.options)


def rounded(sample: Sample, dtype: str) -> Sample:
    """The sample with its numbers rounded to `dtype`, still as float64."""
    new = [np.asarray(a.astype(dtype), dtype=np.float64) for a in arrays(sample)]
    return Sample(with_arrays(sample, new), sample.options)


def weights(shape: tuple[int, ...]) -> np.ndarray:
    """Fixed weights that make one number of an array, so that every element counts."""
    return np.asarray(np.cos(np.arange(1, 1 + math.prod(shape)) * 1.7).reshape(shape))


def reference(function: Callable[..., Any], sample: Sample) -> np.ndarray:
    """The function by its definition on NumPy in float64."""
    with use_backend(get_backend("numpy").without_kernels()):
        return np.asarray(function(*sample.args, **sample.options))


def same(actual: Any, expected: np.ndarray) -> None:
    """Assert that `actual` is a NumPy array like `expected`, to the bit."""
    assert type(actual) is np.ndarray, f"expected a numpy.ndarray, got {type(actual)}"
    assert actual.dtype == expected.dtype, f"expected {expected.dtype}, got {actual.dtype}"
    assert actual.shape == expected.shape, f"expected shape {expected.shape}, got {actual.shape}"
    np.testing.assert_array_equal(actual, expected)


def overwrite(array: Any, where: Any = ...) -> bool:
    """Write 77 to `array`, and say whether its library can do that."""
    try:
        array[where] = 77
    except Exception:  # noqa: BLE001 (its arrays cannot change, or this one is read-only)
        return False
    return True


def stays(result: Any, backend: Backend, device: Any, dtype: str | None = None) -> None:
    """Assert that `result` is an array of `backend` on `device`."""
    kind = f"{type(result).__module__}.{type(result).__qualname__}"
    assert backend.is_array(result), f"the result is a {kind}, no array of {backend.name!r}"
    found = backend.device_of(result)
    assert found == device, f"the result is on {found}, its arguments on {device}"
    if dtype is not None:
        assert result.dtype == backend.dtype(dtype), f"{result.dtype} came of {dtype}"


def base(dtype: str) -> np.ndarray:
    """Numbers of both signs where the dtype has them, truths of both kinds."""
    return (np.arange(24).reshape(4, 6) * 5 % 7 - 3).astype(dtype)

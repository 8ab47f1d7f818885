"""Rules, kernels and pullbacks change nothing they are given, and answer again as before."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pytest

from polynet.backend import Backend, to_numpy
from polynet.errors import did_you_mean
from polynet.testing.samples import SAMPLES, Sample, compositions, functions
from polynet.testing.suite.cases import (
    about,
    dtypes,
    is_capable,
    require,
    to_backend,
    weights,
    what,
)

FUNCTIONS = functions()
OPS = sorted(name for name, f in FUNCTIONS.items() if hasattr(f, "rule"))
COMPOSITIONS = sorted(set(FUNCTIONS) - set(OPS))


@pytest.mark.parametrize("name", OPS)
def test_rule(backend: Backend, name: str) -> None:
    require(backend, name)
    for sample in SAMPLES[name]:
        if not sample.needs or is_capable(backend, sample.needs):
            assert_pure(name, FUNCTIONS[name].rule, sample, backend)


@pytest.mark.polynet_part("kernels")
@pytest.mark.parametrize("kernel", COMPOSITIONS)
def test_kernel(backend: Backend, kernel: str) -> None:
    for sample in SAMPLES[kernel]:
        assert_pure(kernel, backend.kernels[kernel], sample, backend)


@pytest.mark.polynet_part("kernels")
def test_every_kernel_replaces_a_composition(backend: Backend) -> None:
    known = {line.partition("(")[0] for line in compositions()}
    for name in set(backend.kernels) - known:
        why = (
            "a function of xp" if name in OPS else f"none is called so.{did_you_mean(name, known)}"
        )
        raise AssertionError(f"kernel {name!r} is of no composition, so nothing calls it: {why}")


def assert_pure(name: str, rule: Callable[..., Any], sample: Sample, backend: Backend) -> None:
    """Call a rule and its pullbacks again and again, with read-only arrays; it may decline."""
    words = what(name, sample, backend)
    args = [read_only(to_backend(a, backend, dtypes(backend)[-1])) for a in sample.args]
    with unchanged(args, f"{words} changed an argument"), about(words):
        results = [joined(rule(backend.xp, *args, **sample.options), backend.xp) for _ in range(2)]
    if any(r is NotImplemented for r in results):
        return
    (value, pullbacks), (again, _) = results
    pullbacks = one_by_one(pullbacks, len(args))
    with about(f"{words} answered otherwise when called again"):
        np.testing.assert_array_equal(to_numpy(value), to_numpy(again))
    with unchanged(args, f"a pullback of {words} changed an argument"):
        for i, (argument, pullback) in enumerate(zip(sample.args, pullbacks, strict=False)):
            if isinstance(argument, np.ndarray | list) and pullback is not None:
                assert_pullback(f"pullback {i} of {words}", pullback, value, backend)


def _of_gradient(pullback: Callable[..., Any], xp: Any, saved: Any) -> Callable[[Any], Any]:
    return lambda g: pullback(xp, g, *saved)


def joined(result: Any, xp: Any) -> Any:
    """A rule's result, several as one vector, and its pullbacks as functions of the gradient."""
    if result is NotImplemented:
        return result
    if len(result) == 3:
        value, pullbacks, saved = result
        return value, tuple(None if p is None else _of_gradient(p, xp, saved) for p in pullbacks)
    if not isinstance(result[0], tuple | list):
        return result
    values, pullback = result
    cuts = list(pairwise(accumulate((math.prod(v.shape) for v in values), initial=0)))

    def from_joined(g: Any, needs: Any) -> Any:
        parts = [g[start:stop] for start, stop in cuts]
        shaped = map(FUNCTIONS["reshape"], parts, (v.shape for v in values))
        return pullback(tuple(shaped), needs)

    return FUNCTIONS["concat"](list(values), axis=None), from_joined


def one_by_one(pullbacks: Any, count: int) -> tuple[Any, ...]:
    """A pullback for each argument, also of a rule that has one for all."""
    if callable(pullbacks):
        return tuple(
            lambda g, i=i: pullbacks(g, tuple(j == i for j in range(count)))[i]
            for i in range(count)
        )
    return pullbacks or ()


def assert_pullback(words: str, pullback: Callable[[Any], Any], value: Any, b: Backend) -> None:
    """Call a pullback for `g`, for -3 `g`, and for `g` again."""
    shape = tuple(value.shape)
    g, h = (
        read_only(to_backend(np.asarray(scale * weights(shape)), b, dtypes(b)[-1]))
        for scale in (1.0, -3.0)
    )
    with (
        unchanged([g, h], f"{words} changed the gradient it was given"),
        unchanged([value], f"{words} changed the result"),
        about(words),
    ):
        for_g, for_h, again = (snapshot([pullback(x)]) for x in (g, h, g))
    for first, other, second in zip(for_g, for_h, again, strict=True):
        with about(f"{words} answered otherwise when called again"):
            np.testing.assert_array_equal(second, first)
        with about(f"{words} is not linear, or remembers an earlier call"):
            np.testing.assert_allclose(other, -3.0 * first, rtol=1e-5, atol=1e-6)


@contextmanager
def unchanged(values: list[Any], otherwise: str) -> Iterator[None]:
    """Assert that the arrays in `values` are afterwards as they were before."""
    before = snapshot(values)
    yield
    for old, new in zip(before, snapshot(values), strict=True):
        with about(otherwise):
            np.testing.assert_array_equal(new, old)


def read_only(value: Any) -> Any:
    """The same array, which raises where it is written to if its library can do that."""
    if isinstance(value, list):
        return [read_only(v) for v in value]
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    return value


def snapshot(values: list[Any]) -> list[np.ndarray]:
    """Copies of all the arrays in `values`, on the host."""
    found = []
    for v in values:
        if isinstance(v, list):
            found += snapshot(v)
        elif hasattr(v, "dtype"):
            found.append(to_numpy(v))
    return found

"""Rules, kernels and pullbacks change nothing they are given, and answer again as before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from polynet.backend import Backend, to_numpy
from polynet.testing.samples import SAMPLES, Sample, functions
from polynet.testing.suite.cases import dtypes, to_backend, weights

FUNCTIONS = functions()
OPS = sorted(name for name, f in FUNCTIONS.items() if hasattr(f, "rule"))
COMPOSITIONS = sorted(set(FUNCTIONS) - set(OPS))


@pytest.mark.parametrize("name", OPS)
def test_rule(backend: Backend, name: str) -> None:
    for sample in SAMPLES[name]:
        assert_pure(FUNCTIONS[name].rule, sample, backend)


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_kernel(backend: Backend, name: str) -> None:
    if name in backend.kernels:
        taken = [assert_pure(backend.kernels[name], sample, backend) for sample in SAMPLES[name]]
        assert any(taken), f"the kernel {name!r} declines every sample"


def test_every_kernel_replaces_a_composition(backend: Backend) -> None:
    from polynet import optim

    updates = {name for name, f in vars(optim).items() if hasattr(f, "definition")}
    assert set(backend.kernels) <= {*COMPOSITIONS, *updates}


def assert_pure(rule: Callable[..., Any], sample: Sample, backend: Backend) -> bool:
    """Call a rule and its pullbacks twice, with read-only arrays; False if the rule declines."""
    args = [read_only(to_backend(a, backend, dtypes(backend)[-1])) for a in sample.args]
    before = snapshot(args)
    results = [rule(backend.xp, *args, **sample.options) for _ in range(2)]
    if any(r is NotImplemented for r in results):
        return False
    (value, pullbacks), (again, _) = results
    np.testing.assert_array_equal(snapshot([value])[0], snapshot([again])[0])
    shape = tuple(np.shape(to_numpy(value)))
    first, second = (
        read_only(to_backend(np.asarray(scale * weights(shape)), backend, dtypes(backend)[-1]))
        for scale in (1.0, -3.0)
    )
    for argument, pullback in zip(sample.args, pullbacks or (), strict=False):
        if isinstance(argument, np.ndarray | list) and pullback is not None:
            one, three, one_again = (snapshot([pullback(g)]) for g in (first, second, first))
            for a, b, c in zip(one, three, one_again, strict=True):
                np.testing.assert_array_equal(a, c, "a pullback remembers an earlier call")
                np.testing.assert_allclose(-3.0 * a, b, rtol=1e-5, atol=1e-6)
    for old, new in zip(before, snapshot([*args]), strict=True):
        np.testing.assert_array_equal(old, new, "an input was changed")
    np.testing.assert_array_equal(
        snapshot([value])[0], snapshot([again])[0], "a result was changed by a pullback"
    )
    return True


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

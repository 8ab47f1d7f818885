"""Every optimizer on each backend: ten steps equal to NumPy's definitions, and minima found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polynet import optim, value_and_grad
from polynet.backend import Backend, get_backend, to_numpy, use_backend
from polynet.ops import OPS
from polynet.testing.assertions import assert_close
from polynet.testing.suite.cases import dtypes, to_backend, weights
from polynet.tree import leaves

OPTIMIZERS: dict[str, optim.Optimizer] = {
    "SGD": optim.SGD(lr=0.05),
    "SGD, weight decay": optim.SGD(lr=0.05, weight_decay=0.1),
    "SGD, momentum": optim.SGD(lr=0.02, momentum=0.9),
    "SGD, Nesterov": optim.SGD(lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.01),
    "RMSprop": optim.RMSprop(lr=0.02, eps=1e-5),
    "RMSprop, momentum": optim.RMSprop(lr=0.005, momentum=0.9, weight_decay=0.1, eps=1e-5),
    "Adam": optim.Adam(lr=0.05, eps=1e-5),
    "Adam, weight decay": optim.Adam(lr=0.05, weight_decay=0.1, eps=1e-5),
    "Adam, no memory": optim.Adam(lr=0.05, betas=(0.0, 0.0), eps=1e-5),
    "AdamW": optim.AdamW(lr=0.05, weight_decay=0.1, eps=1e-5),
}
TOLERANCE = {"float32": 1e-5, "float64": 1e-11}
square, total = OPS["square"], OPS["sum"]


def parabola(p: dict[str, Any]) -> Any:
    return total(square(p["a"] - 1)) + total(square(p["b"] + 0.5)) + square(p["c"])


def descend(
    f: Any,
    optimizer: optim.Optimizer,
    start: dict[str, np.ndarray],
    steps: int,
    backend: Backend,
    dtype: str,
) -> dict[str, Any]:
    params = {n: to_backend(p, backend, dtype) for n, p in start.items()}
    state = optimizer.init(params)
    for t in range(steps):
        step = backend.from_host(np.full(1, t, dtype=np.int32), backend.device(None))
        grads = value_and_grad(f)(params)[1]
        params, state = optimizer.update(params, grads, state, step)
    return params


START = {"a": weights((3, 2)), "b": weights((4,)) * 3, "c": np.asarray(0.7)}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps(backend: Backend, name: str) -> None:
    numpy = get_backend("numpy").without_kernels()
    with use_backend(numpy):
        expected = descend(parabola, OPTIMIZERS[name], START, 10, numpy, "float64")
    for dtype in dtypes(backend):
        found = descend(parabola, OPTIMIZERS[name], START, 10, backend, dtype)
        for key, value in expected.items():
            size = TOLERANCE[dtype]
            assert_close(found[key], np.asarray(value), backend, dtype=dtype, rtol=size, atol=size)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_has_the_structure_it_had(backend: Backend, name: str) -> None:
    optimizer = OPTIMIZERS[name]
    params = {n: to_backend(p, backend, "float32") for n, p in START.items()}
    before = optimizer.init(params)
    step = backend.from_host(np.zeros(1, dtype=np.int32), backend.device(None))
    _, after = optimizer.update(params, params, before, step)
    assert {k: list(v) for k, v in before.items()} == {k: list(v) for k, v in after.items()}
    leaves = [a for slot in after.values() for a in slot.values()]
    assert len({id(a) for a in leaves}) == len(leaves)
    for slot in after.values():
        for key, a in slot.items():
            assert a.dtype == params[key].dtype
            assert tuple(a.shape) == tuple(params[key].shape)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_inputs_stay_as_they_are(backend: Backend, name: str) -> None:
    params = {n: to_backend(p, backend, "float32") for n, p in START.items()}
    optimizer = OPTIMIZERS[name]
    state = optimizer.init(params)
    step = backend.from_host(np.zeros(1, dtype=np.int32), backend.device(None))
    optimizer.update(params, params, state, step)
    for key, p in params.items():
        assert np.array_equal(to_numpy(p), START[key].astype("float32"))
    assert all(not to_numpy(a).any() for slot in state.values() for a in slot.values())


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("who", ["params", "grads", "state"])
def test_arrays_that_lie_transposed_in_memory(backend: Backend, name: str, who: str) -> None:
    """As the gradient of a weight that is used transposed may: only the numbers count."""
    optimizer = OPTIMIZERS[name]
    step = backend.from_host(np.full(1, 2, dtype=np.int32), backend.device(None))

    def updated(turned: str) -> list[Any]:
        def array(i: int, kind: str) -> Any:
            numbers = np.abs(weights((2, 3, 4))[i % 2]) + i
            if kind != turned:
                return to_backend(numbers, backend, "float32")
            return to_backend(numbers.T.copy(), backend, "float32").mT

        params, grads = {"a": array(0, "params")}, {"a": array(1, "grads")}
        state = {slot: {"a": array(2 + i, "state")} for i, slot in enumerate(optimizer.slots())}
        return leaves(optimizer.update(params, grads, state, step))

    for found, expected in zip(updated(who), updated("nothing"), strict=True):
        assert_close(found, to_numpy(expected), backend, dtype="float32", rtol=1e-6, atol=1e-6)

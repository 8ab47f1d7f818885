"""Every optimizer on each backend: ten steps equal to NumPy's definitions, and minima found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polynet import optim, value_and_grad
from polynet.backend import Backend, get_backend, to_numpy, use_backend
from polynet.ops import OPS
from polynet.optim import schedules
from polynet.testing.assertions import assert_close
from polynet.testing.suite.cases import dtypes, to_backend, weights
from polynet.tree import leaves, named_leaves
from polynet.tree import map as tree_map

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
    "NAdam": optim.NAdam(lr=0.05, eps=1e-5),
    "NAdam, decoupled": optim.NAdam(0.05, weight_decay=0.1, decoupled_weight_decay=True, eps=1e-5),
    "Adagrad": optim.Adagrad(lr=0.5, eps=1e-5),
    "Adagrad, decay": optim.Adagrad(0.5, 0.1, 0.1, initial_accumulator_value=0.1, eps=1e-5),
    **{
        f"{type(rule).__name__}, {type(rule.lr).__name__}": rule
        for rule in (
            optim.SGD(schedules.Constant(0.05), momentum=0.5, weight_decay=0.1),
            optim.SGD(schedules.StepLR(0.05, 3)),
            optim.RMSprop(schedules.MultiStepLR(0.02, (2, 5), 0.5), eps=1e-5),
            optim.RMSprop(schedules.LinearLR(0.02), momentum=0.5, eps=1e-5),
            optim.Adam(schedules.ExponentialLR(0.05, 0.9), eps=1e-5),
            optim.AdamW(schedules.CosineAnnealingLR(0.05, 8), weight_decay=0.1, eps=1e-5),
            optim.NAdam(schedules.OneCycleLR(0.05, 10), eps=1e-5),
            optim.Adagrad(
                schedules.SequentialLR([schedules.LinearLR(0.5), schedules.StepLR(0.5, 2)], [4])
            ),
            optim.Adam(
                schedules.ChainedScheduler([schedules.LinearLR(1), schedules.Constant(0.1)]),
                eps=1e-5,
            ),
        )
    },
    "clipped by norm": optim.ClipNorm(optim.SGD(0.1, momentum=0.9), max_norm=0.5),
    "clipped by value": optim.ClipValue(optim.Adam(0.05, eps=1e-5), clip_value=0.3),
    "groups": optim.Groups(
        {"a": optim.Frozen(), "b": optim.SGD(schedules.Constant(0.1))},
        others=optim.Adam(0.05, eps=1e-5),
    ),
    "averaged": optim.EMA(optim.SGD(0.1), decay=0.9),
}
TOLERANCE = {"float32": 1e-5, "float64": 1e-11}
square, total = OPS["square"], OPS["sum"]


def step_number(backend: Backend, number: int) -> Any:
    return backend.from_host(np.full(1, number, dtype=np.int32), backend.device(None))


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
        step = step_number(backend, t)
        grads = value_and_grad(f)(params)[1]
        grads = {n: grads[n] for n in optimizer.trains(params)}
        params, state = optimizer.update(params, grads, state, step)
    averages = {f"average of {n}": a for n, a in optimizer.averages(state).items()}
    return {**params, **averages}


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
    step = step_number(backend, 0)
    grads = {n: params[n] for n in optimizer.trains(params)}
    _, after = optimizer.update(params, grads, before, step)
    old, new = dict(named_leaves(before)), dict(named_leaves(after))
    assert list(old) == list(new)
    assert len({id(a) for a in new.values()}) == len(new)
    for path, a in new.items():
        assert backend.is_array(a)
        assert a.dtype == old[path].dtype == params["a"].dtype
        assert tuple(a.shape) == tuple(old[path].shape)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_parameter_keeps_its_own_dtype(backend: Backend, name: str) -> None:
    optimizer = OPTIMIZERS[name]
    kinds = dict(zip(START, (dtypes(backend)[-1], "float32", dtypes(backend)[-1]), strict=True))
    params = {n: to_backend(p, backend, kinds[n]) for n, p in START.items()}
    grads = {n: params[n] for n in optimizer.trains(params)}
    step = step_number(backend, 0)
    new, state = optimizer.update(params, grads, optimizer.init(params), step)
    for key, p in [*new.items(), *optimizer.averages(state).items()]:
        assert p.dtype == params[key].dtype, key


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_inputs_stay_as_they_are(backend: Backend, name: str) -> None:
    params = {n: to_backend(p, backend, "float32") for n, p in START.items()}
    optimizer = OPTIMIZERS[name]
    state = optimizer.init(params)
    before = {path: to_numpy(a) for path, a in named_leaves(state)}
    step = step_number(backend, 0)
    optimizer.update(params, {n: params[n] for n in optimizer.trains(params)}, state, step)
    for key, p in params.items():
        assert np.array_equal(to_numpy(p), START[key].astype("float32"))
    for path, a in named_leaves(state):
        assert np.array_equal(to_numpy(a), before[path]), path


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("who", ["params", "grads", "state"])
def test_arrays_that_lie_transposed_in_memory(backend: Backend, name: str, who: str) -> None:
    """As the gradient of a weight that is used transposed may: only the numbers count."""
    optimizer = OPTIMIZERS[name]
    step = step_number(backend, 2)

    def updated(turned: str) -> list[Any]:
        def array(i: int, kind: str) -> Any:
            numbers = np.abs(weights((2, 3, 4))[i % 2]) + i
            if kind != turned:
                return to_backend(numbers, backend, "float32")
            return to_backend(numbers.T.copy(), backend, "float32").mT

        other = to_backend(weights((2,)), backend, "float32")
        params = {"a": array(0, "params"), "b": other}
        grads = {"a": array(1, "grads"), "b": other}
        slots = optimizer.init(params)
        state = tree_map(lambda a: array(2, "state") if a.ndim == 2 else a, slots)
        grads = {name: grads[name] for name in optimizer.trains(params)}
        return leaves(optimizer.update(params, grads, state, step))

    for found, expected in zip(updated(who), updated("nothing"), strict=True):
        assert_close(found, to_numpy(expected), backend, dtype="float32", rtol=1e-6, atol=1e-6)


def test_a_factor_multiplies_the_rate_of_a_schedule(backend: Backend) -> None:
    params = {n: to_backend(p, backend, "float32") for n, p in START.items()}
    step = step_number(backend, 2)
    scheduled = optim.SGD(schedules.ExponentialLR(0.5, 0.5))
    halved = scheduled.with_lr_factor(scheduled.init(params), 0.25)
    found = scheduled.update(params, params, halved, step)[0]
    for key, p in params.items():
        assert_close(
            found[key], START[key] * (1 - 0.5**5), backend, dtype="float32", rtol=1e-6, atol=1e-7
        )
        assert found[key].dtype == p.dtype


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_within_a_derivative_is_differentiated(backend: Backend, name: str) -> None:
    """As where it is learnt how to learn; no kernel, which has no derivative, may stand in."""
    optimizer = OPTIMIZERS[name]
    dtype = dtypes(backend)[-1]
    step = step_number(backend, 3)
    params = {n: to_backend(p, backend, dtype) for n, p in START.items()}
    before = {n: to_numpy(p) for n, p in params.items()}
    state = optimizer.init(params)

    def after(params: Any, size: Any = 1.0) -> Any:
        grads = {n: params[n] * params[n] * 3 + 1 for n in optimizer.trains(params)}
        new, _ = optimizer.update(params, grads, state, step)
        return sum(OPS["sum"](p * p) for p in new.values())

    slopes = value_and_grad(after)(params)[1]
    for n, p in params.items():
        assert np.array_equal(to_numpy(p), before[n]), f"{n} was written to"
    if dtype == "float64":
        for n, p in before.items():
            h = 1e-6 * np.ones(p.shape) * np.cos(1 + np.arange(p.size)).reshape(p.shape)
            sides = [
                float(
                    to_numpy(
                        after({**params, n: to_backend(np.asarray(p + s * h), backend, dtype)})
                    )
                )
                for s in (1, -1)
            ]
            along = float(np.sum(to_numpy(slopes[n]) * h)) * 2
            assert along == pytest.approx(sides[0] - sides[1], rel=1e-5, abs=1e-11)

"""Optimizers of CuPy's plug-in beside their definitions, and whole runs beside NumPy's."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from polynet import Trainer, losses, nn, optim, use_backend
from polynet.backend import Backend, get_backend
from polynet.optim import schedules
from polynet.optim.clipping import clip_norm
from polynet.tree import leaves, named_leaves

if shutil.which("g++") is None:
    pytest.skip("g++ is not installed, which compiles the CUDA sources", allow_module_level=True)

from beside_definitions import HOST, stepped
from plugins.cuda_on_host import cuda_on_host

from polynet_cupy import optimizers
from polynet_cupy.kernels import KERNELS

XP = HOST.xp
rng = np.random.default_rng(7)


OPTIMIZERS = [
    *(optim.SGD(0.1), optim.SGD(0.1, weight_decay=0.1)),
    *(optim.SGD(0.1, momentum=0.9), optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1)),
    *(optim.Adam(0.1, weight_decay=0.1), optim.Adam(0.1, betas=(0.0, 0.0))),
    *(optim.AdamW(0.1), optim.AdamW(schedules.StepLR(0.1, 2))),
    optim.SGD(schedules.ExponentialLR(0.1, 0.9), momentum=0.9),
    *(optim.RMSprop(0.1), optim.RMSprop(schedules.StepLR(0.1, 2), momentum=0.9, weight_decay=0.1)),
    *(optim.ClipNorm(optim.SGD(0.1), max_norm=0.5), optim.ClipNorm(optim.SGD(0.1), max_norm=1e9)),
    optim.EMA(optim.SGD(0.1), decay=0.5),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-13), ("float32", 2e-6)])
def test_an_optimizer_is_its_definition(optimizer: Any, dtype: str, limit: float) -> None:
    """With more parameters than a table holds; with no element, one element, and several blocks."""
    shapes = [(), (1,), (3, 5), (0, 2), (2 * optimizers.CHUNK + 1,), *[(2,)] * optimizers.MOST]
    params = {f"p{i}": rng.normal(size=s).astype(dtype) for i, s in enumerate(shapes)}
    params["turned"] = rng.normal(size=(4, 3)).astype(dtype).T
    found, state = stepped(HOST, optimizer, params)
    expected, wanted = stepped(HOST.without_kernels(), optimizer, params)
    for name, p in expected.items():
        np.testing.assert_allclose(found[name], p, rtol=limit, atol=limit)
    for (path, a), leaf in zip(named_leaves(wanted), leaves(state), strict=True):
        np.testing.assert_allclose(leaf, a, rtol=limit, atol=limit, err_msg=path)


def use(backend: Backend, f: Any) -> Any:
    with use_backend(backend), np.errstate(all="ignore"):
        return f()


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_gradient_that_is_no_number_is_not_clipped_away(number: float) -> None:
    grads = {"a": np.asarray([1.0, number]), "b": np.ones((0, 2)), "c": np.ones(3)}
    found, expected = (
        use(backend, lambda: clip_norm(grads, max_norm=1.0))
        for backend in (HOST, HOST.without_kernels())
    )
    for name, g in expected.items():
        np.testing.assert_array_equal(found[name], g)
    assert use(HOST, lambda: clip_norm({"a": np.ones((0, 2))}, max_norm=1.0))["a"].shape == (0, 2)


def test_an_optimizer_of_several_dtypes_or_none_declines() -> None:
    adam = optim.Adam(0.1)
    params = {"a": np.ones(2), "b": np.ones(2, np.float32)}
    found, _ = stepped(HOST, adam, params)
    assert {n: p.dtype for n, p in found.items()} == {n: p.dtype for n, p in params.items()}
    step, options = np.zeros(1, np.int32), {"betas": (0.9, 0.9), "eps": 1e-8, "weight_decay": 0.0}
    empty = {"exp_avg": {}, "exp_avg_sq": {}}
    assert KERNELS["adam"](XP, {}, {}, empty, step, 0.1, **options) is NotImplemented


def outcome(f: Any) -> Any:
    """What a call returns, or the type of its error."""
    try:
        return f()
    except (TypeError, ValueError) as error:
        return type(error)


@pytest.mark.parametrize("optimizer", [optim.SGD(0.1), optim.Adam(0.1), optim.RMSprop(0.1)])
@pytest.mark.parametrize("shape", [(), (1,), (2,), (4, 1), (8,)])
def test_a_gradient_of_another_shape_is_left_to_the_definition(optimizer: Any, shape: Any) -> None:
    """The kernels would read past its end."""
    params, grads = {"w": np.ones(4)}, {"w": np.full(shape, 3.0)}

    def updated() -> Any:
        return optimizer.update(params, grads, optimizer.init(params), np.zeros(1, np.int32))[0]

    found, expected = (outcome(lambda b=b: use(b, updated)) for b in (HOST, HOST.without_kernels()))
    np.testing.assert_equal(found, expected)


def test_a_state_of_another_shape_is_left_to_the_definition() -> None:
    """The kernels would read, and write, past its end."""
    step, options = np.zeros(1, np.int32), {"betas": (0.9, 0.9), "eps": 1e-8, "weight_decay": 0.0}
    params, short = {"w": np.ones(4)}, {"w": np.ones(1)}
    state = {"exp_avg": short, "exp_avg_sq": short}
    assert KERNELS["adam"](XP, params, params, state, step, 0.1, **options) is NotImplemented
    assert KERNELS["moving_average"](XP, short, params, step, decay=0.5) is NotImplemented


def gradients_that_are_the_parameters(state: Any, _data: Any, _rows: Any) -> Any:
    """A step whose gradients lie in its state: each parameter's is the other one, transposed."""
    params = state["params"]
    loss = params["a"][0, 0] * 1
    grads = {"a": params["b"].T, "b": params["a"].T}
    new, rest = optim.SGD(0.25).update(params, grads, {}, state["step"])
    return {"params": new, "step": state["step"] + 1, **rest}, loss


def test_a_compiled_step_writes_over_its_own_state_only() -> None:
    """It reads a gradient that lies there before it writes; the caller's state stays as it was."""
    gradients_that_are_the_parameters.consumes = True
    params = {"a": rng.normal(size=(3, 3)), "b": rng.normal(size=(3, 3))}
    state = {"params": params, "step": np.zeros(1, np.int32)}
    before = {n: p.copy() for n, p in params.items()}
    rows = np.zeros((6, 1), np.int64)
    with use_backend(HOST):
        run = HOST.compile(gradients_that_are_the_parameters)
        first, found = run(state, np.zeros(1), rows)
        kept = {n: id(p) for n, p in first["params"].items()}
        second, _ = run(first, np.zeros(1), rows)
        expected, wanted = Backend.compile(HOST, gradients_that_are_the_parameters)(
            state, np.zeros(1), rows
        )
        again, _ = Backend.compile(HOST, gradients_that_are_the_parameters)(
            expected, np.zeros(1), rows
        )
    assert {n: id(p) for n, p in second["params"].items()} == kept, "in place"
    for name, p in before.items():
        assert np.array_equal(params[name], p)
        assert np.array_equal(second["params"][name], again["params"][name])
    assert np.array_equal(found, wanted)


# Whole runs


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-10), ("float32", 1e-4)])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_100_steps_of_adam_are_numpy_s(dtype: str, limit: float, dropout: float) -> None:
    x, y = rng.normal(size=(160, 12)), rng.integers(0, 3, size=160)
    weights = []
    for backend in (HOST, get_backend("numpy")):
        net = nn.Sequential(
            nn.Linear(12, 16), nn.LayerNorm(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3)
        )
        run = Trainer(
            net, losses.cross_entropy, optim.Adam(1e-3, eps=1e-5), backend=backend, dtype=dtype
        )
        with use_backend(backend):
            run.fit(x, y, epochs=10, batch_size=16)
        assert len(run.history.step_losses) == 100
        weights.append(run.net.state_dict())
    for name, w in weights[1].items():
        np.testing.assert_allclose(weights[0][name], w, rtol=limit, atol=limit)


def test_compiled_steps_are_the_loop_bit_for_bit() -> None:
    x, y = rng.normal(size=(2, 40, 3, 8, 8)), rng.integers(0, 4, size=40)

    def trained(compiled: bool) -> Any:
        backend = cuda_on_host.CudaOnHost()
        if not compiled:
            backend.compile = lambda step: Backend.compile(backend, step)
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(4),
            nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 4),
        )  # fmt: skip
        run = Trainer(net, losses.cross_entropy, optim.AdamW(1e-2), backend=backend)
        with use_backend(backend):
            run.fit(x[0], y, epochs=3, batch_size=8)
            run.fit(x[1], y, epochs=3, batch_size=16)
        return run

    compiled, looped = trained(compiled=True), trained(compiled=False)
    assert compiled.history.step_losses == looped.history.step_losses
    for name, w in looped.net.state_dict().items():
        assert np.array_equal(compiled.net.state_dict()[name], w), name

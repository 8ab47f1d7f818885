"""A compiled step: what `compile` returns does what calling the step again and again would."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from polynet import array_namespace, losses, nn, optim, value_and_grad
from polynet.backend import Backend, to_numpy
from polynet.errors import NotCompiledError
from polynet.step import initial_state, make_step
from polynet.testing.suite.cases import about, dtypes, overwrite, same, stays, weights
from polynet.tree import named_leaves

pytestmark = pytest.mark.polynet_part("compile")


def step_of(xp: Any) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """A step in whole numbers, which every compiler computes alike.

    `key` stays as it is, and the optimizer's two leaves are equal, but two.
    """

    def step(state: Any, data: Any, rows: Any) -> tuple[Any, Any]:
        x, y = (xp.take(a, rows, axis=0) for a in data)
        weight, bias = state["params"]["weight"], state["params"]["bias"]
        loss = xp.sum(x * weight - xp.expand_dims(y, axis=1)) + bias
        return {
            "params": {"weight": weight + xp.sum(x, axis=0), "bias": bias + 1},
            "optimizer": {name: old + weight for name, old in state["optimizer"].items()},
            "key": state["key"],
            "step": state["step"] + 1,
        }, loss

    return step


def start(backend: Backend, device: Any) -> tuple[Any, Any]:
    """A state to begin with, and the data."""

    def put(numbers: Any, dtype: Any = np.float32) -> Any:
        return backend.from_host(np.asarray(numbers, dtype=dtype), device)

    state = {
        "params": {"weight": put([1, 2, 3]), "bias": put(5)},
        "optimizer": {"first": put([0, 0, 0]), "second": put([0, 0, 0])},
        "key": put([17, -4], np.int32),
        "step": put([0], np.int32),
    }
    x = np.arange(24).reshape(8, 3) % 5 - 2
    return state, (put(x), put(np.arange(8) % 3))


def batches_of(backend: Backend, device: Any, count: int, size: int) -> Any:
    index = backend.index_dtype(device)
    rows = np.stack([(np.arange(size) * 3 + 5 * i) % 8 for i in range(count)])
    return backend.from_host(rows.astype(index), device)


def read(backend: Backend, tree: Any) -> dict[str, np.ndarray]:
    """Every leaf by its path, on the host."""
    return {path: backend.to_host(leaf) for path, leaf in named_leaves(tree)}


def one_by_one(backend: Backend, device: Any, *sets: Any) -> tuple[Any, list[np.ndarray]]:
    """The last state, and the losses, of calling the step itself."""
    state, data = start(backend, device)
    losses = []
    for batches in sets:
        for i in range(batches.shape[0]):
            state, loss = step_of(backend.xp)(state, data, batches[i, ...])
            losses.append(backend.to_host(loss))
    return read(backend, state), losses


def equal_leaves(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    names, wanted = sorted(found), sorted(expected)  # JAX sorts a dict, which is the same dict
    assert names == wanted, f"it has the leaves {names}, not {wanted}"
    for path, value in expected.items():
        with about(f"leaf {path!r}"):
            same(found[path], value)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_compile_runs_the_steps_in_order(backend: Backend, count: int) -> None:
    for name, native in backend.devices().items():
        batches = batches_of(backend, native, count, 4)
        expected, losses = one_by_one(backend, native, batches)
        state, data = start(backend, native)
        state, found = backend.compile(step_of(backend.xp))(state, data, batches)
        with about(f"compile, the state after {count} steps on {name!r}"):
            equal_leaves(read(backend, state), expected)
            for path, leaf in named_leaves(state):
                with about(f"leaf {path!r}"):
                    stays(leaf, backend, native)
        with about(f"compile, the losses of {count} steps on {name!r}"):
            stays(found, backend, native, "float32")
            same(backend.to_host(found), np.stack(losses))


def test_a_step_may_write_to_the_dict_that_it_is_given(backend: Backend) -> None:
    """As one for PyTorch does; to the arrays in it a step may not write."""
    take = step_of(backend.xp)

    def step(state: Any, data: Any, rows: Any) -> tuple[Any, Any]:
        new, loss = take(state, data, rows)
        for name, branch in new.items():
            if isinstance(branch, dict):
                state[name].update(branch)
            else:
                state[name] = branch
        return state, loss

    native = backend.device(None)
    calls = [batches_of(backend, native, 6, 4)] * 2
    expected, losses = one_by_one(backend, native, *calls)
    state, data = start(backend, native)
    run, found = backend.compile(step), []
    for batches in calls:
        state, launched = run(state, data, batches)
        found += list(backend.to_host(launched))
    equal_leaves(read(backend, state), expected)
    same(np.stack(found), np.stack(losses))


def test_compile_can_be_called_again_and_with_other_sizes(backend: Backend) -> None:
    native = backend.device(None)
    calls = [batches_of(backend, native, *sizes) for sizes in ((2, 4), (2, 4), (1, 3), (2, 4))]
    expected, losses = one_by_one(backend, native, *calls)
    state, data = start(backend, native)
    run = backend.compile(step_of(backend.xp))
    found = []
    for call, batches in enumerate(calls):
        state, launched = run(state, data, batches)
        found += list(backend.to_host(launched))
        with about(f"compile, the losses of call {call}"):
            same(np.stack(found), np.stack(losses[: len(found)]))
    with about("compile, the state after several calls"):
        equal_leaves(read(backend, state), expected)


def test_compile_overwrites_nothing_that_others_hold(backend: Backend) -> None:
    """It may write over the state, but not over losses that it returned, data and rows."""
    native = backend.device(None)
    state, data = start(backend, native)
    batches = batches_of(backend, native, 2, 4)
    run = backend.compile(step_of(backend.xp))
    state, losses = run(state, data, batches)
    kept = {"losses of an earlier call": losses, "data": list(data), "rows": batches}
    before = read(backend, kept)
    for _ in range(2):
        state, _ = run(state, data, batches)
    with about("compile: a later call overwrote what others hold"):
        equal_leaves(read(backend, kept), before)


def test_compile_returns_leaves_of_their_own(backend: Backend) -> None:
    """No leaf is another, nor shares memory with another where that can be seen."""
    native = backend.device(None)
    state, data = start(backend, native)
    state, losses = backend.compile(step_of(backend.xp))(
        state, data, batches_of(backend, native, 2, 4)
    )
    leaves = named_leaves({"state": state, "losses": losses})
    for path, leaf in leaves:
        others = [(p, a, backend.to_host(a)) for p, a in leaves if p != path]
        for other, a, _ in others:
            assert a is not leaf, f"compile: {path!r} is {other!r} too"
        overwrite(leaf)
        for other, a, before in others:
            with about(f"compile: {path!r} shares memory with {other!r}"):
                same(backend.to_host(a), before)


def test_two_compiled_steps_are_two(backend: Backend) -> None:
    native = backend.device(None)
    batches = batches_of(backend, native, 2, 4)

    def doubled(state: Any, data: Any, rows: Any) -> tuple[Any, Any]:
        state, loss = step_of(backend.xp)(state, data, rows)
        return state, loss * 2

    runs = [backend.compile(step) for step in (step_of(backend.xp), doubled)]
    once, twice = (backend.to_host(run(*start(backend, native), batches)[1]) for run in runs)
    with about("compile: the second step compiled is not the one it was given"):
        same(twice, once * 2)


def test_compile_reads_nothing_on_the_host(backend: Backend) -> None:
    """A step that waits for the host in its midst is slow, however right its numbers are."""
    native = backend.device(None)
    spied = copy.copy(backend)
    reads: list[Any] = []

    def to_host(array: Any) -> np.ndarray:
        reads.append(array)
        return backend.to_host(array)

    spied.to_host = to_host
    state, data = start(backend, native)
    spied.compile(step_of(backend.xp))(state, data, batches_of(backend, native, 3, 4))
    assert not reads, f"compile: its runner called to_host {len(reads)} times"


# A step that trains


def training(
    backend: Backend, dtype: str, loss: Callable[..., Any] = losses.mse
) -> tuple[Any, Any, tuple[Any, Any], list[Any]]:
    """A step with dropout, buffers and Adam, its state, the data, and the batches of two epochs.

    Each epoch ends in a batch that is shorter, which is handed over in a call of its own.
    """
    native = backend.device(None)
    net = nn.Sequential(
        nn.BatchNorm1d(3), nn.Linear(3, 8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, 2)
    )
    net = net.init(seed=4, backend=backend, dtype=dtype)
    optimizer = optim.Adam(lr=0.05, eps=1e-5)
    step = make_step(net, loss, optimizer, backend.xp)
    data = tuple(backend.from_host(weights((14, n)).astype(dtype), native) for n in (3, 2))
    index = backend.index_dtype(native)
    order = [(np.arange(14) * k % 14).astype(index) for k in (3, 5)]
    calls = [
        backend.from_host(rows, native)
        for row in order
        for rows in (row[:12].reshape(3, 4), row[12:].reshape(1, 2))
    ]
    return step, initial_state(net, optimizer, seed=4), (data[0], data[1]), calls


def reads_the_host(outputs: Any, y: Any) -> Any:
    """A loss that no program of a whole step can hold."""
    loss = losses.mse(outputs, y)
    return loss if float(to_numpy(y)[0, 0]) > -100 else -loss


def test_a_step_that_must_be_one_program_is_or_raises(backend: Backend) -> None:
    """By NotCompiledError; a compiler that never goes on step by step may say it by its own."""
    step, state, data, calls = training(backend, dtypes(backend)[0], reads_the_host)
    step.required = True

    def train(state: Any) -> None:
        run = backend.compile(step)
        for batches in calls * 2:
            state, _ = run(state, data, batches)

    with suppress(NotCompiledError, TypeError):
        train(state)
        raise AssertionError(
            "compile: a step whose loss reads the host was taken, though step.required is true; "
            "expected NotCompiledError, by compile or by its runner"
        )


def adversaries(backend: Backend, dtype: str) -> tuple[Any, Any, tuple[Any, Any], list[Any]]:
    """As `training`, of one's own: two networks in turn, each by its own loss and optimizer."""
    _, _, data, calls = training(backend, dtype)
    nets = {"forger": nn.Linear(3, 2), "judge": nn.Linear(2, 1)}
    nets = {k: net.init(seed=5, backend=backend, dtype=dtype) for k, net in nets.items()}
    optimizers = {"forger": optim.SGD(lr=0.1, momentum=0.9), "judge": optim.Adam(0.01, eps=1e-5)}

    def update(state: Any, which: str, loss: Callable[..., Any]) -> tuple[Any, Any]:
        loss_and_slopes = value_and_grad(loss)
        value, slopes = loss_and_slopes(state[which]["params"])
        old = state[which]
        params, inner = optimizers[which].update(old["params"], slopes, old["inner"], state["step"])
        return {**state, which: {"params": params, "inner": inner}}, value

    def far(scores: Any, wanted: float) -> Any:
        return array_namespace(scores).mean((scores - wanted) ** 2)

    def step(state: Any, data: Any, rows: Any) -> tuple[Any, Any]:
        x, y = (backend.xp.take(a, rows, axis=0) for a in data)
        forged = nets["forger"].replace(state["forger"]["params"])(x)

        def wrong(judge: Any) -> Any:
            said = nets["judge"].replace(judge)
            return far(said(y), 1) + far(said(forged), 0)

        state, value = update(state, "judge", wrong)
        judge = nets["judge"].replace(state["judge"]["params"])

        def found_out(forger: Any) -> Any:
            return far(judge(nets["forger"].replace(forger)(x)), 1)

        state, more = update(state, "forger", found_out)
        return {**state, "step": state["step"] + 1}, value + more

    starts = {k: initial_state(net, optimizers[k], seed=5) for k, net in nets.items()}
    state = {k: {"params": s["params"], "inner": s["optimizer"]} for k, s in starts.items()}
    return step, {**state, "step": starts["judge"]["step"]}, data, calls


TOLERANCE = {"float32": 1e-4, "float64": 1e-12}
"""As near as sums in another order come: eight steps, in which Adam divides by its slopes."""


@pytest.mark.parametrize("make", [training, adversaries])
def test_compile_trains_as_the_loop_does(
    backend: Backend, make: Callable[..., tuple[Any, Any, Any, list[Any]]]
) -> None:
    for dtype in dtypes(backend):
        runs = {}
        for name, compile_step in (
            ("the loop", lambda step: Backend.compile(backend, step)),
            ("compile", backend.compile),
        ):
            step, state, data, calls = make(backend, dtype)
            before = read(backend, list(data))
            run, found = compile_step(step), []
            for batches in calls:
                state, launched = run(state, data, batches)
                assert tuple(launched.shape) == batches.shape[:1], f"{name}: the losses of a call"
                found += backend.to_host(launched).tolist()
            with about(f"{name} changed the data, in {dtype}"):
                equal_leaves(read(backend, list(data)), before)
            runs[name] = {**read(backend, state), "losses": np.asarray(found)}
        expected, found = runs["the loop"], runs["compile"]
        assert sorted(found) == sorted(expected), "compile: the state has other leaves"
        for path, value in expected.items():
            with about(f"compile, leaf {path!r} after {len(calls)} calls, in {dtype}"):
                assert found[path].dtype == value.dtype
                size = TOLERANCE[dtype]
                np.testing.assert_allclose(found[path], value, rtol=size, atol=size)

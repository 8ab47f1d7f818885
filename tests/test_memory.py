"""What a derivative holds: it is freed as the sweep goes, nothing is left, long chains are fine."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import polynet
from polynet import Trainer, grad, hessian, hvp, jvp, nn, optim, vjp
from polynet.losses import mse
from polynet.ops import OPS
from polynet.tensor import op

sin, total = OPS["sin"], OPS["sum"]


@contextmanager
def no_collection() -> Iterator[None]:
    """Without the garbage collector, which would hide what only it can free."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def watched() -> tuple[Callable[..., Any], list[Any], list[int]]:
    """An op that keeps its result; weak references to those; how many lived at each pullback."""
    kept: list[Any] = []
    alive: list[int] = []

    @op
    def double(xp: Any, x: Any) -> Any:
        y = 2 * x
        kept.append(weakref.ref(y))

        def pullback(g: Any) -> Any:
            alive.append(sum(r() is not None for r in kept))
            return g * y / x

        return y, (pullback,)

    return double, kept, alive


def chain(step: Callable[[Any], Any], length: int) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        for _ in range(length):
            x = step(x)
        return total(x)

    return f


def test_the_record_is_freed_as_the_sweep_goes() -> None:
    double, _, alive = watched()
    with no_collection():
        slope = grad(chain(double, 10))(np.ones(3))
    assert slope.tolist() == [1024.0] * 3
    # Each result is held by its own pullback and, as what it divides by, by the next one.
    assert alive == list(range(10, 0, -1))


def test_a_pullback_keeps_the_record_and_gives_it_back() -> None:
    double, kept, alive = watched()
    with no_collection():
        _, pullback = vjp(chain(double, 10), np.ones(3))
        for _ in range(2):
            assert pullback(np.asarray(1.0))[0].tolist() == [1024.0] * 3
        assert alive == [10] * 20
        del pullback
        assert not any(r() is not None for r in kept)


MASK, PLACES = np.eye(3, dtype=bool), np.arange(3)
OF_SHAPES: dict[str, Callable[[Any, Any], Any]] = {
    "by a mask": lambda xp, x: x[MASK],
    "by integers": lambda xp, x: x[PLACES, PLACES],
    "take_along_axis": lambda xp, x: xp.take_along_axis(x, PLACES[None, :], axis=0),
    "meshgrid": lambda xp, x: xp.meshgrid(x[0, :], x[1, :])[0],
    "cholesky": lambda xp, x: xp.linalg.cholesky(x),
    "eigh": lambda xp, x: xp.linalg.eigh(x)[0],
    "eigvalsh": lambda xp, x: xp.linalg.eigvalsh(x),
    "qr": lambda xp, x: xp.linalg.qr(x[:, :2])[1],
    "svd": lambda xp, x: xp.linalg.svd(x)[1],
    "svdvals": lambda xp, x: xp.linalg.svdvals(x),
    "sum": lambda xp, x: xp.sum(x),
    "inv": lambda xp, x: xp.linalg.inv(x),
}


@pytest.mark.parametrize("name", OF_SHAPES)
def test_a_pullback_keeps_no_array_for_its_shape_or_dtype(name: str) -> None:
    made: list[Any] = []

    @op
    def copied(xp, x):
        y = np.array(x)
        made.append(weakref.ref(y))
        return y, (lambda g: g,)

    def f(x: Any) -> Any:
        return OF_SHAPES[name](polynet.array_namespace(x), copied(x))

    with no_collection():
        value, pullback = vjp(f, 3 * np.eye(3) + 1)
        assert made[0]() is None
        pullback(np.ones_like(value))


def test_of_several_results_none_is_kept_for_its_shape() -> None:
    """As of batch_norm, whose output the next op need not keep."""
    made: list[Any] = []

    @op
    def both(xp, x):
        y = np.array(2 * x)
        made.append(weakref.ref(y))
        return (y, 3 * x), lambda g, needs: (g[0] * 2 + g[1] * 3,)

    with no_collection():
        _, pullback = vjp(lambda x: total(both(x)[1]), np.ones(3))
        assert made[0]() is None
        assert pullback(np.asarray(1.0))[0].tolist() == [3.0] * 3


def test_the_sweep_needs_no_more_memory_than_the_record() -> None:
    x = np.linspace(0.1, 0.2, 100_000)
    size, length = x.nbytes, 30
    peak_forward = 0

    def f(x: Any) -> Any:
        nonlocal peak_forward
        y = chain(lambda x: sin(x) * 1.5, length)(x)
        peak_forward = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        return y

    tracemalloc.start()
    try:
        grad(f)(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_forward > length * size  # what is measured is there
    assert peak < peak_forward + 4 * size


def test_what_is_left_of_a_derivative_is_no_garbage() -> None:
    """No reference cycles: all is freed at once, whether or not Python's collector runs."""
    x, v = np.ones((3, 3)), np.full((3, 3), 2.0)
    w = np.ones(3)

    def f(a: Any) -> Any:
        parts = [sin(a), OPS["matmul"](a, a)]
        return total(OPS["concat"](parts) ** 2)

    works: list[Callable[[], Any]] = [
        lambda: grad(f)(x),
        lambda: grad(lambda a: total(grad(f)(a)))(x),
        lambda: vjp(sin, x)[1](v),
        lambda: jvp(f, (x,), (v,)),
        lambda: hvp(f, (x,), (v,)),
        lambda: hessian(lambda a: total(sin(a)))(w),
        lambda: grad(lambda a: total(vjp(sin, x)[1](a)[0]))(v),
    ]
    for work in works:
        work()
        with no_collection():
            work()
            assert gc.collect() == 0


def test_ten_thousand_steps_leave_nothing() -> None:
    x, y = np.ones((4, 2)), np.ones(4)
    params = {"weight": np.asarray([0.5, -0.5]), "bias": np.asarray(0.1)}
    step = polynet.value_and_grad(
        lambda p: mse(OPS["matmul"](x, p["weight"]) + p["bias"], y),
    )

    def train(steps: int) -> tuple[int, int]:
        nonlocal params
        for _ in range(steps):
            _, slopes = step(params)
            params = polynet.tree.map(lambda p, g: p - 1e-3 * g, params, slopes)
        assert gc.collect() == 0  # no garbage; and Python gives back the tuples it has in stock
        return sys.getallocatedblocks(), len(gc.get_objects())

    with no_collection():
        train(100)
        blocks_before, objects_before = train(100)
        blocks_after, objects_after = train(10_000)
    assert abs(objects_after - objects_before) < 10
    # An array, whatever its size, is one block or more: what stays of each step would be 10,000.
    # A hundred or so come and go with the threads of whoever runs the tests.
    assert abs(blocks_after - blocks_before) < 1000


LENGTH = 100_000


@pytest.mark.parametrize("way", ["grad", "vjp", "jvp", "hvp"])
def test_a_chain_of_a_hundred_thousand_ops(way: str) -> None:
    """Neither the record nor what frees it recurses, to the first or the second order."""
    x, v = np.asarray([0.5, 2.0]), np.asarray([1.0, -3.0])
    factor = 1 + 1e-5
    power = factor**LENGTH
    linear: Callable[..., Any] = lambda x: chain(lambda a: a * factor, LENGTH)(x)
    square: Callable[..., Any] = lambda x: chain(lambda a: a * factor, LENGTH)(x * x)
    found, expected = {
        "grad": lambda: (grad(linear)(x), [power, power]),
        "vjp": lambda: (vjp(linear, x)[1](np.asarray(2.0))[0], [2 * power, 2 * power]),
        "jvp": lambda: (jvp(linear, (x,), (v,))[1], -2 * power),
        "hvp": lambda: (hvp(square, (x,), (v,))[0], 2 * power * v),
    }[way]()
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_what_is_gathered_costs_no_matrix_at_any_order() -> None:
    """What goes back through an index is summed by the backend's kernel, to the third order too."""
    count = 2000
    places = np.random.default_rng(0).integers(0, count, count)
    x = np.linspace(0.1, 1.0, count)

    def slope(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return grad(lambda x: total(f(x)))

    third = slope(slope(slope(lambda x: OPS["take"](x, places) ** 4)))
    third(x)
    tracemalloc.start()
    try:
        found = third(x)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(found, 24 * x * np.bincount(places, minlength=count))
    assert held < 200 * x.nbytes  # a matrix of places by segments has 2000 times the bytes


# A step in parts


def peak(batch_size: int, accumulate: int) -> int:
    """The most bytes that six steps of 2048 samples hold, beside the data."""
    x = np.zeros((4096, 8), np.float32)
    net = nn.Sequential(nn.Linear(8, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh())
    job = Trainer(net, lambda o, t: total(o * o) / len(o), optim.SGD(1e-9), backend="numpy")
    tracemalloc.start()
    try:
        job.fit(x, x, epochs=3, batch_size=batch_size, accumulate=accumulate)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_step_in_parts_holds_what_a_part_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    # Importing Numba takes megabytes, and the tests before decide at which step it happens.
    monkeypatch.setattr("polynet_numpy.compiled.wanted", lambda: False)
    whole, parts, small = peak(2048, 1), peak(128, 16), peak(128, 1)
    assert parts < whole / 4
    gradient = 4 * (9 * 256 + 257 * 256)
    # The sum so far, the next one, what the first replay is compared with, and the result that
    # is computed both ways while the step is captured.
    assert parts < small + 4 * gradient

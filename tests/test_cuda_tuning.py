"""Which algorithm of a product CuPy's plug-in takes: the fastest of those that give the same bits.

Algorithms are sums on the host, in several orders; what is said of cuBLASLt's is how they are
taken, not how fast they are.
"""

from __future__ import annotations

import itertools
import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

if shutil.which("g++") is None:
    pytest.skip("g++ is not installed, which compiles the CUDA sources", allow_module_level=True)

from plugins.cuda_on_host import cuda_on_host

from polynet_cupy import cublaslt, tuning
from polynet_cupy.products import Operand, Product

TERMS = 24


def in_order(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Products, whose terms are added one by one."""
    out = np.zeros((*x.shape[:-1], y.shape[-1]), x.dtype)
    for k in range(x.shape[-1]):
        out += x[..., k : k + 1] * y[..., k : k + 1, :]
    return out


def summed(order: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    half = x.shape[-1] // 2
    match order:
        case "backwards":
            return in_order(x[..., ::-1], y[..., ::-1, :])
        case "in halves":
            first, second = (x[..., :half], y[..., :half, :]), (x[..., half:], y[..., half:, :])
            return in_order(*first) + in_order(*second)
        case "by columns":
            columns = [in_order(x, y[..., i : i + 1]) for i in range(y.shape[-1])]
            return np.concatenate(columns, axis=-1)
        case "by rows":
            rows = [in_order(x[..., i : i + 1, :], y) for i in range(x.shape[-2])]
            return np.concatenate(rows, axis=-2)
    return in_order(x, y)


def described(precision: str, *, left: bool, right: bool, batch: int = 3) -> Product:
    """A product of 5×24 and 24×7 matrices, each as it is or turned round; rows have gaps."""
    sizes = {True: (6, TERMS * 6), False: (TERMS + 1, 5 * (TERMS + 1) + 2)}
    of_left = Operand(left, *sizes[left], aligned=4)
    of_right = Operand(right, TERMS if right else 7, 0, aligned=4)
    return Product(precision, batch, 5, 7, TERMS, of_left, of_right, bias=False)


def starts(how: Product) -> Any:
    """What computes products in an order, from the memory that they are described in."""

    def start(order: str, out: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
        matrices = (
            cuda_on_host.widened(cuda_on_host._matrices(a, operand, 0, how.batch, *shape))
            for a, operand, shape in ((x, how.left, (5, TERMS)), (y, how.right, (TERMS, 7)))
        )
        found = summed(order, *matrices).reshape(-1)
        end = found.size - (order == "but the last")
        out[:end] = found[:end]

    return start


ORDERS = ["in order", "backwards", "by columns", "in halves", "by rows", "but the last"]


@pytest.mark.parametrize("precision", ["float64", "float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("right", [True, False])
def test_those_of_the_same_bits(precision: str, left: bool, right: bool) -> None:
    """Another order of a sum, and what leaves numbers out, are told from what is equal."""
    how = described(precision, left=left, right=right)
    found, run = tuning.alike(np, how, ORDERS, starts(how))
    assert found == ["in order", "by columns", "by rows"]
    found, run = tuning.alike(np, how, ORDERS[1:], starts(how))
    assert found == ["backwards"]
    run("backwards")


def test_numbers_that_do_not_repeat_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are as many as the memory holds, with the gaps; equal rows would hide an order."""
    monkeypatch.setattr(tuning, "PERIOD", 101)
    tuning._numbers.cache_clear()
    how, seen = described("float32", left=False, right=True), []
    tuning.alike(np, how, ["only"], lambda _, out, x, y: seen.append((out.size, x, y)))
    tuning._numbers.cache_clear()
    ((results, x, y),) = seen
    assert [results, x.size, y.size] == [3 * 5 * 7, 2 * 127 + 4 * 25 + TERMS, 6 * TERMS + TERMS]
    assert x.dtype == y.dtype == np.float32
    assert len({tuple(row) for row in cuda_on_host._matrices(x, how.left, 0, 3, 5, TERMS)[0]}) == 5
    assert x[:101].tolist() == x[101:202].tolist()


class Clock:
    """Algorithms that take so long, each time by another factor longer, and what was launched."""

    def __init__(self, times: list[float], factors: list[float]) -> None:
        self.times, self.factors = times, itertools.cycle(factors)
        self.launched: list[int] = []
        self.measured = [0] * len(times)

    def microseconds(self, work: Any, launches: int) -> float:
        for _ in range(launches):
            work()
        self.measured[self.launched[-1]] += 1
        return self.times[self.launched[-1]] * next(self.factors)

    def fastest(self) -> int:
        return tuning.fastest(range(len(self.times)), self.launched.append, self.microseconds)


TIMES = st.lists(st.floats(0.5, 1e4), min_size=1, max_size=16)


@given(times=TIMES, factors=st.lists(st.floats(1, 1.2), min_size=1, max_size=9))
def test_the_fastest_is_taken(times: list[float], factors: list[float]) -> None:
    """As far as the clock can tell; who is far behind is measured once."""
    clock = Clock(times, factors)
    taken = clock.fastest()
    assert times[taken] <= 1.2 * min(times)
    assert len(clock.launched) <= 1 + tuning.ROUNDS * tuning.MOST_LAUNCHES * len(times)
    for i, t in enumerate(times[1:], 1):
        assert clock.measured[i] == (1 if t > 1.2 * tuning.NEAR * min(times) else clock.measured[i])
    if factors == [1.0]:
        assert times[taken] == (min(times) if min(times) < 0.99 * times[0] else times[0])


@pytest.mark.parametrize(("gain", "taken"), [(0.005, 0), (0.02, 1)])
def test_another_must_gain_more_than_noise(gain: float, taken: int) -> None:
    assert Clock([1.0, 1.0 - gain], [1.0]).fastest() == taken


def test_where_there_is_no_room_the_first_is_taken() -> None:
    how = described("float32", left=False, right=False)

    def full(*_: Any) -> None:
        raise MemoryError

    assert tuning.timed(np, how, ["first", "second"], full, lambda *_: 1.0) == "first"


def test_a_product_is_timed_once_when_it_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third time, or later where that is recorded; and only where it is a large one."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    stream = SimpleNamespace(capturing=False, is_capturing=lambda: stream.capturing)
    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda: stream)
    calls = []

    def timed(xp: Any, how: Any, algorithms: Any, start: Any, clock: Any) -> Any:
        calls.append((xp, how, list(algorithms)))
        return algorithms[-1]

    monkeypatch.setattr(tuning, "timed", timed)
    gemm = cublaslt.Gemm()
    algorithms = [cublaslt.Heuristic() for _ in range(3)]
    large = described("float32", left=False, right=False)._replace(m=1 << 10, n=1 << 10, k=1 << 10)
    plan = cublaslt.Plan(None, algorithms[1], algorithms)
    gemm._time(0, large, plan)
    gemm._time(0, large, plan)
    stream.capturing = True
    gemm._time(0, large, plan)
    assert not calls
    stream.capturing = False
    gemm._time(0, large, plan)
    gemm._time(0, large, plan)
    ((xp, how, given_algorithms),) = calls
    assert xp is cupy
    assert how == large
    assert [algorithms.index(a) for a in given_algorithms] == [1, 0, 2]
    assert plan.algorithm is algorithms[2]
    small = cublaslt.Plan(None, algorithms[0], algorithms)
    for _ in range(5):
        gemm._time(0, described("float32", left=False, right=False), small)
    assert len(calls) == 1

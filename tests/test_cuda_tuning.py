"""Which algorithm of a product CuPy's plug-in takes: the fastest of those that give the same bits.

The algorithms here are sums on the host, in several orders. So these tests show how one of
cuBLASLt's algorithms is chosen, not how fast it is.
"""

from __future__ import annotations

import itertools
import shutil
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

if shutil.which("g++") is None:
    pytest.skip("g++ is not installed, which compiles the CUDA sources", allow_module_level=True)

from plugins.cuda_on_host import cuda_on_host

from polynet_cupy import tuning
from polynet_cupy.products import Operand, Product

TERMS = 24


def in_order(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Matrix products whose terms are added one by one."""
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


def described(
    precision: str = "float32", *, left: bool = False, right: bool = False, batch: int = 3
) -> Product:
    """A product of 5×24 and 24×7 matrices, each transposed or not, with gaps between some rows."""
    sizes = {True: (6, TERMS * 6), False: (TERMS + 1, 5 * (TERMS + 1) + 2)}
    of_left = Operand(left, *sizes[left], aligned=4)
    of_right = Operand(right, TERMS if right else 7, 0, aligned=4)
    return Product(precision, batch, 5, 7, TERMS, of_left, of_right, bias=False)


def starts(how: Product) -> Any:
    """A function that computes products in some order, from the described memory."""

    def start(order: str, out: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
        matrices = (
            cuda_on_host.widened(cuda_on_host._matrices(a, operand, 0, how.batch, *shape))
            for a, operand, shape in ((x, how.left, (5, TERMS)), (y, how.right, (TERMS, 7)))
        )
        if order == "fails":
            raise RuntimeError("cublasLtMatmul answered 13, CUBLAS_STATUS_EXECUTION_FAILED")
        found = summed(order, *matrices).reshape(-1)
        end = found.size - (order == "but the last")
        out[:end] = found[:end]

    return start


def trial(how: Product, free: int = 1 << 30) -> tuning.Trial:
    return tuning.Trial(np, how, starts(how), free)


ORDERS = ["in order", "backwards", "fails", "by columns", "in halves", "by rows", "but the last"]


@pytest.mark.parametrize("precision", ["float64", "float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("right", [True, False])
def test_those_of_the_same_bits(precision: str, left: bool, right: bool) -> None:
    """Algorithms that sum in another order, leave numbers out, or fail are not counted as equal."""
    tried = trial(described(precision, left=left, right=right))
    assert tried.alike(ORDERS) == ["in order", "by columns", "by rows"]
    assert tried.alike(ORDERS[1:]) == ["backwards"]
    assert tried.run("in order").dtype == ("float64" if precision == "float64" else "float32")


def test_a_zero_has_a_sign() -> None:
    def start(sign: float, out: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
        out[...] = sign * 0.0

    assert tuning.Trial(np, described(), start, 1 << 30).alike([1.0, -1.0, 1.0]) == [1.0, 1.0]


def test_numbers_that_do_not_repeat_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """They fill the memory and its gaps; equal rows or operands would hide the order of a sum."""
    monkeypatch.setattr(tuning, "PERIOD", 101)
    monkeypatch.setattr(tuning, "APART", 32)
    tuning._numbers.cache_clear()
    how, seen = described(right=True), []
    start = lambda _, out, x, y: seen.append((out.size, x, y))
    tuning.Trial(np, how, start, 1 << 20).run("only")
    tuning._numbers.cache_clear()
    ((results, x, y),) = seen
    size = max(2 * 127 + 4 * 25 + TERMS, 32 + 7 * TERMS)
    assert [results, x.size, y.size] == [3 * 5 * 7, size, size - 32]
    assert x.dtype == y.dtype == np.float32
    assert len({tuple(row) for row in cuda_on_host._matrices(x, how.left, 0, 3, 5, TERMS)[0]}) == 5
    assert x[:101].tolist() == x[101:202].tolist()
    assert x[32:].tolist() == y.tolist()


def test_numbers_to_try_are_made_where_there_is_room() -> None:
    how = described()
    with pytest.raises(MemoryError):
        trial(how, free=1 << 14)
    trial(how, free=1 << 17)


# Which is the fastest


class Clock:
    """Algorithms that take these times, multiplied by the next factor; all give the same bits."""

    def __init__(self, times: list[float], factors: list[float]) -> None:
        self.times, self.factors = times, itertools.cycle(factors)
        self.launched: list[int] = []
        self.compared: list[list[int]] = []
        self.varies: int | None = None
        self.run = self.launched.append
        self.measured: list[tuple[int, int]] = []

    def alike(self, algorithms: Any) -> list[int]:
        self.compared.append(list(algorithms))
        return [i for i in algorithms if i != self.varies or len(self.compared) == 1]

    def microseconds(self, work: Any, launches: int) -> float:
        for _ in range(launches):
            work()
        self.measured.append((self.launched[-1], launches))
        return self.times[self.launched[-1]] * next(self.factors)

    def fastest(self) -> int:
        return tuning.timed(self, range(len(self.times)), self.microseconds)


TIMES = st.lists(st.floats(0.5, 1e3), min_size=1, max_size=16)


@given(times=TIMES, factors=st.lists(st.floats(1, 1.2), min_size=1, max_size=9))
def test_the_fastest_is_taken(times: list[float], factors: list[float]) -> None:
    """As far as the clock can tell it from the others."""
    best = min(times)
    taken = Clock(times, [1.0]).fastest()
    assert times[taken] == (best if best < (1 - tuning.GAIN) * times[0] else times[0])
    taken = Clock(times, factors).fastest()
    assert times[taken] <= 1.2 / (1 - tuning.GAIN) * best * (1 + 1e-12)


@pytest.mark.parametrize(("gain", "taken"), [(0.01, 0), (0.03, 1)])
def test_another_must_gain_more_than_noise(gain: float, taken: int) -> None:
    assert Clock([1.0, 1.0 - gain], [1.0]).fastest() == taken


def test_the_fastest_has_the_same_bits_again() -> None:
    """The bits of an algorithm may vary from run to run, and be equal once by chance."""
    clock = Clock([3.0, 1.0, 2.0], [1.0])
    assert clock.fastest() == 1
    assert clock.compared == [[0, 1, 2], [0, 1]]
    clock = Clock([3.0, 1.0, 2.0], [1.0])
    clock.varies = 1
    assert clock.fastest() == 0


def test_how_often_each_is_measured() -> None:
    """First the library's choice alone; then all in turn, in later rounds without the slow ones."""
    clock = Clock([1000.0, 5000.0, 1100.0], [1.0])
    assert clock.fastest() == 0
    order = [0, 1, 2, 0, 2, 0, 2]
    assert clock.measured == [(0, 1), (0, 1), *((i, 11) for i in order)]
    clock = Clock([1.0, 1.0], [1.0])
    clock.fastest()
    assert {n for _, n in clock.measured[2:]} == {tuning.MOST_LAUNCHES}


def test_one_slow_measurement_does_not_decide() -> None:
    slow_at_first = [1.0, 1.0, 1.0, 1.09, *[1.0] * 20]
    assert Clock([1.0, 0.95], slow_at_first).fastest() == 1


def test_what_was_far_behind_does_not_win_as_the_device_slows_down() -> None:
    """It was measured in the first round only, when the others were faster as well."""
    clock = Clock([1000.0, 1900.0], [1.0, 1.0, 1.0, 1.0, *[2.0] * 4])
    assert clock.fastest() == 0


def test_of_what_takes_long_fewer_are_tried() -> None:
    clock = Clock([4e4, 1e4, 3e4, 1e3], [1.0])
    assert clock.fastest() == 1
    assert set(clock.measured) == {(0, 1), (1, 1)}
    alone = Clock([2e5, 1.0], [1.0])
    assert alone.fastest() == 0
    assert len(alone.measured) == 2

"""Loops that Numba compiles: when they hand their work to NumPy, and how threads share it."""

import time
import weakref

import numpy as np
import pytest

from polynet_numpy import compiled, loops

pytestmark = pytest.mark.skipif(compiled.version() is None, reason="Numba is not installed")
RNG = np.random.default_rng(8)


@pytest.fixture(autouse=True)
def numba():
    compiled._numba()


def normal(*shape):
    return RNG.normal(size=shape).astype("float32")


def looped(loop, *args):
    """What the compiled loop returns: whether it did the work, which is NumPy's otherwise."""
    return compiled.bound(loop, *args)()


@pytest.mark.parametrize("row", [0, 2, 3, -1])
def test_loops_do_the_work_where_all_indices_are_in_range(row):
    x, logits, rows = normal(2, 4), normal(2, 3), np.asarray([1, row])
    order, ends, column = np.empty(2, np.int64), np.empty(3, np.int64), np.empty(2, np.float32)
    three = np.zeros((3, 4), np.float32)
    assert looped(loops.take_rows, three, rows, np.array(x)) == (0 <= row < 3)
    assert looped(loops.segment_sum, x, rows, order, ends, column, three) == (0 <= row < 3)
    assert looped(loops.shift, logits, rows, np.array(logits), column) == (0 <= row < 3)


@pytest.mark.parametrize(
    ("numbers", "finite"),
    [
        ([1, 3, 2], True),
        ([-np.inf, 3, 2], True),  # as where a class is masked
        ([-np.inf] * 3, False),
        ([1, np.inf, 2], False),
        *(([np.nan if i == j else 1 for i in range(3)], False) for j in range(3)),
    ],
)
def test_loops_do_the_work_where_all_numbers_are_finite(numbers, finite):
    x, truth = np.asarray([[1, 2, 3], numbers], np.float32), np.empty(2, np.float32)
    assert looped(loops.shift_rows, x, np.empty_like(x)) == finite
    assert looped(loops.shift, x, np.asarray([0, 0]), np.empty_like(x), truth) != np.isnan(x).any()


@pytest.mark.parametrize(
    ("threads", "elements", "parts"),
    [
        (4, 2 * compiled.SHARE - 1, 1),
        (4, 2 * compiled.SHARE, 2),
        (4, 4 * compiled.SHARE - 1, 3),
        (4, 9 * compiled.SHARE, 4),
        (1, 9 * compiled.SHARE, 1),
    ],
)
def test_each_thread_has_its_share(monkeypatch, threads, elements, parts):
    monkeypatch.setattr(compiled, "_threads", lambda: threads)
    cuts = compiled._cuts(10, elements)
    assert len(cuts) == parts
    assert [i for start, end in cuts for i in range(start, end)] == list(range(10))
    assert {end - start for start, end in cuts} <= {10 // parts, -(-10 // parts)}


def test_without_numba_nobody_asks_for_its_threads(monkeypatch):
    monkeypatch.setattr(compiled, "wanted", lambda: False)
    monkeypatch.setattr(compiled, "_threads", lambda: pytest.fail("Numba is not there"))
    assert compiled.split(loops.where_not_0, [np.ones(2 * compiled.SHARE)] * 3) is None


@pytest.mark.parametrize("order", ["C", "F"])
def test_threads_take_all_of_an_array(monkeypatch, order):
    monkeypatch.setattr(compiled, "_threads", lambda: 3)
    y, g = (np.asarray(normal(3, compiled.SHARE + 7), order=order) for _ in range(2))
    y[y < 0] = 0
    out = np.full_like(y, np.nan)
    compiled.split(loops.where_not_0, (y, g, out))()
    assert np.array_equal(out, np.where(y != 0, g, 0))
    other = np.asarray(out, order="CF".replace(order, ""))
    assert compiled.split(loops.where_not_0, (y, g, other)) is None
    assert compiled.split(loops.where_not_0, (y[:, ::2], g[:, ::2], out[:, ::2])) is None


def test_calls_in_threads_are_waited_for_and_their_errors_come(monkeypatch):
    monkeypatch.setattr(compiled, "_threads", lambda: 3)
    done = []
    quick, slow = (lambda: done.append(0)), (lambda: time.sleep(0.05) or done.append(1))
    compiled._together([quick, slow, slow])()
    assert sorted(done) == [0, 1, 1]
    with pytest.raises(ZeroDivisionError):
        compiled._together([quick, lambda: 1 / 0])()
    assert compiled._together([quick]) is quick
    assert compiled._together([quick, None]) is None


def test_adam_by_addresses_keeps_its_vectors_and_takes_none_with_gaps():
    numbers = np.zeros(1, np.int32), np.asarray(0.1), (0.9, 0.999, 1e-8, 0.0, 0.0)
    row = [np.full(6, number, np.float32) for number in (1, 1, 0, 0)]
    p, g, m, v = map(weakref.ref, row)
    call = compiled.adam([row], *numbers)
    row[1] = np.ones(12, np.float32)[::2]
    assert compiled.adam([row], *numbers) is None
    del row
    call()
    assert g().tolist() == [1] * 6
    assert p() == pytest.approx(0.9 * np.ones(6))
    del call
    assert p() is g() is m() is v() is None

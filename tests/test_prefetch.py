"""The thread that prefetches: ahead but not too far, errors in their turn, nothing left behind."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator

import numpy as np
import pytest

from polynet import Trainer, data, losses, nn, optim
from polynet.data import prefetch
from polynet.data.prefetch import prefetched


def no_thread_is_left() -> bool:
    return not [t for t in threading.enumerate() if t.name == "polynet-prefetch"]


@pytest.fixture(autouse=True)
def _threads_end() -> Iterator[None]:
    yield
    assert no_thread_is_left()


def test_items_are_made_ahead_but_not_too_far() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    with prefetched(numbers(), ahead=3) as items:
        for expected in range(20):
            assert next(items) == expected
            assert len(made) <= expected + 1 + 3 + 1  # taken, ready, and the one in hand
    assert no_thread_is_left()


def test_the_thread_works_while_the_main_one_does() -> None:
    """Neither could go on alone: each waits for the other, in turn."""
    here, there = threading.Barrier(2, timeout=10), []

    def numbers() -> Iterator[int]:
        yield 0
        here.wait()  # until the main thread has taken the first, and is at work
        there.append(threading.current_thread())
        yield 1

    with prefetched(numbers()) as items:
        next(items)
        here.wait()
        assert next(items) == 1
    assert there != [threading.main_thread()]


def test_an_error_comes_in_its_turn_with_its_traceback() -> None:
    def decode(i: int) -> int:
        if i == 3:
            raise ValueError("picture 3 is torn")
        return i

    got = []
    with (
        pytest.raises(ValueError, match="picture 3 is torn") as caught,
        prefetched(map(decode, range(10))) as items,
    ):
        got += list(iter(items))
    assert "decode" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


def test_what_came_before_an_error_is_used() -> None:
    got = []
    with (
        pytest.raises(ZeroDivisionError),
        prefetched(1 / (3 - i) for i in range(10)) as items,
    ):
        for item in items:
            time.sleep(0.01)  # so that the thread has met the error
            got.append(item)
    assert got == [1 / 3, 1 / 2, 1.0]


def test_leaving_early_ends_the_thread_and_closes_the_generator() -> None:
    closed = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    with pytest.raises(KeyError), prefetched(endless()) as items:
        next(items)
        raise KeyError
    assert closed == ["polynet-prefetch"]
    assert no_thread_is_left()


def test_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a browser: every kind of data trains, with the same bits, and closes its generator."""
    x = np.linspace(-1, 1, 24, dtype=np.float32)[:, None]
    closed = []

    def made(seed: int, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        try:
            yield from ((x[i : i + 8], 2 * x[i : i + 8]) for i in (0, 8, 16))
        finally:
            closed.append(epoch)

    def losses_of(kind: object) -> list[float]:
        trainer = Trainer(nn.Linear(1, 1), losses.mse, optim.SGD(lr=0.1), backend="numpy")
        trainer.fit(kind, epochs=2, progress=True)
        return [*trainer.history.step_losses, *trainer.evaluate(kind).values()]

    kinds = data.arrays(x, 2 * x), made
    expected = list(map(losses_of, kinds))
    monkeypatch.setattr(threading.Thread, "start", _no_thread)
    monkeypatch.setattr(prefetch, "THREADS", False)
    closed.clear()
    assert list(map(losses_of, kinds)) == expected
    assert closed == [0, 0, 1, 0]


def _no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")

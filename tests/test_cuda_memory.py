"""How long CuPy's plug-in holds memory of the device and of the host; with a stand-in for CUDA."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import polynet_cupy
from polynet_cupy import CupyBackend


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, KeyboardInterrupt])
def test_a_capture_that_fails_keeps_no_memory(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pool holds as much idle memory as a step takes; the last graph to use it frees it."""
    made: list[weakref.ref[Any]] = []

    class Capturer:
        def __init__(self, _: Any) -> None:
            made.append(weakref.ref(self))

        def capture(self, run: Callable[[], None]) -> Callable[[], object]:
            run()
            return lambda: self

    def fails() -> None:
        raise error

    monkeypatch.setattr(polynet_cupy, "Capturer", Capturer)
    monkeypatch.setattr(polynet_cupy, "steps", lambda backend, step, capture: capture)
    device = SimpleNamespace(cuda=SimpleNamespace(runtime=SimpleNamespace(getDevice=lambda: 0)))
    capture = CupyBackend.compile(SimpleNamespace(_cupy=device), None)
    replays = [capture(lambda: None), capture(lambda: None)]
    for lives in (True, False):
        with pytest.raises(error):
            capture(fails)
        gc.collect()
        assert len(made) == 2 - lives, "captures shared one capturer until one of them failed"
        assert (made[-1]() is not None) is lives
    replays.clear()
    assert made[0]() is None


@pytest.mark.parametrize("fetched", [True, False])
def test_memory_of_the_host_is_given_back_when_the_copy_is_there(
    fetched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CuPy gives it to the next caller at once, and a late copy would write over their numbers."""
    told: list[str] = []

    class Event:
        def __init__(self, **_: Any) -> None:
            pass

        def record(self) -> None:
            told.append("recorded")

        def synchronize(self) -> None:
            told.append("there")

    def pinned(shape: Any, dtype: Any) -> np.ndarray:
        memory = np.zeros(512, np.uint8)
        weakref.finalize(memory, told.append, "given back")
        return np.ndarray(shape, dtype, memory)

    def get(out: np.ndarray, *, blocking: bool) -> None:
        assert not blocking
        out[...] = 3.0

    monkeypatch.setitem(sys.modules, "cupyx", SimpleNamespace(empty_pinned=pinned))
    device = SimpleNamespace(_cupy=SimpleNamespace(cuda=SimpleNamespace(Event=Event)))
    array = SimpleNamespace(shape=(2,), dtype=np.float32, device=nullcontext(), get=get)
    fetch = CupyBackend.to_host_later(device, array)
    if fetched:
        assert fetch().tolist() == [3.0, 3.0]
    del fetch
    assert told == ["recorded", *["there"] * (1 + fetched), "given back"]

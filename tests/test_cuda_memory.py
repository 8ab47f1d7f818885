"""How long CuPy's plug-in holds memory, of the device and of the host; CUDA is played."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import polynet_cupy
from polynet_cupy import CupyBackend


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, KeyboardInterrupt])
def test_a_recording_that_fails_keeps_no_memory(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As much as a step takes lies idle in its pool: it goes with the last graph that uses it."""
    made: list[weakref.ref[Any]] = []

    class Recorder:
        def __init__(self, _: Any) -> None:
            made.append(weakref.ref(self))

        def record(self, run: Callable[[], None]) -> Callable[[], object]:
            run()
            return lambda: self

    def fails() -> None:
        raise error

    monkeypatch.setattr(polynet_cupy, "Recorder", Recorder)
    monkeypatch.setattr(polynet_cupy, "steps", lambda backend, step, capture: capture)
    device = SimpleNamespace(cuda=SimpleNamespace(runtime=SimpleNamespace(getDevice=lambda: 0)))
    capture = CupyBackend.compile(SimpleNamespace(_cupy=device), None)
    replays = [capture(lambda: None), capture(lambda: None)]
    for lives in (True, False):
        with pytest.raises(error):
            capture(fails)
        gc.collect()
        assert len(made) == 2 - lives, "all had the one that did not fail"
        assert (made[-1]() is not None) is lives
    replays.clear()
    assert made[0]() is None

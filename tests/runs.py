"""Helpers for tests of saving: run a training, stop it, and compare two runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from polynet import Trainer, losses, metrics, nn, optim
from polynet.backend import Backend, to_numpy

rng = np.random.default_rng(7)
X = rng.normal(size=(31, 4))
Y = (X[:, 0] * X[:, 1] > 0).astype(int)
# 23 of the 31 samples are for training, so the last batch of an epoch is short.
FIT: dict[str, Any] = {"batch_size": 4, "validation_split": 0.25}
EPOCHS = 5


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 2))


def trainer(
    backend: str | Backend = "numpy",
    *,
    net: nn.Module | None = None,
    optimizer: optim.Optimizer | None = None,
    **options: Any,
) -> Trainer:
    return Trainer(
        net or network(),
        losses.cross_entropy,
        optimizer or optim.Adam(1e-2, eps=1e-5),
        metrics=[metrics.accuracy],
        backend=backend,
        **{"seed": 3, **options},
    )


def stayed(backend: str | Backend = "numpy", **options: Any) -> Trainer:
    job = trainer(backend, **options)
    job.fit(X, Y, epochs=EPOCHS, **FIT)
    return job


def saved(path: Path, epochs: int = 2, **options: Any) -> Path:
    job = trainer(**options)
    job.fit(X, Y, epochs=epochs, **FIT)
    job.save(path)
    return path


def stopped(backend: Backend, call: int, stop: Callable[[], None]) -> Trainer:
    """A Trainer that calls `stop()` in its run, at the given call of the compiled step."""
    stopping = copy.copy(backend)
    calls = 0

    def compile_and_count(step: Any) -> Any:
        run = backend.compile(step)

        def counted(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                stop()
            return run(*args)

        return counted

    stopping.compile = compile_and_count
    return trainer(stopping)


def assert_same_run(one: Trainer, other: Trainer) -> None:
    assert one.history.step_losses == other.history.step_losses
    assert list(one.history.items()) == list(other.history.items())  # in the same order
    assert one.epoch == other.epoch
    for name, p in one.net.state_dict().items():
        q = other.net.state_dict()[name]
        assert to_numpy(p).dtype == to_numpy(q).dtype
        assert np.array_equal(to_numpy(p), to_numpy(q)), name

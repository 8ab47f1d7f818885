"""Captured training steps of CuPy's plug-in: replayed by address, they give the bits of the loop.

A stand-in for CUDA graphs (`tests/plugins/cuda_on_host/captured.py`) captures the kernels, which
g++ compiled, and everything that NumPy does between them. It cannot show CUDA's own part.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from polynet import Trainer, data, losses, nn, optim, use_backend
from polynet.backend import Backend, to_numpy
from polynet.backend.static import WARM_UP

if shutil.which("g++") is None:
    pytest.skip("g++ is not installed, which compiles the CUDA sources", allow_module_level=True)

from plugins.cuda_on_host.captured import Capture, CudaCaptured

rng = np.random.default_rng(5)
Y = rng.integers(0, 3, size=44)


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)
    )


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, groups=2, bias=False), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True)
    return nn.Sequential(layer, nn.LayerNorm(8), nn.Flatten(), nn.Linear(24, 3))


def words() -> nn.Module:
    return nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(20, 3))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "dense": (dense, rng.normal(size=(44, 6))),
    "convolutions": (convolutions, rng.normal(size=(44, 2, 8, 8))),
    "transformer": (transformer, rng.normal(size=(44, 3, 8))),
    "embedding": (words, rng.integers(0, 10, size=(44, 5))),
}
ADAM = optim.Adam(1e-2, weight_decay=0.1)


def trained(
    compiled: bool, name: str, optimizer: Any, *, precision: str = "float32", **options: Any
) -> Trainer:
    """Train for enough epochs that some are replayed; each has five batches and a smaller one."""
    backend = CudaCaptured().with_precision(precision)
    if not compiled:
        backend.compile = lambda step: Backend.compile(backend, step)
    make, x = NETWORKS[name]
    run = Trainer(make(), losses.cross_entropy, optimizer, backend=backend)
    with use_backend(backend):
        run.fit(x, Y, epochs=WARM_UP + 2, batch_size=8, **options)
        if name == "dense":  # other data of the same shapes, for which steps are captured anew
            run.fit(x[::-1], Y, epochs=WARM_UP + 2, batch_size=8, **options)
    return run


def assert_equal(name: str, optimizer: Any, **options: Any) -> None:
    replayed, looped = (trained(c, name, optimizer, **options) for c in (True, False))
    assert replayed.history.step_losses == looped.history.step_losses
    weights = replayed.net.state_dict()
    for path, w in looped.net.state_dict().items():
        assert np.array_equal(to_numpy(weights[path]), to_numpy(w)), path


@pytest.fixture(autouse=True)
def _no_warnings() -> Any:
    """A step that could not be captured would run as the loop does, after a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_replayed_networks_are_the_loop_bit_for_bit(name: str, precision: str) -> None:
    assert_equal(name, ADAM, precision=precision)


def test_replayed_parts_of_batches_are_the_loop_bit_for_bit() -> None:
    """The network has buffers, which each part updates, and the samples have weights."""
    weights = rng.uniform(size=44)
    assert_equal("convolutions", ADAM, accumulate=2, sample_weight=weights)


def test_replayed_streams_are_the_loop_bit_for_bit() -> None:
    runs = []
    for compiled in (True, False):
        backend = CudaCaptured()
        if not compiled:
            backend.compile = lambda step, b=backend: Backend.compile(b, step)
        run = Trainer(dense(), losses.cross_entropy, ADAM, backend=backend)
        with use_backend(backend):
            run.fit(data.arrays(NETWORKS["dense"][1], Y), epochs=8, batch_size=8)
        runs.append(run)
    assert runs[0].history.step_losses == runs[1].history.step_losses


def test_all_steps_of_a_call_are_one_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The capture of four steps has four times the kernels of one, and spoils all new memory."""
    captures: list[Capture] = []
    leave = Capture.__exit__

    def left(self: Capture, *exception: object) -> None:
        leave(self, *exception)
        captures.append(self)

    monkeypatch.setattr(Capture, "__exit__", left)
    trained(True, "dense", ADAM)
    started = [sum(call[0].__name__ == "launch" for call in c.calls) for c in captures]
    full, rest = started[0], started[1]
    assert full - 1 == 4 * (rest - 1)  # the losses are joined at once
    assert all(len(c.fresh) > 10 for c in captures)


def test_the_stand_in_refuses_what_a_device_refuses() -> None:
    """Arrays of the host among those of the device; and, during a capture, reading an array."""
    backend = CudaCaptured()
    x, host = backend.from_host(np.ones(3), "cpu"), np.ones(3)
    n, square = (backend.from_host(a, "cpu") for a in (np.arange(3), np.eye(2)))
    for mixed in (lambda: x + host, lambda: host * x, lambda: backend.xp.concat([x, host])):
        with pytest.raises(TypeError, match="it is on the host"):
            mixed()
    reading = (
        *(lambda: float(x[0]), lambda: bool(x[0] > 0), lambda: x[x > 0], lambda: x.tolist()),
        *(lambda: backend.to_host(x), lambda: backend.xp.nonzero(x)),
        *(lambda: backend.xp.repeat(x, n), lambda: backend.xp.linalg.inv(square)),
        *(lambda: backend.xp.matmul(square * 1j, square * 1j), lambda: backend.xp.asarray([1.0])),
    )
    for read in reading:
        with pytest.raises(RuntimeError, match="not permitted"), Capture():
            read()
        read()  # where nothing is captured it is permitted


def test_a_step_that_reads_the_host_is_warned_of_by_its_line() -> None:
    backend = CudaCaptured()

    def reading(outputs: Any, targets: Any) -> Any:
        loss = losses.cross_entropy(outputs, targets)
        return loss if int(targets[0, ...]) >= 0 else loss * 2

    run = Trainer(dense(), reading, ADAM, backend=backend)
    with (
        pytest.warns(RuntimeWarning, match="__int__ reads the device, not permitted") as warned,
        use_backend(backend),
    ):
        run.fit(NETWORKS["dense"][1], Y, epochs=WARM_UP + 2, batch_size=8)
    assert len(warned) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = trained(False, "dense", ADAM)
    assert run.history.step_losses == expected.history.step_losses[: len(run.history.step_losses)]

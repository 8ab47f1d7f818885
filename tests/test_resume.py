"""A run that stopped and went on has the numbers of the run that never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import EPOCHS, FIT, X, Y, assert_same_run, saved, stayed, stopped, trainer

from polynet import Trainer, checkpoint, losses, metrics, nn, optim
from polynet.backend import Backend, get_backend, to_numpy
from polynet.testing.assertions import supports_float64

# The same bits


def test_saved_between_epochs(backend: Backend, tmp_path: Path) -> None:
    first = trainer(backend)
    first.fit(X, Y, epochs=2, **FIT)
    first.save(tmp_path / "run")
    second = trainer(backend)
    second.load(tmp_path / "run")
    assert second.epoch == 2
    assert_same_run(first, second)
    second.fit(X, Y, epochs=EPOCHS - 2, **FIT)
    assert_same_run(second, stayed(backend))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_buffers_are_kept(backend: Backend, tmp_path: Path, momentum: float | None) -> None:
    def normalised() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, momentum=momentum), nn.Linear(8, 2))

    first = trainer(backend, net=normalised())
    first.fit(X, Y, epochs=2, **FIT)
    first.save(tmp_path / "run")
    second = trainer(backend, net=normalised())
    second.load(tmp_path / "run")
    assert_same_run(first, second)
    net = checkpoint.load(tmp_path / "run", normalised(), backend=backend)
    second.fit(X, Y, epochs=EPOCHS - 2, **FIT)
    assert_same_run(second, stayed(backend, net=normalised()))
    counts = [int(to_numpy(n[1].num_batches_tracked)) for n in (net, first.net, second.net)]
    assert counts == [12, 12, 30]
    x = backend.from_host(X.astype("float32"), backend.device(None))
    for name, array in first.net.state_dict().items():
        np.testing.assert_array_equal(to_numpy(net.state_dict()[name]), to_numpy(array))
    outputs = to_numpy(first.predict(x))  # on JAX one program, whose sums have another order
    np.testing.assert_allclose(to_numpy(net(x)), outputs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("call", [1, 6, 8])  # within the first epoch, at its end, in the second
def test_cut_by_ctrl_c(backend: Backend, tmp_path: Path, call: int) -> None:
    cut = stopped(backend, call, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        cut.fit(X, Y, epochs=EPOCHS, **FIT)
    cut.save(tmp_path / "run")
    second = trainer(backend)
    second.load(tmp_path / "run")
    assert_same_run(cut, second)
    whole = stayed(backend)
    for job in (cut, second):
        job.fit(X, Y, epochs=EPOCHS - job.epoch, **FIT)
        assert_same_run(job, whole)


def test_cut_with_a_batch_size_of_numpys(tmp_path: Path) -> None:
    """The place in the data is saved too, in numbers of Python."""
    cut = stopped(get_backend("numpy"), 3, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        cut.fit(X, Y, epochs=EPOCHS, **{**FIT, "batch_size": np.int64(4)})
    cut.save(tmp_path / "run")
    second = trainer()
    second.load(tmp_path / "run")
    second.fit(X, Y, epochs=EPOCHS, **FIT)
    assert_same_run(second, stayed())


def test_cut_by_an_error(backend: Backend) -> None:
    def fail() -> None:
        raise MemoryError

    cut = stopped(backend, 3, fail)
    with pytest.raises(MemoryError):
        cut.fit(X, Y, epochs=EPOCHS, **FIT)
    cut.fit(X, Y, epochs=EPOCHS - cut.epoch, **FIT)
    assert_same_run(cut, stayed(backend))


def test_cut_in_the_validation(tmp_path: Path) -> None:
    failures = iter([False, True])

    def accuracy(targets: np.ndarray, outputs: np.ndarray) -> float:
        if next(failures, False):
            raise OSError("no plot today")
        return metrics.accuracy(targets, outputs)

    cut = trainer()
    cut.metrics = {"accuracy": accuracy}
    with pytest.raises(OSError, match="no plot"):
        cut.fit(X, Y, epochs=EPOCHS, **FIT)
    cut.save(tmp_path / "run")
    second = trainer()
    second.load(tmp_path / "run")
    assert second.epoch == 1
    second.fit(X, Y, epochs=EPOCHS - 1, **FIT)
    assert_same_run(second, stayed())


@pytest.mark.parametrize(
    "optimizer",
    [optim.SGD(0.1), optim.SGD(0.1, momentum=0.9), optim.RMSprop(momentum=0.5), optim.AdamW()],
    ids=repr,
)
def test_every_optimizers_state_is_kept(tmp_path: Path, optimizer: optim.Optimizer) -> None:
    second = trainer(optimizer=optimizer)
    second.load(saved(tmp_path / "run", optimizer=optimizer))
    second.fit(X, Y, epochs=EPOCHS - 2, **FIT)
    assert_same_run(second, stayed(optimizer=optimizer))


class Descent(optim.Optimizer):
    """One of a user's own, with a setting that has no words but its place in memory."""

    def __init__(self, lr: float) -> None:
        self.lr, self.turn = lr, lambda g: -g

    def init(self, params: Any) -> Any:
        return {}

    def update(self, params: Any, grads: Any, state: Any, step: Any) -> Any:
        return {n: p + self.lr * self.turn(grads[n]) for n, p in params.items()}, state


@pytest.mark.parametrize(
    "around",
    [
        lambda own: own,
        lambda own: optim.EMA(optim.ClipNorm(own, 1.0)),
        lambda own: optim.Groups({"*.bias": own}, others=optim.SGD(0.1)),
    ],
    ids=["alone", "in others", "in a group"],
)
def test_an_optimizer_of_ones_own_goes_on_wherever_it_stands(tmp_path: Path, around: Any) -> None:
    """Another object, as in another process; with another setting it is refused."""
    path = saved(tmp_path / "run", optimizer=around(Descent(0.1)))
    second = trainer(optimizer=around(Descent(0.1)))
    second.load(path)
    second.fit(X, Y, epochs=EPOCHS - 2, **FIT)
    assert_same_run(second, stayed(optimizer=around(Descent(0.1))))
    with pytest.raises(ValueError, match=r"a run with .*0\.1.*this Trainer has .*0\.2"):
        trainer(optimizer=around(Descent(0.2))).load(path)


def test_a_run_before_its_first_step_and_a_trainer_that_did_something_else(tmp_path: Path) -> None:
    first = trainer()
    first.predict(X)
    first.save(tmp_path / "run")
    second = trainer()
    second.fit(X, Y, epochs=3, batch_size=5)
    handed_out, before = second.history, list(second.history.step_losses)
    net = second.net
    second.load(tmp_path / "run")
    assert handed_out.step_losses == before
    assert second.net is not net
    assert_same_run(first, second)
    second.fit(X, Y, epochs=EPOCHS, **FIT)
    assert_same_run(second, stayed())


# On other backends


LIBRARIES = {"jax": "jax", "torch": "torch", "strict": "array_api_strict"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "relay",
    ["numpy strict", "numpy torch strict", "numpy jax strict", "numpy jax torch strict"],
)
def test_a_relay_is_at_each_epoch_where_the_run_that_stayed_is(
    tmp_path: Path, relay: str, dtype: str
) -> None:
    names = relay.split()
    for name in names[1:]:
        pytest.importorskip(LIBRARIES[name], reason=f"{LIBRARIES[name]} is not installed")
    for name in names:
        if dtype == "float64" and not supports_float64(get_backend(name)):
            pytest.skip(f"{name} has no float64 here; JAX has with JAX_ENABLE_X64=1")
    tolerance = {"float32": 1e-5, "float64": 1e-11}[dtype]
    staying = trainer(dtype=dtype)
    for epoch, name in enumerate(names * 2):
        staying.fit(X, Y, **FIT)
        runner = trainer(name, dtype=dtype)
        if epoch:
            runner.load(tmp_path / "run")
        runner.fit(X, Y, **FIT)
        runner.save(tmp_path / "run")
        assert set(runner.history) == {"loss", "val_loss", "val_accuracy"}
        for numbers in ("loss", "val_loss", "val_accuracy"):
            np.testing.assert_allclose(
                runner.history[numbers], staying.history[numbers], rtol=tolerance
            )
        for parameter, p in runner.net.parameters().items():
            assert get_backend(name).is_array(p)
            np.testing.assert_allclose(
                to_numpy(p), staying.net.parameters()[parameter], rtol=tolerance, atol=tolerance
            )


# Killed

KILLED = """\
import sys
import numpy as np
from polynet import Trainer, losses, nn, optim

trainer = Trainer(nn.Linear(600, 600), losses.mse, optim.Adam(), backend="numpy")
x = np.random.default_rng(0).normal(size=(8, 600))
for _ in range(int(sys.argv[2])):
    trainer.fit(x, x, batch_size=2)
    trainer.save(sys.argv[1])
"""


def test_killed_while_it_saves(tmp_path: Path) -> None:
    """Kill -9 with the draft half written: what was saved before is whole, and goes on."""
    path = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for _ in range(5):
        with subprocess.Popen([*command, "40"], env=environment) as process:
            while process.poll() is None and not (path.exists() and drafts(tmp_path)):
                pass
            process.kill()
        if drafts(tmp_path):
            break
        path.unlink(missing_ok=True)
    assert drafts(tmp_path), "no kill met a save"

    x = np.random.default_rng(0).normal(size=(8, 600))
    job, whole = (
        Trainer(nn.Linear(600, 600), losses.mse, optim.Adam(), backend="numpy") for _ in range(2)
    )
    job.load(path)
    assert job.epoch >= 1
    job.fit(x, x, batch_size=2)
    whole.fit(x, x, epochs=job.epoch, batch_size=2)
    assert_same_run(job, whole)


def drafts(folder: Path) -> list[Path]:
    return list(folder.glob(".polynet-*"))

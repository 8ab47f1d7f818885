"""Training on each backend: the same losses as on NumPy, and results in the user's kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polynet import Trainer, losses, metrics, nn, optim
from polynet.backend import Backend, to_numpy
from polynet.testing.suite.cases import dtypes

rng = np.random.default_rng(5)
X = rng.normal(size=(70, 6))
LABELS = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int) + (X[:, 2] > 1)
REAL = np.stack([X[:, 0] * 2, np.sin(X[:, 1])], axis=1)
CHANCES = (X[:, :1] > 0).astype(float)

JOBS: dict[str, tuple[Any, np.ndarray, int]] = {
    "cross_entropy": (losses.cross_entropy, LABELS, 3),
    "cross_entropy with one-hot targets": (losses.cross_entropy, np.eye(3)[LABELS], 3),
    "binary_cross_entropy_with_logits": (losses.binary_cross_entropy_with_logits, CHANCES, 1),
    "mse": (losses.mse, REAL, 2),
}
TOLERANCE = {"float32": 1e-5, "float64": 1e-11}


def network(outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 16),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(16, 8),
        nn.GELU(),
        nn.Linear(8, outputs),
    )


def described(job: str, backend: Any, dtype: str, optimizer: optim.Optimizer) -> Trainer:
    loss, _, outputs = JOBS[job]
    return Trainer(network(outputs), loss, optimizer, seed=3, backend=backend, dtype=dtype)


def trained(job: str, backend: Any, dtype: str, optimizer: optim.Optimizer) -> Trainer:
    trainer = described(job, backend, dtype, optimizer)
    trainer.fit(X, JOBS[job][1], epochs=4, batch_size=16)
    return trainer


class Halfway(optim.ClipNorm):
    """One of a user's own: it needs what it was given once Adam has computed the next."""

    def update(
        self, params: dict[str, Any], grads: dict[str, Any], state: Any, step: Any
    ) -> tuple[dict[str, Any], Any]:
        new, state = super().update(params, grads, state, step)
        return {name: 0.5 * (p + new[name]) for name, p in params.items()}, state


@pytest.mark.parametrize("job", [*JOBS, "an optimizer of one's own"])
def test_losses_step_by_step_are_those_of_numpy(
    backend: Backend, job: str, definitions: Backend
) -> None:
    optimizer: optim.Optimizer = optim.Adam(1e-3, eps=1e-5)
    if job not in JOBS:
        job, optimizer = "mse", Halfway(optimizer, max_norm=1.0)
    for dtype in dtypes(backend):
        here = trained(job, backend, dtype, optimizer)
        there = trained(job, definitions, dtype, optimizer)
        np.testing.assert_allclose(
            here.history.step_losses, there.history.step_losses, rtol=TOLERANCE[dtype]
        )
        for name, p in here.net.parameters().items():
            assert backend.is_array(p)
            np.testing.assert_allclose(
                to_numpy(p), there.net.parameters()[name], rtol=0, atol=TOLERANCE[dtype]
            )


def test_training_again_gives_the_same_bits(backend: Backend) -> None:
    first, second = (trained("mse", backend, "float32", optim.Adam(1e-3)) for _ in range(2))
    assert first.history.step_losses == second.history.step_losses


def test_two_calls_of_fit_are_one(backend: Backend) -> None:
    once = trained("mse", backend, "float32", optim.Adam(1e-3))
    twice = Trainer(network(2), losses.mse, optim.Adam(1e-3), seed=3, backend=backend)
    twice.fit(X, REAL, epochs=1, batch_size=16)
    kept = {n: to_numpy(p) for n, p in twice.net.parameters().items()}
    net = twice.net
    twice.fit(X, REAL, epochs=3, batch_size=16)
    assert twice.history.step_losses == once.history.step_losses
    for name, p in net.parameters().items():
        assert np.array_equal(to_numpy(p), kept[name]), "a network handed out was changed"


def test_a_new_loss_is_what_is_trained(backend: Backend, tmp_path: Path) -> None:
    """Set between two calls of fit, and by a callback: as by one Trainer for each loss."""

    def of(loss: Any) -> Trainer:
        optimizer = optim.Adam(1e-3, eps=1e-5)
        return Trainer(network(2), loss, optimizer, seed=3, backend=backend, dtype=dtype)

    def then_l1(job: Trainer) -> None:
        if job.epoch == 4:
            job.loss = losses.l1

    for dtype in dtypes(backend):
        several = [of(loss) for loss in (losses.mse, losses.huber, losses.l1)]
        for job in several:
            if job is not several[0]:
                job.load(tmp_path / "run")
            job.fit(X, REAL, epochs=2, batch_size=16)
            job.save(tmp_path / "run")
        one = of(losses.mse)
        one.fit(X, REAL, epochs=2, batch_size=16)
        one.loss = losses.huber
        one.fit(X, REAL, epochs=4, batch_size=16, callbacks=[then_l1])
        np.testing.assert_allclose(
            one.history.step_losses, several[-1].history.step_losses, rtol=TOLERANCE[dtype]
        )
        assert one.evaluate(X, REAL) == pytest.approx(several[-1].evaluate(X, REAL), rel=1e-5)


def test_a_number_that_the_loss_reads_counts_once_the_loss_is_set_again(backend: Backend) -> None:
    factor = [1.0]

    def loss(outputs: Any, targets: Any) -> Any:
        return losses.mse(outputs, targets) * factor[0]

    job = Trainer(nn.Linear(6, 2), loss, optim.SGD(lr=0.0), backend=backend)
    for _ in range(2):
        job.fit(X, REAL, epochs=5, batch_size=70)
    factor[0] = 2.0
    job.loss = job.loss
    job.fit(X, REAL, epochs=5, batch_size=70)
    before = job.history.step_losses[0]
    expected = [before] * 10 + [2 * before] * 5
    np.testing.assert_allclose(job.history.step_losses, expected, rtol=1e-5)


def test_a_run_saved_on_numpy_goes_on_here(
    backend: Backend, definitions: Backend, tmp_path: Path
) -> None:
    optimizer = optim.Adam(1e-3, eps=1e-5)
    for dtype in dtypes(backend):
        stayed = trained("cross_entropy", definitions, dtype, optimizer)
        first, here, back = (
            described("cross_entropy", where, dtype, optimizer)
            for where in (definitions, backend, definitions)
        )
        first.fit(X, LABELS, epochs=2, batch_size=16)
        first.save(tmp_path / "run")
        here.load(tmp_path / "run")
        here.fit(X, LABELS, epochs=2, batch_size=16)
        np.testing.assert_allclose(
            here.history.step_losses, stayed.history.step_losses, rtol=TOLERANCE[dtype]
        )
        assert here.history.step_losses[:10] == first.history.step_losses
        here.save(tmp_path / "run")
        back.load(tmp_path / "run")
        assert back.history.step_losses == here.history.step_losses
        for name, p in here.net.parameters().items():
            assert backend.is_array(p)
            np.testing.assert_allclose(
                to_numpy(p), stayed.net.parameters()[name], rtol=0, atol=TOLERANCE[dtype]
            )
            assert np.array_equal(to_numpy(p), back.net.parameters()[name])


def test_device_arrays_come_out_as_device_arrays(backend: Backend) -> None:
    x = backend.from_host(X.astype("float32"), backend.device(None))
    y = backend.from_host(REAL.astype("float32"), backend.device(None))
    trainer = Trainer(network(2), losses.mse, optim.Adam(1e-3), seed=3)
    trainer.fit(x, y, epochs=4, batch_size=16)
    host = trained("mse", backend, "float32", optim.Adam(1e-3))
    assert trainer.history.step_losses == host.history.step_losses
    assert backend.is_array(trainer.predict(x))
    assert isinstance(host.predict(X), np.ndarray)
    assert np.array_equal(to_numpy(trainer.predict(x)), host.predict(X))


def test_a_described_network_goes_where_the_data_is(backend: Backend) -> None:
    import polynet.backend.selection as selection

    token = selection._in_context.set(None)
    try:
        x = backend.from_host(X.astype("float32"), backend.device(None))
        y = backend.from_host(REAL.astype("float32"), backend.device(None))
        trainer = Trainer(network(2), losses.mse, optim.Adam(1e-3))
        trainer.fit(x, y)
        assert all(backend.is_array(p) for p in trainer.net.parameters().values())
    finally:
        selection._in_context.reset(token)


def test_evaluate_before_fit_uses_the_weights_that_fit_starts_from(backend: Backend) -> None:
    trainer = Trainer(
        network(3),
        losses.cross_entropy,
        optim.Adam(1e-2),
        metrics=[metrics.accuracy],
        backend=backend,
    )
    before = trainer.evaluate(X, LABELS)
    drawn = network(3).init(seed=0, backend=backend).parameters()
    for name, p in trainer.net.parameters().items():
        assert np.array_equal(to_numpy(p), to_numpy(drawn[name]))
    trainer.fit(X, LABELS, epochs=20)
    after = trainer.evaluate(X, LABELS)
    assert after["loss"] < before["loss"]
    assert after["accuracy"] > max(before["accuracy"], 0.7)

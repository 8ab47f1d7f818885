"""Callbacks: what ends a run, which weights it ends with, and that a resumed run does the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polynet import Trainer, losses, nn, optim
from polynet.backend import Backend, to_numpy
from polynet.callbacks import Checkpoint, EarlyStopping, ReduceLROnPlateau

rng = np.random.default_rng(11)
X = rng.normal(size=(24, 5))
Y = X[:, :1] + rng.normal(size=(24, 1))
OTHERS = rng.normal(size=(40, 5))
HELD_OUT = OTHERS, OTHERS[:, :1] + rng.normal(size=(40, 1))
"""So few noisy samples are learnt by heart: the loss on others falls, then rises."""


def trainer(backend: str | Backend = "numpy") -> Trainer:
    net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))
    return Trainer(net, losses.mse, optim.Adam(1e-2), seed=2, backend=backend)


def fit(job: Trainer, *callbacks: Any, epochs: int = 60) -> Trainer:
    job.fit(X, Y, epochs=epochs, batch_size=8, validation_data=HELD_OUT, callbacks=callbacks)
    return job


def weights(job: Trainer) -> dict[str, np.ndarray]:
    return {name: to_numpy(p) for name, p in job.net.parameters().items()}


def same_weights(one: Trainer, other: Trainer) -> None:
    for name, p in weights(one).items():
        assert np.array_equal(p, weights(other)[name]), name


def test_early_stopping_restores_the_best_weights(backend: Backend) -> None:
    job = fit(trainer(backend), EarlyStopping(patience=4))
    costs = job.history["val_loss"]
    best = int(np.argmin(costs)) + 1
    assert 1 < best < job.epoch == best + 4 < 60
    same_weights(job, fit(trainer(backend), epochs=best))
    score = job.evaluate(*HELD_OUT)["loss"]
    assert score == pytest.approx(costs[best - 1], rel=1e-6)
    assert EarlyStopping().best_epoch(job) == best


def test_without_restoring_the_last_weights_stay() -> None:
    job = fit(trainer(), EarlyStopping(patience=4, restore_best_weights=False))
    assert job.kept == {}
    same_weights(job, fit(trainer(), epochs=job.epoch))


@pytest.mark.parametrize(
    "at", ["before the best", "at the best", "after it", "at the last but one"]
)
def test_a_resumed_run_stops_where_the_other_did(backend: Backend, tmp_path: Path, at: str) -> None:
    whole = fit(trainer(backend), EarlyStopping(patience=4))
    best = whole.epoch - 4
    cut = {"before the best": best - 1, "at the best": best, "after it": best + 1}.get(at, best + 3)
    first, second = trainer(backend), trainer(backend)
    fit(first, EarlyStopping(patience=4), epochs=cut)
    first.save(tmp_path / "run")
    second.load(tmp_path / "run")
    assert second.kept == first.kept
    fit(second, EarlyStopping(patience=4), epochs=60 - cut)
    assert dict(second.history) == dict(whole.history)
    same_weights(second, whole)


def test_a_fit_that_ends_before_may_take_the_best() -> None:
    stop = EarlyStopping(patience=50)
    job = fit(trainer(), stop, epochs=40)
    best = stop.best_epoch(job)
    assert best < job.epoch == 40
    last = weights(job)
    stop.restore(job)
    same_weights(job, fit(trainer(), epochs=best))
    assert any(not np.array_equal(p, last[name]) for name, p in weights(job).items())
    fit(job, stop, epochs=1)  # and training goes on from there, and leaves what was kept alone
    assert job.kept == {"best min val_loss": best}
    stop.restore(job)
    same_weights(job, fit(trainer(), epochs=best))


def test_buffers_are_kept_and_restored_with_the_weights(backend: Backend, tmp_path: Path) -> None:
    def job() -> Trainer:
        net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        return Trainer(net, losses.mse, optim.Adam(1e-2), backend=backend)

    one, other = job(), job()
    one.fit(X, Y, epochs=2)
    one.keep_weights("early")
    early = {name: to_numpy(a) for name, a in one.net.state_dict().items()}
    one.fit(X, Y, epochs=2)
    one.save(tmp_path / "run")
    other.load(tmp_path / "run")
    for found in (one, other):
        now = found.net.buffers()
        assert not any(np.array_equal(to_numpy(a), early[name]) for name, a in now.items())
        found.restore_weights("early")
        for name, a in found.net.state_dict().items():
            assert np.array_equal(to_numpy(a), early[name]), name


def test_a_best_epoch_without_weights_is_refused() -> None:
    job = fit(trainer(), epochs=30)
    with pytest.raises(RuntimeError, match="whose weights were not kept: this callback was not"):
        fit(job, EarlyStopping(patience=100))
    with pytest.raises(KeyError, match="unknown name of kept weights 'best min val_loss'"):
        EarlyStopping().restore(job)


def test_numbers_stand_at_their_epochs(tmp_path: Path) -> None:
    """Those of validation that began later, too: a best epoch is one of all."""
    job = trainer()
    job.fit(X, Y, epochs=3, batch_size=8)
    path = tmp_path / "best.safetensors"
    fit(job, EarlyStopping(patience=2), Checkpoint(path, save_best_only=True), epochs=30)
    costs = job.history["val_loss"]
    assert np.array_equal(np.isnan(costs), np.arange(len(costs)) < 3)
    best = EarlyStopping().best_epoch(job)
    assert best == int(np.nanargmin(costs)) + 1 == job.epoch - 2
    saved = trainer()
    saved.load(path)
    assert saved.epoch == best
    np.testing.assert_array_equal(saved.history["val_loss"], costs[:best])
    job.fit(X, Y, epochs=1, batch_size=8)
    assert np.isnan(job.history["val_loss"][-1])
    assert len(job.history["loss"]) == len(job.history["val_loss"]) == job.epoch


def test_a_run_whose_numbers_were_saved_without_those_of_before(tmp_path: Path) -> None:
    """As runs were, where validation began later."""
    job = trainer()
    job.fit(X, Y, epochs=2, batch_size=8)
    fit(job, epochs=2)
    costs = list(job.history["val_loss"])
    del job.history.epochs["val_loss"][:2]
    job.save(tmp_path / "run.safetensors")
    again = trainer()
    again.load(tmp_path / "run.safetensors")
    np.testing.assert_array_equal(again.history["val_loss"], costs)
    fit(again, epochs=1)
    assert len(again.history["val_loss"]) == 5


def test_a_number_that_is_none_is_no_improvement() -> None:
    """What is not there yet counts neither way."""
    plateau = ReduceLROnPlateau("val_accuracy", mode="min", patience=1)
    costs = history_of(np.nan, np.nan, np.nan, 3.0, np.nan, np.nan).history["val_accuracy"]
    assert plateau._factor_after(costs) == pytest.approx(0.1)
    assert plateau._factor_after(costs[:4]) == 1.0


def test_a_number_that_the_history_lacks() -> None:
    job = trainer().fit(X, Y)
    with pytest.raises(KeyError, match=r"unknown number.*'val_accuracy'.*one of: loss.*val_…"):
        _ = job["val_accuracy"]
    assert "val_accuracy" not in job


def test_a_generator_of_callbacks_is_a_list_of_them() -> None:
    called: list[int] = []
    trainer().fit(X, Y, epochs=2, callbacks=(called.append for _ in range(1)))
    assert len(called) == 2


def history_of(*costs: float) -> Trainer:
    job = trainer()
    fit(job, epochs=1)
    job.history.epochs = {"val_accuracy": list(costs), "val_loss": [-c for c in costs]}
    return job


def test_min_delta_and_mode() -> None:
    job = history_of(0.5, 0.52, 0.7, 0.71, 0.69, float("nan"))
    for monitor, mode in (("val_accuracy", "max"), ("val_loss", "min"), ("val_loss", None)):
        assert EarlyStopping(monitor, mode=mode).best_epoch(job) == 4
        assert EarlyStopping(monitor, mode=mode, min_delta=0.05).best_epoch(job) == 3
        assert EarlyStopping(monitor, mode=mode, min_delta=0.3).best_epoch(job) == 1
    assert EarlyStopping("val_accuracy", mode="min").best_epoch(job) == 1


def test_a_checkpoint_has_what_the_other_callbacks_did(tmp_path: Path) -> None:
    path = tmp_path / "run"
    whole = fit(trainer(), Checkpoint(path), EarlyStopping(patience=4))  # in whatever order
    loaded = trainer()
    loaded.load(path)
    same_weights(loaded, whole)
    assert loaded.kept == whole.kept == {"best min val_loss": whole.epoch - 4}
    assert dict(loaded.history) == dict(whole.history)


def test_checkpoints_now_and_then_and_of_the_best_alone(tmp_path: Path) -> None:
    epochs = []
    one = trainer()
    for _ in range(2):
        fit(one, Checkpoint(tmp_path / "third", every=3), epochs=4)
        loaded = trainer()
        loaded.load(tmp_path / "third")
        epochs.append(loaded.epoch)
    assert epochs == [3, 6]
    job = fit(trainer(), Checkpoint(tmp_path / "best", save_best_only=True), epochs=40)
    loaded = trainer()
    loaded.load(tmp_path / "best")
    assert loaded.epoch == int(np.argmin(job.history["val_loss"])) + 1 < 40


def test_a_function_ends_training_and_all_are_called() -> None:
    seen: list[int] = []

    def enough(job: Trainer) -> bool:
        return len(job.history["loss"]) == 3

    fit(job := trainer(), enough, lambda job: seen.append(job.epoch))
    assert job.epoch == 3
    assert seen == [1, 2, 3]
    assert set(job.history.last()) == {"loss", "val_loss"}


@pytest.mark.parametrize("answer", [5, 1, 1.0, "saved", np.int64(1), [0], object()])
def test_only_true_ends_training(answer: Any) -> None:
    """A callback may end in file.write(…), which returns a number."""
    assert fit(trainer(), lambda job: answer, epochs=3).epoch == 3
    assert fit(trainer(), lambda job: np.bool_(False), epochs=3).epoch == 3
    assert fit(trainer(), lambda job: np.bool_(True), lambda job: answer, epochs=3).epoch == 1


def test_a_missing_folder_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    job, path = trainer(), tmp_path / "missing" / "run.safetensors"
    named = r"run\.safetensors cannot be written: there is no folder '.*missing'; make it first"
    with pytest.raises(FileExistsError, match="not a regular file"):
        fit(trainer(), Checkpoint(tmp_path))
    with pytest.raises(FileNotFoundError, match=named):
        fit(job, lambda job: None, Checkpoint(path))
    assert job.history.step_losses == []
    fit(job, epochs=1)
    with pytest.raises(FileNotFoundError, match=named):
        job.save(path)
    path.parent.mkdir()
    fit(job, Checkpoint(path), epochs=1)
    assert path.exists()


@pytest.mark.skipif(os.name != "posix", reason="on Windows not everybody may make links")
def test_a_missing_folder_that_a_link_leads_to_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "run")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        fit(trainer(), Checkpoint(tmp_path / "link"))


WATCHING = {
    "stop": lambda path: EarlyStopping(),
    "plateau": lambda path: ReduceLROnPlateau(),
    "best only": lambda path: Checkpoint(path, save_best_only=True),
    "a metric that is none": lambda path: EarlyStopping("val_accuracy", mode="max"),
}


@pytest.mark.parametrize("case", WATCHING)
def test_a_number_that_fit_will_not_keep_is_named_before_anything_is_trained(
    case: str, tmp_path: Path
) -> None:
    callback, job = WATCHING[case](tmp_path / "run"), trainer()
    held_out = HELD_OUT if case == "a metric that is none" else None
    with pytest.raises(KeyError, match=r"unknown number 'val_.*validation_split=0\.2"):
        job.fit(X, Y, validation_data=held_out, callbacks=[callback])
    assert job.history.step_losses == []
    fit(job, epochs=1)
    with pytest.raises(KeyError, match="unknown number"):  # of this fit, not of one before
        job.fit(X, Y, callbacks=[callback])
    assert job.epoch == 1
    job.fit(X, Y, callbacks=[Checkpoint(tmp_path / "run")])  # it saves whatever the number is


def test_a_rate_that_cannot_be_lowered_is_named_before_anything_is_trained() -> None:
    job = trainer()
    for _ in range(2):
        with pytest.raises(TypeError, match=r"there is none: .* Give lr=optim\.schedules"):
            fit(job, ReduceLROnPlateau())
        assert job.history.step_losses == []
        job.evaluate(*HELD_OUT)


def test_numpys_integers_count(tmp_path: Path) -> None:
    job = trainer()
    job.fit(
        X, Y, epochs=np.int64(3), batch_size=np.int64(8), accumulate=np.uint8(2),
        validation_data=HELD_OUT, callbacks=[EarlyStopping(patience=np.int32(2))],
    )  # fmt: skip
    plain = trainer()
    plain.fit(X, Y, epochs=3, batch_size=8, accumulate=2, validation_data=HELD_OUT)
    assert plain.history.step_losses == job.history.step_losses
    assert job.evaluate(*HELD_OUT, batch_size=np.int64(7)).keys() == {"loss"}
    assert len(job.predict(X, batch_size=np.asarray(5))) == 24
    assert Checkpoint(tmp_path / "run", every=np.int64(2)).every == 2


@pytest.mark.parametrize(
    ("attempt", "error", "words"),
    [
        (lambda: EarlyStopping("val_accuracy"), ValueError, "'val_accuracy' say mode='max'"),
        (
            lambda: EarlyStopping("val_los"),
            ValueError,
            "names that end in 'loss' only. Did you mean 'val_loss'",
        ),
        (
            lambda: trainer().fit(X, Y, callbacks=[EarlyStopping]),
            TypeError,
            "callbacks holds the class EarlyStopping itself; give an instance",
        ),
        (lambda: EarlyStopping(patience=True), ValueError, "patience is a positive integer"),
        (lambda: trainer().fit(X, Y, epochs=np.bool_(True)), ValueError, "epochs is a positive"),
        (lambda: trainer().fit(X, Y, batch_size=np.int64(0)), ValueError, "batch_size is a pos"),
        (lambda: EarlyStopping(mode="lowest"), ValueError, "mode is 'lowest'"),
        (lambda: EarlyStopping(patience=0), ValueError, "patience is a positive integer; got 0"),
        (lambda: EarlyStopping(min_delta=-1), ValueError, "min_delta is a number, at least 0"),
        (lambda: Checkpoint("run", every=0), ValueError, "every is a positive integer; got 0"),
        (
            lambda: trainer().fit(X, Y, callbacks=[EarlyStopping()]),
            KeyError,
            "unknown number 'val_loss'.*on validation data",
        ),
        (
            lambda: trainer().fit(X, Y, callbacks=EarlyStopping()),
            TypeError,
            "callbacks is a list of functions",
        ),
        (lambda: trainer().keep_weights("mine"), RuntimeError, "no weights yet"),
    ],
)
def test_bad_settings(attempt: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        attempt()

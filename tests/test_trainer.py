"""The Trainer: interruption, divergence, progress, splits, and its history."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from one_by_one import OneByOne

from polynet import (
    Trainer,
    array_namespace,
    data,
    functional,
    losses,
    metrics,
    nn,
    optim,
)
from polynet.errors import MixedBackendsError, NotCompiledError, NotFiniteError

rng = np.random.default_rng(0)
X = rng.normal(size=(64, 4))
Y = (X[:, 0] > 0).astype(int)


def trainer(**options: Any) -> Trainer:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    return Trainer(net, losses.cross_entropy, optim.Adam(1e-2), **options)


def test_history_has_a_number_an_epoch_and_one_a_step() -> None:
    job = trainer(metrics=[metrics.accuracy])
    history = job.fit(X, Y, epochs=3, batch_size=16, validation_split=0.25, stratify=True)
    assert set(history) == {"loss", "val_loss", "val_accuracy"}
    assert [len(v) for v in history.values()] == [3, 3, 3]
    assert len(history.step_losses) == 3 * 3
    np.testing.assert_allclose(history["loss"][0], np.mean(history.step_losses[:3]))
    assert "3 epochs" in repr(history)


def test_the_epochs_loss_weighs_a_short_batch_less() -> None:
    job = trainer()
    history = job.fit(X[:20], Y[:20], batch_size=16)
    first, second = history.step_losses
    assert history["loss"] == [pytest.approx((16 * first + 4 * second) / 20)]


def test_where_nothing_is_said_the_seed_is_0_and_a_batch_has_32_samples() -> None:
    job = trainer()
    assert job.seed == 0
    assert job.fit(X, Y).step_weights == [32, 32]


def test_a_given_network_stays_as_it_is() -> None:
    net = nn.Linear(4, 2).init(seed=0)
    before = {n: p.copy() for n, p in net.parameters().items()}
    job = Trainer(net, losses.cross_entropy, optim.SGD(lr=0.1))
    job.fit(X, Y)
    for name, p in before.items():
        assert np.array_equal(net.parameters()[name], p)
        assert not np.array_equal(job.net.parameters()[name], p)


def test_two_trainers_start_from_one_network() -> None:
    net = nn.Linear(4, 2).init(seed=0)
    first, second = (Trainer(net, losses.cross_entropy, optim.SGD(lr=0.1)) for _ in range(2))
    assert first.fit(X, Y).step_losses == second.fit(X, Y).step_losses


def test_a_trainer_on_another_backend_than_its_network_is_refused() -> None:
    pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    job = Trainer(nn.Linear(4, 2).init(backend="numpy"), losses.mse, optim.SGD(), backend="strict")
    with pytest.raises(MixedBackendsError, match=r"'numpy'.*'strict'.*net\.to"):
        job.fit(X, X[:, :2])


def test_the_first_step_that_is_not_finite_is_named() -> None:
    job = Trainer(nn.Linear(4, 1), losses.mse, optim.SGD(lr=1e6))
    with pytest.raises(NotFiniteError) as caught, np.errstate(all="ignore"):
        job.fit(X, X[:, :1], epochs=50)
    assert caught.value.step == len(job.history.step_losses)
    assert np.isfinite(job.history.step_losses).all()
    assert f"at step {caught.value.step}" in str(caught.value)


def test_the_loss_may_be_set_and_the_optimizer_may_not() -> None:
    job = trainer()
    with pytest.raises(TypeError, match="loss is 'mse'; expected a function"):
        job.loss = "mse"
    chances = Trainer(nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()), losses.mse, optim.SGD())
    with pytest.raises(ValueError, match=r"ends in Sigmoid\(\), and binary"):
        chances.loss = losses.binary_cross_entropy_with_logits
    assert chances.loss is losses.mse
    assert job.loss is losses.cross_entropy
    with pytest.raises(AttributeError, match=r"Make a new Trainer.*lr_factor"):
        job.optimizer = optim.SGD()
    assert isinstance(job.optimizer, optim.Adam)


def test_metrics_may_be_set_as_they_are_given() -> None:
    job = trainer()
    for given in ([metrics.accuracy], {"accuracy": metrics.accuracy}):
        job.metrics = given
        assert job.evaluate(X, Y) == trainer(metrics=[metrics.accuracy]).evaluate(X, Y)
    for wrong, words in ((metrics.accuracy, "is a list of functions"), ([len, len], "must differ")):
        with pytest.raises((TypeError, ValueError), match=words):
            job.metrics = wrong
    assert list(job.metrics) == ["accuracy"]
    chances = Trainer(nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()), losses.mse, optim.SGD())
    with pytest.raises(ValueError, match="accuracy takes the scores before it"):
        chances.metrics = [metrics.accuracy]


@pytest.mark.parametrize("name", ["lr", "epochs", "batch_size", "history", "seed"])
def test_what_a_trainer_does_not_go_by_cannot_be_set(name: str) -> None:
    """trainer.lr = 1e-4 would have changed nothing."""
    with pytest.raises(AttributeError, match=name):
        setattr(trainer(), name, 1)


def test_ctrl_c_leaves_a_usable_network() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    calls = []

    def loss(outputs: Any, targets: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        return losses.cross_entropy(outputs, targets)

    job = Trainer(net, loss, optim.Adam(1e-2), backend=OneByOne())
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        job.fit(X, Y, epochs=100, batch_size=16)
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(job.history.step_losses) == 5  # one call of the loss was the trial before training
    assert np.isfinite(job.predict(X)).all()
    whole = Trainer(net, losses.cross_entropy, optim.Adam(1e-2))
    whole.fit(X, Y, epochs=2, batch_size=16)
    assert whole.history.step_losses[:5] == job.history.step_losses
    job.fit(X, Y, batch_size=16)  # and it goes on where it stopped
    assert whole.history.step_losses == job.history.step_losses
    assert dict(whole.history) == dict(job.history)


@pytest.fixture
def sigint() -> Iterator[None]:
    """The handler of Ctrl-C may be changed."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
@pytest.mark.parametrize("when", ["before", "in a callback"])
@pytest.mark.parametrize("ignored", [True, False])
def test_a_program_that_does_something_else_at_ctrl_c_goes_on_so(when: str, ignored: bool) -> None:
    seen: list[int] = []
    handler: Any = signal.SIG_IGN if ignored else lambda *_: seen.append(1)

    def presses(job: Trainer) -> None:
        if when == "in a callback":
            signal.signal(signal.SIGINT, handler)
        signal.raise_signal(signal.SIGINT)

    if when == "before":
        signal.signal(signal.SIGINT, handler)
    job = trainer()
    job.fit(X, Y, epochs=2, callbacks=[presses])
    assert job.epoch == 2
    assert len(seen) == (0 if ignored else 2)
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_ends_a_fit_within_another() -> None:
    """As a callback may have it: both end, each between two steps."""
    inner, outer = trainer(), trainer()

    def press(job: Trainer) -> None:
        if job.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    def within(_: Trainer) -> None:
        inner.fit(X, Y, epochs=50, callbacks=[press])

    with pytest.raises(KeyboardInterrupt):
        outer.fit(X, Y, epochs=3, callbacks=[within])
    assert (inner.epoch, outer.epoch) == (2, 1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_steps_that_must_be_one_program_are_refused_where_there_is_none() -> None:
    """Before the first of them; the network and the history are as they were."""
    job = trainer(backend="strict", compile="require")
    with pytest.raises(NotCompiledError, match="backend 'strict' takes training steps one op"):
        job.fit(X, Y)
    assert job.history.step_losses == []
    with pytest.raises(ValueError, match=r"unknown compile 'requires'\. Did you mean 'require'"):
        trainer(compile="requires")


def test_steps_that_must_be_one_program_give_the_same_numbers() -> None:
    runs = [trainer(backend="numpy", compile=how) for how in ("auto", "require")]
    first, second = (run.fit(X, Y, epochs=3, batch_size=16).step_losses for run in runs)
    assert first == second


def test_training_works_outside_the_main_thread() -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(trainer().fit(X, Y).step_losses))
    thread.start()
    thread.join()
    assert found == [trainer().fit(X, Y).step_losses]


USES: dict[str, Callable[[Trainer], Any]] = {
    "fit": lambda job: job.fit(X, Y),
    "evaluate": lambda job: job.evaluate(X, Y),
    "predict": lambda job: job.predict(X),
    "save": lambda job: job.save("run"),
    "load": lambda job: job.load("run"),
    "net": lambda job: job.net,
    "loss": lambda job: setattr(job, "loss", losses.mse),
    "keep_weights": lambda job: job.keep_weights("mine"),
}


def test_two_threads_cannot_use_one_trainer_at_once() -> None:
    job, inside, done = trainer(), threading.Event(), threading.Event()

    def waits(job: Trainer) -> None:
        assert len(job.predict(X)) == len(X)  # in the thread that trains it may be used
        job.keep_weights("mine")
        inside.set()
        done.wait()

    thread = threading.Thread(target=lambda: job.fit(X, Y, callbacks=[waits]))
    thread.start()
    try:
        assert inside.wait(timeout=60)
        for use in USES.values():
            with pytest.raises(RuntimeError, match="at work in another thread; wait"):
                use(job)
    finally:
        done.set()
        thread.join()
    assert job.fit(X, Y)["loss"] == job.history["loss"]
    assert job.epoch == 2


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_trainer_is_not_copied(how: Callable[[Trainer], Any]) -> None:
    job = trainer()
    job.fit(X, Y)
    with pytest.raises(TypeError, match=r"cannot be copied or pickled.*save\(path\)"):
        how(job)


def test_progress_is_quiet_without_a_terminal_and_shown_when_asked(
    capfd: pytest.CaptureFixture[str],
) -> None:
    trainer().fit(X, Y)
    assert capfd.readouterr() == ("", "")
    trainer().fit(X, Y, epochs=2, progress=True)
    shown = capfd.readouterr().err
    assert "4/4" in shown
    assert "loss=" in shown


@pytest.mark.parametrize("progress", [None, True, False])
def test_a_program_without_a_stderr_trains(
    monkeypatch: pytest.MonkeyPatch, progress: bool | None
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert len(trainer().fit(X, Y, progress=progress).step_losses) == 2


def test_predictions_do_not_depend_on_the_batch_size() -> None:
    job = trainer()
    job.fit(X, Y)
    np.testing.assert_allclose(job.predict(X, batch_size=7), job.predict(X), rtol=1e-5, atol=1e-6)
    one, other = job.evaluate(X, Y, batch_size=5), job.evaluate(X, Y)
    assert one == pytest.approx(other, rel=1e-5)


def triplets(outputs: Any, targets: Any) -> Any:
    """Anchor, positive, negative, in turn: it needs a multiple of three samples."""
    xp = array_namespace(outputs)
    anchor, near, far = xp.unstack(xp.reshape(outputs, (-1, 3, 2)), axis=1)
    distances = [xp.sum(xp.square(anchor - other), axis=1) for other in (near, far)]
    return xp.mean(functional.relu(distances[0] - distances[1] + 1))


def in_batches(seed: int, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(X[:30], Y[:30]), (X[30:60], Y[30:60])]


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ((X[:60], Y[:60]), {"batch_size": 30, "validation_data": (X[:63], Y[:63])}),
        ((data.arrays(X[:60], Y[:60]),), {"batch_size": 30, "validation_split": 0.2}),
        ((in_batches,), {"validation_data": (X[:63], Y[:63])}),
    ],
    ids=["arrays", "a source", "batches of its own"],
)
def test_a_loss_may_need_as_many_samples_as_a_batch_has(given: Any, options: Any) -> None:
    job = Trainer(nn.Linear(4, 2), triplets, optim.Adam(1e-2))
    assert len(job.fit(*given, epochs=2, **options).step_losses) == 4
    assert job.evaluate(X[:63], Y[:63], batch_size=30)["loss"] == pytest.approx(
        float(triplets(job.predict(X[:63]), None)), rel=1e-5
    )


def spread(outputs: Any, targets: Any) -> Any:
    """A loss that looks across the batch."""
    xp = array_namespace(outputs)
    return xp.sum(outputs * outputs) + 0 * losses.cross_entropy(outputs, targets)


def test_a_loss_that_looks_across_the_batch_is_given_batches_to_be_evaluated() -> None:
    """Of the size given, or of as many whole batches as have up to 256 samples in validation.

    What is left is joined to the last: a sample that is alone may have no such loss.
    """
    seen: list[int] = []

    def watched(outputs: Any, targets: Any) -> Any:
        seen.append(outputs.shape[0])
        return spread(outputs, targets)

    job = Trainer(nn.Linear(4, 2), watched, optim.SGD(lr=0.0), backend=OneByOne())
    x, y = np.tile(X, (10, 1)), np.tile(Y, 10)
    job.fit(x[:30], y[:30], batch_size=30, validation_data=(x[:500], y[:500]))
    assert seen == [30, 30, 30, 240, 260]
    outputs = job.predict(x[:500]).astype(float)
    whole = np.sum(outputs**2, axis=1)
    parts = [whole[:240], whole[240:]]
    expected = np.average([part.sum() for part in parts], weights=list(map(len, parts)))
    assert job.history["val_loss"] == [pytest.approx(expected, rel=1e-5)]
    seen.clear()
    job.evaluate(x[:50], y[:50], batch_size=20)
    assert seen == [20, 30]
    seen.clear()
    job.fit(lambda seed, epoch: [(x[:30], y[:30])], validation_data=(x[:500], y[:500]))
    assert seen[-2:] == [240, 260], "of as many as the batches that the data make"


@pytest.mark.parametrize("name", ["cross_entropy", "nll"])
@pytest.mark.parametrize(
    "options",
    [{"ignore_index": 1}, {"weight": [1.0, 3.0]}, {"weight": [2.0, 0.5], "ignore_index": -7}],
)
@pytest.mark.parametrize("weighed", [False, True])
def test_what_labels_count_for_is_what_their_batches_count_for(
    name: str, options: Any, weighed: bool
) -> None:
    """The first batches hold labels of one class, one of them nothing that counts."""
    x, y = np.tile(X, (5, 1)), np.sort(np.tile(Y, 5))[::-1]
    if "ignore_index" in options:
        y = np.where(np.arange(len(y)) % 5 == 0, options["ignore_index"], y)
    loss = functools.partial(getattr(losses, name), **options)
    last = [nn.LogSoftmax(1)] * (name == "nll")
    job = Trainer(nn.Sequential(nn.Linear(4, 2), *last), loss, optim.SGD(0.1), dtype="float64")
    w = np.random.default_rng(0).uniform(0, 2, len(y)) if weighed else None
    whole = job.evaluate(x, y, sample_weight=w, batch_size=len(y))["loss"]
    expected = loss(job.predict(x), np.ascontiguousarray(y), w)
    assert whole == pytest.approx(float(expected), rel=1e-12)
    for size in (10, 32, 64):
        found = job.evaluate(x, y, sample_weight=w, batch_size=size)["loss"]
        assert found == pytest.approx(whole, rel=1e-12)


def test_batches_that_count_for_nothing_are_left_out_of_the_mean() -> None:
    job = trainer()
    w = np.where(np.arange(64) < 32, 0.0, 2.0)
    found = job.evaluate(X, Y, sample_weight=w, batch_size=16)["loss"]
    assert found == pytest.approx(job.evaluate(X[32:], Y[32:])["loss"], rel=1e-6)
    nothing = [(X[:8], Y[:8], np.zeros(8))]
    with pytest.raises(ValueError, match="sample_weight holds zeros only"):
        job.evaluate(nothing)
    with pytest.raises(ValueError, match="x gave no batch"):
        job.evaluate(lambda seed, epoch: [])


def test_batches_of_several_shapes_are_evaluated_but_not_joined() -> None:
    class Tags(nn.Module):
        def __init__(self) -> None:
            self.words, self.tags = nn.Embedding(7, 5), nn.Linear(5, 3)

        def forward(self, x: Any) -> Any:
            y = self.tags(self.words(x))
            return array_namespace(y).permute_dims(y, (0, 2, 1))

    texts = [np.arange(4 * n).reshape(4, n) % 7 for n in (6, 3, 9)]
    batches = [(x, x % 3) for x in texts]
    job = Trainer(Tags(), losses.cross_entropy, optim.Adam())
    job.fit(batches, validation_data=batches)
    assert job.history["val_loss"] == [job.evaluate(batches)["loss"]]
    each = [job.evaluate([batch])["loss"] for batch in batches]
    assert job.evaluate(batches)["loss"] == pytest.approx(np.mean(each), rel=1e-6)
    job.metrics = {"accuracy": metrics.accuracy}
    with pytest.raises(ValueError, match=r"\(4, 6\) for one batch, and \(4, 3\) for another"):
        job.evaluate(batches)


def test_one_pass_of_a_batch_is_the_trial() -> None:
    passes: list[tuple[int, bool]] = []

    class Counted(nn.Linear):
        def forward(self, x: Any) -> Any:
            passes.append((x.shape[0], self.training))
            return super().forward(x)

    job = Trainer(Counted(4, 2), losses.cross_entropy, optim.SGD(), backend=OneByOne())
    job.fit(X, Y, batch_size=24, validation_data=(X[:20], Y[:20]))
    tried = [(24, False), (20, False)]
    assert passes == [*tried, (24, True), (24, True), (16, True), (20, False)]
    passes.clear()
    job.evaluate(X, Y, batch_size=40)
    assert passes == [(64, False)]  # 40, and the rest; what fits no network says so in the first


def test_lists_and_integers_are_taken() -> None:
    job = Trainer(nn.Linear(2, 2), losses.cross_entropy, optim.SGD(lr=0.1))
    job.fit([[0.0, 1.0], [1.0, 0.0]], [0, 1], epochs=2)
    assert job.predict([[0.0, 1.0]]).shape == (1, 2)
    assert job.predict([[0.0, 1.0]]).dtype == np.float32


def test_float64_stays_float64() -> None:
    job = trainer(dtype="float64")
    job.fit(X, Y)
    assert job.predict(X).dtype == np.float64
    assert {p.dtype for p in job.net.parameters().values()} == {np.dtype("float64")}


def test_the_first_training_step_in_a_fresh_process() -> None:
    code = (
        "import numpy as np, polynet as pn; from polynet import nn, losses, optim\n"
        "t = pn.Trainer(nn.Linear(2, 1), losses.mse, optim.SGD(lr=0.1))\n"
        "print(len(t.fit(np.ones((4, 2)), np.ones((4, 1))).step_losses))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "POLYNET_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert done.stdout == "1\n"
    assert done.stderr == ""

"""Losses and metrics: what they refuse, and labels that `fit` checks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

from polynet import Trainer, losses, metrics, nn, optim, use_backend, value_and_grad
from polynet.backend import Backend, to_numpy
from polynet.ops import OPS

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y = np.arange(12) % 3
ONES = np.ones(12, dtype="float32")


def call(loss: Any, *args: Any, **options: Any) -> Any:
    return lambda: loss(*args, **options)


SHARES = np.full((12, 4), 0.25, dtype="float32")
LIKE = (  # losses whose targets are as the outputs are
    losses.mse, losses.l1, losses.smooth_l1, losses.huber, losses.cosine_distance, losses.kl_div,
    losses.hinge, losses.binary_cross_entropy_with_logits,
)  # fmt: skip
WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "weights of samples": (
        call(losses.huber, X, X, ONES[:3]),
        ValueError,
        r"huber: sample_weight has one number a sample, shape \(12,\); got \(3,\)",
    ),
    "weights as a column": (
        call(losses.cross_entropy, X, Y, ONES[:, None]),
        ValueError,
        r"cross_entropy: sample_weight.*\(12,\); got \(12, 1\)",
    ),
    "weights in another dtype": (
        call(losses.mse, X, X, np.ones(12)),
        TypeError,
        "mse: sample_weight is float64; expected float32",
    ),
    "weights of classes": (
        call(losses.cross_entropy, X, Y, weight=[1.0, 2.0]),
        ValueError,
        r"cross_entropy: a weight for each class has shape \(4,\); got \(2,\)",
    ),
    "weights of classes in another dtype": (
        call(losses.nll, X, Y, weight=np.ones(4)),
        TypeError,
        "nll: the classes' weights are float64; expected float32",
    ),
    "no weights": (call(losses.nll, X, Y, weight=[]), ValueError, r"got \(0,\)"),
    "weights of positives": (
        call(losses.binary_cross_entropy_with_logits, X, SHARES, pos_weight=[1.0, 2.0]),
        ValueError,
        r"shape \(4,\); got \(2,\)",
    ),
    "smoothing": (
        call(losses.cross_entropy, X, Y, label_smoothing=1.5),
        ValueError,
        r"label_smoothing is a number from 0 to 1; got 1\.5",
    ),
    "probabilities that are ignored": (
        call(losses.cross_entropy, X, SHARES, ignore_index=1),
        ValueError,
        "ignore_index is for labels",
    ),
    "labels of places": (
        call(losses.cross_entropy, X[:, :, None], Y),
        ValueError,
        r"\(12, 4, 1\) have shape \(12, 1\).*got \(12,\)",
    ),
    "nll of probabilities": (call(losses.nll, X, SHARES), TypeError, "nll: targets are float32"),
    "margin of probabilities": (
        call(losses.multi_margin, X, SHARES),
        TypeError,
        "multi_margin: targets are float32",
    ),
    "margin of places": (
        call(losses.multi_margin, X[:, :, None], Y[:, None]),
        ValueError,
        r"expected logits of shape \(batch, classes\)",
    ),
    "margin's power": (call(losses.multi_margin, X, Y, p=3), ValueError, "p is 1 or 2; got 3"),
    "delta": (call(losses.huber, X, X, delta=0.0), ValueError, r"delta is a number above 0"),
    "beta": (call(losses.smooth_l1, X, X, beta=-1.0), ValueError, r"beta.*at least 0"),
    "top 0": (call(metrics.top_k, 0), ValueError, "k is a positive integer; got 0"),
    "top of few": (call(metrics.top_k(5), Y, X), ValueError, r"5 classes or more.*\(12, 4\)"),
    "top of a column": (call(metrics.top_k(2), Y[:, None], X), ValueError, r"\(12, 1\)"),
    "probabilities in another dtype": (
        call(losses.cross_entropy, X, SHARES.astype("float64")),
        TypeError,
        "cross_entropy: targets are float64; expected float32",
    ),
    **{
        f"{loss.__name__} of {wrong}": (call(loss, X, targets), kind, f"{loss.__name__}: {words}")
        for loss in LIKE
        for wrong, targets, kind, words in (
            ("another shape", X[:, :1], ValueError, r"outputs have shape \(12, 4\), targets"),
            ("another dtype", X.astype("float64"), TypeError, "targets are float64"),
        )
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused(name: str) -> None:
    make, kind, words = WRONG[name]
    with pytest.raises(kind, match=words):
        make()


# Labels, which fit sees on the host


def trainer(loss: Any, *, last: Any = None, **options: Any) -> Trainer:
    net = nn.Linear(4, 3) if last is None else nn.Sequential(nn.Linear(4, 3), last)
    return Trainer(net, loss, optim.Adam(0.1), **options)


def last_of(name: str) -> Any:
    """The layer that outputs pass before a loss of this name."""
    return nn.LogSoftmax(1) if name == "nll" else None


OF_LABELS = {
    "cross_entropy": losses.cross_entropy,
    "multi_margin": losses.multi_margin,
    "nll": losses.nll,
    "smoothed": partial(losses.cross_entropy, label_smoothing=0.1),
    "ignoring": partial(losses.cross_entropy, ignore_index=-1),
}


@pytest.mark.parametrize("name", OF_LABELS)
@pytest.mark.parametrize("label", [3, -2])
def test_fit_refuses_labels_that_are_no_class(name: str, label: int) -> None:
    labels = np.where(np.arange(12) == 7, label, Y)
    run = trainer(OF_LABELS[name], last=last_of(name))
    with pytest.raises(ValueError, match=rf"y holds class {label}, the network has 3 outputs"):
        run.fit(X, labels)
    run.fit(X, labels, sample_weight=(labels != label).astype(float))  # it weighs nothing


def single(loss: Any, *last: nn.Module, metrics: Any = ()) -> Trainer:
    net = nn.Sequential(nn.Linear(4, 1), *last)
    return Trainer(net, loss, optim.Adam(0.1), metrics=metrics)


class First(nn.Module):
    """One number a sample, without an axis of classes."""

    def __init__(self) -> None:
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        return self.layer(x)[:, 0]


class Logarithms(nn.Sequential):
    """One after another, and then something else."""

    def forward(self, x: Any) -> Any:
        return OPS["log"](super().forward(x))


BCE = losses.binary_cross_entropy_with_logits
COLUMN = (Y[:, None] > 0).astype("float32")
NOT_MEANT: dict[str, tuple[Any, str]] = {
    "sigmoid twice": (lambda: single(BCE, nn.Sigmoid()), r"ends in Sigmoid\(\), and binary"),
    "softmax twice": (
        lambda: trainer(partial(losses.cross_entropy, label_smoothing=0.1), last=nn.Softmax(1)),
        r"Softmax\(dim=1\), and cross_entropy takes the scores before it.*leave the layer out",
    ),
    "within another": (
        lambda: trainer(losses.cross_entropy, last=nn.Sequential(nn.ReLU(), nn.Softmax(1))),
        "cross_entropy takes the scores before it",
    ),
    "accuracy of chances": (
        lambda: single(losses.mse, nn.Sigmoid(), metrics=[metrics.accuracy]),
        r"accuracy takes the scores before it, above 0 meaning 1.*outputs > 0\.5",
    ),
    "sigmoid of classes": (
        lambda: trainer(losses.cross_entropy, last=nn.Sigmoid()),
        "leave the layer out.*For several labels a sample, use binary_cross_entropy",
    ),
    "softmax of labels": (
        lambda: trainer(BCE, last=nn.Softmax(1)),
        "leave the layer out.*exclude one another, use cross_entropy",
    ),
    "accuracy of chances within another": (
        lambda: Trainer(
            nn.Sequential(nn.Sequential(nn.Linear(4, 1)), nn.Sigmoid()),
            losses.mse,
            optim.SGD(),
            metrics=[metrics.accuracy],
        ),
        "accuracy takes the scores before it",
    ),
    "another loss": (
        lambda: setattr(trainer(losses.mse, last=nn.Softmax(1)), "loss", losses.cross_entropy),
        "cross_entropy takes the scores before it",
    ),
    "scores that are evaluated": (
        lambda: trainer(losses.nll).evaluate(X + 10, Y),
        "nll takes log-probabilities",
    ),
    "scores of samples alone": (
        lambda: Trainer(First(), losses.cross_entropy, optim.SGD()).fit(X, X[:, 0]),
        r"expected logits of shape \(batch, classes\)",
    ),
    "no layer": (
        lambda: Trainer(nn.Sequential(), losses.mse, optim.SGD()).fit(X, X),
        "Sequential has no parameters: there is nothing to train",
    ),
    "one class": (
        lambda: single(losses.cross_entropy).fit(X, COLUMN),
        "cross_entropy is of two classes or more.*binary_cross_entropy_with_logits",
    ),
    "one class a place": (
        lambda: Trainer(nn.Conv1d(4, 1, 1), losses.cross_entropy, optim.SGD()).fit(
            X[:, :, None], 0 * Y[:, None]
        ),
        "cross_entropy is of two classes or more.*binary_cross_entropy_with_logits",
    ),
    "numbers for classes": (
        lambda: trainer(losses.cross_entropy).fit(X, 7 * X[:, :3]),
        r"y holds numbers from -?[\d.]+ to [\d.]+; not all sums over the classes are 1.*for mse",
    ),
    "several labels for classes": (
        lambda: trainer(losses.cross_entropy).fit(X, np.ones((12, 3))),
        r"y holds numbers from 0 to 1; not all sums over the classes are 1.*several labels a",
    ),
    "scores for log-probabilities": (
        lambda: trainer(losses.nll).fit(X + 10, Y),
        r"nll takes log-probabilities, which are at most 0; the network gives \d",
    ),
}


@pytest.mark.parametrize("name", NOT_MEANT)
def test_what_a_loss_or_accuracy_does_not_mean_is_refused(name: str) -> None:
    do, words = NOT_MEANT[name]
    with pytest.raises(ValueError, match=words):
        do()


@dataclass
class Scaled:
    """A loss that is an object, and one that no dict can hold."""

    factor: float

    def __call__(self, outputs: Any, targets: Any) -> Any:
        return losses.mse(outputs, targets) * self.factor


def test_what_they_mean_is_not_refused() -> None:
    trainer(Scaled(2.0)).fit(X, np.eye(3)[Y])
    single(losses.mse, nn.Sigmoid()).fit(X, COLUMN)
    single(BCE, metrics=[metrics.accuracy]).fit(X, COLUMN)
    trainer(losses.mse, last=nn.Sigmoid(), metrics=[metrics.accuracy]).fit(X, np.eye(3)[Y])
    trainer(losses.cross_entropy, last=nn.LogSoftmax(1)).fit(X, Y)
    trainer(losses.cross_entropy).fit(X, np.full((12, 3), 1 / 3, dtype="float16"))
    weights = (np.arange(12) > 0).astype(float)
    trainer(losses.cross_entropy).fit(X, np.eye(3)[Y] * weights[:, None], sample_weight=weights)
    trainer(losses.cross_entropy).fit(X, np.eye(3)[Y] * (1 + 1e-6) - 1e-9)
    trainer(losses.cross_entropy).fit(X, np.eye(3)[Y] * weights[:, None])  # of one, none counts
    net = Logarithms(nn.Linear(4, 3), nn.Softmax(1))
    Trainer(net, losses.cross_entropy, optim.SGD()).fit(X, Y)
    odd = np.where(weights == 0, 77, Y)
    trainer(losses.cross_entropy).fit(X, odd, sample_weight=weights, batch_size=4, accumulate=2)
    single(BCE).fit(X, COLUMN - 2 * (weights[:, None] == 0), sample_weight=weights)


def test_ignored_labels_are_no_mistake_and_change_nothing() -> None:
    ignoring = partial(losses.cross_entropy, ignore_index=-100)
    ignored = np.where(np.arange(12) < 3, -100, Y)  # the first is the one that fit tries
    with_them, without = trainer(ignoring), trainer(losses.cross_entropy)
    with_them.fit(X, ignored, epochs=5, batch_size=12)
    without.fit(X[3:], Y[3:], epochs=5, batch_size=12)
    np.testing.assert_allclose(
        with_them.history.step_losses, without.history.step_losses, rtol=1e-5
    )


def test_labels_of_places_are_counted_along_the_axis_of_classes() -> None:
    net, x = nn.Conv1d(1, 3, 1), X[:, None, :]
    labels = np.arange(48).reshape(12, 4) % 3
    Trainer(net, losses.cross_entropy, optim.SGD()).fit(x, labels)
    with pytest.raises(ValueError, match="y holds class 3, the network has 3 outputs"):
        Trainer(net, losses.cross_entropy, optim.SGD()).fit(x, labels + 1)


@pytest.mark.parametrize("name", losses.__all__)
@pytest.mark.parametrize("weights", [None, ONES])
def test_every_loss_is_a_mean_over_samples(
    backend: Backend, name: str, weights: np.ndarray | None
) -> None:
    """Which fit looks for where a step has parts, and warns."""
    targets: Any = (np.arange(36).reshape(12, 3) % 2).astype("float32")
    if name in {"nll", "multi_margin"}:
        targets = Y
    elif name == "hinge":
        targets = 2 * targets - 1
    elif name == "cross_entropy":
        targets = np.eye(3)[Y]
    job = trainer(getattr(losses, name), last=last_of(name), backend=backend)
    job.fit(X, targets, sample_weight=weights, batch_size=3, accumulate=2)


# Labels that are no class


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
@pytest.mark.parametrize("label", [-1, 4, 200])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cross_entropy", {"label_smoothing": 0.1}),
        ("cross_entropy", {"weight": [1.0, 2.0, 3.0, 4.0]}),
        ("cross_entropy", {"ignore_index": -100}),
        ("nll", {}),
        ("multi_margin", {}),
    ],
)
def test_a_label_that_is_no_class_spoils_the_loss(
    backend: Backend, name: str, options: Any, label: int, dtype: str
) -> None:
    """In silence it would count as another number, or as nothing; a device cannot raise."""
    if (backend.name, name) == ("torch", "nll"):
        pytest.skip("on the CPU, PyTorch's kernel refuses it: tests/test_torch_kernels.py")
    if label < 0 and dtype == "uint8":
        label = 255
    loss = partial(getattr(losses, name), **options)
    logits = backend.from_host(X[:3], backend.device(None))
    for labels, fine in (([0, 3, 1], True), ([0, label, 1], False)):
        host = np.asarray(labels).astype(dtype)
        if not hasattr(backend.xp, dtype) or (dtype == "int64" and not wide(backend)):
            continue
        y = backend.from_host(host, backend.device(None))
        assert bool(np.isfinite(to_numpy(loss(logits, y)))) == fine


@pytest.mark.parametrize("options", [{}, {"ignore_index": 7}])
def test_labels_out_of_range_without_a_kernel(backend: Backend, options: Any) -> None:
    plain = backend.without_kernels()
    logits = plain.from_host(X[:2], plain.device(None))
    with use_backend(plain):
        for label, fine in ((3, True), (4, False), (7, "ignore_index" in options)):
            y = plain.from_host(np.asarray([1, label], np.int32), plain.device(None))
            found = float(to_numpy(losses.cross_entropy(logits, y, **options)))
            assert np.isfinite(found) == fine


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.nll, losses.multi_margin])
def test_a_label_that_weighs_nothing_may_be_none(loss: Any) -> None:
    w = np.asarray([1.0, 0.0], np.float32)
    found = loss(X[:2], np.asarray([0, -1]), w)
    if loss is losses.multi_margin:
        assert np.isfinite(found)
    else:
        assert float(found) == pytest.approx(float(loss(X[:1], np.asarray([0]))), rel=1e-6)
    assert np.isnan(loss(X[:2], np.asarray([-1, 0]), w))


def test_what_is_no_probability_spoils_the_divergence(backend: Backend) -> None:
    """PyTorch's is NaN too; q log q of a negative q was taken for 0."""
    log_p = np.log(np.full((1, 2), 0.5))
    for q, fine in (([0.0, 1.0], True), ([-0.5, 1.5], False), ([np.nan, 1.0], False)):
        pair = (np.asarray(a, dtype="float32") for a in (log_p, [q]))
        x, y = (backend.from_host(a, backend.device(None)) for a in pair)
        with np.errstate(invalid="ignore"):
            assert bool(np.isfinite(to_numpy(losses.kl_div(x, y)))) == fine


@pytest.mark.parametrize("pos_weight", [None, 1.0])
@pytest.mark.parametrize(("y", "towards"), [(1.0, -1.0), (0.0, 1.0)])
def test_what_is_nearly_right_has_a_small_loss_and_slope(
    backend: Backend, y: float, towards: float, pos_weight: float | None
) -> None:
    """log(1 + eˣ) - x is exp(-x), where float32 sees no 1 beside eˣ: it was 0, and so the slope."""
    x = np.asarray([-10.0, -20.0, -30.0], dtype="float32") * np.float32(towards)
    logits, targets = (backend.from_host(a, backend.device(None)) for a in (x, np.full_like(x, y)))
    loss = partial(losses.binary_cross_entropy_with_logits, pos_weight=pos_weight)
    for i in range(3):
        value, slope = value_and_grad(lambda a, i=i: loss(a[i : i + 1], targets[i : i + 1]))(logits)
        size = np.exp(-np.abs(x[i].astype("float64")))
        assert float(value) == pytest.approx(np.log1p(size), rel=1e-6)
        assert float(slope[i]) == pytest.approx(towards * size / (1 + size), rel=1e-6)


ROBUST = {"smooth_l1": (losses.smooth_l1, 1.0), "huber": (partial(losses.huber, delta=0.5), 0.5)}


@pytest.mark.parametrize("far", [1e30, -1e30, np.inf, -np.inf])
@pytest.mark.parametrize("name", ROBUST)
def test_a_robust_loss_of_what_is_far_off_squares_nothing(
    backend: Backend, name: str, far: float
) -> None:
    """The square of 10³⁰ is beyond float32, and the slope of ∞ was 0·∞ of the branch not taken."""
    loss, slope = ROBUST[name]
    x, y = (backend.from_host(np.asarray([a], "float32"), backend.device(None)) for a in (far, 0))
    value, found = value_and_grad(loss)(x, y)
    assert float(value) == pytest.approx(slope * abs(far), rel=1e-6)
    assert float(found[0]) == np.copysign(slope, far)


@pytest.mark.parametrize("d", [0.0, 1e-40, 1.0])
def test_smooth_l1_of_a_beta_that_float32_has_no_reciprocal_of(d: float) -> None:
    x, y = np.asarray([d], "float32"), np.zeros(1, "float32")
    value, slope = value_and_grad(partial(losses.smooth_l1, beta=2e-39))(x, y)
    assert float(value) == pytest.approx(d if d == 1 else d / 2e-39 * d / 2, rel=1e-4, abs=1e-44)
    assert float(slope[0]) == pytest.approx(min(d / 2e-39, 1), rel=1e-4)


def test_a_label_of_more_bits_than_32() -> None:
    loss = partial(losses.cross_entropy, label_smoothing=0.1)
    assert np.isnan(loss(X[:1], np.asarray([2**32 + 1])))


def wide(backend: Backend) -> bool:
    try:
        backend.from_host(np.zeros(1, np.int64), backend.device(None))
    except TypeError:
        return False
    return True

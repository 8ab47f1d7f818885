"""Losses beside PyTorch's over a grid of options: values and gradients, sample weights too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from beside_pytorch import DTYPES, numbers, same, torch

from polynet import losses, value_and_grad

F = torch.nn.functional
LABELS = np.asarray([0, 2, 1, 1, 0, 2])
WEIGHT = np.asarray([0.5, 2.0, 1.2])
SHARES = np.random.default_rng(1).dirichlet(np.ones(3), 6)
BESIDE = np.asarray([0.5, 0.0, 2.0, 1.0, 0.25, 3.0])  # weights of six samples


def there(value: Any, dtype: str) -> Any:
    return torch.tensor(value.astype(dtype) if value.dtype.kind == "f" else value)


def here(value: np.ndarray, dtype: str) -> np.ndarray:
    return value.astype(dtype) if value.dtype.kind == "f" else value


def compare(loss: Any, expected: Any, x: np.ndarray, targets: np.ndarray, dtype: str) -> None:
    """Value and gradient of `loss(x, targets)` beside those of `expected`."""
    outputs = there(x, dtype).requires_grad_()
    wanted = expected(outputs, there(targets, dtype))
    wanted.backward()
    value, slope = value_and_grad(loss)(here(x, dtype), here(targets, dtype))
    same(value, wanted, dtype)
    same(slope, outputs.grad, dtype)


NUMBERS: dict[str, tuple[Any, dict[str, Any], Any, Any]] = {
    "mse": (losses.mse, {}, F.mse_loss, {}),
    "l1": (losses.l1, {}, F.l1_loss, {}),
    "smooth_l1": (losses.smooth_l1, {}, F.smooth_l1_loss, {}),
    "huber": (losses.huber, {}, F.huber_loss, {}),
    **{
        f"smooth_l1({beta})": (losses.smooth_l1, {"beta": beta}, F.smooth_l1_loss, {"beta": beta})
        for beta in (0.0, 0.3, 1.0, 2.5)
    },
    **{
        f"huber({delta})": (losses.huber, {"delta": delta}, F.huber_loss, {"delta": delta})
        for delta in (0.3, 1.0, 2.5)
    },
}
SHAPES = [(6,), (6, 3), (6, 2, 4)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", NUMBERS)
def test_of_numbers(name: str, weighted: bool, shape: tuple[int, ...], dtype: str) -> None:
    ours, options, theirs, twins = NUMBERS[name]
    s = BESIDE.astype(dtype) if weighted else None

    def expected(x: Any, y: Any) -> Any:
        return by_sample(theirs(x, y, reduction="none", **twins), weighted)

    def loss(x: Any, y: Any) -> Any:
        return ours(x, y, s, **options)

    compare(loss, expected, 2 * numbers(*shape), numbers(*shape, seed=4), dtype)


def by_sample(values: Any, weighted: bool) -> Any:
    """PyTorch's mean, or Σ s·l / Σ s."""
    if not weighted:
        return values.mean()
    s = torch.tensor(BESIDE, dtype=values.dtype)
    return (values.reshape(len(s), -1).mean(1) * s).sum() / s.sum()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("pos", [None, 3.0, WEIGHT, [0.5, 2.0, 1.2]], ids=str)
def test_binary_cross_entropy(pos: Any, weighted: bool, scale: float, dtype: str) -> None:
    given = pos.astype(dtype) if isinstance(pos, np.ndarray) else pos
    s = BESIDE.astype(dtype) if weighted else None

    def expected(x: Any, y: Any) -> Any:
        p = None if pos is None else torch.tensor(np.asarray(pos), dtype=x.dtype)
        values = F.binary_cross_entropy_with_logits(x, y, reduction="none", pos_weight=p)
        return by_sample(values, weighted)

    def loss(x: Any, y: Any) -> Any:
        return losses.binary_cross_entropy_with_logits(x, y, s, given)

    compare(loss, expected, scale * numbers(6, 3), SHARES, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weight", [None, WEIGHT, WEIGHT.tolist()], ids=["", "array", "list"])
@pytest.mark.parametrize("targets", ["labels", "ignored", "places", "chances", "chances of places"])
def test_cross_entropy(
    targets: str, weight: Any, smoothing: float, scale: float, dtype: str
) -> None:
    x = scale * numbers(6, 3)
    options: dict[str, Any] = {"label_smoothing": smoothing}
    y: Any = LABELS
    if targets == "ignored":
        options["ignore_index"] = 2
    elif targets == "places":
        x, y = scale * numbers(6, 3, 2, 2), (np.arange(24) * 5 % 4 - 1).reshape(6, 2, 2)
        options["ignore_index"] = -1
    elif targets == "chances":
        y = SHARES
    elif targets == "chances of places":
        x, y = scale * numbers(6, 3, 2), np.stack([SHARES, SHARES[::-1]], axis=2)
    given = weight.astype(dtype) if isinstance(weight, np.ndarray) else weight

    def expected(a: Any, b: Any) -> Any:
        w = None if weight is None else torch.tensor(weight, dtype=a.dtype)
        return F.cross_entropy(a, b, w, **options)

    compare(lambda a, b: losses.cross_entropy(a, b, weight=given, **options), expected, x, y, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "weight"])
@pytest.mark.parametrize("ignore", [None, 1])
def test_nll(ignore: int | None, weight: Any, dtype: str) -> None:
    w = None if weight is None else weight.astype(dtype)

    def expected(a: Any, b: Any) -> Any:
        there = None if w is None else torch.tensor(w)
        return F.nll_loss(a, b, there, ignore_index=-100 if ignore is None else ignore)

    for x, y in ((numbers(6, 3), LABELS), (numbers(3, 3, 2), LABELS.reshape(3, 2))):
        compare(lambda a, b: losses.nll(a, b, None, w, ignore_index=ignore), expected, x, y, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "weight"])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("margin", [0.5, 1.0])
def test_multi_margin(p: int, margin: float, weight: Any, dtype: str) -> None:
    w = None if weight is None else weight.astype(dtype)

    def expected(a: Any, b: Any) -> Any:
        return F.multi_margin_loss(a, b, p, margin, None if w is None else torch.tensor(w))

    def loss(a: Any, b: Any) -> Any:
        return losses.multi_margin(a, b, weight=w, p=p, margin=margin)

    compare(loss, expected, numbers(6, 3), LABELS, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("one_hot", [False, True])
def test_kl_div(log_target: bool, one_hot: bool, dtype: str) -> None:
    y = np.eye(3)[LABELS] if one_hot else SHARES
    if log_target:
        y = np.log(np.maximum(y, 1e-5))
    compare(
        lambda a, b: losses.kl_div(a, b, log_target=log_target),
        lambda a, b: F.kl_div(a, b, reduction="batchmean", log_target=log_target),
        -np.abs(numbers(6, 3)),
        y,
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_hinge_and_cosine_distance(dtype: str) -> None:
    signs = np.sign(numbers(6, 3, seed=1))
    compare(losses.hinge, lambda a, b: (1 - a * b).clamp(min=0).mean(), numbers(6, 3), signs, dtype)
    same_way = torch.ones(6)
    for y in (signs, numbers(6, 3, seed=2), np.zeros((6, 3))):
        compare(
            losses.cosine_distance,
            lambda a, b: F.cosine_embedding_loss(a, b, same_way.to(a.dtype)),
            numbers(6, 3),
            y,
            dtype,
        )


# Weights of samples


CALLS: dict[str, tuple[Any, np.ndarray, np.ndarray]] = {
    "mse": (losses.mse, numbers(6, 3), SHARES),
    "l1": (losses.l1, numbers(6, 3), SHARES),
    "smooth_l1": (losses.smooth_l1, numbers(6, 3), SHARES),
    "huber": (losses.huber, numbers(6, 3), SHARES),
    "cosine_distance": (losses.cosine_distance, numbers(6, 3), SHARES),
    "kl_div": (losses.kl_div, numbers(6, 3), SHARES),
    "hinge": (losses.hinge, numbers(6, 3), np.sign(numbers(6, 3, seed=1))),
    "binary": (losses.binary_cross_entropy_with_logits, numbers(6, 3), SHARES),
    "cross_entropy": (losses.cross_entropy, numbers(6, 3), LABELS),
    "cross_entropy of places": (losses.cross_entropy, numbers(6, 3, 4), (LABELS[:, None] + 1) % 3),
    "cross_entropy of chances": (losses.cross_entropy, numbers(6, 3), SHARES),
    "nll": (losses.nll, numbers(6, 3), LABELS),
    "multi_margin": (losses.multi_margin, numbers(6, 3), LABELS),
}


@pytest.mark.parametrize("name", CALLS)
def test_sample_weights_average_the_losses_of_samples(name: str) -> None:
    """Σ s·l / Σ s, as in scikit-learn, where l is the loss of one sample alone."""
    loss, x, y = CALLS[name]
    y = np.broadcast_to(y, (6, 4)) if "places" in name else y
    each = [float(loss(x[i : i + 1], y[i : i + 1])) for i in range(6)]
    np.testing.assert_allclose(loss(x, y, BESIDE), np.average(each, weights=BESIDE), rtol=1e-12)
    np.testing.assert_allclose(loss(x, y, sample_weight=np.ones(6)), loss(x, y), rtol=1e-12)
    value, slope = value_and_grad(loss)(x, y, np.zeros(6))
    assert float(value) == 0
    assert not slope.any()


def test_class_weights_and_sample_weights_multiply() -> None:
    s, w = BESIDE, WEIGHT
    each = -np.log(np.exp(X3) / np.exp(X3).sum(1, keepdims=True))[np.arange(6), LABELS]
    wanted = np.average(each, weights=s * w[LABELS])
    np.testing.assert_allclose(losses.cross_entropy(X3, LABELS, s, w), wanted, rtol=1e-12)


X3 = numbers(6, 3)


def test_a_batch_of_ignored_labels_has_loss_zero() -> None:
    """PyTorch's is NaN, which would end a run."""
    value, slope = value_and_grad(lambda x: losses.cross_entropy(x, LABELS * 0, ignore_index=0))(X3)
    assert float(value) == 0
    assert not slope.any()

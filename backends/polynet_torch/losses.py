"""Losses as kernels: PyTorch's own of two arrays, and those of labels without one-hot masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.nn import functional

from polynet_torch.kernels import recorded

aten = torch.ops.aten
MEAN = 1
"""PyTorch's number for the mean of a loss's values."""
Pullback = Callable[[torch.Tensor], torch.Tensor]


# Numbers


def of_pairs(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """`kernel` for two floating-point tensors alike; it declines everything else."""

    @wraps(kernel)
    def call(
        xp: Any, outputs: torch.Tensor, targets: torch.Tensor, *weights: Any, **options: Any
    ) -> Any:
        alike = outputs.shape == targets.shape and outputs.dtype == targets.dtype
        if any(w is not None for w in weights) or recorded((outputs, targets)):
            return NotImplemented
        if not alike or not outputs.is_floating_point() or not outputs.numel():
            return NotImplemented
        result = kernel(outputs, targets, **options)
        if result is NotImplemented:
            return result
        value, pullbacks = result
        return value, (*pullbacks, *(None for _ in weights))

    return call


def _of_distance(value: torch.Tensor, pullback: Pullback) -> Any:
    """The result of a loss of outputs - targets, whose two gradients are opposite."""
    return value, (pullback, lambda g: pullback(-g))


@of_pairs
def mse(x: torch.Tensor, y: torch.Tensor) -> Any:
    """Mean of (x - y)²; its gradient is 2·(x - y) / size."""
    value = functional.mse_loss(x, y)
    return _of_distance(value, lambda g: aten.mse_loss_backward(g, x, y, MEAN))


@of_pairs
def smooth_l1(x: torch.Tensor, y: torch.Tensor, *, beta: float = 1.0) -> Any:
    """Mean of d² / 2β where |d| < β, else |d| - β / 2."""
    if not beta > 0:
        return NotImplemented
    value = functional.smooth_l1_loss(x, y, beta=beta)
    return _of_distance(value, lambda g: aten.smooth_l1_loss_backward(g, x, y, MEAN, beta))


@of_pairs
def huber(x: torch.Tensor, y: torch.Tensor, *, delta: float = 1.0) -> Any:
    """Mean of d² / 2 where |d| ≤ δ, else δ·(|d| - δ / 2)."""
    if not delta > 0:
        return NotImplemented
    value = functional.huber_loss(x, y, delta=delta)
    return _of_distance(value, lambda g: aten.huber_loss_backward(g, x, y, MEAN, delta))


@of_pairs
def binary_cross_entropy_with_logits(x: torch.Tensor, y: torch.Tensor) -> Any:
    """Mean of (1 - y)·max(x, 0) + y·max(-x, 0) + log(1 + exp(-|x|)).

    Its gradient is (1 - y)·σ(x) - y·σ(-x). PyTorch's own formulas are of one pass less, but the
    digits of the value and of the gradient cancel where σ(x) is close to y.
    """
    values = torch.lerp(x.relu(), x.neg().relu_(), y).sub_(functional.logsigmoid(x.abs()))

    def pullback(g: torch.Tensor) -> torch.Tensor:
        slope = torch.lerp(x.sigmoid(), x.neg().sigmoid_().neg_(), y)
        return slope.mul_(g / x.numel())

    return values.mean(), (pullback, lambda g: x * (g / -x.numel()))


# Labels


def cross_entropy(
    xp: Any, logits: torch.Tensor, targets: torch.Tensor, sample_weight: Any = None,
    weight: Any = None, *, label_smoothing: float = 0.0, ignore_index: int | None = None,
) -> Any:  # fmt: skip
    """Mean of -log softmax(x)[class]; its gradient is (softmax(x) - one-hot) / batch."""
    given, weight = weight, _as_tensor(weight, logits)
    if sample_weight is not None or not _are_labels(logits, targets, weight):
        return NotImplemented
    if not 0 <= label_smoothing <= 1 or (label_smoothing and weight is not None):
        return NotImplemented
    scores = torch.log_softmax(logits, 1)
    if weight is not None or label_smoothing or ignore_index is not None or logits.ndim > 2:
        value, back, to_weight = _of_labels(scores, targets, weight, label_smoothing, ignore_index)
        to_weight = to_weight if isinstance(given, torch.Tensor) else None
        to_logits = aten._log_softmax_backward_data
        return value, (lambda g: to_logits(back(g), scores, 1, scores.dtype), None, None, to_weight)
    value, truth, indices = _of_truth(scores, targets)

    def pullback(g: torch.Tensor) -> torch.Tensor:
        out = scores.exp().scatter_(1, indices, truth.expm1())
        return out.mul_(g / len(logits))

    return value, (pullback, None, None, None)


def nll(
    xp: Any, scores: torch.Tensor, targets: torch.Tensor, sample_weight: Any = None,
    weight: Any = None, *, ignore_index: int | None = None,
) -> Any:  # fmt: skip
    """Mean of -x[class]."""
    given, weight = weight, _as_tensor(weight, scores)
    if sample_weight is not None or not _are_labels(scores, targets, weight):
        return NotImplemented
    if weight is None and ignore_index is None:
        value, truth, indices = _of_truth(scores, targets)

        def pullback(g: torch.Tensor) -> torch.Tensor:
            each = (g / -truth.numel()).expand(truth.shape)
            return torch.zeros_like(scores).scatter_(1, indices, each)

        return value, (pullback, None, None, None)
    value, back, to_weight = _of_labels(scores, targets, weight, 0.0, ignore_index)
    to_weight = to_weight if isinstance(given, torch.Tensor) else None
    return value, (back, None, None, to_weight)


def _as_tensor(weight: Any, scores: torch.Tensor) -> Any:
    """The classes' weights, where they are a list of numbers, made on the device of the scores."""
    if not isinstance(weight, list | tuple) or not weight:
        return weight
    return torch.cat([scores.new_full((1,), float(w)) for w in weight])


def _are_labels(scores: torch.Tensor, targets: torch.Tensor, weight: Any) -> bool:
    """Whether the targets are labels of the scores, and the weights, if any, those of classes."""
    if scores.ndim < 2 or not scores.numel() or not scores.is_floating_point():
        return False
    if weight is not None and not (
        isinstance(weight, torch.Tensor)
        and weight.shape == scores.shape[1:2]
        and weight.dtype == scores.dtype
    ):
        return False
    wide = targets.dtype in (torch.int32, torch.int64)
    fits = targets.shape == (scores.shape[0], *scores.shape[2:])
    return wide and fits and not recorded((scores,) if weight is None else (scores, weight))


def _of_truth(
    scores: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """-mean(x[class]), these scores, and their places; `gather` refuses others on the CPU."""
    indices = targets.to(torch.int64).unsqueeze(1)
    if scores.device.type == "cpu":
        truth = scores.gather(1, indices)
        return truth.mean().neg_(), truth, indices
    indices, nan_if_outside = within(indices, scores.shape[1])  # it would break more than this call
    truth = scores.gather(1, indices)
    return truth.mean().neg_() + nan_if_outside.to(truth.dtype), truth, indices


def _of_labels(
    scores: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor | None, smoothing: float,
    ignored: int | None,
) -> tuple[torch.Tensor, Pullback, Pullback | None]:  # fmt: skip
    """-Σ w·((1 - ε)·x[class] + ε·mean(x)) / Σ w, over the labels that count, and its gradients."""
    labels = targets.to(torch.int64).unsqueeze(1)
    out = None if ignored is None else labels == ignored
    indices = labels if out is None else labels.masked_fill(out, 0)
    indices, nan_if_outside = within(indices, scores.shape[1])
    truth = scores.gather(1, indices)
    share = torch.ones_like(truth) if weight is None else weight[indices]
    each = truth * (1 - smoothing)
    if smoothing:
        each += scores.mean(1, keepdim=True) * smoothing
    if out is not None:  # what does not count may be infinite
        share, each = share.masked_fill(out, 0), each.masked_fill_(out, 0)
    total = share.sum()
    total += total == 0
    value = (share * each).sum().neg_() / total

    def to_scores(g: torch.Tensor) -> torch.Tensor:
        each = share * (g / -total)
        rest = each * (smoothing / scores.shape[1])
        back = rest.expand(scores.shape).clone() if smoothing else torch.zeros_like(scores)
        return back.scatter_(1, indices, each * (1 - smoothing) + rest)

    def to_weight(g: torch.Tensor) -> torch.Tensor:
        slopes = (each + value) * (g / -total)
        slopes = slopes if out is None else slopes.masked_fill_(out, 0)
        back = scores.new_zeros(scores.shape[1])
        return back.index_add_(0, indices.flatten(), slopes.flatten())

    return value + nan_if_outside.to(value.dtype), to_scores, to_weight


def within(indices: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`indices` clamped to 0 … count - 1; and 0, or NaN if any of them was outside this range."""
    clamped = indices.clamp(0, count - 1)
    zero = torch.zeros((), device=indices.device)
    return clamped, torch.where((clamped == indices).all(), zero, math.nan)


KERNELS = {
    kernel.__name__: kernel
    for kernel in (binary_cross_entropy_with_logits, cross_entropy, huber, mse, nll, smooth_l1)
}

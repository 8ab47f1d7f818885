"""Helpers of the losses: means over the batch, and checks of arguments."""

from __future__ import annotations

import math

import array_api_compat

from polynet.errors import A_NUMBER_DID


def batch_mean(xp, name, values, sample_weight):
    """The mean of a loss's values, weighted by sample: Σ s·l / Σ s."""
    if sample_weight is None:
        return xp.mean(values)
    check_sample_weight(name, sample_weight, values)
    each = values if values.ndim == 1 else xp.mean(values, axis=tuple(range(1, values.ndim)))
    return ratio(xp, xp.sum(sample_weight * each), xp.sum(sample_weight))


def ratio(xp, total, weight):
    """A weighted mean, `total / weight`: 0 where the weight is 0."""
    return total / xp.where(weight == 0, 1, weight)


def check_sample_weight(name, sample_weight, values):
    """Raise unless `sample_weight` has the dtype of `values`, (batch, …), and shape (batch,)."""
    if values.ndim == 0 or tuple(sample_weight.shape) != (values.shape[0],):
        raise ValueError(
            f"{name}: sample_weight has one number a sample, shape {tuple(values.shape[:1])}; "
            f"got {tuple(sample_weight.shape)}"
        )
    if sample_weight.dtype != values.dtype:
        raise TypeError(f"{name}: sample_weight is {sample_weight.dtype}; expected {values.dtype}")


def per_class(xp, name, weight, logits, axis):
    """The weights of classes, an array or a list, in a shape that broadcasts along `axis`."""
    count = logits.shape[axis]
    if isinstance(weight, list | tuple):
        device = array_api_compat.device(logits)
        numbers = [xp.full((), float(w), dtype=logits.dtype, device=device) for w in weight]
        weight = xp.stack(numbers) if numbers else xp.zeros((0,), dtype=logits.dtype)
    if not hasattr(weight, "shape"):
        raise TypeError(
            f"{name}: the classes' weights are a {type(weight).__name__}; expected a list of "
            "numbers, one for each class in their order"
        )
    if tuple(weight.shape) != (count,):
        raise ValueError(
            f"{name}: a weight for each class has shape ({count},); got {tuple(weight.shape)}"
        )
    if weight.dtype != logits.dtype:
        raise TypeError(
            f"{name}: the classes' weights are {weight.dtype}; expected {logits.dtype}. A list of "
            "numbers, weight.tolist(), takes the dtype of the logits"
        )
    return xp.reshape(weight, (count, *(1,) * (logits.ndim - 1 - axis % logits.ndim)))


def is_label(xp, scores, targets, ignore_index):
    """A mask in the scores' shape: true where a class is the label, unless the label is ignored."""
    device = array_api_compat.device(targets)
    classes = xp.arange(scores.shape[1], dtype=xp.int32, device=device)
    classes = xp.reshape(classes, (-1, *(1,) * (scores.ndim - 2)))
    labels = xp.expand_dims(xp.astype(targets, xp.int32), axis=1)
    right = labels == classes
    return right if ignore_index is None else right & (labels != ignore_index)


def nan_if_unknown(xp, value, scores, targets, sample_weight=None, ignore_index=None):
    """`value`, or NaN if a label that counts is out of range: a device can raise no error."""
    wide = [getattr(xp, name) for name in ("int32", "int64") if hasattr(xp, name)]
    labels = targets if targets.dtype in wide else xp.astype(targets, xp.int32)
    known = (labels >= 0) & (labels < scores.shape[1])
    if ignore_index is not None:
        known = known | (labels == ignore_index)
    if sample_weight is not None:
        known = known | xp.reshape(sample_weight == 0, (-1, *(1,) * (known.ndim - 1)))
    return value + xp.where(xp.all(known), xp.zeros_like(value), math.nan)


def mean_of_labels(xp, name, scores, right, sample_weight, weight, label_smoothing, ignore_index):
    """-Σ s·w·x[class] / Σ s·w; smoothing replaces a share ε of the sum by -Σ s·Σ w·x / classes."""
    picked = xp.where(right, scores, 0)
    if weight is None and sample_weight is None and ignore_index is None and not label_smoothing:
        return -xp.sum(picked) / math.prod((scores.shape[0], *scores.shape[2:]))
    w = 1.0 if weight is None else per_class(xp, name, weight, scores, 1)
    s = xp.ones_like(scores[:, :1, ...])
    if sample_weight is not None:
        check_sample_weight(name, sample_weight, scores)
        s = s * xp.reshape(sample_weight, (-1, *(1,) * (scores.ndim - 1)))
    share = xp.where(right, s * w, 0)
    total = -xp.sum(share * picked)
    if label_smoothing:
        counts = xp.any(right, axis=1, keepdims=True)
        uniform = -xp.sum(xp.where(counts, s * w * scores, 0)) / scores.shape[1]
        total = total * (1 - label_smoothing) + uniform * label_smoothing
    return ratio(xp, total, xp.sum(share))


def check_like(name, outputs, targets):
    """Raise unless both arrays have the same shape and the same dtype."""
    if tuple(outputs.shape) != tuple(targets.shape):
        if tuple(outputs.shape) == (*targets.shape, 1):
            todo = "give targets[:, None]"
        elif math.prod(outputs.shape) == math.prod(targets.shape):
            todo = f"reshape the targets to {tuple(outputs.shape)}"
        else:
            todo = "no reshape makes them so; give a target for each number that the network gives"
        raise ValueError(
            f"{name}: outputs have shape {tuple(outputs.shape)}, targets {tuple(targets.shape)}; "
            f"they must be equal: {todo}"
        )
    check_dtype(name, outputs, targets)


def check_dtype(name, outputs, targets):
    """Raise TypeError unless the targets have the outputs' dtype."""
    if targets.dtype != outputs.dtype:
        kind = str(outputs.dtype).rpartition(".")[2]  # "float32", of torch.float32 too
        todo = f"convert them, such as y.astype({kind!r})"
        if kind == "float64":
            todo += f". Where the network made the outputs so, {A_NUMBER_DID}"
        raise TypeError(
            f"{name}: targets are {targets.dtype}; expected {outputs.dtype}, as the outputs are: "
            f"{todo}"
        )

"""Batch normalisation, with the running statistics that predictions use."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from polynet import functional
from polynet.backend import Array
from polynet.nn import init
from polynet.nn.checks import check_same_dtype, epsilon, positive, wrong_shape
from polynet.nn.described import Buffer, Parameter
from polynet.nn.module import Module


class _BatchNorm(Module):
    """Base of batch normalisation in one, two and three dimensions."""

    _expected: ClassVar[dict[int, str]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        kind = type(self).__name__
        (self.num_features,) = positive(kind, num_features=num_features)
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(
                f"{kind}: momentum is the share of a new batch in the running statistics, from 0 "
                f"to 1, or None for the mean of all batches; got {momentum!r}"
            )
        self.eps = epsilon(kind, eps)
        self.momentum = momentum
        self.weight: Array | None = None
        self.bias: Array | None = None
        self.running_mean: Any = None
        self.running_var: Any = None
        self.num_batches_tracked: Any = None
        shape = (self.num_features,)
        if affine:
            self.weight = Parameter(shape, init.ones)
            self.bias = Parameter(shape, init.zeros)
        if track_running_stats:
            self.running_mean = Buffer(shape, init.zeros)
            self.running_var = Buffer(shape, init.ones)
            self.num_batches_tracked = Buffer((), init.zeros, "int32")

    def forward(self, x: Array) -> Array:
        if len(x.shape) not in self._expected or x.shape[1] != self.num_features:
            shapes = " or ".join(self._expected.values())
            raise wrong_shape(self, shapes.format(self.num_features), x)
        for array in (self.weight, self.running_mean):
            if array is not None:
                check_same_dtype(self, x, array)
        if self.running_mean is not None and not self.training:
            return functional.batch_norm_inference(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        count = x.shape[0] * math.prod(x.shape[2:])
        if count < 2:
            raise ValueError(
                f"{self.label()}: normalises by the batch, which needs more than 1 value per "
                f"channel; got inputs of shape {tuple(x.shape)}. Choose a batch_size that leaves "
                "no batch of one sample, or leave that batch out: fit(drop_last=True)"
            )
        y, mean, variance = functional.batch_norm(x, self.weight, self.bias, eps=self.eps)
        if self.running_mean is not None:
            self._track(mean, variance * (count / (count - 1)))
        return y

    def _track(self, mean: Array, variance: Array) -> None:
        """Renew the running statistics: running ← (1 - momentum) · running + momentum · batch."""
        assert self._context is not None
        xp, tracked = self._context.xp, self.num_batches_tracked + 1
        share = self.momentum
        if share is None:  # then all batches so far have equal weight
            share = 1 / xp.astype(tracked, mean.dtype)
        self.renew(
            running_mean=mean * share + self.running_mean * (1 - share),
            running_var=variance * share + self.running_var * (1 - share),
            num_batches_tracked=tracked,
        )

    def settings(self) -> str:
        return f"{self.num_features}"


class BatchNorm1d(_BatchNorm):
    """Each channel normalised to mean 0 and variance 1 over the batch, then scaled and shifted.

    Inputs are (batch, channels) or (batch, channels, length). `weight` (ones) and `bias` (zeros),
    of shape (channels,), are learnt; without `affine` both are None.

    A training pass normalises by the mean and variance of its batch. It also renews the buffers
    `running_mean` and `running_var`, to which the mean and the unbiased variance of the batch
    contribute the share `momentum`. With `momentum=None` the buffers are the means over all
    batches, which `num_batches_tracked` counts. Predictions normalise by the buffers, or, without
    `track_running_stats`, by the mean and variance of their own batch.

    Raises ValueError for other shapes, and for a batch of one value per channel; TypeError for
    another dtype. Ioffe and Szegedy, "Batch Normalization", ICML 2015.

    >>> import numpy as np
    >>> from polynet import Trainer, losses, nn, optim
    >>> net = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))
    >>> trainer = Trainer(net, losses.mse, optim.SGD(), backend="numpy")
    >>> x = np.asarray([[1.0], [3.0]])
    >>> _ = trainer.fit(x, x, epochs=100)
    >>> trainer.net[0].running_mean.round(2), trainer.net[0].running_var.round(2)
    (array([2.], dtype=float32), array([2.], dtype=float32))
    """

    _expected: ClassVar = {2: "(batch, {0})", 3: "(batch, {0}, length)"}


class BatchNorm2d(_BatchNorm):
    """Each channel of images normalised to mean 0 and variance 1, then scaled and shifted.

    Inputs are (batch, channels, height, width). All else is as in `BatchNorm1d`.
    """

    _expected: ClassVar = {4: "(batch, {0}, height, width)"}


class BatchNorm3d(_BatchNorm):
    """Each channel of volumes normalised to mean 0 and variance 1, then scaled and shifted.

    Inputs are (batch, channels, depth, height, width). All else is as in `BatchNorm1d`.
    """

    _expected: ClassVar = {5: "(batch, {0}, depth, height, width)"}

"""A program with types, as its author writes it: `nox -s types` checks it, and nothing runs it.

A mistake that is to be found has a `type: ignore`, which is itself an error where nothing is found.
"""

from __future__ import annotations

from typing import Any

import polynet
from polynet import Trainer, functional, losses, nn, optim
from polynet.backend import Array


class Whitened(nn.Module):
    """What a layer describes is to its formulas the array that it becomes."""

    def __init__(self, size: int) -> None:
        self.w = nn.Parameter((size, size), nn.init.ones)
        self.b = nn.Parameter((size,), init=nn.init.zeros)
        self.mean = nn.Buffer((size,), nn.init.zeros)
        self.count = nn.Buffer((), nn.init.zeros, dtype="int32")

    def forward(self, x: Array) -> Array:
        xp = polynet.array_namespace(x, self.w)
        if self.training:
            mean = 0.9 * self.mean + 0.1 * xp.mean(x, axis=0)
            self.renew(mean=mean, count=self.count + 1)
        y = (x - self.mean) @ self.w.T + (self.w * 2)[0] - (-self.b) ** 2
        y += xp.asarray((1 - self.b).shape[0] + self.w.ndim, dtype=self.w.dtype)
        return y * (2 * self.w)[0, ...] / abs(self.b) if self.b.shape[0] > 1 else y


@polynet.composition
def scaled(xp: Any, x: Array, *, factor: float = 1.0) -> Array:
    return xp.tanh(x) * factor


@polynet.op
def cube(xp: Any, x: Array, /) -> Any:
    return x**3, (lambda g: g * 3 * x**2,)


@polynet.with_pullbacks(lambda xp, g: g)
def straight(xp: Any, x: Array, /) -> Array:
    return xp.round(x)


def smooth_loss(outputs: Array, targets: Array) -> Array:
    return losses.cross_entropy(outputs, targets, label_smoothing=0.1) + cube(straight(outputs))


def what_is_right(x: Array, y: Array) -> None:
    net = nn.Sequential(Whitened(3), nn.Linear(3, 3))
    Trainer(net, smooth_loss, optim.Adam())
    Trainer(net, losses.mse, optim.Adam())
    value, slope = polynet.value_and_grad(smooth_loss)(x, y)
    (value, _), slope = polynet.value_and_grad(smooth_loss, has_aux=True)(x, y)
    polynet.grad(polynet.grad(lambda x: x * x))(x)
    polynet.hessian(smooth_loss)(value, slope)
    functional.softmax(scaled(x, factor=2.0), axis=0)


def what_is_reachable() -> tuple[int | None, polynet.history.History]:
    try:
        return None, Trainer(nn.Linear(1, 1), losses.mse, optim.Adam()).history
    except polynet.errors.NotFiniteError as error:
        return error.step, polynet.history.History()


def what_is_wrong(x: Array) -> None:
    nn.Parameter("3", nn.init.zeros)  # type: ignore[arg-type]
    nn.Buffer((3,), nn.init.zeros, dtyp="int32")  # type: ignore[call-arg]
    losses.cross_entropy(x, x, label_smoothin=0.1)  # type: ignore[call-arg]
    functional.softmax(x, dim=0)  # type: ignore[call-arg]
    scaled(x, factor="2")  # type: ignore[arg-type]
    scaled(x, scale=2)  # type: ignore[call-arg]
    cube(x, x)  # type: ignore[call-arg]
    straight(x, x)  # type: ignore[call-arg]
    polynet.value_and_grad(smooth_loss)(x)  # type: ignore[call-arg]
    polynet.grad(smooth_loss)(x)  # type: ignore[call-arg]
    polynet.jacobian(smooth_loss)(x)  # type: ignore[call-arg]
    polynet.hessian(smooth_loss)(x)  # type: ignore[call-arg]

"""Optimizers that keep gradients from being too large."""

from __future__ import annotations

from dataclasses import dataclass

from polynet import tree
from polynet.backend import Array
from polynet.optim.base import Arrays, Optimizer, State, Wrapper, consuming, in_dtype, updated
from polynet.optim.checks import set_number
from polynet.tensor import composition, told_class


@composition
def clip_norm(xp, grads, /, *, max_norm):
    """g · min(1, max_norm / (‖g‖ + 10⁻⁶)), where ‖g‖ is the norm of all gradients as one vector."""
    squares = [xp.sum(g * g) for g in grads.values()]
    wide = xp.result_type(*squares)
    norm = xp.sqrt(sum(xp.astype(s, wide) for s in squares))
    scale = xp.minimum(max_norm / (norm + 1e-6), 1.0)
    return tree.map(lambda g: g * in_dtype(xp, scale, g.dtype), grads)


@composition
def clip_value(xp, grads, /, *, clip_value):
    """Every number of every gradient, clipped to [-clip_value, clip_value]."""
    return tree.map(lambda g: xp.clip(g, -clip_value, clip_value), grads)


@told_class
@dataclass(frozen=True)
class ClipNorm(Wrapper):
    """`optimizer`, with the gradients scaled so that their norm is at most `max_norm`.

    The norm is that of all gradients together, as one vector; around `Groups`, that of all groups.
    This is PyTorch's `clip_grad_norm_`.

    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML
    2013.

    >>> from polynet import optim
    >>> optim.ClipNorm(optim.SGD(0.1), max_norm=1.0)
    ClipNorm(optimizer=SGD(lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0), max_norm=1.0)
    """

    optimizer: Optimizer
    max_norm: float

    def __post_init__(self) -> None:
        super().__post_init__()
        set_number(self, "max_norm", above_0=True)

    @consuming
    def update(
        self, params: Arrays, grads: Arrays, state: State, step: Array
    ) -> tuple[Arrays, State]:
        grads = clip_norm(grads, max_norm=self.max_norm)
        return updated(self.optimizer, params, grads, state, step)


@told_class
@dataclass(frozen=True)
class ClipValue(Wrapper):
    """`optimizer`, with every number of the gradients clipped to [-clip_value, clip_value].

    This is PyTorch's `clip_grad_value_`.
    """

    optimizer: Optimizer
    clip_value: float

    def __post_init__(self) -> None:
        super().__post_init__()
        set_number(self, "clip_value", above_0=True)

    @consuming
    def update(
        self, params: Arrays, grads: Arrays, state: State, step: Array
    ) -> tuple[Arrays, State]:
        grads = clip_value(grads, clip_value=self.clip_value)
        return updated(self.optimizer, params, grads, state, step)

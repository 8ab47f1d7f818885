"""Stochastic gradient descent."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from polynet.optim.base import Rule, in_dtype, update_each
from polynet.optim.schedules import Schedule
from polynet.tensor import composition, told_class


@composition
def sgd(xp, params, grads, state, step, lr, /, *, momentum, nesterov, weight_decay):
    """g ← ∇ + λp;  b ← μb + g;  p ← p - η·(g + μb if Nesterov, else b)."""

    def plain(p, g):
        return (p - in_dtype(xp, lr, p.dtype) * (g + weight_decay * p if weight_decay else g),)

    def heavy(p, g, b):
        g = g + weight_decay * p if weight_decay else g
        b = momentum * b + g
        return p - in_dtype(xp, lr, p.dtype) * (g + momentum * b if nesterov else b), b

    if not momentum:
        return update_each([params, grads], plain)[0], {}
    params, buffer = update_each([params, grads, state["momentum_buffer"]], heavy)
    return params, {"momentum_buffer": buffer}


@told_class
@dataclass(frozen=True)
class SGD(Rule):
    """Stochastic gradient descent, with momentum, Nesterov's momentum and weight decay.

    Sutskever et al., "On the importance of initialization and momentum in deep learning",
    ICML 2013.
    """

    lr: float | Schedule = 1e-3
    momentum: float = 0.0
    _: KW_ONLY  # PyTorch's next positional argument is dampening
    nesterov: bool = False
    weight_decay: float = 0.0

    _rule = sgd

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov needs a momentum above 0, such as momentum=0.9")

    def slots(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if self.momentum else ()

"""Averages of the parameters over the steps."""

from __future__ import annotations

from dataclasses import dataclass

from polynet import tree
from polynet.backend import Array
from polynet.ops import array_namespace
from polynet.optim.base import Arrays, Optimizer, State, Wrapper, consuming, update_each, updated
from polynet.optim.checks import set_number
from polynet.tensor import composition, told_class


@composition
def moving_average(xp, averages, params, step, /, *, decay):
    """a ← δ·a + (1-δ)·p; at the first step a ← p."""
    first = xp.reshape(step == 0, ())

    def update(a, p):
        return (xp.where(first, p, a + (1 - decay) * (p - a)),)

    return update_each([averages, params], update)[0]


@told_class
@dataclass(frozen=True)
class EMA(Wrapper):
    """`optimizer`, with an exponential moving average of the parameters that it trains.

    The average is kept beside the parameters and does not affect training. The network with the
    averaged parameters is `trainer.averaged_net`; to evaluate that network, make a Trainer for it.
    This is PyTorch's `AveragedModel` with `get_ema_multi_avg_fn(decay)`, updated after every step.

    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM Journal on
    Control and Optimization 30 (1992).

    >>> import numpy as np
    >>> from polynet import Trainer, losses, nn, optim
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> trainer = Trainer(nn.Linear(1, 1), losses.mse, optim.EMA(optim.SGD(0.5), decay=0.9))
    >>> _ = trainer.fit(x, 3 * x, epochs=40)
    >>> Trainer(trainer.averaged_net, losses.mse, optim.SGD()).evaluate(x, 3 * x)["loss"] < 1e-3
    True
    """

    optimizer: Optimizer
    decay: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        set_number(self, "decay", most=1)

    def init(self, params: Arrays) -> State:
        trained = {n: params[n] for n in self.trains(params)}
        start = tree.map(lambda p: array_namespace(p).asarray(p, copy=True), trained)
        return {"average": start, "optimizer": self.optimizer.init(params)}

    @consuming
    def update(
        self, params: Arrays, grads: Arrays, state: State, step: Array
    ) -> tuple[Arrays, State]:
        params, inner = updated(self.optimizer, params, grads, state["optimizer"], step)
        new = {n: params[n] for n in state["average"]}
        average = moving_average(state["average"], new, step, decay=self.decay)
        return params, {"average": average, "optimizer": inner}

    def averages(self, state: State) -> Arrays:
        return state.get("average", {})

    def lr_factors(self, state: State) -> list[Array]:
        return self.optimizer.lr_factors(state.get("optimizer", {}))

    def with_lr_factor(self, state: State, factor: float) -> State:
        inner = self.optimizer.with_lr_factor(state["optimizer"], factor)
        return {**state, "optimizer": inner}

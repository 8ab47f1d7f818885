"""The training step: one pure function of a state and a batch, whatever backend runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from polynet import random
from polynet.backend import Array, common_backend
from polynet.derivative import differentiated
from polynet.nn import Context, Module
from polynet.optim import Optimizer
from polynet.tree import map as tree_map

State = dict[str, Any]


def make_step(
    net: Module, loss: Callable[[Array, Array], Array], optimizer: Optimizer, xp: Any
) -> Callable[[State, tuple[Array, Array], Array], tuple[State, Array]]:
    """One step downhill as a pure function of a state and a batch, which reads nothing on the host.

    The state holds `params`, `optimizer`, `keys` (of the random streams) and `step`; all leaves
    are arrays, no leaf shares memory with another, and the state returned has the same structure.
    """

    def step(state: State, data: tuple[Array, Array], rows: Array) -> tuple[State, Array]:
        x, y = (xp.take(a, rows, axis=0) for a in data)
        context = Context(xp, state["step"], state["keys"])

        def objective(params: dict[str, Array]) -> Array:
            return loss(net.bind(params, context)(x), y)

        value, grads = differentiated(objective, own=False)(state["params"])
        params, optimizer_state = optimizer.update(
            state["params"], grads, state["optimizer"], state["step"]
        )
        return {
            "params": params,
            "optimizer": optimizer_state,
            "keys": state["keys"],
            "step": state["step"] + 1,
        }, value

    step.consumes = optimizer.consumes
    return step


def initial_state(net: Module, optimizer: Optimizer, seed: int) -> State:
    """The state before the first step; `net` has its parameters."""
    params = net.parameters()
    backend, device = common_backend(params.values(), "the network's parameters")
    keys = {
        name: backend.from_host(random.key(seed, "stream", name), device) for name in net.streams()
    }
    return {
        "params": tree_map(lambda p: backend.xp.asarray(p, copy=True), params),
        "optimizer": optimizer.init(params),
        "keys": keys,
        "step": backend.from_host(np.zeros(1, dtype=np.int32), device),
    }

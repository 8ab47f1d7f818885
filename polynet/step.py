"""The training step: one pure function of a state and a batch, whatever backend runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from polynet import random
from polynet.backend import Array, Backend, common_backend
from polynet.data.named import each, samples
from polynet.derivative import differentiated
from polynet.errors import A_NUMBER_DID
from polynet.nn import Context, Module
from polynet.ops import array_namespace
from polynet.optim import Optimizer
from polynet.optim.base import updated
from polynet.tensor import is_recorded
from polynet.tree import map as tree_map

__all__ = ["State", "initial_state", "make_step"]

State = dict[str, Any]
Kept = dict[str, tuple[int, State]]
"""Weights that were kept, by name, each with the number of epochs that were done by then."""


def make_step(
    net: Module,
    loss: Callable[..., Array],
    optimizer: Optimizer,
    xp: Any,
    part: int | None = None,
) -> Callable[[State, tuple[Any, ...], Array], tuple[State, Array]]:
    """One training step as a pure function of a state and a batch, which never reads on the host.

    The state holds `params`, `buffers`, `optimizer`, `keys` (of the random streams) and `step`. All
    leaves are arrays, no leaf shares memory with another, and the state returned has the same
    structure. The data are x, y and, where there are any, the samples' weights; x and y may be
    dicts of several arrays. Parameters that the optimizer does not train are not recorded.

    With `part`, that many samples at a time go through the network, and the gradients of the parts
    add up to the gradient of the batch: L = Σᵢ (nᵢ/n)·Lᵢ, where n is the number of samples, or the
    sum of their weights. Each part updates the buffers.
    """

    def of_part(
        state: State,
        buffers: dict[str, Array],
        data: tuple[Any, ...],
        rows: Array,
        first: int,
        whole: Any,
    ) -> tuple[tuple[Array, dict[str, Array]], dict[str, Array]]:
        """This part's share of the loss, the new buffers, and the gradients.

        `rows` are the batch's from number `first` on, and `whole` is the weight of the batch.
        """
        x, y, *weights = tree_map(lambda a: xp.take(a, rows, axis=0), data)
        context = Context(xp, state["step"], state["keys"], first, rows.shape[0])
        options, share = _options_and_share(xp, weights, rows.shape[0], whole)

        def objective(trained: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
            bound = net.bind({**state["params"], **trained, **buffers}, context)
            value = loss(call(bound, x), y, **options)
            _check_reached(value)
            _check_width(value, state["params"], xp)
            return _weighted(value, share), context.buffers

        trained = {name: state["params"][name] for name in optimizer.trains(state["params"])}
        return differentiated(objective, has_aux=True, unshared=False)(trained)

    def step(state: State, data: tuple[Any, ...], rows: Array) -> tuple[State, Array]:
        count = rows.shape[0]
        size = min(part or count, count)
        whole = xp.sum(xp.take(data[2], rows, axis=0)) if len(data) > 2 else count
        (value, buffers), grads = of_part(state, state["buffers"], data, rows[:size], 0, whole)
        for first in range(size, count, size):
            end = min(first + size, count)
            (more, buffers), slopes = of_part(state, buffers, data, rows[first:end], first, whole)
            value, grads = value + more, tree_map(lambda a, b: a + b, grads, slopes)
        buffers = _own_buffers(xp, buffers, state["buffers"])
        grads = _apart_from(xp, grads, state["params"])
        params, optimizer_state = updated(
            optimizer, state["params"], grads, state["optimizer"], state["step"]
        )
        return {
            "params": params,
            "buffers": buffers,
            "optimizer": optimizer_state,
            "keys": state["keys"],
            "step": state["step"] + 1,
        }, value

    step.consumes = optimizer.consumes  # type: ignore[attr-defined]  # as the contract says
    return step


def _options_and_share(
    xp: Any, weights: list[Array], count: int, whole: Any
) -> tuple[dict[str, Array], Any]:
    """The options for a part's loss, and the part's share of the batch, whose weight is `whole`."""
    if not weights:
        return {}, count / whole
    n = xp.sum(weights[0])  # may be 0: then ones stand in, and the loss is not used
    options = {"sample_weight": xp.where(n > 0, weights[0], xp.ones_like(weights[0]))}
    return options, n / xp.where(whole > 0, whole, xp.ones_like(whole))


def _weighted(value: Array, share: Any) -> Array:
    """A part's loss times its share; 0 for a share of 0, whatever the loss of padding may be."""
    if isinstance(share, float):
        return value if share == 1 else value * share
    return array_namespace(value).where(share == 0, 0, value * share)


def make_forward(net: Module, xp: Any) -> Callable[..., Any]:
    """The network's prediction, as a pure function `forward(arrays, keys, step, first, x)`.

    `arrays` are the network's parameters and buffers, and `keys` those of its random streams, both
    by name. `step` is the number of the step whose random numbers are drawn. `x` are samples,
    numbered from `first` on.
    """

    def forward(
        arrays: dict[str, Array], keys: dict[str, Array], step: Array, first: int, x: Any
    ) -> Any:
        context = Context(xp, step, keys, first, samples(x), training=False)
        return call(net.bind(arrays, context), x)

    return forward


def predictor(net: Module, seed: int, backend: Backend, device: Any) -> Callable[[Any, int], Any]:
    """A function of samples x, numbered from `first` on: what a Trainer's `predict` computes."""
    if not net.streams():
        return lambda x, _: call(net, x)
    forward, arrays = make_forward(net, backend.xp), net.state_dict()
    drawn = _keys_and_step(net, seed, backend, device)
    return lambda x, first: forward(arrays, drawn["keys"], drawn["step"], first, x)


def call(net: Callable[..., Any], x: Any) -> Any:
    """The network's outputs for x; if x is a dict of arrays, each is passed by its name.

    Outputs in a dict are sorted by name, as targets are.
    """
    try:
        outputs = net(**x) if isinstance(x, dict) else net(x)
    except TypeError as error:
        if isinstance(x, dict):
            error.add_note(
                "x is a dict, whose arrays are passed as arguments by their names: the network was "
                f"called as net({', '.join(f'{name}=…' for name in x)})"
            )
        raise
    return each(lambda a, _: a, outputs, "the network's output")


def _check_reached(value: Any) -> None:
    """Refuse a loss that depends on no parameter: a step would change nothing."""
    if not is_recorded(value):
        raise ValueError(
            "the loss does not depend on the parameters that are trained: no gradient reaches "
            f"them from the {type(value).__name__} that it returned. Compute the loss from the "
            "network's outputs by functions that have a derivative, without stop_gradient"
        )


def _check_width(value: Array, params: dict[str, Array], xp: Any) -> None:
    """Refuse a loss in float64 of parameters that are not: NumPy's own numbers make it so."""
    if not hasattr(xp, "float64") or value.dtype != xp.float64:
        return
    if all(p.dtype != xp.float64 for p in params.values()):
        raise TypeError(
            f"the loss is {value.dtype}, and no parameter is; expected "
            f"{next(iter(params.values())).dtype}, since a step in float64 takes twice as long. "
            f"Where no array of the loss or of forward is float64, {A_NUMBER_DID}. What is to be "
            "computed in float64 is cast back: xp.astype(loss, xp.float32)"
        )


def _own_buffers(xp: Any, new: dict[str, Array], old: dict[str, Array]) -> dict[str, Array]:
    """The new buffers, copied unless they are the old ones, since a layer may share memory."""
    return tree_map(lambda a, b: a if a is b else xp.asarray(a, copy=True), new, old)


def _apart_from(xp: Any, grads: dict[str, Array], params: dict[str, Array]) -> dict[str, Array]:
    """The gradients; one that is itself a parameter, which the update may overwrite, is copied."""
    before = {id(p) for p in params.values()}
    return tree_map(lambda g: xp.asarray(g, copy=True) if id(g) in before else g, grads)


def initial_state(net: Module, optimizer: Optimizer, seed: int) -> State:
    """The state before the first step; `net` has its parameters."""
    params = net.parameters()
    if not params:
        raise ValueError(
            f"{type(net).__name__} has no parameters: there is nothing to train. Set them in "
            "__init__: layers, self.layer = nn.Linear(2, 1), or arrays of its own, self.w = "
            "nn.Parameter((2, 1), nn.init.normal(0.0, 0.1)); plain arrays, and arrays that forward "
            "makes, are not parameters"
        )
    if not optimizer.trains(params):
        raise ValueError("the optimizer freezes every parameter: there is nothing to train")
    backend, device = common_backend(params.values(), "the network's parameters")
    copied = tree_map(
        lambda a: backend.xp.asarray(a, copy=True), {"params": params, "buffers": net.buffers()}
    )
    return {
        **copied,
        "optimizer": optimizer.init(params),
        **_keys_and_step(net, seed, backend, device),
    }


def _keys_and_step(net: Module, seed: int, backend: Backend, device: Any) -> State:
    """The keys of the random streams, and the number of the first step."""
    return {
        "keys": {
            name: backend.from_host(random.key(seed, "stream", name), device)
            for name in net.streams()
        },
        "step": backend.from_host(np.zeros(1, dtype=np.int32), device),
    }


def weights_of(state: State) -> State:
    """The part of a state that determines the network's outputs."""
    return {group: state[group] for group in ("params", "buffers") if group in state}

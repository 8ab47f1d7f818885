"""PyTorch's kernels of optimizers: what they leave alone, what they decline, what they write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch_kernels import drawn, kernel

from polynet import optim
from polynet.backend import get_backend
from polynet.tree import named_leaves

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

OPTIMIZERS = {
    "sgd": optim.SGD(0.1, weight_decay=0.1),
    "sgd with momentum": optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "rmsprop": optim.RMSprop(0.1, weight_decay=0.1),
    "rmsprop with momentum": optim.RMSprop(0.1, momentum=0.9),
    "adam": optim.Adam(0.1, weight_decay=0.1),
    "adam decoupled": optim.AdamW(0.1),
}


def settings(name: str) -> dict[str, Any]:
    """What an optimizer gives its kernel by keyword, and the rate."""
    also = {"decoupled": True} if name == "adam decoupled" else {}
    return {**vars(OPTIMIZERS[name]), **also}


def optimizing(name: str, dtypes: tuple[Any, Any]) -> list[Any]:
    """The arguments of an optimizer's kernel: parameters, gradients, state, step."""
    shapes = {"a": (3, 2), "b": ()}
    trees = [
        {
            n: a.detach().to(dtype).abs()
            for (n, a), dtype in zip(
                zip(shapes, drawn(*shapes.values(), seed=i), strict=True), dtypes, strict=True
            )
        }
        for i in range(4)
    ]
    slots = OPTIMIZERS[name].slots()
    return [
        *trees[:2],
        dict(zip(slots, trees[2:], strict=False)),
        torch.asarray([3], dtype=torch.int32),
    ]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_leave_alone_what_they_are_given(name: str) -> None:
    args = optimizing(name, (torch.float64,) * 2)
    before = {path: a.clone() for path, a in named_leaves(args)}
    results = [kernel(name)(None, *args, **settings(name))[0] for _ in range(2)]
    for path, a in named_leaves(args):
        assert torch.equal(a, before[path]), path
    given = {a.data_ptr() for _, a in named_leaves(args)}
    for (path, a), (_, again) in zip(*map(named_leaves, results), strict=True):
        assert torch.equal(a, again), path
        assert a.data_ptr() not in given, path
    pointers = [a.data_ptr() for _, a in named_leaves(results[0])]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_decline_parameters_of_several_dtypes(name: str) -> None:
    args = optimizing(name, (torch.float64, torch.float32))
    assert kernel(name)(None, *args, **settings(name)) is NotImplemented
    params, state = OPTIMIZERS[name].update(*args)
    for tree in (params, *state.values()):
        assert [a.dtype for a in tree.values()] == [torch.float64, torch.float32]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gradient_may_be_broadcast(name: str) -> None:
    params, grads, *rest = optimizing(name, (torch.float64,) * 2)
    row = grads["a"][:1]
    narrow, wide = ({**grads, "a": a} for a in (row, row.expand(3, 2)))
    found, expected = (OPTIMIZERS[name].update(params, g, *rest)[0] for g in (narrow, wide))
    torch.testing.assert_close(found["a"], expected["a"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_learning_rate_of_zero_changes_no_parameter(name: str) -> None:
    params, _, state, step = optimizing(name, (torch.float64,) * 2)
    zeros = {n: torch.zeros_like(a) for n, a in params.items()}
    given = {**settings(name), "lr": 0.0, "weight_decay": 0.0}
    (after, _), _ = kernel(name)(None, params, zeros, dict.fromkeys(state, zeros), step, **given)
    for n, a in params.items():
        assert torch.equal(after[n], a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_learning_rate_may_be_a_tensor(name: str, dtype: Any) -> None:
    args = optimizing(name, (dtype,) * 2)
    given = {**settings(name), "lr": torch.asarray(0.1, dtype=dtype)}
    found = kernel(name)(None, *args, **given)[0]
    expected = kernel(name)(None, *args, **settings(name))[0]
    for (path, a), (_, wanted) in zip(*map(named_leaves, (found, expected)), strict=True):
        assert a.dtype == dtype, path
        torch.testing.assert_close(a, wanted)


def test_which_rates_the_fused_optimizers_read() -> None:
    """On a device none of float64: PyTorch's refuses it."""
    from polynet_torch.kernels import _takes

    for rate, taken in (
        (0.1, True), (torch.zeros((), dtype=torch.float64), True),
        (torch.zeros((), device="meta"), True),
        (torch.zeros((), dtype=torch.float64, device="meta"), False),
    ):  # fmt: skip
        assert _takes(rate) == taken


def gradients_that_are_the_parameters(state: Any, data: Any, rows: Any) -> Any:
    """A step whose gradients stand in its state: each the other's, turned round."""
    params = state["params"]
    loss, grads = params["a"][0, 0] * 1, {"a": params["b"].mT, "b": params["a"].mT}
    new, rest = optim.Adam(0.25).update(params, grads, state["optimizer"], state["step"])
    return {"params": new, "optimizer": rest, "step": state["step"] + 1}, loss


def test_adam_writes_over_the_state_of_a_compiled_step_only() -> None:
    """And reads a gradient that stands there before it writes; whoever gave the state keeps it."""
    torch_backend, step = get_backend("torch"), gradients_that_are_the_parameters
    drawn = torch.tensor(np.random.default_rng(0).normal(size=(2, 3, 3)))
    params = {"a": drawn[0].clone(), "b": drawn[1].clone()}
    count = torch.zeros(1, dtype=torch.int32)
    state = {"params": params, "optimizer": optim.Adam().init(params), "step": count}
    rows = torch.zeros((3, 1), dtype=torch.int64)
    loop = torch_backend.compile(step)  # which may not write over anything: it does not say so
    expected, losses_of_both = loop(state, count, rows)
    expected, more = loop(expected, count, rows)

    step.consumes = True
    try:
        run = torch_backend.compile(step)
        first, found = run(state, count, rows)
        kept = {n: id(p) for n, p in first["params"].items()}
        second, also = run(first, count, rows)
    finally:
        del step.consumes
    assert {n: id(p) for n, p in second["params"].items()} == kept, "in place"
    for name, given in zip("ab", drawn, strict=True):
        assert torch.equal(params[name], given)
        assert torch.equal(second["params"][name], expected["params"][name])
    assert torch.equal(found, losses_of_both)
    assert torch.equal(also, more)

"""Helpers for comparisons with PyTorch: the tolerances, and a skip where it is not installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polynet import nn, value_and_grad
from polynet.backend import to_numpy
from polynet.ops import OPS

torch = pytest.importorskip("torch", reason="PyTorch is not installed: nox -s tests_torch has it")

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
DTYPES = list(TOLERANCE)
total = OPS["sum"]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def same(actual: Any, expected: Any, dtype: str) -> None:
    """Assert equality, with an absolute and a relative tolerance for the dtype."""
    actual, expected, size = to_numpy(actual), expected.detach().numpy(), TOLERANCE[dtype]
    assert actual.dtype == expected.dtype == dtype
    np.testing.assert_allclose(actual, expected, rtol=size, atol=size)


def compare(net: nn.Module, twin: Any, inputs: list[np.ndarray], dtype: str, **masks: Any) -> None:
    """Compare the outputs, and the gradients of every parameter and every input."""
    net = net.init(seed=2, backend="numpy", dtype=dtype)
    twin = twin.to(getattr(torch, dtype))
    twin.load_state_dict({n: torch.tensor(p) for n, p in net.parameters().items()})
    xs = [x.astype(dtype) if x.dtype.kind == "f" else x for x in inputs]
    there = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in xs]
    outputs = twin(
        *there, **{n: m if isinstance(m, bool) else torch.tensor(m) for n, m in masks.items()}
    )
    outputs = outputs[0] if isinstance(outputs, tuple) else outputs
    w = numbers(*outputs.shape, seed=1).astype(dtype)
    (outputs * torch.tensor(w)).sum().backward()
    same(net(*xs, **masks), outputs, dtype)
    floating = [x for x in xs if x.dtype.kind == "f"]

    def objective(params: Any, floats: Any) -> Any:
        left = iter(floats)
        args = [next(left) if x.dtype.kind == "f" else x for x in xs]
        return total(net.bind(params)(*args, **masks) * w)

    slopes, input_slopes = value_and_grad(objective, (0, 1))(net.parameters(), floating)[1]
    for name, parameter in twin.named_parameters():
        same(slopes[name], parameter.grad, dtype)
    for slope, x in zip(input_slopes, [t for t in there if t.requires_grad], strict=True):
        same(slope, x.grad, dtype)

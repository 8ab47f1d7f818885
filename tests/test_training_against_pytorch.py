"""Ten training steps of every kind of layer that has parameters, beside PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from beside_pytorch import DTYPES, numbers, same, torch, total

from polynet import nn, optim, value_and_grad
from polynet.backend import to_numpy

PICTURES = numbers(4, 4, 6, 6)
ROWS = numbers(4, 4, 6)
VOLUMES = numbers(3, 4, 4, 3, 5)
INDICES = np.arange(12).reshape(3, 4) % 5

LAYERS: dict[str, tuple[Callable[[Any], Any], np.ndarray]] = {
    "Linear": (lambda m: m.Linear(6, 3), ROWS),
    "Conv1d": (lambda m: m.Conv1d(4, 6, 3, padding=1, groups=2), ROWS),
    "Conv2d": (lambda m: m.Conv2d(4, 6, 3, stride=2, padding=1), PICTURES),
    "ConvTranspose1d": (lambda m: m.ConvTranspose1d(4, 6, 3, stride=2), ROWS),
    "ConvTranspose2d": (lambda m: m.ConvTranspose2d(4, 2, 3, dilation=2, groups=2), PICTURES),
    "Conv3d": (lambda m: m.Conv3d(4, 6, (3, 1, 2), stride=2, padding=(1, 0, 0)), VOLUMES),
    "ConvTranspose3d": (lambda m: m.ConvTranspose3d(4, 2, 2, dilation=2, groups=2), VOLUMES),
    "LayerNorm": (lambda m: m.LayerNorm(6), ROWS),
    "RMSNorm": (lambda m: m.RMSNorm(6, eps=1e-5), ROWS),
    "GroupNorm": (lambda m: m.GroupNorm(2, 4), PICTURES),
    "InstanceNorm1d": (lambda m: m.InstanceNorm1d(4, affine=True), ROWS),
    "InstanceNorm2d": (lambda m: m.InstanceNorm2d(4, affine=True), PICTURES),
    "InstanceNorm3d": (lambda m: m.InstanceNorm3d(4, affine=True), VOLUMES),
    "PReLU": (lambda m: m.PReLU(4), PICTURES),
    "Embedding": (lambda m: m.Embedding(5, 3), INDICES),
    "TransformerEncoderLayer": (lambda m: m.TransformerEncoderLayer(6, 2, 8, 0.0), ROWS),
    "a network of several": (
        lambda m: m.Sequential(
            *(m.Conv2d(4, 4, 3), m.GroupNorm(2, 4), m.SiLU(), m.MaxPool2d(2), m.Flatten()),
            *(m.Linear(16, 5), m.Tanh(), m.Linear(5, 3)),
        ),
        PICTURES,
    ),
}
"""How to make each, of polynet's modules or of PyTorch's, and what goes in."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
def test_ten_steps(name: str, dtype: str) -> None:
    make, given = LAYERS[name]
    x = given.astype(dtype) if given.dtype.kind == "f" else given
    net = make(nn).init(seed=2, backend="numpy", dtype=dtype)
    twin = make(torch.nn).to(getattr(torch, dtype))
    twin.load_state_dict({n: torch.tensor(p) for n, p in net.parameters().items()})
    wanted = numbers(*net(x).shape, seed=1).astype(dtype)
    there = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)
    here = optim.SGD(lr=0.05, momentum=0.9)

    def loss(params: Any) -> Any:
        return total((net.bind(params)(x) - wanted) ** 2) / wanted.size

    params = net.parameters()
    state = here.init(params)
    for step in range(10):
        value, slopes = value_and_grad(loss)(params)
        params, state = here.update(params, slopes, state, np.full(1, step, dtype=np.int32))
        there.zero_grad()
        expected = ((twin(torch.tensor(x)) - torch.tensor(wanted)) ** 2).mean()
        expected.backward()
        there.step()
        same(value, expected, dtype)
    for name, parameter in twin.named_parameters():
        same(params[name], parameter, dtype)
    assert float(to_numpy(value)) > 0

"""Layers and losses beside PyTorch's: values and gradients; a whole run of Adam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from beside_pytorch import DTYPES, numbers, same, torch, total

from polynet import Trainer, functional, losses, nn, optim, value_and_grad

LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Linear(4, 3), lambda: torch.nn.Linear(4, 3), (5, 4)),
    "Linear, three axes": (lambda: nn.Linear(4, 3), lambda: torch.nn.Linear(4, 3), (2, 5, 4)),
    "Linear, no bias": (
        lambda: nn.Linear(4, 3, bias=False),
        lambda: torch.nn.Linear(4, 3, bias=False),
        (5, 4),
    ),
    "ReLU": (nn.ReLU, torch.nn.ReLU, (5, 4)),
    "LeakyReLU": (nn.LeakyReLU, torch.nn.LeakyReLU, (5, 4)),
    "LeakyReLU(0.3)": (lambda: nn.LeakyReLU(0.3), lambda: torch.nn.LeakyReLU(0.3), (5, 4)),
    "GELU": (nn.GELU, torch.nn.GELU, (5, 40)),
    "Sigmoid": (nn.Sigmoid, torch.nn.Sigmoid, (5, 4)),
    "Tanh": (nn.Tanh, torch.nn.Tanh, (5, 4)),
    "Softmax": (nn.Softmax, lambda: torch.nn.Softmax(dim=-1), (5, 4)),
    "Softmax(0)": (lambda: nn.Softmax(0), lambda: torch.nn.Softmax(dim=0), (5, 4)),
    "Softmax(dim=1)": (lambda: nn.Softmax(dim=1), lambda: torch.nn.Softmax(dim=1), (5, 4, 2)),
    "Flatten": (nn.Flatten, torch.nn.Flatten, (5, 2, 3)),
    "Flatten(0)": (lambda: nn.Flatten(0), lambda: torch.nn.Flatten(0), (5, 2, 3)),
    "Flatten(-3, 2)": (lambda: nn.Flatten(-3, 2), lambda: torch.nn.Flatten(-3, 2), (5, 2, 3, 4)),
    "Flatten(end_dim=1)": (
        lambda: nn.Flatten(end_dim=1),
        lambda: torch.nn.Flatten(end_dim=1),
        (5, 2, 3),
    ),
    "Sequential": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2)),
        lambda: torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.GELU(), torch.nn.Linear(6, 2)),
        (5, 4),
    ),
}


def twins(name: str, dtype: str) -> tuple[nn.Module, Any]:
    """The layer here and in PyTorch, with the same parameters."""
    ours, theirs, _ = LAYERS[name]
    net, twin = (
        ours().init(seed=2, backend="numpy", dtype=dtype),
        theirs().to(getattr(torch, dtype)),
    )
    twin.load_state_dict({n: torch.tensor(p) for n, p in net.parameters().items()})
    return net, twin


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str, dtype: str) -> None:
    net, twin = twins(name, dtype)
    x = (3 * numbers(*LAYERS[name][2])).astype(dtype)
    there = torch.tensor(x, requires_grad=True)
    outputs = twin(there)
    same(net(x), outputs, dtype)
    w = numbers(*outputs.shape, seed=1).astype(dtype)
    (outputs * torch.tensor(w)).sum().backward()
    slopes, back = value_and_grad(lambda p, a: total(net.bind(p)(a) * w), (0, 1))(
        net.parameters(), x
    )[1]
    same(back, there.grad, dtype)
    for path, parameter in twin.named_parameters():
        same(slopes[path], parameter.grad, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("ours", "theirs", "targets"),
    [
        (losses.mse, "mse_loss", numbers(6, 3, seed=4)),
        (
            losses.binary_cross_entropy_with_logits,
            "binary_cross_entropy_with_logits",
            numbers(6, 3) > 0,
        ),
        (losses.cross_entropy, "cross_entropy", np.asarray([0, 2, 1, 1, 0, 2])),
        (losses.cross_entropy, "cross_entropy", np.random.default_rng(1).dirichlet(np.ones(3), 6)),
    ],
    ids=["mse", "binary cross entropy", "cross entropy", "cross entropy of probabilities"],
)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_loss(dtype: str, ours: Any, theirs: str, targets: np.ndarray, scale: float) -> None:
    x = (scale * numbers(6, 3)).astype(dtype)
    y = targets if targets.dtype.kind == "i" else targets.astype(dtype)
    there = torch.tensor(x, requires_grad=True)
    expected = getattr(torch.nn.functional, theirs)(there, torch.tensor(y))
    expected.backward()
    value, slope = value_and_grad(ours)(x, y)
    same(value, expected, dtype)
    same(slope, there.grad, dtype)


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-11), ("float32", 1e-5)])
def test_digits_like_losses_step_by_step(dtype: str, limit: float) -> None:
    """Adam 1e-3 from the same weights, on the same batches; the median of several seeds."""
    from polynet.data import batches

    x, y = numbers(300, 64).astype(dtype), np.arange(300) % 10
    worst = []
    for seed in range(3 if dtype == "float64" else 7):
        net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        trainer = Trainer(
            net, losses.cross_entropy, optim.Adam(1e-3, eps=1e-5), seed=seed, dtype=dtype
        )
        trainer.evaluate(x, y)
        twin = torch.nn.Sequential(
            torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
        )
        twin.to(getattr(torch, dtype)).load_state_dict(
            {n: torch.tensor(p) for n, p in trainer.net.parameters().items()}
        )
        optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3, eps=1e-5)
        expected = []
        for epoch in range(5):
            for rows in batches(300, 32, seed=seed, epoch=epoch):
                optimizer.zero_grad()
                value = torch.nn.functional.cross_entropy(
                    twin(torch.tensor(x[rows])), torch.tensor(y[rows])
                )
                value.backward()
                optimizer.step()
                expected.append(value.item())
        found = trainer.fit(x, y, epochs=5).step_losses
        worst.append(np.max(np.abs(np.divide(found, expected) - 1)))
    assert np.median(worst) < limit, worst


@pytest.mark.parametrize("dtype", DTYPES)
def test_functions(dtype: str) -> None:
    x = np.linspace(-8, 8, 4001).astype(dtype)
    there = torch.tensor(x)
    for ours, theirs in (
        (functional.erf, torch.erf),
        (functional.sigmoid, torch.sigmoid),
        (functional.gelu, torch.nn.functional.gelu),
        (functional.log_softmax, lambda t: torch.log_softmax(t, -1)),
        (functional.logsumexp, lambda t: torch.logsumexp(t, -1)),
    ):
        same(ours(x), theirs(there), dtype)

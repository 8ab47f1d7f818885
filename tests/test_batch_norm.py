"""Batch normalisation beside PyTorch's: values, gradients, running statistics, over the options."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from beside_pytorch import DTYPES, numbers, same, torch, total

from polynet import Trainer, losses, nn, optim, value_and_grad
from polynet.backend import get_backend

SHAPES = {
    "BatchNorm1d": [(6, 3), (4, 3, 5)],
    "BatchNorm2d": [(4, 3, 5, 2)],
    "BatchNorm3d": [(2, 3, 2, 5, 2)],
}
INPUTS = [(kind, shape) for kind, shapes in SHAPES.items() for shape in shapes]
OPTIONS = [
    {"eps": eps, "momentum": momentum, "affine": affine, "track_running_stats": track}
    for eps, momentum, affine, track in product(
        (1e-5, 0.1), (0.1, None, 0.7, 0.0), (True, False), (True, False)
    )
    if track or momentum == 0.1
]


def pair(kind: str, dtype: str, **options: Any) -> tuple[nn.Module, Any]:
    """The layer here and in PyTorch, with the same weights, which are not ones and zeros."""
    net = getattr(nn, kind)(3, **options).init(backend="numpy", dtype=dtype)
    drawn = {n: 1 + numbers(3, seed=8).astype(dtype) for n in net.parameters()}
    twin = getattr(torch.nn, kind)(3, **options).to(getattr(torch, dtype))
    twin.load_state_dict({n: torch.tensor(a) for n, a in drawn.items()}, strict=False)
    return net.replace(drawn), twin


def same_buffers(buffers: dict[str, Any], twin: Any, dtype: str) -> None:
    expected = dict(twin.named_buffers())
    assert set(buffers) == set(expected)
    for name, buffer in buffers.items():
        if name.endswith("num_batches_tracked"):
            assert (buffer.shape, int(buffer)) == ((), int(expected[name]))
        else:
            same(buffer, expected[name], dtype)


def compared(net: nn.Module, twin: Any, x: np.ndarray, dtype: str, context: Any) -> Any:
    """One pass: outputs and all gradients. Returns the buffers after it."""
    there = torch.tensor(x, requires_grad=True)
    twin.zero_grad()
    outputs = twin(there)
    w = numbers(*x.shape, seed=4).astype(dtype)
    (outputs * torch.tensor(w)).sum().backward()

    def objective(params: Any, a: Any) -> Any:
        y = net.bind(params, context)(a)
        return total(y * w), (y, context.buffers if context else net.buffers())

    (_, (found, buffers)), slopes = value_and_grad(objective, (0, 1), has_aux=True)(
        net.parameters(), x
    )
    same(found, outputs, dtype)
    same(slopes[1], there.grad, dtype)
    for name, parameter in twin.named_parameters():
        same(slopes[0][name], parameter.grad, dtype)
    return buffers


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: ",".join(map(str, o.values())))
@pytest.mark.parametrize(("kind", "shape"), INPUTS)
def test_three_training_passes_and_a_prediction(
    kind: str, shape: tuple[int, ...], options: dict[str, Any], dtype: str
) -> None:
    net, twin = pair(kind, dtype, **options)
    for i in range(3):
        context = nn.Context(get_backend("numpy").xp, np.full(1, i, np.int32), {})
        x = (2 + 3 * numbers(*shape, seed=i)).astype(dtype)
        net = net.replace(compared(net, twin, x, dtype, context))
        same_buffers(net.buffers(), twin, dtype)
    twin.eval()
    compared(net, twin, (numbers(*shape, seed=5) - 1).astype(dtype), dtype, None)
    same_buffers(net.buffers(), twin, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_ten_training_steps(momentum: float | None, dtype: str) -> None:
    def network(kind: Any) -> Any:
        """No bias goes before a norm, which takes it away: all of its gradient is rounding."""
        return kind.Sequential(
            kind.Conv2d(1, 3, 3, bias=False),
            kind.BatchNorm2d(3, momentum=momentum),
            kind.ReLU(),
            kind.Flatten(),
            kind.Linear(48, 4, bias=False),
            kind.BatchNorm1d(4),
        )

    x, y = numbers(12, 1, 6, 6).astype(dtype), numbers(12, 4, seed=1).astype(dtype)
    trainer = Trainer(network(nn), losses.mse, optim.Adam(1e-3, eps=1e-5), dtype=dtype)
    trainer.evaluate(x, y)
    twin = network(torch.nn).to(getattr(torch, dtype))
    twin.load_state_dict({n: torch.tensor(a) for n, a in trainer.net.state_dict().items()})
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3, eps=1e-5)
    for _ in range(10):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(twin(torch.tensor(x)), torch.tensor(y)).backward()
        optimizer.step()
    trainer.fit(x, y, epochs=10, batch_size=12)
    same_buffers(trainer.net.buffers(), twin, dtype)
    for name, parameter in twin.named_parameters():
        same(trainer.net.parameters()[name], parameter, dtype)
    twin.eval()
    same(trainer.predict(x), twin(torch.tensor(x)), dtype)


@pytest.mark.parametrize(
    ("kind", "shape", "words"),
    [
        ("BatchNorm1d", (1, 3), "more than 1 value per channel.*drop_last=True"),
        ("BatchNorm2d", (1, 3, 1, 1), "more than 1 value per channel"),
        ("BatchNorm1d", (4, 2), r"expected inputs of shape \(batch, 3\) or \(batch, 3, length\)"),
        ("BatchNorm1d", (4, 3, 2, 2), r"expected .*, got \(4, 3, 2, 2\)"),
        ("BatchNorm2d", (4, 3), r"expected inputs of shape \(batch, 3, height, width\)"),
    ],
)
def test_what_pytorch_refuses(kind: str, shape: tuple[int, ...], words: str) -> None:
    """For a single value per channel only what normalises by the batch refuses."""
    for track in (True, False):
        net, twin = pair(kind, "float32", track_running_stats=track)
        x = np.ones(shape, "float32")
        for training in (True, False):
            context = nn.Context(np, np.zeros(1, np.int32), {}) if training else None
            ours = net.bind(net.parameters(), context)
            theirs = twin.train(training)
            if "1 value" in words and track and not training:
                same(ours(x), theirs(torch.tensor(x)), "float32")
                continue
            with pytest.raises((ValueError, RuntimeError)):
                theirs(torch.tensor(x))
            with pytest.raises(ValueError, match=words):
                ours(x)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.BatchNorm1d(0), "num_features is a positive integer; got 0"),
        (lambda: nn.BatchNorm2d(3, momentum=1.5), "BatchNorm2d: momentum .* got 1.5"),
    ],
)
def test_settings_that_make_no_sense(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_another_dtype_is_refused() -> None:
    plain = nn.BatchNorm1d(3, affine=False).init(backend="numpy")
    with pytest.raises(TypeError, match=r"BatchNorm1d\(3\): the inputs are float64"):
        plain(np.ones((4, 3)))

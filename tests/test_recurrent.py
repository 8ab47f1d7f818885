"""Recurrent layers by themselves: what a step back costs, what dropout depends on, weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polynet
from polynet import Trainer, losses, nn, optim, random
from polynet.backend import registry
from polynet.nn import Context
from polynet.ops import OPS
from polynet.tree import leaves

KINDS = (nn.RNN, nn.LSTM, nn.GRU)


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_back_is_linear_in_the_length(kind: Any) -> None:
    """No op of a single time reads, and so no gradient of one has, the numbers of all times."""
    net = kind(2, 3, 2, bidirectional=True).init(seed=0, backend="numpy", dtype="float64")

    def work(length: int) -> int:
        record = polynet.record(
            lambda p, x: OPS["sum"](net.bind(p)(x)[0]), net.parameters(), numbers(length, 4, 2)
        )
        lines = record.lines
        return sum(
            math.prod(lines[at].shape)
            for line in lines
            for at in line.inputs
            if at is not None and line.op != "unstack"  # each time names what was cut
        )

    assert work(30) - work(20) == work(20) - work(10) > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [True, False])
def test_dropout_is_between_layers_and_by_sample(kind: Any, batch_first: bool) -> None:
    net = kind(3, 4, 2, batch_first=batch_first, dropout=0.5).init(seed=0, backend="numpy")
    xp = polynet.get_backend("numpy").xp
    keys = {name: random.key(1, name) for name in net.streams()}
    assert list(keys) == ["dropout.stream"]
    context = Context(xp, np.zeros(1, dtype=np.int32), keys)

    def outputs(x: np.ndarray, training: bool) -> np.ndarray:
        trained = net.bind(net.parameters(), Context(xp, context.step, keys) if training else None)
        y, _ = trained(x if batch_first else x.swapaxes(0, 1))
        return y if batch_first else y.swapaxes(0, 1)

    x = np.repeat(numbers(1, 5, 3).astype("float32"), 6, axis=0)  # one sample six times
    dropped, whole = outputs(x, training=True), outputs(x, training=False)
    assert np.array_equal(outputs(x[:2], training=True), dropped[:2])
    assert len(np.unique(dropped.round(5), axis=0)) == 6
    assert len(np.unique(whole.round(5), axis=0)) == 1
    assert (dropped != 0).all()  # what comes out of the last layer is whole


def lstm() -> nn.Module:
    return nn.LSTM(3, 4, batch_first=True).init(seed=0, backend="numpy")


X = numbers(6, 5, 3).astype("float32")
H = np.zeros((1, 6, 4), dtype="float32")

BAD: dict[str, tuple[Callable[[], Any], type[BaseException], list[str]]] = {
    "features": (lambda: lstm()(X[..., :2]), ValueError, ["LSTM(3, 4)", "(batch, length, 3)"]),
    "one sample": (lambda: lstm()(X[0]), ValueError, ["(batch, length, 3)", "(5, 3)"]),
    "no time": (lambda: lstm()(X[:, :0]), ValueError, ["one time or more", "(6, 0, 3)"]),
    "dtype": (lambda: lstm()(X.astype("float64")), TypeError, ["float64", "float32"]),
    "state of one": (lambda: lstm()(X, H), TypeError, ["pair (h, c)", "ndarray"]),
    "state of three": (lambda: lstm()(X, (H, H, H)), TypeError, ["pair (h, c)", "tuple of 3"]),
    "state shape": (lambda: lstm()(X, (H, H[:, :5])), ValueError, ["(1, 6, 4)", "(1, 5, 4)"]),
    "state dtype": (lambda: lstm()(X, (H, H.astype("float64"))), TypeError, ["float64"]),
    "lengths of others": (lambda: lstm()(X, None, np.ones(5, int)), ValueError, ["(6,)", "(5,)"]),
    "one length": (lambda: lstm()(X, lengths=3), ValueError, ["(6,)", "got int"]),
    "floating lengths": (
        lambda: lstm()(X, lengths=np.ones(6)),
        TypeError,
        ["LSTM(3, 4)", "integers", "float64"],
    ),
    "cell": (
        lambda: nn.GRUCell(3, 4).init(0, backend="numpy")(X),
        ValueError,
        ["GRUCell(3, 4)", "(batch, 3)", "(6, 5, 3)"],
    ),
    "nonlinearity": (lambda: nn.RNN(3, 4, nonlinearity="tan"), ValueError, ["'tan'", "tanh"]),
    "size": (lambda: nn.GRU(3, 0), ValueError, ["GRU: hidden_size", "0"]),
    "dropout of one layer": (
        lambda: nn.LSTM(3, 4, dropout=0.5),
        ValueError,
        ["between layers", "num_layers=2"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    do, error, words = BAD[name]
    with pytest.raises(error) as raised:
        do()
    for word in words:
        assert word in str(raised.value), str(raised.value)


def test_a_state_of_another_backend_is_refused() -> None:
    pytest.importorskip("array_api_strict", reason="a second backend")
    there = polynet.asarray(H, backend="strict")
    with pytest.raises(polynet.errors.MixedBackendsError, match="strict"):
        lstm()(X, (H, there))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_no_samples(kind: Any) -> None:
    net = kind(3, 4, batch_first=True).init(seed=0, backend="numpy")
    assert net(X[:0])[0].shape == (0, 5, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_beyond_a_sequence_is_not_read(kind: Any) -> None:
    """And no gradient goes there. A sequence of no times leaves the state as it was."""
    net = kind(3, 4, 2, bidirectional=True).init(seed=0, backend="numpy", dtype="float64")
    lengths, x = np.array([5, 2, 0]), numbers(5, 3, 3)
    beyond = np.broadcast_to((np.arange(5)[:, None] >= lengths)[..., None], x.shape)

    def everything(x: Any) -> Any:
        return OPS["concat"](leaves(net(x, lengths=lengths)), axis=None)

    y = everything(x)
    assert np.array_equal(everything(np.where(beyond, 1e3, x)), y)
    slope = polynet.grad(lambda x: OPS["sum"](everything(x)))(x)
    assert np.all(slope[~beyond] != 0)
    assert not np.any(slope[beyond])
    outputs, last = net(x, lengths=lengths)
    assert not np.any(outputs[2:, 1])
    assert not np.any(np.asarray(last)[..., 2, :])
    alone, _ = net(x[:2, 1:2])
    np.testing.assert_allclose(outputs[:2, 1:2], alone, rtol=1e-12)


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "strict"])
def test_lengths_may_be_small_integers(name: str) -> None:
    """Of a sequence that is longer than they can say."""
    if not registry.status(name).available:
        pytest.skip(f"{name}: {registry.status(name).reason}")
    net = nn.GRU(2, 3).init(seed=0, backend=name)
    x = polynet.asarray(numbers(300, 2, 2).astype("float32"), backend=name)
    few, wide = (
        polynet.asarray(np.array([250, 3], dtype), backend=name) for dtype in ("uint8", "int32")
    )
    found, expected = (polynet.to_numpy(net(x, lengths=n)[0]) for n in (few, wide))
    np.testing.assert_array_equal(found, expected)
    assert not np.any(found[250:])


class Sum(nn.Module):
    """The sum of a sequence's numbers, of what is remembered at its end."""

    def __init__(self) -> None:
        self.read = nn.GRU(1, 16, batch_first=True, bidirectional=True)
        self.out = nn.Linear(32, 1)

    def forward(self, x: Any, lengths: Any) -> Any:
        _, h = self.read(x, lengths=lengths)
        return self.out(OPS["concat"]([h[0, ...], h[1, ...]], axis=1))


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "strict"])
def test_training_on_sequences_of_several_lengths(name: str) -> None:
    """As one program where there is one; the loss is that on NumPy."""
    if not registry.status(name).available:
        pytest.skip(f"{name}: {registry.status(name).reason}")
    made = np.random.default_rng(1)
    lengths = made.integers(1, 9, 256)
    x = made.uniform(-1, 1, (256, 8, 1))
    y = np.array([[x[i, :n].sum()] for i, n in enumerate(lengths)])
    found = {}
    for backend in {name, "numpy"}:
        compiled = "require" if backend in ("numpy", "jax") else "auto"
        trainer = Trainer(
            Sum(), losses.mse, optim.Adam(3e-2, eps=1e-5), backend=backend, compile=compiled
        )
        history = trainer.fit({"x": x, "lengths": lengths}, y, epochs=3, batch_size=32)
        found[backend] = history.step_losses
    assert found[name][-1] < 0.5 * found[name][0]
    np.testing.assert_allclose(found[name], found["numpy"], rtol=1e-5)

"""Recurrent layers and cells beside PyTorch's, over their options."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from beside_pytorch import DTYPES, TOLERANCE, compare, numbers, same, torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from polynet import Trainer, losses, nn, optim
from polynet.ops import OPS
from polynet.tree import leaves

INPUTS, HIDDEN, LENGTH, BATCH = 4, 5, 6, 3

KINDS: dict[str, dict[str, Any]] = {
    "RNN": {},
    "RNN, relu": {"nonlinearity": "relu"},
    "LSTM": {},
    "GRU": {},
}


def twins(kind: str, suffix: str = "") -> tuple[Callable[..., nn.Module], Callable[..., Any]]:
    """How to make the layer, or the cell, here and in PyTorch."""
    name = kind.partition(",")[0] + suffix

    def ours(*args: Any, **options: Any) -> nn.Module:
        return getattr(nn, name)(*args, **options, **KINDS[kind])

    def theirs(*args: Any, **options: Any) -> Any:
        return getattr(torch.nn, name)(*args, **options, **KINDS[kind])

    return ours, theirs


class Everything(nn.Module):
    """All that a layer returns as one vector, of an input and the parts of a state."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def forward(self, x: Any, *state: Any, **lengths: Any) -> Any:
        return OPS["concat"](leaves(self.layer(x, *_given(state), **lengths)), axis=None)


class EverythingTwin(torch.nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any, *state: Any, lengths: Any = None) -> Any:
        if lengths is None:
            outputs, last = self.layer(x, *_given(state)), []
        else:
            outputs, last = self._packed(x, *_given(state), lengths=lengths)
        return torch.concat([a.reshape(-1) for a in leaves([outputs, last])])

    def _packed(self, x: Any, *state: Any, lengths: Any) -> Any:
        """Of sequences of several lengths, as PyTorch takes them."""
        how = {"batch_first": self.layer.batch_first}
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False, **how)
        outputs, last = self.layer(packed, *state)
        return pad_packed_sequence(outputs, total_length=LENGTH, **how)[0], last


def _given(state: tuple[Any, ...]) -> tuple[Any, ...]:
    return (state,) if len(state) > 1 else state


def states(kind: str, *shape: int) -> list[np.ndarray]:
    return [numbers(*shape, seed=7 + i) for i in range(2 if kind == "LSTM" else 1)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("layers", "both", "bias", "batch_first", "state"),
    list(product((1, 2, 3), *[(False, True)] * 4)),
)
def test_layer(
    layers: int, both: bool, bias: bool, batch_first: bool, state: bool, kind: str, dtype: str
) -> None:
    options = {"bias": bias, "batch_first": batch_first, "bidirectional": both}
    ours, theirs = (make(INPUTS, HIDDEN, layers, **options) for make in twins(kind))
    x = numbers(BATCH, LENGTH, INPUTS) if batch_first else numbers(LENGTH, BATCH, INPUTS)
    given = states(kind, layers * (1 + both), BATCH, HIDDEN) if state else []
    compare(Everything(ours), EverythingTwin(theirs), [x, *given], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("layers", "both", "batch_first", "state"), list(product((1, 2), *[(False, True)] * 3))
)
@pytest.mark.parametrize("lengths", [[4, LENGTH, 1], [LENGTH] * BATCH], ids=str)
def test_sequences_of_several_lengths(
    layers: int, both: bool, batch_first: bool, state: bool, lengths: Any, kind: str, dtype: str
) -> None:
    options = {"batch_first": batch_first, "bidirectional": both}
    ours, theirs = (make(INPUTS, HIDDEN, layers, **options) for make in twins(kind))
    x = numbers(BATCH, LENGTH, INPUTS) if batch_first else numbers(LENGTH, BATCH, INPUTS)
    given = states(kind, layers * (1 + both), BATCH, HIDDEN) if state else []
    compare(Everything(ours), EverythingTwin(theirs), [x, *given], dtype, lengths=np.array(lengths))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("state", [True, False])
def test_cell(state: bool, bias: bool, kind: str, dtype: str) -> None:
    ours, theirs = (make(INPUTS, HIDDEN, bias) for make in twins(kind, "Cell"))
    given = states(kind, BATCH, HIDDEN) if state else []
    compare(Everything(ours), EverythingTwin(theirs), [numbers(BATCH, INPUTS), *given], dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_sequence_of_large_numbers(kind: str) -> None:
    ours, theirs = (make(INPUTS, HIDDEN) for make in twins(kind))
    x = 30 * numbers(200, BATCH, INPUTS) if kind != "RNN, relu" else numbers(200, BATCH, INPUTS)
    compare(Everything(ours), EverythingTwin(theirs), [x], "float64")


@pytest.mark.parametrize("suffix", ["", "Cell"])
@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_named_ordered_and_drawn_as_pytorchs(kind: str, suffix: str) -> None:
    options = {} if suffix else {"num_layers": 2, "bidirectional": True}
    ours, theirs = (make(20, 25, **options) for make in twins(kind, suffix))
    found = ours.init(seed=0, backend="numpy").parameters()
    expected = {n: tuple(p.shape) for n, p in theirs.named_parameters()}
    assert {n: p.shape for n, p in found.items()} == expected
    assert list(found) == list(expected)
    for values in [found.values(), [p.detach().numpy() for p in theirs.parameters()]]:
        everything = np.concatenate([p.ravel() for p in values])  # of a thousand or more
        assert np.abs(everything).max() <= 0.2  # 1 / √25
        assert 0.19 < np.quantile(np.abs(everything), 0.98) < 0.2
        assert abs(everything.mean()) < 0.01


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_ten_training_steps(kind: str, dtype: str) -> None:
    """A classifier of sequences by the last output of two layers, trained by Adam."""
    make, make_twin = twins(kind)

    class Classifier(nn.Module):
        def __init__(self) -> None:
            self.read = make(INPUTS, HIDDEN, 2, batch_first=True)
            self.out = nn.Linear(HIDDEN, 3)

        def forward(self, x: Any) -> Any:
            outputs, _ = self.read(x)
            return self.out(outputs[:, -1, :])

    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = make_twin(INPUTS, HIDDEN, 2, batch_first=True)
            self.out = torch.nn.Linear(HIDDEN, 3)

        def forward(self, x: Any) -> Any:
            outputs, _ = self.read(x)
            return self.out(outputs[:, -1])

    x, y = numbers(20, LENGTH, INPUTS).astype(dtype), np.arange(20) % 3
    net = Classifier().init(seed=2, backend="numpy", dtype=dtype)
    twin = Twin().to(getattr(torch, dtype))
    twin.load_state_dict({n: torch.tensor(p) for n, p in net.parameters().items()})
    trainer = Trainer(net, losses.cross_entropy, optim.Adam(1e-2, eps=1e-5))
    optimizer, expected = torch.optim.Adam(twin.parameters(), lr=1e-2, eps=1e-5), []
    for _ in range(10):
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(twin(torch.tensor(x)), torch.tensor(y))
        value.backward()
        optimizer.step()
        expected.append(value.item())
    found = trainer.fit(x, y, epochs=10, batch_size=20).step_losses
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE[dtype])
    for path, parameter in twin.named_parameters():
        same(trainer.net.parameters()[path], parameter, dtype)

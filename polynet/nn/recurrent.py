"""Recurrent layers, and their cells, which make one step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from polynet import functional
from polynet.backend import Array
from polynet.errors import unknown
from polynet.nn import init
from polynet.nn.checks import check_same_dtype, positive, wrong_shape, yes_or_no
from polynet.nn.described import Parameter
from polynet.nn.dropout import Dropout
from polynet.nn.module import Module
from polynet.ops import array_namespace
from polynet.ops.manipulation import concat, permute_dims, stack

State = Array | tuple[Array, ...] | None
"""The state that a caller passes and receives: h, or (h, c) for LSTM; None stands for zeros."""


class _Recurrent(Module):
    """Base of recurrent layers and cells: named weights, and a state that is checked and split."""

    _function: ClassVar[Callable[..., tuple[Array, ...]]]
    _gates = 1
    _states = 1
    input_size: int
    hidden_size: int

    def _add_weights(self, suffix: str, inputs: int, bias: bool) -> None:
        hidden = self.hidden_size
        bound = 1 / math.sqrt(hidden)
        rows, drawn = self._gates * hidden, init.uniform(-bound, bound)
        setattr(self, f"weight_ih{suffix}", Parameter((rows, inputs), drawn))
        setattr(self, f"weight_hh{suffix}", Parameter((rows, hidden), drawn))
        for name in ("bias_ih", "bias_hh"):
            setattr(self, name + suffix, Parameter((rows,), drawn) if bias else None)

    def _weights(self, suffix: str) -> list[Any]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [getattr(self, name + suffix) for name in names]

    def _read(
        self, x: Array, state: Any, suffix: str, lengths: Any = None, reverse: bool = False
    ) -> tuple[Array, ...]:
        """One layer in one direction: the outputs at all times, and each part of the last state."""
        arrays = (x, *state, *self._weights(suffix), lengths)
        return type(self)._function(*arrays, reverse=reverse, **self._options())

    def _options(self) -> dict[str, Any]:
        """The options of the function besides the direction."""
        return {}

    def _taken_apart(self, x: Array, hx: State, shape: tuple[int, ...]) -> list[Any]:
        """The parts of the state, each of `shape`, or None for zeros."""
        if hx is None:
            return [None] * self._states
        parts: list[Any] = list(hx) if isinstance(hx, tuple | list) else [hx]
        if isinstance(hx, tuple | list) != (self._states > 1) or len(parts) != self._states:
            wanted = "a pair (h, c)" if self._states > 1 else "one array"
            raise TypeError(
                f"{self.label()}: the state hx is {wanted}; got a {type(hx).__name__} of {len(hx)}"
            )
        for part in parts:
            if tuple(part.shape) != shape:
                raise ValueError(
                    f"{self.label()}: for inputs of shape {tuple(x.shape)}, each array of the "
                    f"state has shape {shape}; got {tuple(part.shape)}"
                )
            check_same_dtype(self, part, x)
        return parts

    def settings(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"


class _Layers(_Recurrent):
    """A stack of recurrent layers, each in one direction or both."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        kind = type(self).__name__
        input_size, hidden_size, num_layers = positive(
            kind, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers
        )
        yes_or_no(kind, bias=bias, batch_first=batch_first, bidirectional=bidirectional)
        if dropout and num_layers == 1:
            raise ValueError(
                f"{kind}: dropout is between layers, and num_layers is 1; give num_layers=2 or "
                "more, or put nn.Dropout after the layer"
            )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.batch_first = batch_first
        self.bidirectional = bidirectional
        for layer in range(num_layers):
            inputs = hidden_size * (1 + bidirectional) if layer else input_size
            for suffix in self._suffixes(layer):
                self._add_weights(suffix, inputs, bias)
        self.dropout = Dropout(dropout)

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: 1 + self.bidirectional]

    def forward(
        self, x: Array, hx: State = None, lengths: Array | None = None
    ) -> tuple[Array, Any]:
        order = "batch, length" if self.batch_first else "length, batch"
        fits = len(x.shape) == 3 and x.shape[2] == self.input_size
        if not fits or x.shape[1 if self.batch_first else 0] == 0:
            raise wrong_shape(self, f"({order}, {self.input_size}), of one time or more", x)
        check_same_dtype(self, x, self._weights("_l0")[0])
        batch = x.shape[0 if self.batch_first else 1]
        count = self.num_layers * (1 + self.bidirectional)
        starts = self._taken_apart(x, hx, (count, batch, self.hidden_size))
        self._check_lengths(lengths, batch)
        swapped = (1, 0, 2)
        y = permute_dims(x, swapped) if self.batch_first else x
        ends: list[tuple[Array, ...]] = []
        for layer in range(self.num_layers):
            if layer and self.dropout.active:  # a mask has the samples on its first axis
                y = permute_dims(self.dropout(permute_dims(y, swapped)), swapped)
            read = []
            for backward, suffix in enumerate(self._suffixes(layer)):
                state = [None if s is None else s[len(ends), ...] for s in starts]
                outputs, *end = self._read(y, state, suffix, lengths, bool(backward))
                read.append(outputs)
                ends.append(tuple(end))
            y = concat(read, axis=2) if self.bidirectional else read[0]
        parts = tuple(stack(list(part), axis=0) for part in zip(*ends, strict=True))
        y = permute_dims(y, swapped) if self.batch_first else y
        return y, parts if self._states > 1 else parts[0]

    def _check_lengths(self, lengths: Any, batch: int) -> None:
        """Raise unless they are one whole number for each sample."""
        if lengths is None:
            return
        if tuple(getattr(lengths, "shape", ())) != (batch,):
            found = getattr(lengths, "shape", type(lengths).__name__)
            raise ValueError(
                f"{self.label()}: lengths are an array of one number for each sample, ({batch},); "
                f"got {found}"
            )
        if not array_namespace(lengths).isdtype(lengths.dtype, "integral"):
            raise TypeError(f"{self.label()}: lengths are integers; got {lengths.dtype}")

    def settings(self) -> str:
        layers = f", num_layers={self.num_layers}" if self.num_layers > 1 else ""
        ways = ", bidirectional=True" if self.bidirectional else ""
        return super().settings() + layers + ways


class RNN(_Layers):
    """Recurrent layers of Elman's kind: h ← tanh(W_ih x + b_ih + W_hh h + b_hh).

    Inputs are (length, batch, input_size). Outputs are (length, batch, hidden_size): h of the last
    layer at each time. The state `hx` before the first time is (num_layers, batch, hidden_size);
    without it, the state is zeros. Returns (outputs, state after the last time). `nonlinearity` is
    "tanh" or "relu".

    The following holds for this layer, `LSTM` and `GRU`. With `batch_first`, inputs and outputs are
    (batch, length, …), but states keep their shape. Each layer above the first reads the outputs of
    the layer below, in training after `dropout`. With `bidirectional`, each layer also reads from
    the end: outputs then have 2·hidden_size numbers, forward ones first, and states have
    2·num_layers entries. Parameters have PyTorch's names, `weight_ih_l0` and so on, with `_reverse`
    where a layer reads from the end. All are drawn uniformly in ±1/√hidden_size. A step takes time
    and memory in proportion to the length. The loop over the times runs in Python, except on JAX.

    Samples of different lengths go into one array, in which the shorter ones are padded with any
    finite numbers. `lengths`, an integer array (batch,), gives the number of times of each sample.
    (Its values are not checked: a length beyond the array means all times, one below 0 means none.)
    The padding is not read, in either direction: outputs are 0 there, and the last state is the
    state after a sample's own last time. In PyTorch this is `pack_padded_sequence`.

    Raises ValueError for other shapes, TypeError for another dtype.

    `Sequential` passes on one array, so a network takes the array it needs, here the last outputs:

    >>> from polynet import nn
    >>> class Classifier(nn.Module):
    ...     def __init__(self):
    ...         self.read = nn.RNN(4, 8, batch_first=True)
    ...         self.out = nn.Linear(8, 2)
    ...     def forward(self, x):
    ...         outputs, _ = self.read(x)
    ...         return self.out(outputs[:, -1, :])
    >>> import numpy as np
    >>> Classifier().init(seed=0, backend="numpy")(np.zeros((5, 7, 4), dtype="float32")).shape
    (5, 2)
    """

    _function = functional.rnn

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        self.nonlinearity = _known(nonlinearity)
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )

    def _options(self) -> dict[str, Any]:
        return {"activation": self.nonlinearity}


class LSTM(_Layers):
    """Recurrent layers with a memory, whose gates say what to keep, to add and to show.

    (i, f, g, o) = W_ih x + b_ih + W_hh h + b_hh, four parts side by side;
    c ← σ(f)·c + σ(i)·tanh(g); h ← σ(o)·tanh(c). The state is a pair (h, c), and the layer returns
    (outputs, (h, c)). All else is as in `RNN`, whose docstring shows a network.

    Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9 (1997).

    >>> from polynet import nn
    >>> import numpy as np
    >>> lstm = nn.LSTM(4, 8, num_layers=2).init(seed=0, backend="numpy")
    >>> outputs, (h, c) = lstm(np.zeros((7, 5, 4), dtype="float32"))
    >>> outputs.shape, h.shape, c.shape
    ((7, 5, 8), (2, 5, 8), (2, 5, 8))
    """

    _function = functional.lstm
    _gates = 4
    _states = 2


class GRU(_Layers):
    """Recurrent layers with gates, but no memory apart from h.

    With a = W_ih x + b_ih and b = W_hh h + b_hh, each three parts (r, z, n) side by side:
    r = σ(a_r + b_r), z = σ(a_z + b_z), n = tanh(a_n + r·b_n), h ← (1 - z)·n + z·h. All else is
    as in `RNN`, whose docstring shows a network.

    Cho et al., "Learning Phrase Representations using RNN Encoder–Decoder", EMNLP 2014.

    >>> from polynet import nn
    >>> import numpy as np
    >>> gru = nn.GRU(4, 8, bidirectional=True).init(seed=0, backend="numpy")
    >>> outputs, h = gru(np.zeros((7, 5, 4), dtype="float32"))
    >>> outputs.shape, h.shape
    ((7, 5, 16), (2, 5, 8))
    """

    _function = functional.gru
    _gates = 3


class _Cell(_Recurrent):
    """One step of a recurrent layer: a sequence of length one."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        self.input_size, self.hidden_size = positive(
            type(self).__name__, input_size=input_size, hidden_size=hidden_size
        )
        self._add_weights("", self.input_size, bias)

    def forward(self, x: Array, hx: State = None) -> Any:
        if len(x.shape) != 2 or x.shape[1] != self.input_size:
            raise wrong_shape(self, f"(batch, {self.input_size})", x)
        check_same_dtype(self, x, self._weights("")[0])
        state = self._taken_apart(x, hx, (x.shape[0], self.hidden_size))
        _, *parts = self._read(x[None, ...], state, "")
        return tuple(parts) if self._states > 1 else parts[0]


class RNNCell(_Cell):
    """One step of `RNN`: inputs (batch, input_size), state and result (batch, hidden_size).

    The parameters are `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`. Raises ValueError for
    other shapes, TypeError for another dtype.

    >>> from polynet import nn
    >>> import numpy as np
    >>> cell = nn.RNNCell(4, 8).init(seed=0, backend="numpy")
    >>> h = cell(np.zeros((5, 4), dtype="float32"))
    >>> cell(np.ones((5, 4), dtype="float32"), h).shape
    (5, 8)
    """

    _function = functional.rnn

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh"
    ) -> None:
        self.nonlinearity = _known(nonlinearity)
        super().__init__(input_size, hidden_size, bias)

    _options = RNN._options


class LSTMCell(_Cell):
    """One step of `LSTM`: from (batch, input_size) and a state (h, c) to the next (h, c)."""

    _function = functional.lstm
    _gates = LSTM._gates
    _states = LSTM._states


class GRUCell(_Cell):
    """One step of `GRU`: from (batch, input_size) and a state (batch, hidden_size) to the next."""

    _function = functional.gru
    _gates = GRU._gates


def _known(nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(unknown("nonlinearity", nonlinearity, ("tanh", "relu")))
    return nonlinearity

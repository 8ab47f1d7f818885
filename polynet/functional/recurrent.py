"""Recurrent layers: a sequence read one time after another, with a state that remembers.

Each function is one layer in one direction. Its inputs are `x` (length, batch, inputs); the state
before the first time, whose arrays are (batch, hidden), or None for zeros; and the weights in
PyTorch's layout: `weight_ih` (gates·hidden, inputs), `weight_hh` (gates·hidden, hidden), and both
biases (gates·hidden,) or neither. It returns the outputs of all times (length, batch, hidden) and
the state after the last time that was read; with `reverse` this is the first time in `x`.

Where samples have fewer times than `x`, `lengths` (batch,) says how many. Times beyond are not
read: outputs are 0 there, and the state stays as it is.

The product of all inputs with `weight_ih` does not depend on the state, and so is one product.
The rest is a loop in Python, with a product and a few ops for each time, forward and back. Their
results stay in memory until the gradient has passed. `unstack` and `stack` cut and join the times,
so that the cost of the backward pass is linear in their number, as that of the forward pass is.
"""

from __future__ import annotations

import array_api_compat

from polynet.functional.activation import relu
from polynet.functional.elementary import linear
from polynet.tensor import composition, op


@composition
def rnn(
    xp, x, hidden, weight_ih, weight_hh, bias_ih=None, bias_hh=None, lengths=None, *,
    activation, reverse=False,
):  # fmt: skip
    """h ← activation(W_ih x + b_ih + W_hh h + b_hh); `activation` is "tanh" or "relu".

    Returns (outputs, h). Elman, "Finding Structure in Time", Cognitive Science 14 (1990).
    """
    activate = {"tanh": xp.tanh, "relu": relu}[activation]
    h, weight, outputs = _state(xp, hidden, x, weight_hh), weight_hh.mT, []
    for inputs, read in _times(xp, x, weight_ih, _sum(bias_ih, bias_hh), lengths, reverse):
        h = _where(xp, read, activate(inputs + xp.matmul(h, weight)), h)
        outputs.append(_where(xp, read, h))
    return _joined(xp, outputs, reverse), h


@composition
def lstm(
    xp, x, hidden, cell, weight_ih, weight_hh, bias_ih=None, bias_hh=None, lengths=None, *,
    reverse=False,
):  # fmt: skip
    """c ← σ(f)·c + σ(i)·tanh(g);  h ← σ(o)·tanh(c).

    The gates (i, f, g, o) are the parts of W_ih x + b_ih + W_hh h + b_hh, side by side.
    Returns (outputs, h, c). Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural
    Computation 9 (1997), with the forget gate of Gers, Schmidhuber and Cummins (2000).
    """
    h, c = (_state(xp, s, x, weight_hh) for s in (hidden, cell))
    weight, outputs = weight_hh.mT, []
    for inputs, read in _times(xp, x, weight_ih, _sum(bias_ih, bias_hh), lengths, reverse):
        new = _lstm_gates(inputs + xp.matmul(h, weight), c)
        h, c = (_where(xp, read, *states) for states in zip(new, (h, c), strict=True))
        outputs.append(_where(xp, read, h))
    return _joined(xp, outputs, reverse), h, c


@op
def _lstm_gates(xp, gates, cell, /):
    """The new (h, c), from the four gates side by side and the old c."""
    first, second, third, fourth = _side_by_side(gates, 4)
    i, f, g, o = _sigmoid(xp, first), _sigmoid(xp, second), xp.tanh(third), _sigmoid(xp, fourth)
    c = f * cell + i * g
    t = xp.tanh(c)

    def pullback(slopes, _needs):
        to_h, to_c = slopes
        to_c = to_c + to_h * o * (1 - t * t)
        to_i, to_f, to_g, to_o = to_c * g, to_c * cell, to_c * i, to_h * t
        parts = [to_i * i * (1 - i), to_f * f * (1 - f), to_g * (1 - g * g), to_o * o * (1 - o)]
        return xp.concat(parts, axis=-1), to_c * f

    return (o * t, c), pullback


@composition
def gru(
    xp, x, hidden, weight_ih, weight_hh, bias_ih=None, bias_hh=None, lengths=None, *, reverse=False
):
    """r = σ(a_r + b_r);  z = σ(a_z + b_z);  n = tanh(a_n + r·b_n);  h ← (1 - z)·n + z·h.

    a = W_ih x + b_ih and b = W_hh h + b_hh are each three parts, (r, z, n), side by side.

    Returns (outputs, h). Cho et al., "Learning Phrase Representations using RNN
    Encoder–Decoder", EMNLP 2014, with b_n inside the reset, as in PyTorch.
    """
    h, outputs = _state(xp, hidden, x, weight_hh), []
    for inputs, read in _times(xp, x, weight_ih, bias_ih, lengths, reverse):
        h = _where(xp, read, _gru_gates(inputs, linear(h, weight_hh, bias_hh), h), h)
        outputs.append(_where(xp, read, h))
    return _joined(xp, outputs, reverse), h


@op
def _gru_gates(xp, a, b, h, /):
    """The new h, from `a` = W_ih x + b_ih, `b` = W_hh h + b_hh, three parts each, and the old h."""
    (a_r, a_z, a_n), (b_r, b_z, b_n) = _side_by_side(a, 3), _side_by_side(b, 3)
    r, z = _sigmoid(xp, a_r + b_r), _sigmoid(xp, a_z + b_z)
    n = xp.tanh(a_n + r * b_n)

    def pullback(g, _needs):
        to_n = g * (1 - z) * (1 - n * n)
        to_z = g * (h - n) * z * (1 - z)
        to_r = to_n * b_n * r * (1 - r)
        to_a = xp.concat([to_r, to_z, to_n], axis=-1)
        to_b = xp.concat([to_r, to_z, to_n * r], axis=-1)
        return to_a, to_b, g * z

    return n + z * (h - n), pullback


def _sigmoid(xp, x):
    """σ(x) as (1 + tanh(x/2)) / 2, which takes a third of the passes of `sigmoid`.

    Only its relative error for tiny values is larger, and that does not matter for a gate.
    """
    return xp.tanh(x * 0.5) * 0.5 + 0.5


def _side_by_side(x, count):
    """The equal parts of the last axis."""
    size = x.shape[-1] // count
    return [x[..., k * size : (k + 1) * size] for k in range(count)]


def _sum(bias_ih, bias_hh):
    return None if bias_ih is None else bias_ih + bias_hh


def _state(xp, state, x, weight_hh):
    """The state before the first time: zeros where none is given."""
    if state is not None:
        return state
    shape, device = (x.shape[1], weight_hh.shape[1]), array_api_compat.device(x)
    return xp.zeros(shape, dtype=x.dtype, device=device)


def _times(xp, x, weight, bias, lengths, reverse):
    """For each time, in the order of reading: W x + b, and which samples have this time.

    The latter is a mask (batch, 1), or None where all samples have all times.
    """
    times = xp.unstack(linear(x, weight, bias), axis=0)
    read = [None] * len(times)
    if lengths is not None:
        lengths = xp.astype(lengths, xp.int32)  # large enough for every number of times
        read = [lengths[:, None] > time for time in range(len(times))]
    both = list(zip(times, read, strict=True))
    return both[::-1] if reverse else both


def _where(xp, read, new, old=0.0):
    """The new numbers of the samples that have a time, and the old ones of the others."""
    return new if read is None else xp.where(read, new, old)


def _joined(xp, outputs, reverse):
    """The outputs of all times, in the order of the inputs."""
    return xp.stack(outputs[::-1] if reverse else outputs, axis=0)

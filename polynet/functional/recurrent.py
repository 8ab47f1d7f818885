"""Recurrent layers: a sequence is read one time step after another, and a state is carried along.

Each function is one layer in one direction. Its inputs are `x` (length, batch, inputs); the initial
state, whose arrays are (batch, hidden), or None for zeros; and the weights in PyTorch's layout:
`weight_ih` (gates·hidden, inputs), `weight_hh` (gates·hidden, hidden), and both biases
(gates·hidden,) or neither. It returns the outputs of all time steps (length, batch, hidden) and the
final state. With `reverse` the last time step is read first.

`lengths` (batch,) are the numbers of time steps of samples that are shorter than `x`. Beyond its
length, a sample's outputs are 0 and its state stays as it is.

The product of the inputs with `weight_ih` does not depend on the state, so it is computed for all
time steps at once. The rest is a Python loop. Time steps are separated by `unstack` and joined by
`stack`, which makes the cost of the backward pass linear in their number; indexing would make it
quadratic.
"""

from __future__ import annotations

import array_api_compat

from polynet.functional.activation import relu
from polynet.functional.linear import linear
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
    for inputs, mask in _time_steps(xp, x, weight_ih, _sum(bias_ih, bias_hh), lengths, reverse):
        h = _where(xp, mask, activate(inputs + xp.matmul(h, weight)), h)
        outputs.append(_where(xp, mask, h))
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
    for inputs, mask in _time_steps(xp, x, weight_ih, _sum(bias_ih, bias_hh), lengths, reverse):
        new = _lstm_gates(inputs + xp.matmul(h, weight), c)
        h, c = (_where(xp, mask, *states) for states in zip(new, (h, c), strict=True))
        outputs.append(_where(xp, mask, h))
    return _joined(xp, outputs, reverse), h, c


@op
def _lstm_gates(xp, gates, cell, /):
    """The new (h, c), from the four gates side by side and the old c."""
    i, f, g, o = _split_last(gates, 4)
    i, f, g, o = _sigmoid(xp, i), _sigmoid(xp, f), xp.tanh(g), _sigmoid(xp, o)
    c = f * cell + i * g
    t = xp.tanh(c)

    def pullback(gradients, _needs):
        to_h, to_c = gradients
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
    for inputs, mask in _time_steps(xp, x, weight_ih, bias_ih, lengths, reverse):
        h = _where(xp, mask, _gru_gates(inputs, linear(h, weight_hh, bias_hh), h), h)
        outputs.append(_where(xp, mask, h))
    return _joined(xp, outputs, reverse), h


@op
def _gru_gates(xp, a, b, h, /):
    """The new h, from `a` = W_ih x + b_ih, `b` = W_hh h + b_hh, three parts each, and the old h."""
    (a_r, a_z, a_n), (b_r, b_z, b_n) = _split_last(a, 3), _split_last(b, 3)
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
    """σ(x) as (1 + tanh(x/2)) / 2, which passes over memory a third as often as `sigmoid`.

    Its relative error is larger only where σ is tiny, which does not matter for a gate.
    """
    return xp.tanh(x * 0.5) * 0.5 + 0.5


def _split_last(x, count):
    """The last axis in `count` equal parts."""
    size = x.shape[-1] // count
    return [x[..., k * size : (k + 1) * size] for k in range(count)]


def _sum(bias_ih, bias_hh):
    return None if bias_ih is None else bias_ih + bias_hh


def _state(xp, state, x, weight_hh):
    """The initial state: zeros where none is given."""
    if state is not None:
        return state
    shape, device = (x.shape[1], weight_hh.shape[1]), array_api_compat.device(x)
    return xp.zeros(shape, dtype=x.dtype, device=device)


def _time_steps(xp, x, weight, bias, lengths, reverse):
    """For each time step, in the order of reading: W x + b, and a mask of the samples that have it.

    The mask is (batch, 1), or None where all samples have all time steps.
    """
    inputs = xp.unstack(linear(x, weight, bias), axis=0)
    masks = [None] * len(inputs)
    if lengths is not None:
        lengths = xp.astype(lengths, xp.int32)  # a smaller dtype may not hold the number of steps
        masks = [lengths[:, None] > t for t in range(len(inputs))]
    both = list(zip(inputs, masks, strict=True))
    return both[::-1] if reverse else both


def _where(xp, mask, new, old=0.0):
    """`new` for the samples in the mask, `old` for the others."""
    return new if mask is None else xp.where(mask, new, old)


def _joined(xp, outputs, reverse):
    """The outputs of all time steps, in the order of the inputs."""
    return xp.stack(outputs[::-1] if reverse else outputs, axis=0)

"""Layers as ONNX's own operators, where these compute the same.

They are for float32, since runtimes lack most of them for float64. Graphs are not differentiated,
so the kernels have no pullbacks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import ndonnx
import numpy as np
from spox.opset.ai.onnx import v21 as op


def _kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel, made from a function of ONNX variables."""

    @wraps(function)
    def call(xp, *arrays, **settings):
        if arrays[0].dtype != xp.float32:
            return NotImplemented
        y = function(*(None if a is None else a.unwrap_spox() for a in arrays), **settings)
        if isinstance(y, tuple):
            return tuple(map(ndonnx.asarray, y)), None
        return y if y is NotImplemented else (ndonnx.asarray(y), None)

    return call


def _shape(x):
    return x.unwrap_tensor().shape


def _ints(*values):
    return op.const(np.asarray(values, np.int64))


def _linear(x, weight, bias=None):
    """x weightᵀ + bias: Gemm for rows of numbers."""
    if len(_shape(x)) == 2:
        return op.gemm(x, weight, bias, transB=1)
    y = op.matmul(x, op.transpose(weight, perm=(1, 0)))
    return y if bias is None else op.add(y, bias)


def _convolution(x, weight, bias=None, *, stride, padding, dilation, groups=1):
    before, after = zip(*padding, strict=True)
    return op.conv(
        x, weight, bias, strides=stride, pads=(*before, *after), dilations=dilation, group=groups
    )


def _convolution_transpose(
    x, weight, bias=None, *, stride, padding, output_padding, dilation, groups=1
):
    return op.conv_transpose(
        x, weight, bias, strides=stride, pads=(*padding, *padding), dilations=dilation,
        output_padding=output_padding, group=groups,
    )  # fmt: skip


def _max_pool(x, /, *, window, stride, padding, dilation=None, ceil_mode=False):
    if ceil_mode or len(_shape(x)) != 2 + len(window):
        return NotImplemented
    how = {"kernel_shape": window, "strides": stride, "pads": (*padding, *padding)}
    return op.max_pool(x, **how, dilations=dilation)[0]


def _avg_pool(x, /, *, window, stride, padding, ceil_mode=False, count_include_pad=True):
    if ceil_mode or len(_shape(x)) != 2 + len(window):
        return NotImplemented
    how = {"kernel_shape": window, "strides": stride, "pads": (*padding, *padding)}
    return op.average_pool(x, **how, count_include_pad=int(count_include_pad))


def _layer_norm(x, weight=None, bias=None, *, axes, eps):
    if weight is None:
        weight = op.const(np.ones(_shape(x)[-axes:], np.float32))
    return op.layer_normalization(x, weight, bias, axis=-axes, epsilon=eps)[0]


def _gates(order, *arrays):
    """Weights or biases with their gates reordered from PyTorch's order to ONNX's.

    The gates are side by side along the first axis. The result has ONNX's axis of directions; the
    two biases become one.
    """
    parts = [op.split(a, num_outputs=len(order), axis=0) for a in arrays]
    joined = op.concat([part[gate] for part in parts for gate in order], axis=0)
    return op.unsqueeze(joined, _ints(0))


def _recurrent(operator, order, x, states, weights, lengths, reverse, **settings):
    """One layer in one direction; ONNX has an axis for directions."""
    weight_ih, weight_hh, *biases = weights
    if lengths is not None:
        lengths = op.cast(lengths, to=np.int32)
    y, *last = operator(
        x, _gates(order, weight_ih), _gates(order, weight_hh),
        None if None in biases else _gates(order, *biases), lengths,
        *(None if s is None else op.unsqueeze(s, _ints(0)) for s in states),
        hidden_size=_shape(weight_hh)[1], direction="reverse" if reverse else "forward", **settings,
    )  # fmt: skip
    return op.squeeze(y, _ints(1)), *(op.squeeze(state, _ints(0)) for state in last)


def _rnn(
    x, hidden, weight_ih, weight_hh, bias_ih=None, bias_hh=None, lengths=None, *,
    activation, reverse=False,
):  # fmt: skip
    weights, activations = (weight_ih, weight_hh, bias_ih, bias_hh), [activation.capitalize()]
    return _recurrent(
        op.rnn, (0,), x, (hidden,), weights, lengths, reverse, activations=activations
    )


def _lstm(
    x, hidden, cell, weight_ih, weight_hh, bias_ih=None, bias_hh=None, lengths=None, *,
    reverse=False,
):  # fmt: skip
    """PyTorch orders the gates (i, f, g, o), ONNX (i, o, f, g)."""
    weights = weight_ih, weight_hh, bias_ih, bias_hh
    return _recurrent(op.lstm, (0, 3, 1, 2), x, (hidden, cell), weights, lengths, reverse)


def _gru(
    x, hidden, weight_ih, weight_hh, bias_ih=None, bias_hh=None, lengths=None, *, reverse=False
):
    """PyTorch orders the gates (r, z, n), ONNX (z, r, n); b_n is inside the reset."""
    weights = weight_ih, weight_hh, bias_ih, bias_hh
    return _recurrent(
        op.gru, (1, 0, 2), x, (hidden,), weights, lengths, reverse, linear_before_reset=1
    )


def _softmax(x, /, *, axis=-1):
    return op.softmax(x, axis=axis)


def _log_softmax(x, /, *, axis=-1):
    return op.log_softmax(x, axis=axis)


def _gelu(x, /, *, approximate="none"):
    return op.gelu(x, approximate=approximate)


KERNELS = {
    name: _kernel(function)
    for name, function in {
        "avg_pool": _avg_pool,
        "convolution": _convolution,
        "convolution_transpose": _convolution_transpose,
        "erf": op.erf,
        "gelu": _gelu,
        "gru": _gru,
        "layer_norm": _layer_norm,
        "linear": _linear,
        "log_softmax": _log_softmax,
        "lstm": _lstm,
        "max_pool": _max_pool,
        "relu": op.relu,
        "rnn": _rnn,
        "sigmoid": op.sigmoid,
        "softmax": _softmax,
    }.items()
}
"""By the names of the compositions that they replace."""

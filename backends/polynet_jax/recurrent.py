"""JAX's recurrent layers: the loop over time is one operation of XLA, whatever the length.

The definitions in `polynet.functional.recurrent` loop in Python. Under `jax.jit` every time step is
then traced and compiled separately, which takes minutes for long sequences. The kernels here have
the same formulas, and JAX computes their derivatives: the derivative of a loop is another loop,
over the values that the first one kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp


def rnn(
    xp: Any,
    x: Any,
    hidden: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    lengths: Any = None,
    *,
    activation: str,
    reverse: bool = False,
) -> Any:
    """Returns (outputs, h)."""
    step = {"tanh": _tanh, "relu": _relu}[activation]
    return _layer(step, reverse, x, (hidden,), weight_ih, weight_hh, bias_ih, bias_hh, lengths)


def lstm(
    xp: Any,
    x: Any,
    hidden: Any,
    cell: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    lengths: Any = None,
    *,
    reverse: bool = False,
) -> Any:
    """Returns (outputs, h, c)."""
    return _layer(
        _lstm, reverse, x, (hidden, cell), weight_ih, weight_hh, bias_ih, bias_hh, lengths
    )


def gru(
    xp: Any,
    x: Any,
    hidden: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    lengths: Any = None,
    *,
    reverse: bool = False,
) -> Any:
    """Returns (outputs, h)."""
    return _layer(_gru, reverse, x, (hidden,), weight_ih, weight_hh, bias_ih, bias_hh, lengths)


# One time step: the new states, from the linear map of x (a), that of h (b), and the old states.


def _tanh(a: Any, b: Any, h: Any) -> Any:
    return (jnp.tanh(a + b),)


def _relu(a: Any, b: Any, h: Any) -> Any:
    return (jnp.where(a + b <= 0, 0, a + b),)


def _lstm(a: Any, b: Any, h: Any, c: Any) -> Any:
    i, f, g, o = jnp.split(a + b, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(a: Any, b: Any, h: Any) -> Any:
    (a_r, a_z, a_n), (b_r, b_z, b_n) = jnp.split(a, 3, axis=-1), jnp.split(b, 3, axis=-1)
    n = jnp.tanh(a_n + jax.nn.sigmoid(a_r + b_r) * b_n)
    return (n + jax.nn.sigmoid(a_z + b_z) * (h - n),)


def _layer(step: Callable[..., Any], reverse: bool, x: Any, states: Any, *others: Any) -> Any:
    """The result and the pullback of a layer; declines unusual arguments, such as mixed dtypes.

    The carry of a scan must keep its shape and dtype, so states cannot broadcast or be promoted.
    """
    *weights, lengths = others
    _, weight_hh, *biases = weights
    given = [a for a in (x, *states, *weights) if a is not None]
    if (
        x.ndim != 3
        or x.shape[0] == 0
        or any(a.dtype != x.dtype for a in given)
        or not jnp.issubdtype(x.dtype, jnp.floating)
        or any(s is not None and s.shape != (x.shape[1], weight_hh.shape[1]) for s in states)
        or (biases[0] is None) != (biases[1] is None)
    ):
        return NotImplemented
    value, derivative = _forward(step, reverse, lengths, x, states, *weights)

    def pullback(gs: tuple[Any, ...], needs: tuple[bool, ...]) -> Any:
        to_x, to_states, *to_weights = _backward(derivative, gs)
        return tuple(
            g if needed else None
            for g, needed in zip((to_x, *to_states, *to_weights, None), needs, strict=False)
        )

    return value, pullback


@partial(jax.jit, static_argnums=(0, 1))
def _forward(step: Callable[..., Any], reverse: bool, lengths: Any, *args: Any) -> Any:
    """The result, and its pullback as a pytree, which `jax.jit` can return."""
    return jax.vjp(partial(_scan, step, reverse, lengths), *args)


@jax.jit
def _backward(derivative: Any, gs: tuple[Any, ...]) -> Any:
    return derivative(gs)


def _scan(
    step: Callable[..., Any],
    reverse: bool,
    lengths: Any,
    x: Any,
    states: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any,
    bias_hh: Any,
) -> Any:
    """The outputs of all time steps, and the states after the last one."""
    zeros = jnp.zeros((x.shape[1], weight_hh.shape[1]), dtype=x.dtype)

    def one_step(old: Any, inputs: Any) -> Any:
        a, read = inputs
        new = step(a, _linear(old[0], weight_hh, bias_hh), *old)
        if read is None:
            return new, new[0]
        return tuple(map(partial(jnp.where, read), new, old)), jnp.where(read, new[0], 0)

    start = tuple(zeros if s is None else s for s in states)
    times = jnp.arange(x.shape[0])[:, None, None]
    read = None if lengths is None else lengths[:, None] > times
    inputs = _linear(x, weight_ih, bias_ih), read
    last, outputs = lax.scan(one_step, start, inputs, reverse=reverse)
    return outputs, *last


def _linear(x: Any, weight: Any, bias: Any) -> Any:
    return x @ weight.T if bias is None else x @ weight.T + bias

"""Functions of networks: linear maps, dropout, normalisation, attention, recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from properties.draws import (
    Draw,
    Sample,
    Samples,
    Shape,
    an_axis,
    away_from_zero,
    generator,
    numbers,
    sample,
    shapes,
    truths,
)

counts = st.sampled_from([2, 3, 1])
EPS = st.sampled_from([0.02, 0.5])
"""Large enough for finite differences to be exact enough where the numbers are close together."""


@st.composite
def along_an_axis(draw: Draw, **options: Any) -> Sample:
    x = numbers(draw, draw(shapes(least=1, side=1)), -3.0, 3.0)
    drawn = {name: draw(value) for name, value in options.items()}
    return sample(x, axis=an_axis(draw, x.ndim), **drawn)


@st.composite
def linear(draw: Draw) -> Sample:
    inside, outside = draw(counts), draw(counts)
    x = numbers(draw, (*draw(shapes()), inside))
    bias = [numbers(draw, (outside,))] if draw(st.booleans()) else []
    return sample(x, numbers(draw, (outside, inside)), *bias)


@st.composite
def linear_relu(draw: Draw) -> Sample:
    """No sum crosses relu's kink: inputs are positive, and all weights of a unit have one sign."""
    x, *units = draw(linear()).args
    return sample(np.abs(x), *of_one_sign(draw, units))


def of_one_sign(draw: Draw, units: list[np.ndarray]) -> list[np.ndarray]:
    """Weights and biases with signs changed so that all numbers of a unit have the same sign."""
    signs = generator(draw).choice([-1.0, 1.0], units[0].shape[0])
    return [(np.abs(w).T * signs).T for w in units]


@st.composite
def dropout(draw: Draw) -> Sample:
    x = numbers(draw, draw(shapes()))
    return sample(x, truths(draw, x.shape), keep=draw(st.sampled_from([0.5, 0.9])))


@st.composite
def layer_norm(draw: Draw) -> Sample:
    """Normalise over at least two numbers, with weight, with weight and bias, or with neither."""
    kept = draw(shapes(most=2))
    over = tuple(draw(st.integers(2, 3)) for _ in range(draw(st.integers(1, 2))))
    learnt = [numbers(draw, over) for _ in range(draw(st.integers(0, 2)))]
    return sample(numbers(draw, (*kept, *over)), *learnt, axes=len(over), eps=1e-3)


@st.composite
def standardised(draw: Draw) -> Sample:
    shape = draw(shapes(least=1, side=2))
    axis = draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    return sample(numbers(draw, shape), axis=tuple(sorted(axis)), eps=1e-3)


@st.composite
def group_norm(draw: Draw) -> Sample:
    groups = draw(counts)
    shape = (draw(counts), groups * draw(st.integers(1, 2)), *draw(shapes(most=2, side=1)))
    learnt = [numbers(draw, shape[1:2]) for _ in range(draw(st.integers(0, 2)))]
    return sample(numbers(draw, shape), *learnt, groups=groups, eps=draw(EPS))


@st.composite
def rms_norm(draw: Draw) -> Sample:
    kept, over = draw(shapes(most=2)), draw(shapes(least=1, most=2, side=1))
    learnt = [numbers(draw, over)] if draw(st.booleans()) else []
    options = {} if draw(st.booleans()) else {"eps": draw(EPS)}
    return sample(away_from_zero(draw, (*kept, *over)), *learnt, axes=len(over), **options)


def of_channels(draw: Draw) -> Shape:
    return (draw(counts), draw(counts), *draw(shapes(most=2, side=1)))


@st.composite
def batch_norm(draw: Draw) -> Sample:
    """Calls that return the normalised numbers, and means and variances for the running ones."""
    shape = of_channels(draw)
    learnt = [numbers(draw, shape[1:2]) for _ in range(draw(st.integers(0, 2)))]
    return sample(numbers(draw, shape), *learnt, eps=draw(EPS))


@st.composite
def batch_norm_inference(draw: Draw) -> Sample:
    shape = of_channels(draw)
    mean, variance = numbers(draw, shape[1:2]), numbers(draw, shape[1:2], 0.4, 2.0)
    learnt = [numbers(draw, shape[1:2]) for _ in range(draw(st.integers(0, 2)))]
    eps = draw(st.sampled_from([1e-5, 0.1]))
    return sample(numbers(draw, shape), mean, variance, *learnt, eps=eps)


@st.composite
def attention(draw: Draw, *, values: bool) -> Sample:
    """With or without heads. Every query may attend to key 0, so that none has no key at all."""
    stack = draw(shapes(most=2, side=1))
    targets, sources, width = draw(counts), draw(counts), draw(counts)
    arrays = [numbers(draw, (*stack, n, width)) for n in (targets, sources)]
    if values:
        arrays.append(numbers(draw, (*stack, sources, draw(counts))))
    kind = draw(st.sampled_from(["none", "truths", "scores"]))
    if kind == "scores":
        arrays.append(numbers(draw, (targets, sources)))
    elif kind == "truths":
        arrays.append(truths(draw, (targets, sources)) | (np.arange(sources) == 0))
    return sample(*arrays, is_causal=draw(st.booleans()))


@st.composite
def recurrent(draw: Draw, *, gates: int, states: int) -> Sample:
    """Each initial state may be given or not; both biases are given, or neither."""
    long, batch, inside, hidden = (draw(counts) for _ in range(4))
    before = [maybe(draw, (batch, hidden)) for _ in range(states)]
    weights = [numbers(draw, (gates * hidden, n)) for n in (inside, hidden)]
    biases = [numbers(draw, (gates * hidden,)) for _ in range(2)] if draw(st.booleans()) else []
    x = numbers(draw, (long, batch, inside))
    return sample(x, *before, *weights, *biases, reverse=draw(st.booleans()))


def maybe(draw: Draw, shape: Shape) -> np.ndarray | None:
    return numbers(draw, shape) if draw(st.booleans()) else None


@st.composite
def rnn(draw: Draw) -> Sample:
    """With relu no sum crosses the kink: inputs are positive, a unit's weights are of one sign."""
    call = draw(recurrent(gates=1, states=1))
    activation = draw(st.sampled_from(["tanh", "relu"]))
    if activation == "relu":
        units = of_one_sign(draw, call.args[2:])
        call = sample(*(a if a is None else np.abs(a) for a in call.args[:2]), *units)
    return sample(*call.args, activation=activation, reverse=draw(st.booleans()))


PROPERTIES: dict[str, Samples] = {
    **dict.fromkeys("log_softmax softmax softmin".split(), along_an_axis()),
    "logsumexp": along_an_axis(keepdims=st.booleans()),
    "linear": linear(),
    "linear_relu": linear_relu(),
    **dict.fromkeys("alpha_dropout dropout".split(), dropout()),
    "layer_norm": layer_norm(),
    "group_norm": group_norm(),
    "rms_norm": rms_norm(),
    "batch_norm": batch_norm(),
    "batch_norm_inference": batch_norm_inference(),
    "standardised": standardised(),
    "attention_weights": attention(values=False),
    "scaled_dot_product_attention": attention(values=True),
    "rnn": rnn(),
    "lstm": recurrent(gates=4, states=2),
    "gru": recurrent(gates=3, states=1),
}

"""Functions of networks and losses: activations, linear maps, windows, attention."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from properties.draws import (
    Draw,
    Sample,
    Samples,
    an_axis,
    away_from_zero,
    generator,
    integers,
    numbers,
    sample,
    shapes,
    truths,
)

counts = st.sampled_from([2, 3, 1])


@st.composite
def activation(draw: Draw, **options: Any) -> Sample:
    x = numbers(draw, draw(shapes()), -3.0, 3.0)
    return sample(x, **{name: draw(value) for name, value in options.items()})


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
def dropout(draw: Draw) -> Sample:
    x = numbers(draw, draw(shapes()))
    return sample(x, truths(draw, x.shape), keep=draw(st.sampled_from([0.5, 0.9])))


@st.composite
def layer_norm(draw: Draw) -> Sample:
    """Over two numbers at least; weight, or weight and bias, or neither."""
    kept = draw(shapes(most=2))
    over = tuple(draw(st.integers(2, 3)) for _ in range(draw(st.integers(1, 2))))
    learnt = [numbers(draw, over) for _ in range(draw(st.integers(0, 2)))]
    return sample(numbers(draw, (*kept, *over)), *learnt, axes=len(over), eps=1e-3)


@st.composite
def standardised(draw: Draw) -> Sample:
    shape = draw(shapes(least=1, side=2))
    axis = draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    return sample(numbers(draw, shape), axis=tuple(sorted(axis)), eps=1e-3)


def sizes_for(draw: Draw, reach: tuple[int, ...], ends: list[int]) -> tuple[int, ...]:
    """Sizes in which a window of that reach fits, padding included."""
    few = zip(reach, ends, strict=True)
    return tuple(max(1, r - e + draw(st.integers(0, 2))) for r, e in few)


@st.composite
def convolution(draw: Draw) -> Sample:
    dims, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    window = tuple(draw(counts) for _ in range(dims))
    dilation = tuple(draw(st.integers(1, 2)) for _ in range(dims))
    padding = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(dims))
    reach = tuple(d * (w - 1) + 1 for w, d in zip(window, dilation, strict=True))
    sizes = sizes_for(draw, reach, list(map(sum, padding)))
    each, out = draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    bias = [numbers(draw, (out,))] if draw(st.booleans()) else []
    return sample(
        numbers(draw, (draw(st.integers(0, 2)), groups * each, *sizes)),
        numbers(draw, (out, each, *window)),
        *bias,
        stride=tuple(draw(st.integers(1, 2)) for _ in range(dims)),
        padding=padding,
        dilation=dilation,
        groups=groups,
    )


@st.composite
def pooling(draw: Draw) -> Sample:
    """At most half of a window is padding, as in PyTorch."""
    dims = draw(st.integers(1, 2))
    window = tuple(draw(counts) for _ in range(dims))
    padding = tuple(draw(st.integers(0, w // 2)) for w in window)
    sizes = sizes_for(draw, window, [2 * p for p in padding])
    return sample(
        numbers(draw, (draw(st.integers(1, 2)), draw(st.integers(1, 2)), *sizes)),
        window=window,
        stride=tuple(draw(st.integers(1, 3)) for _ in range(dims)),
        padding=padding,
    )


@st.composite
def attention(draw: Draw, *, values: bool) -> Sample:
    """Of heads, or none; each query may look somewhere, as key 0 is open to all."""
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
def like_targets(draw: Draw) -> Sample:
    shape = draw(shapes(side=1))
    return sample(away_from_zero(draw, shape), numbers(draw, shape, 0.1, 0.9))


@st.composite
def classes(draw: Draw) -> Sample:
    """Labels, or probabilities, which are differentiated by too."""
    rows, columns = draw(counts), draw(counts)
    logits = numbers(draw, (rows, columns), -3.0, 3.0)
    if draw(st.booleans()):
        return sample(logits, integers(draw, (rows,), 0, columns - 1))
    return sample(logits, generator(draw).dirichlet(np.ones(columns), rows))


PROPERTIES: dict[str, Samples] = {
    **dict.fromkeys("erf gelu relu sigmoid".split(), activation()),
    "leaky_relu": activation(negative_slope=st.sampled_from([0.01, 0.3])),
    **dict.fromkeys("log_softmax softmax".split(), along_an_axis()),
    "logsumexp": along_an_axis(keepdims=st.booleans()),
    "linear": linear(),
    "dropout": dropout(),
    "layer_norm": layer_norm(),
    "standardised": standardised(),
    "convolution": convolution(),
    **dict.fromkeys("avg_pool max_pool".split(), pooling()),
    "attention_weights": attention(values=False),
    "scaled_dot_product_attention": attention(values=True),
    **dict.fromkeys("binary_cross_entropy_with_logits mse".split(), like_targets()),
    "cross_entropy": classes(),
}

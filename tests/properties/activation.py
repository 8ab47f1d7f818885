"""Activations: smooth ones at any number, the others at any number except their kinks.

All kinks are at multiples of 0.1, so inputs for functions with kinks are halfway between them.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from properties.draws import Draw, Sample, Samples, an_axis, numbers, on_grid, sample, shapes

REACH = 75
"""How far inputs reach, in tenths: beyond the last kink, which `relu6` has at 6."""


@st.composite
def everywhere(draw: Draw, **options: Any) -> Sample:
    """Inputs at multiples of 0.1, which may be 0 and may occur several times."""
    x = on_grid(draw, draw(shapes()), -REACH, REACH)
    return sample(x, **{name: draw(value) for name, value in options.items()})


@st.composite
def between_kinks(draw: Draw, **options: Any) -> Sample:
    x = on_grid(draw, draw(shapes()), -REACH, REACH, past=0.05)
    return sample(x, **{name: draw(value) for name, value in options.items()})


@st.composite
def softplus(draw: Draw) -> Sample:
    """Inputs on both sides of the threshold, where the function has a step."""
    shape = draw(shapes())
    if draw(st.booleans()):
        return sample(on_grid(draw, shape, -REACH, REACH))
    x = on_grid(draw, shape, -REACH, REACH, past=0.05)
    return sample(x, beta=draw(st.sampled_from([0.5, 2.0])), threshold=1.0)


@st.composite
def prelu(draw: Draw) -> Sample:
    """Calls with one slope, or with one for each channel."""
    x = on_grid(draw, draw(shapes(least=1)), -REACH, REACH, past=0.05)
    slopes = x.shape[1] if x.ndim > 1 and draw(st.booleans()) else 1
    return sample(x, numbers(draw, (slopes,)))


@st.composite
def glu(draw: Draw) -> Sample:
    shape = draw(shapes(least=1))
    axis = an_axis(draw, len(shape))
    even = tuple(n * (1 + (a == axis % len(shape))) for a, n in enumerate(shape))
    options = {} if axis == -1 and draw(st.booleans()) else {"axis": axis}
    return sample(numbers(draw, even), **options)


slopes = st.sampled_from([1.0, 0.3, 2.5])
PROPERTIES: dict[str, Samples] = {
    **dict.fromkeys("erf logsigmoid mish sigmoid silu tanhshrink".split(), everywhere()),
    "gelu": everywhere(approximate=st.sampled_from(["none", "tanh"])),
    **dict.fromkeys("relu relu6 hardsigmoid hardswish selu softsign".split(), between_kinks()),
    **dict.fromkeys("celu elu".split(), between_kinks(alpha=slopes)),
    **dict.fromkeys("hardshrink softshrink".split(), between_kinks(lambd=slopes)),
    "leaky_relu": between_kinks(negative_slope=st.sampled_from([0.01, 0.3])),
    "hardtanh": between_kinks(
        min_val=st.sampled_from([-1.0, -2.0]), max_val=st.sampled_from([1.0, 0.5])
    ),
    "threshold": between_kinks(
        threshold=st.sampled_from([-0.5, 0.0, 1.5]), value=st.sampled_from([0.0, 2.0])
    ),
    "softplus": softplus(),
    "prelu": prelu(),
    "glu": glu(),
}

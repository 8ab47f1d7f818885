"""Windows that slide over images: convolution, its transpose, pooling. Also padding, resampling."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from properties.draws import Draw, Sample, Samples, Shape, numbers, sample

few = st.sampled_from([2, 3, 1])
one_or_two = st.integers(1, 2)


def each(draw: Draw, dims: int, values: st.SearchStrategy[int]) -> Shape:
    """One number, drawn from `values`, for each axis."""
    return tuple(draw(values) for _ in range(dims))


def sizes_for(draw: Draw, reach: Shape, ends: list[int]) -> Shape:
    """Image sizes in which a window of this reach fits, with the padding at the ends."""
    pairs = zip(reach, ends, strict=True)
    return tuple(max(1, r - e + draw(st.integers(0, 2))) for r, e in pairs)


def reach_of(window: Shape, dilation: Shape) -> Shape:
    return tuple(d * (w - 1) + 1 for w, d in zip(window, dilation, strict=True))


@st.composite
def convolution(draw: Draw) -> Sample:
    dims, groups = draw(one_or_two), draw(one_or_two)
    window, dilation = each(draw, dims, few), each(draw, dims, one_or_two)
    padding = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(dims))
    sizes = sizes_for(draw, reach_of(window, dilation), list(map(sum, padding)))
    inside, out = draw(one_or_two), groups * draw(one_or_two)
    bias = [numbers(draw, (out,))] if draw(st.booleans()) else []
    return sample(
        numbers(draw, (draw(st.integers(0, 2)), groups * inside, *sizes)),
        numbers(draw, (out, inside, *window)),
        *bias,
        stride=each(draw, dims, one_or_two),
        padding=padding,
        dilation=dilation,
        groups=groups,
    )


@st.composite
def convolution_transpose(draw: Draw) -> Sample:
    """With any output padding that PyTorch allows: less than the stride or than the dilation."""
    dims, groups = draw(one_or_two), draw(one_or_two)
    places, window = each(draw, dims, few), each(draw, dims, few)
    stride, dilation = each(draw, dims, few), each(draw, dims, one_or_two)
    more, padding = [], []
    for n, w, s, d in zip(places, window, stride, dilation, strict=True):
        more.append(draw(st.integers(0, max(s, d) - 1)))
        size = (n - 1) * s + d * (w - 1) + 1 + more[-1]
        padding.append(draw(st.integers(0, min(2, (size - 1) // 2))))
    channels, out = groups * draw(one_or_two), draw(one_or_two)
    bias = [numbers(draw, (groups * out,))] if draw(st.booleans()) else []
    return sample(
        numbers(draw, (draw(st.integers(0, 2)), channels, *places)),
        numbers(draw, (channels, out, *window)),
        *bias,
        stride=stride,
        padding=tuple(padding),
        output_padding=tuple(more),
        dilation=dilation,
        groups=groups,
    )


@st.composite
def pooling(draw: Draw, *, of: str) -> Sample:
    """At most half of a window is padding, as in PyTorch, and every window covers a number."""
    dims = draw(one_or_two)
    window = each(draw, dims, few)
    padding = tuple(draw(st.integers(0, w // 2)) for w in window)
    dilation = each(draw, dims, one_or_two) if of == "max" else (1,) * dims
    sizes = sizes_for(draw, reach_of(window, dilation), [2 * p for p in padding])
    sizes = tuple(map(max, sizes, dilation))
    options = {"ceil_mode": draw(st.booleans())}
    if of == "mean":
        options["count_include_pad"] = draw(st.booleans())
    elif math.prod(dilation) > 1 or draw(st.booleans()):
        options["dilation"] = dilation
    return sample(
        numbers(draw, (*each(draw, 2, one_or_two), *sizes)),
        window=window,
        stride=each(draw, dims, st.integers(1, 3)),
        padding=padding,
        **options,
    )


@st.composite
def adaptive(draw: Draw) -> Sample:
    """Windows that tile the image or overlap, sometimes more windows than the image has places."""
    dims = draw(one_or_two)
    shape = (*each(draw, 2, one_or_two), *each(draw, dims, st.integers(1, 5)))
    return sample(numbers(draw, shape), sizes=each(draw, dims, st.integers(1, 4)))


@st.composite
def interpolate(draw: Draw) -> Sample:
    """To more or fewer places, by a size, or by a factor that leaves at least one place."""
    dims = draw(one_or_two)
    sizes = each(draw, dims, st.integers(1, 5))
    if draw(st.booleans()):
        options: dict[str, Any] = {"size": each(draw, dims, st.integers(1, 9))}
    else:
        factors = st.sampled_from([1, 2, 3, 0.5, 1.5, 2.3])
        options = {"scale_factor": tuple(max(draw(factors), 1 / n) for n in sizes)}
    mode = draw(st.sampled_from(["nearest", "linear" if dims == 1 else "bilinear"]))
    if mode != "nearest":
        options["align_corners"] = draw(st.sampled_from([None, False, True]))
    return sample(numbers(draw, (*each(draw, 2, one_or_two), *sizes)), mode=mode, **options)


@st.composite
def pad(draw: Draw) -> Sample:
    """Of some of the last axes, which have the numbers that are mirrored or copied."""
    shape = each(draw, draw(st.integers(1, 4)), st.integers(1, 4))
    mode = draw(st.sampled_from(["constant", "reflect", "replicate"]))
    last = shape[draw(st.integers(0, len(shape))) :]
    most = [n - 1 if mode == "reflect" else 3 for n in last]
    ends = tuple((draw(st.integers(0, m)), draw(st.integers(0, m))) for m in most)
    options = {"value": draw(st.sampled_from([0.0, -1.5, 2]))} if mode == "constant" else {}
    return sample(numbers(draw, shape), padding=ends, mode=mode, **options)


PROPERTIES: dict[str, Samples] = {
    "convolution": convolution(),
    "convolution_transpose": convolution_transpose(),
    "avg_pool": pooling(of="mean"),
    "interpolate": interpolate(),
    "max_pool": pooling(of="max"),
    "pad": pad(),
    **dict.fromkeys("adaptive_avg_pool adaptive_max_pool".split(), adaptive()),
}

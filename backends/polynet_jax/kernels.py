"""JAX's kernels for the compositions in `polynet.functional`, written with `jax.lax`.

Derivatives are written out, except for those of recurrent layers, which JAX computes. All kernels
can be traced by `jax.jit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jax import default_backend, lax

from polynet_jax.recurrent import gru, lstm, rnn


def convolution(
    xp: Any,
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int = 1,
) -> Any:
    """One convolution, whose two gradients are convolutions too.

    The gradient by the images is the convolution of g, dilated by `stride`, with the flipped
    windows. The gradient by the windows is the convolution of the images with g, dilated by
    `stride`, as the window. On the CPU the kernel declines groups, with which XLA is up to 80 times
    slower.
    """
    if groups > 1 and default_backend() == "cpu":
        return NotImplemented
    axes = len(stride)
    space = "DHW"[-axes:]
    images = (f"NC{space}", f"OI{space}", f"NC{space}")
    y = lax.conv_general_dilated(
        x, weight, stride, padding, rhs_dilation=dilation,
        dimension_numbers=images, feature_group_count=groups,
    )  # fmt: skip
    out, each, window = weight.shape[0], weight.shape[1], weight.shape[2:]
    reach = [d * (k - 1) for d, k in zip(dilation, window, strict=True)]
    dilated = [(n - 1) * s + 1 for n, s in zip(y.shape[2:], stride, strict=True)]  # sizes of g

    def to_images(g: Any) -> Any:
        flipped = lax.rev(weight, tuple(range(2, 2 + axes)))
        flipped = flipped.reshape(groups, out // groups, each, *window)
        flipped = flipped.swapaxes(1, 2).reshape(groups * each, out // groups, *window)
        before = [r - p for r, (p, _) in zip(reach, padding, strict=True)]
        ends = [
            (b, n - m - b + r)
            for b, n, m, r in zip(before, x.shape[2:], dilated, reach, strict=True)
        ]
        return lax.conv_general_dilated(
            g, flipped, (1,) * axes, ends, lhs_dilation=stride, rhs_dilation=dilation,
            dimension_numbers=images, feature_group_count=groups,
        )  # fmt: skip

    def to_windows(g: Any) -> Any:
        ends = [
            (p, r + m - n - p)
            for (p, _), n, m, r in zip(padding, x.shape[2:], dilated, reach, strict=True)
        ]
        return lax.conv_general_dilated(
            x, g, dilation, ends, rhs_dilation=stride,
            dimension_numbers=(f"CN{space}", f"IO{space}", f"CN{space}"),
            batch_group_count=groups,
        )  # fmt: skip

    if bias is None:
        return y, (to_images, to_windows)
    others = (0, *range(2, 2 + axes))
    y = y + bias.reshape(-1, *(1,) * axes)
    return y, (to_images, to_windows, lambda g: g.sum(axis=others))


def put_slice(xp: Any, x: Any, places: tuple[range, ...], shape: tuple[int, ...]) -> Any:
    """Zeros of `shape`, with `x` at `places`, by padding around and between the elements of `x`."""
    part = tuple(slice(r.start, r.stop, r.step) for r in places)
    ends = [
        (r.start, n - r[-1] - 1, r.step - 1) if r else (0, n, 0)
        for r, n in zip(places, shape, strict=True)
    ]
    return lax.pad(x, xp.zeros((), dtype=x.dtype), ends), (lambda g: g[part],)


def segment_sum(xp: Any, x: Any, segments: Any, count: int) -> Any:
    """The sum of the rows of each segment."""
    y = xp.zeros((count, *x.shape[1:]), dtype=x.dtype).at[segments].add(x)
    return y, (lambda g: g[segments], None)


KERNELS: Mapping[str, Callable[..., Any]] = {
    "convolution": convolution,
    "put_slice": put_slice,
    "segment_sum": segment_sum,
    "rnn": rnn,
    "lstm": lstm,
    "gru": gru,
}

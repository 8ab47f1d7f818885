"""PyTorch's own convolution, pooling, normalisation, attention and indexing, as kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import Lock
from typing import Any

import torch
from torch.backends import cudnn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from polynet_torch.kernels import recorded

_SETTING = Lock()
aten = torch.ops.aten
Sizes = tuple[int, ...]


def convolution(
    xp: Any,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    stride: Sizes,
    padding: tuple[tuple[int, int], ...],
    dilation: Sizes,
    groups: int = 1,
) -> Any:
    """One convolution; what one end has more zeros than the other is padded before."""
    ends = [min(pair) for pair in padding]
    how = (stride, ends, dilation, False, [0] * len(stride), groups)
    more = [(a - n, b - n) for (a, b), n in zip(padding, ends, strict=True)]
    if not any(map(any, more)):
        return _convolved(x, weight, bias, how)
    if not takes(x) or recorded((x,)):
        return NotImplemented
    wide, (unpadded,) = pad(xp, x, padding=more)
    result = _convolved(wide, weight, bias, how)
    if result is NotImplemented:
        return result
    y, pullback = result

    def back(g: torch.Tensor, needs: tuple[bool, ...]) -> Any:
        to_x, *others = pullback(g, needs)
        return to_x if to_x is None else unpadded(to_x), *others

    return y, back


def convolution_transpose(
    xp: Any,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    dilation: Sizes,
    groups: int = 1,
) -> Any:
    """One transposed convolution."""
    return _convolved(x, weight, bias, (stride, padding, dilation, True, output_padding, groups))


def _convolved(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, how: tuple[Any, ...]
) -> Any:
    """PyTorch's convolution in one call; its three gradients share work."""
    given = [x, weight] if bias is None else [x, weight, bias]
    if recorded(given) or len({a.dtype for a in given}) != 1 or not takes(x):
        return NotImplemented
    with deterministic(x):
        y = aten.convolution(x, weight, bias, *how)
    biases = None if bias is None else list(bias.shape)

    def pullback(g: torch.Tensor, needs: tuple[bool, ...]) -> Any:
        wanted = [*needs, False][:3]
        with deterministic(x):
            return aten.convolution_backward(g, x, weight, biases, *how, wanted)[: len(given)]

    return y, pullback


@contextmanager
def deterministic(x: torch.Tensor) -> Iterator[None]:
    """A context in which cuDNN uses only deterministic algorithms for `x` on CUDA.

    The others sum in another order every time. The setting holds for the whole process.
    """
    if not x.is_cuda:
        yield
        return
    with _SETTING:
        before = cudnn.deterministic
        cudnn.deterministic = True
        try:
            yield
        finally:
            cudnn.deterministic = before


def takes(x: torch.Tensor) -> bool:
    """Whether PyTorch's layers take these numbers: of integers, it cuts means off, or refuses."""
    return x.is_floating_point() and 0 not in x.shape[1:]


AROUND = {"reflect": "reflection_pad", "replicate": "replication_pad"}
"""PyTorch's names of what puts an array's own numbers around it."""


def pad(
    xp: Any, x: torch.Tensor, *, padding: Any, mode: str = "constant", value: float = 0.0
) -> Any:
    """Numbers around an array.

    Its own are those of sequences and images on the CPU; on CUDA their gradients are summed in
    another order every time. A sequence is padded as an image of one row, which is faster.
    """
    if not x.is_floating_point() or recorded((x,)) or not isinstance(value, int | float):
        return NotImplemented
    axes, flat = len(padding), [n for pair in reversed(padding) for n in pair]
    if mode == "constant":
        sizes = zip(padding, x.shape[x.ndim - axes :], strict=True)
        part = (..., *(slice(before, before + n) for (before, _), n in sizes))
        return aten.constant_pad_nd(x, flat, value), (lambda g: g[part],)
    if not 0 < axes < 3 or x.ndim != 2 + axes or not x.numel() or x.device.type != "cpu":
        return NotImplemented
    if x.dtype not in (torch.float32, torch.float64):
        return NotImplemented
    pads, back = (getattr(aten, AROUND[mode] + n) for n in ("2d", f"{axes}d_backward"))
    y = pads(x.unsqueeze(2), (*flat, 0, 0)).squeeze(2) if axes == 1 else pads(x, flat)
    return y, (lambda g: back(g, x, flat),)


def on_images(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A pooling kernel for images and volumes, used for sequences too: as images with one row.

    It declines volumes on CUDA, where PyTorch's gradients are not deterministic, and those of 16
    bits, whose mean PyTorch does not compute.
    """

    @wraps(kernel)
    def call(xp: Any, x: torch.Tensor, **settings: Any) -> Any:
        axes = len(settings["window"])
        if x.ndim != 2 + axes or axes > 3 or recorded((x,)) or not takes(x):
            return NotImplemented
        if axes == 3 and (x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64)):
            return NotImplemented
        if not _windows_fit(x.shape[2:], **settings):
            return NotImplemented
        if axes > 1:
            return kernel(xp, x, **settings)
        row = {name: (int(name != "padding"), n) for name, (n,) in _sizes(settings)}
        y, (pullback,) = kernel(xp, x.unsqueeze(2), **settings | row)
        return y.squeeze(2), (lambda g: pullback(g.unsqueeze(2)).squeeze(2),)

    return call


def _windows_fit(
    lengths: Sizes, *, window: Sizes, padding: Sizes, dilation: Sizes | None = None, **_: Any
) -> bool:
    """Whether there is a window on each axis, and none that holds padding alone.

    Of such a window, PyTorch's index of the largest number is outside of the array.
    """
    dilation = dilation or (1,) * len(window)
    return all(
        (w - 1) * d < n + 2 * p and (d <= n or not p)
        for n, w, p, d in zip(lengths, window, padding, dilation, strict=True)
    )


def _sizes(settings: dict[str, Any]) -> Iterator[tuple[str, Sizes]]:
    return ((name, value) for name, value in settings.items() if isinstance(value, tuple))


@on_images
def max_pool(
    xp: Any,
    x: torch.Tensor,
    *,
    window: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes = (1,),
    ceil_mode: bool = False,
) -> Any:
    """The largest number of each window, whose index the gradient goes to.

    On the CPU PyTorch's own function of sequences is much faster, and gives no indices. They are
    found when the gradient is asked for. A step that is traced asks for it, and finds them at once.
    """
    how = (window, stride, padding, dilation, ceil_mode)
    pool, back = aten.max_pool2d_with_indices, aten.max_pool2d_with_indices_backward
    is_row = len(window) == 2 and x.shape[2] == window[0] == 1 and not padding[0]
    if is_row and x.device.type == "cpu" and _get_current_dispatch_mode() is None:
        of_row = (n[-1] for n in how[:4])
        y = torch.max_pool1d(x.squeeze(2), *of_row, ceil_mode).unsqueeze(2)
        return y, (lambda g: back(g, x, *how, pool(x, *how)[1]),)
    if len(window) == 3:
        pool, back = aten.max_pool3d_with_indices, aten.max_pool3d_with_indices_backward
    y, indices = pool(x, *how)
    return y, (lambda g: back(g, x, *how, indices),)


@on_images
def avg_pool(
    xp: Any,
    x: torch.Tensor,
    *,
    window: Sizes,
    stride: Sizes,
    padding: Sizes,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """The mean of each window."""
    how = (window, stride, padding, ceil_mode, count_include_pad, None)
    pool, back = aten.avg_pool2d, aten.avg_pool2d_backward
    if len(window) == 3:
        if any(n < w for n, w in zip(x.shape[2:], window, strict=True)):
            return NotImplemented  # PyTorch has no gradient where a window needs the padding to fit
        pool, back = aten.avg_pool3d, aten.avg_pool3d_backward
    return pool(x, *how), (lambda g: back(g, x, *how),)


def adaptive_avg_pool(xp: Any, x: torch.Tensor, *, sizes: Sizes) -> Any:
    """The mean of each window; of one window, a sum."""
    axes = tuple(range(-len(sizes), 0))
    if set(sizes) == {1} and x.numel() and x.is_floating_point() and not recorded((x,)):
        count = math.prod(x.shape[a] for a in axes)
        return x.mean(axes, keepdim=True), (lambda g: (g / count).expand(x.shape),)
    pools = aten._adaptive_avg_pool2d, aten._adaptive_avg_pool3d
    backs = aten._adaptive_avg_pool2d_backward, aten._adaptive_avg_pool3d_backward
    return _adaptive(x, sizes, lambda *a: (pools[len(sizes) > 2](*a),), backs[len(sizes) > 2])


def adaptive_max_pool(xp: Any, x: torch.Tensor, *, sizes: Sizes) -> Any:
    """The largest number of each window."""
    pools = aten.adaptive_max_pool2d, aten.adaptive_max_pool3d
    backs = aten.adaptive_max_pool2d_backward, aten.adaptive_max_pool3d_backward
    return _adaptive(x, sizes, pools[len(sizes) > 2], backs[len(sizes) > 2])


def _adaptive(
    x: torch.Tensor, sizes: Sizes, pool: Callable[..., Any], back: Callable[..., Any]
) -> Any:
    """Windows that cover an array, on the CPU.

    On CUDA, PyTorch sums gradients in another order every time.
    """
    axes = len(sizes)
    if x.ndim != 2 + axes or not x.numel() or x.device.type != "cpu" or recorded((x,)):
        return NotImplemented
    if x.dtype not in (torch.float32, torch.float64) or not all(n > 0 for n in sizes):
        return NotImplemented
    if axes == 1:  # a sequence is an image of one row
        row = x.unsqueeze(2)
        y, *places = pool(row, (1, *sizes))
        return y.squeeze(2), (lambda g: back(g.unsqueeze(2), row, *places).squeeze(2),)
    y, *places = pool(x, sizes)
    return y, (lambda g: back(g, x, *places),)


def layer_norm(
    xp: Any,
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *,
    axes: int,
    eps: float,
) -> Any:
    """Layer normalisation in one pass; its three gradients share work."""
    given = [a for a in (x, weight, bias) if a is not None]
    shape = x.shape[-axes:]
    if recorded(given) or len({a.dtype for a in given}) != 1 or not x.is_floating_point():
        return NotImplemented
    if any(a.shape != shape for a in given[1:]):
        return NotImplemented
    y, mean, scale = aten.native_layer_norm(x, shape, weight, bias, eps)

    def pullback(g: torch.Tensor, needs: tuple[bool, ...]) -> Any:
        wanted = [*needs, False, False][:3]
        return aten.native_layer_norm_backward(g, x, shape, mean, scale, weight, bias, wanted)

    return y, pullback


def group_norm(
    xp: Any,
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *,
    groups: int,
    eps: float,
) -> Any:
    """Normalisation of each group of channels in one pass, on the CPU."""
    given = [a for a in (x, weight, bias) if a is not None]
    if recorded(given) or len({a.dtype for a in given}) != 1 or x.device.type != "cpu":
        return NotImplemented
    if not x.numel() or not x.is_floating_point() or x.shape[1] % groups:
        return NotImplemented
    x = x.contiguous()
    sizes = (*x.shape[:2], math.prod(x.shape[2:]), groups)
    y, mean, scale = aten.native_group_norm(x, weight, bias, *sizes, eps)

    def pullback(g: torch.Tensor, needs: tuple[bool, ...]) -> Any:
        wanted = [*needs, False, False][:3]
        return aten.native_group_norm_backward(
            g.contiguous(), x, mean, scale, weight, *sizes, wanted
        )

    return y, pullback


def batch_norm(
    xp: Any,
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *,
    eps: float,
) -> Any:
    """Batch normalisation in one pass, on the CPU.

    PyTorch updates running statistics with momentum 1, which makes them the batch's mean and
    variance. With gradients g₁ of the mean and g₂ of the variance, (g₁ + 2·g₂·(x - mean)) / n is
    added to the gradient of the n numbers of a channel.
    """
    given = [a for a in (x, weight, bias) if a is not None]
    if recorded(given) or len({a.dtype for a in given}) != 1 or x.device.type != "cpu":
        return NotImplemented
    n = x.numel() // x.shape[1] if x.numel() else 0
    if n < 2 or not x.is_floating_point() or any(a.shape != x.shape[1:2] for a in given[1:]):
        return NotImplemented  # PyTorch would read beyond the end of a weight that is too short
    mean, variance = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1])
    y, *kept = aten.native_batch_norm(x, weight, bias, mean, variance, True, 1.0, eps)
    variance = variance * ((n - 1) / n)  # PyTorch's running variance has n - 1 in the denominator

    def pullback(gradients: tuple[torch.Tensor, ...], needs: tuple[bool, ...]) -> Any:
        g, to_mean, to_variance = gradients
        wanted = [*needs, False, False][:3]
        gx, *others = aten.native_batch_norm_backward(
            g, x, weight, None, None, *kept, True, eps, wanted
        )
        if needs[0]:
            shape = (1, -1, *(1 for _ in x.shape[2:]))
            slope = to_variance * (2 / n)
            gx.addcmul_(x, slope.view(shape)).add_((to_mean / n - mean * slope).view(shape))
        return (gx, *others)[: len(needs)]

    return (y, mean, variance), pullback


def batch_norm_inference(
    xp: Any,
    x: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *,
    eps: float,
) -> Any:
    """Batch normalisation by a mean and a variance that are given, in one pass, on the CPU.

    With r = 1 / √(variance + eps), Σ g goes back to the bias, and s = Σ g·(x - mean)·r to the
    weight. So -Σ g·weight·r goes to the mean, and -s·weight·r² / 2 to the variance.
    """
    given = [a for a in (x, mean, variance, weight, bias) if a is not None]
    if recorded(given) or len({a.dtype for a in given}) != 1 or x.device.type != "cpu":
        return NotImplemented
    if (
        not x.numel()
        or not x.is_floating_point()
        or any(a.shape != x.shape[1:2] for a in given[1:])
    ):
        return NotImplemented
    w = torch.ones_like(mean) if weight is None else weight
    known = mean, variance, None, None, False, eps

    def pullback(g: torch.Tensor, needs: tuple[bool, ...]) -> Any:
        gx, s, total = aten.native_batch_norm_backward(g, x, w, *known, [True] * 3)
        r = (variance + eps).rsqrt_()
        return (gx, -total * w * r, s * w * r * r * -0.5, s, total)[: len(needs)]

    return aten.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)[0], pullback


def put_slice(xp: Any, x: torch.Tensor, places: tuple[range, ...], shape: Sizes) -> Any:
    """Zeros of `shape`, with `x` at `places`."""
    if recorded((x,)):
        return NotImplemented
    part = tuple(slice(r.start, r.stop, r.step) for r in places)
    y = x.new_zeros(shape)
    y[part] = x
    return y, (lambda g: g[part],)


def segment_sum(xp: Any, x: torch.Tensor, segments: torch.Tensor, count: int) -> Any:
    """The sum of the rows of each segment."""
    if recorded((x,)):
        return NotImplemented
    y = x.new_zeros((count, *x.shape[1:])).index_add_(0, segments, x)
    return y, (lambda g: g.index_select(0, segments), None)


def scaled_dot_product_attention(
    xp: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    is_causal: bool = False,
) -> Any:
    """Attention in blocks that stay in the cache, without the matrix of weights, on the CPU.

    Dao et al., "FlashAttention" (2022). It takes arrays of four axes, with values as wide as keys.
    For a query with a NaN or ∞ PyTorch returns 0, which would hide the error; here the result is
    NaN, as in the definition.
    """
    given = (query, key, value)
    if recorded(given) or len({a.dtype for a in given}) != 1 or query.device.type != "cpu":
        return NotImplemented
    if mask is not None or query.ndim != 4 or query.shape[-1] != value.shape[-1]:
        return NotImplemented
    if not all(a.numel() and a.is_floating_point() for a in given):
        return NotImplemented
    if key.shape[:2] != query.shape[:2] or value.shape[:3] != key.shape[:3]:
        return NotImplemented  # of values for other keys, PyTorch would read beyond the end
    y, log_sum = aten._scaled_dot_product_flash_attention_for_cpu(*given, 0.0, is_causal)
    y.add_(query.mul(0).sum(-1, keepdim=True))

    def pullback(g: torch.Tensor, needs: tuple[bool, ...]) -> Any:
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(
            g, *given, y, log_sum, 0.0, is_causal
        )

    return y, pullback


KERNELS = {
    kernel.__name__: kernel
    for kernel in (
        adaptive_avg_pool,
        adaptive_max_pool,
        avg_pool,
        batch_norm,
        batch_norm_inference,
        convolution,
        convolution_transpose,
        group_norm,
        layer_norm,
        max_pool,
        pad,
        put_slice,
        scaled_dot_product_attention,
        segment_sum,
    )
}

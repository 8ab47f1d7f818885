"""PyTorch's LSTM as a kernel, on the CPU: the loop over time is one call of oneDNN."""

from __future__ import annotations

from typing import Any

import torch

from polynet_torch.kernels import recorded

LSTM = 2
"""PyTorch's number for this kind of layer."""

_library = torch.library.Library("polynet", "FRAGMENT")
_library.define(
    "lstm(Tensor x, Tensor[] weights, Tensor h, Tensor c, bool reverse, bool bias)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)


@torch.library.impl(_library, "lstm", "CPU")
def _forward(x: Any, weights: Any, h: Any, c: Any, reverse: bool, bias: bool) -> Any:
    """oneDNN's layer: the outputs, h, c, and what its backward pass needs.

    PyTorch keeps the last only where gradients are enabled, which they are not in a step. An
    operation of our own enables them in a traced step too. Detached inputs are not recorded.
    """
    x, h, c, *weights = (a.detach() for a in (x, h, c, *weights))
    with torch.enable_grad():
        return torch.ops.aten.mkldnn_rnn_layer(
            x, *weights, h, c, reverse, [], LSTM, h.shape[1], 1, bias, False, False, True
        )


def lstm(
    xp: Any, x: torch.Tensor, hidden: Any, cell: Any, weight_ih: torch.Tensor,
    weight_hh: torch.Tensor, bias_ih: Any = None, bias_hh: Any = None, lengths: Any = None, *,
    reverse: bool = False,
) -> Any:  # fmt: skip
    """Returns (outputs, h, c). Samples of several lengths are left to the definition."""
    given = x, hidden, cell, weight_ih, weight_hh, bias_ih, bias_hh
    if lengths is not None or not _fit(*given):
        return NotImplemented
    size, bias = weight_hh.shape[1], bias_ih is not None
    zeros = x.new_zeros((x.shape[1], size))
    x, h, c, *weights = (zeros if a is None else a.contiguous() for a in given)
    y, new_h, new_c, kept = torch.ops.polynet.lstm(x, weights, h, c, reverse, bias)

    def pullback(gs: tuple[torch.Tensor, ...], needs: tuple[bool, ...]) -> Any:
        x_, ih, hh, bias_ih, bias_hh, h_, c_ = torch.ops.aten.mkldnn_rnn_layer_backward(
            x, *weights, h, c, y, new_h, new_c, *(g.contiguous() for g in gs),
            reverse, LSTM, size, 1, bias, True, False, [], False, kept,
        )  # fmt: skip
        slopes = x_, h_, c_, ih, hh, bias_ih, bias_hh, None
        return tuple(g if need else None for g, need in zip(slopes, needs, strict=False))

    return (y, new_h, new_c), pullback


def _fit(
    x: Any, hidden: Any, cell: Any, weight_ih: Any, weight_hh: Any, bias_ih: Any, bias_hh: Any
) -> bool:
    """Whether oneDNN takes these inputs as they are: it reads beyond the end of other shapes."""
    given = (x, hidden, cell, weight_ih, weight_hh, bias_ih, bias_hh)
    tensors = [a for a in given if a is not None]
    onednn = torch.backends.mkldnn
    if x.device.type != "cpu" or not (onednn.is_available() and onednn.enabled):
        return False
    if recorded(tensors):
        return False
    if x.ndim != 3 or not x.numel() or any(a.dtype != torch.float32 for a in tensors):
        return False
    (_, batch, inputs), size = x.shape, weight_hh.shape[-1]
    state, bias = (batch, size), (4 * size,)
    shapes = x.shape, state, state, (4 * size, inputs), (4 * size, size), bias, bias
    fit = all(a is None or a.shape == s for a, s in zip(given, shapes, strict=True))
    return fit and (bias_ih is None) == (bias_hh is None)


KERNELS = {"lstm": lstm}

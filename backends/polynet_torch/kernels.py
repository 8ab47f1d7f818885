"""PyTorch's kernels for the compositions of `polynet`, on any of its devices.

A kernel writes only to tensors that it made during the same call, before it returns them. Adam's
kernel may also write over the state that a compiled step's runner keeps. Kernels read nothing on
the host. Derivatives are written out here, and autograd is not used. Where PyTorch itself records
a tensor (`requires_grad`), kernels decline: the definitions write to no tensor, so PyTorch's record
stays correct.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

import torch
from torch.nn import functional

from polynet.backend import may_overwrite

Arrays = dict[str, torch.Tensor]
Kernel = Callable[..., Any]


def recorded(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether PyTorch's autograd records operations on any of these tensors."""
    for t in tensors:
        if t.requires_grad:
            return torch.is_grad_enabled()
    return False


def on_floats(kernel: Kernel) -> Kernel:
    """`kernel` for one floating-point tensor and options of Python; it declines everything else.

    An option may be an array, such as a learnt slope, a number of NumPy, or a tuple of axes.
    """

    @wraps(kernel)
    def call(xp: Any, x: torch.Tensor, **options: Any) -> Any:
        if not x.is_floating_point() or recorded((x,)):
            return NotImplemented
        if not all(isinstance(value, int | float | str) for value in options.values()):
            return NotImplemented
        return kernel(xp, x, **options)

    return call


# Linear maps


def linear(xp: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
    """y = x Wᵀ + b, in one call."""
    given = (x, weight) if bias is None else (x, weight, bias)
    if x.ndim != 2 or weight.ndim != 2 or (bias is not None and bias.ndim != 1):
        return NotImplemented
    if len({a.dtype for a in given}) != 1 or recorded(given):
        return NotImplemented
    y = functional.linear(x, weight, bias)
    return y, (lambda g: g.mm(weight), lambda g: g.t().mm(x), lambda g: g.sum(0))[: len(given)]


# Optimizers: each operation on all parameters at once

FUSED = ("cpu", "cuda")
"""Types of devices that PyTorch's fused optimizers support."""


def optimizer(kernel: Kernel) -> Kernel:
    """An optimizer's kernel, written for lists of tensors.

    `kernel(params, grads, slots, step, lr, **settings)` returns the new parameters and slots, in
    the order of the parameters' names. The optimizer declines if the tensors have several dtypes,
    or if there are none. `lr` is a number, or a 0-d tensor, which is not read on the host.
    """

    @wraps(kernel)
    def call(
        xp: Any,
        params: Arrays,
        grads: Arrays,
        state: dict[str, Arrays],
        step: torch.Tensor,
        lr: float | torch.Tensor,
        **settings: Any,
    ) -> Any:
        names = list(params)
        slots = {slot: [arrays[n] for n in names] for slot, arrays in state.items()}
        p, g = list(params.values()), [grads[n] for n in names]
        given = [*p, *g, *(a for arrays in slots.values() for a in arrays)]
        given += [lr] if isinstance(lr, torch.Tensor) else []
        if len({a.dtype for a in given}) != 1 or recorded(given):
            return NotImplemented
        result = kernel(p, g, slots, step, lr, **settings)
        if result is NotImplemented:
            return result
        p, slots = result
        named = {slot: dict(zip(names, arrays, strict=True)) for slot, arrays in slots.items()}
        return (dict(zip(names, p, strict=True)), named), None

    return call


def downhill(p: Any, towards: Any, lr: Any) -> Any:
    """p - lr · towards, for lists of tensors; one call where the rate is a number."""
    if isinstance(lr, torch.Tensor):
        return torch._foreach_sub(p, torch._foreach_mul(towards, lr))
    return torch._foreach_add(p, towards, alpha=-lr)


@optimizer
def sgd(
    p: Any, g: Any, slots: Any, step: Any, lr: Any, *, momentum: Any, nesterov: Any,
    weight_decay: Any,
) -> Any:  # fmt: skip
    """g ← ∇ + λp;  b ← μb + g;  p ← p - η·(g + μb if Nesterov, else b)."""
    if weight_decay:
        g = torch._foreach_add(g, p, alpha=weight_decay)
    if not momentum:
        return downhill(p, g, lr), {}
    b = torch._foreach_mul(slots["momentum_buffer"], momentum)
    torch._foreach_add_(b, g)
    towards = torch._foreach_add(g, b, alpha=momentum) if nesterov else b
    return downhill(p, towards, lr), {"momentum_buffer": b}


@optimizer
def rmsprop(
    p: Any, g: Any, slots: Any, step: Any, lr: Any, *, alpha: Any, eps: Any, weight_decay: Any,
    momentum: Any,
) -> Any:  # fmt: skip
    """v ← αv + (1-α)g²;  d = g / (√v + ε);  b ← μb + d;  p ← p - ηb."""
    if weight_decay:
        g = torch._foreach_add(g, p, alpha=weight_decay)
    v = torch._foreach_mul(slots["square_avg"], alpha)
    torch._foreach_addcmul_(v, g, g, value=1 - alpha)
    root = torch._foreach_sqrt(v)
    torch._foreach_add_(root, eps)
    if not momentum:
        if isinstance(lr, torch.Tensor):
            return downhill(p, torch._foreach_div(g, root), lr), {"square_avg": v}
        return torch._foreach_addcdiv(p, g, root, value=-lr), {"square_avg": v}
    b = torch._foreach_mul(slots["momentum_buffer"], momentum)
    torch._foreach_addcdiv_(b, g, root)
    return downhill(p, b, lr), {"square_avg": v, "momentum_buffer": b}


def _takes(lr: float | torch.Tensor) -> bool:
    """Whether PyTorch's fused optimizers accept this rate: a tensor on a GPU must be float32."""
    return not isinstance(lr, torch.Tensor) or lr.device.type == "cpu" or lr.dtype == torch.float32


@optimizer
def adam(
    p: Any, g: Any, slots: Any, step: Any, lr: Any, *, betas: Any, eps: Any, weight_decay: Any,
    decoupled: Any = False,
) -> Any:  # fmt: skip
    """m ← β₁m + (1-β₁)g;  v ← β₂v + (1-β₂)g²;  p ← p - η/(1-β₁ᵗ) · m / (√v/√(1-β₂ᵗ) + ε).

    PyTorch's fused Adam updates in one pass, in place. It is given copies, unless the state may be
    written over. It ignores strides, so all tensors must be contiguous, and sizes: of a gradient
    that is to be broadcast it would read beyond the end.
    """
    if p[0].device.type not in FUSED or not _takes(lr):
        return NotImplemented
    if any(old.shape != a.shape for old, a in zip(p, g, strict=True)):
        return NotImplemented
    count = [step.to(torch.float32).add_(1)] * len(p)  # on the device: the host reads nothing
    m, v = slots["exp_avg"], slots["exp_avg_sq"]
    state = [*p, *m, *v]
    g = [a.contiguous() for a in g]
    if may_overwrite(state) and all(a.is_contiguous() for a in state):
        mine = {a.untyped_storage().data_ptr() for a in state}
        g = [a.clone() if a.untyped_storage().data_ptr() in mine else a for a in g]
    else:
        p, m, v = (torch._foreach_mul([a.contiguous() for a in old], 1) for old in (p, m, v))
    fused = torch._fused_adamw_ if decoupled else torch._fused_adam_
    fused(
        p, g, m, v, [], count, lr=lr, beta1=betas[0], beta2=betas[1], weight_decay=weight_decay,
        eps=eps, amsgrad=False, maximize=False,
    )  # fmt: skip
    return p, {"exp_avg": m, "exp_avg_sq": v}


KERNELS: Mapping[str, Kernel] = {
    kernel.__name__: kernel
    for kernel in (
        adam, linear, rmsprop, sgd,
    )
}  # fmt: skip

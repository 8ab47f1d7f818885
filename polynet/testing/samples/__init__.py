"""Sample inputs for every op and every composition; one without samples fails the suite.

Inputs are float64 NumPy arrays (and labels, masks and settings), away from kinks, drawn from fixed
seeds. A backend gets them in its own dtype.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from polynet import functional, losses, optim, random
from polynet.ops import EXTENSIONS, OPS
from polynet.tensor import Tensor
from polynet.testing.samples import of_extensions, of_layers, of_losses, of_ops
from polynet.testing.samples.sample import Sample

__all__ = ["SAMPLES", "Sample", "compositions", "functions", "is_differentiable"]

SAMPLES: dict[str, list[Sample]] = {
    **of_ops.SAMPLES, **of_extensions.SAMPLES, **of_losses.SAMPLES, **of_layers.SAMPLES,
}  # fmt: skip
"""Samples by the name of the function."""


def functions() -> dict[str, Callable[..., Any]]:
    """Every op and every composition that must have samples, by name."""
    found = dict(OPS)
    for extension, ops in EXTENSIONS.items():
        own = {f"{extension}.{name}": f for name, f in ops.items() if f is not OPS.get(name)}
        found.update(own)
    found.update(of_extensions.PROBES)
    for module in (functional, losses):
        for name, f in vars(module).items():
            if hasattr(f, "rule") or hasattr(f, "definition"):
                found.setdefault(name, f)
    return found


def compositions() -> list[str]:
    """The functions that a backend may have a kernel for, with the arguments that follow `xp`.

    >>> [line for line in compositions() if line.startswith("relu(")]
    ['relu(x, /)']
    """
    found = {**vars(optim), **vars(random), **functions()}
    own = {n: f for n, f in found.items() if n not in OPS and "." not in n}
    return sorted(f"{n}{inspect.signature(f)}" for n, f in own.items() if hasattr(f, "definition"))


def is_differentiable(argument: Any) -> bool:
    """Whether gradients go to an argument of a sample."""
    kinds = ("float64", "complex128")
    return isinstance(argument, np.ndarray | Tensor) and str(argument.dtype) in kinds

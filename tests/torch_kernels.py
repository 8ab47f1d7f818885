"""What the tests of PyTorch's kernels share: arguments that PyTorch records, and kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polynet.backend import get_backend

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


def drawn(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [torch.asarray(rng.normal(size=shape)).requires_grad_() for shape in shapes]


def kernel(name: str) -> Any:
    return get_backend("torch").kernels[name.partition(" ")[0]]

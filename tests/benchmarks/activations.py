"""Activations and dropout beside PyTorch's: a value and its gradient, one operation at a time.

    python tests/benchmarks/activations.py [--out tests/benchmarks/results/activations.md]

Each function runs on 512 × 512 normal numbers of float32, with one thread. There are four
candidates: polynet on NumPy with its kernels and with the definitions alone, polynet on PyTorch,
and PyTorch's own function. The candidates for a function run in turn, and their gradients must
agree before anything is timed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import torch
from measure import environment, interleaved, median_ratio, publish, table

from polynet import functional, get_backend, use_backend, value_and_grad
from polynet.backend import to_numpy
from polynet.ops import OPS

torch.set_num_threads(1)
SHAPE = (512, 512)
X = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
MASK = np.random.default_rng(1).uniform(size=SHAPE) < 0.5
OF_TORCH: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    **{
        name: getattr(torch.nn.functional, name)
        for name in "celu elu gelu hardswish leaky_relu logsigmoid mish relu relu6 selu".split()
    },
    **{name: getattr(torch, name) for name in ("erf", "sigmoid", "tanh")},
    **{name: getattr(torch.nn.functional, name) for name in ("silu", "softplus", "softsign")},
    "dropout": lambda x: x * torch.from_numpy(MASK) * 2,
}


def ours(name: str, backend: Any) -> Callable[[], np.ndarray]:
    """The gradient of the function's sum, by polynet on a backend."""
    x, mask = (backend.from_host(a, backend.device("cpu")) for a in (X, MASK))
    function = getattr(functional, name)
    given = ((mask,), {"keep": 0.5}) if name == "dropout" else ((), {})
    gradient = value_and_grad(lambda a: OPS["sum"](function(a, *given[0], **given[1])))

    def run() -> np.ndarray:
        with use_backend(backend):
            return to_numpy(gradient(x)[1], copy=False)

    return run


def of_torch(name: str) -> Callable[[], np.ndarray]:
    """The same gradient, by PyTorch's own function."""
    x, function = torch.from_numpy(X).requires_grad_(), OF_TORCH[name]

    def run() -> np.ndarray:
        x.grad = None
        function(x).sum().backward()
        assert x.grad is not None
        return x.grad.numpy()

    return run


def rows(repeats: int) -> list[list[str]]:
    """For each function, milliseconds and the ratios to PyTorch's own function."""
    numpy, on_torch = get_backend("numpy"), get_backend("torch")
    found = []
    for name in sorted(OF_TORCH):
        candidates = {
            "numpy": ours(name, numpy),
            "definition": ours(name, numpy.without_kernels()),
            "torch": ours(name, on_torch),
            "PyTorch": of_torch(name),
        }
        for run in candidates.values():
            np.testing.assert_allclose(run(), candidates["PyTorch"](), rtol=1e-4, atol=1e-5)
        seconds = interleaved(candidates, repeats)
        times = [f"{median(seconds[c]) * 1e3:.2f}" for c in candidates]
        ratios = [f"{median_ratio(seconds, c, 'PyTorch'):.1f}" for c in ("numpy", "torch")]
        found.append([name, *times, *ratios])
    return found


def main() -> None:
    """Measure, and print or write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    header = [
        *("function", "polynet on NumPy", "… by definitions", "polynet on PyTorch", "PyTorch"),
        *("NumPy / PyTorch", "on PyTorch / PyTorch"),
    ]
    text = (
        "# Activations and dropout, with their gradients: milliseconds\n\n"
        f"{environment(('numpy', 'torch'))}\n"
        f"One thread, {SHAPE[0]} × {SHAPE[1]} normal numbers of float32, medians of "
        f"{given.repeats} repeats, taken in turn.\n\n"
    )
    publish(text + table(header, rows(given.repeats)), given.out)


if __name__ == "__main__":
    main()

"""Activations, losses, padding, LSTM and others beside PyTorch's: a value and its gradients.

    python tests/benchmarks/functions.py [--out tests/benchmarks/results/functions.md]

One operation at a time, in float32, with one thread. There are four candidates: polynet on NumPy
with its kernels and with the definitions alone, polynet on PyTorch, and PyTorch's own function. The
candidates for a function run in turn, and their gradients must agree before anything is timed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import torch
from measure import environment, interleaved, median_ratio, publish, table
from torch.nn import functional as pytorch

from polynet import functional, get_backend, losses, use_backend, value_and_grad
from polynet.backend import to_numpy
from polynet.ops import OPS

torch.set_num_threads(1)
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


X, Y = normal(512, 512), normal(512, 512)
PROBABILITIES = RNG.uniform(size=X.shape).astype(np.float32)
IMAGES = X.reshape(16, 16, 32, 32)
LABELS, MASK = RNG.integers(0, 512, 512), RNG.uniform(size=X.shape) < 0.5
LSTM = (
    *(normal(50, 32, 64), normal(32, 128), normal(32, 128)),
    *(normal(512, 64) / 8, normal(512, 128) / 8, normal(512), normal(512)),
)
ACTIVATIONS = """celu elu gelu hardshrink hardsigmoid hardswish leaky_relu logsigmoid mish relu
    relu6 selu silu softplus softshrink softsign""".split()


class Case(NamedTuple):
    """Our function and PyTorch's, and their arguments; those of float32 get gradients."""

    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    given: Sequence[np.ndarray]


def pytorchs_lstm(x: Any, h: Any, c: Any, *weights: Any) -> Any:
    start = (h[None], c[None])
    return torch.lstm(x, start, weights, True, 1, 0.0, True, False, False)[0]


CASES = {
    **{name: Case(getattr(functional, name), getattr(pytorch, name), [X]) for name in ACTIVATIONS},
    **{
        name: Case(getattr(functional, name), getattr(torch, name), [X])
        for name in ("erf", "sigmoid", "tanh")
    },
    "log_softmax": Case(functional.log_softmax, lambda x: pytorch.log_softmax(x, -1), [X]),
    "dropout": Case(
        lambda x, mask: functional.dropout(x, mask, keep=0.5),
        lambda x, mask: x * mask * 2,
        [X, MASK],
    ),
    "pad": Case(
        lambda x: functional.pad(x, padding=((2, 2), (2, 2))),
        lambda x: pytorch.pad(x, (2, 2, 2, 2)),
        [IMAGES],
    ),
    "pad, reflected": Case(
        lambda x: functional.pad(x, padding=((2, 2), (2, 2)), mode="reflect"),
        lambda x: pytorch.pad(x, (2, 2, 2, 2), mode="reflect"),
        [IMAGES],
    ),
    "mse": Case(losses.mse, pytorch.mse_loss, [X, Y]),
    "huber": Case(losses.huber, pytorch.huber_loss, [X, Y]),
    "smooth_l1": Case(losses.smooth_l1, pytorch.smooth_l1_loss, [X, Y]),
    "binary_cross_entropy_with_logits": Case(
        losses.binary_cross_entropy_with_logits,
        pytorch.binary_cross_entropy_with_logits,
        [X, PROBABILITIES],
    ),
    "cross_entropy": Case(losses.cross_entropy, pytorch.cross_entropy, [X, LABELS]),
    "cross_entropy, smoothed": Case(
        lambda x, y: losses.cross_entropy(x, y, label_smoothing=0.1),
        lambda x, y: pytorch.cross_entropy(x, y, label_smoothing=0.1),
        [X, LABELS],
    ),
    "cross_entropy, some ignored": Case(
        lambda x, y: losses.cross_entropy(x, y, ignore_index=3),
        lambda x, y: pytorch.cross_entropy(x, y, ignore_index=3),
        [X, LABELS % 8],
    ),
    "nll": Case(losses.nll, pytorch.nll_loss, [X, LABELS]),
    "lstm": Case(lambda *args: functional.lstm(*args)[0], pytorchs_lstm, LSTM),
}


def ours(case: Case, backend: Any) -> Callable[[], list[np.ndarray]]:
    """The gradients of the sum of the results, by polynet on a backend."""
    arrays = [backend.from_host(a, backend.device("cpu")) for a in case.given]
    count = sum(a.dtype == np.float32 for a in case.given)  # the others come last
    rest = arrays[count:]
    gradients = value_and_grad(lambda floats: OPS["sum"](case.ours(*floats, *rest)))

    def run() -> list[np.ndarray]:
        with use_backend(backend):
            return [to_numpy(g, copy=False) for g in gradients(arrays[:count])[1]]

    return run


def of_pytorch(case: Case) -> Callable[[], list[np.ndarray]]:
    """The same gradients, by PyTorch's own function."""
    tensors = list(map(torch.from_numpy, case.given))
    floats = [t.requires_grad_() for t in tensors if t.dtype == torch.float32]

    def run() -> list[np.ndarray]:
        found = torch.autograd.grad(case.theirs(*tensors).sum(), floats)
        return [g.numpy() for g in found]

    return run


def rows(repeats: int) -> Iterator[list[str]]:
    """For each function, milliseconds and the ratios to PyTorch's own function."""
    numpy, on_torch = get_backend("numpy"), get_backend("torch")
    for name, case in CASES.items():
        candidates = {
            "numpy": ours(case, numpy),
            "definition": ours(case, numpy.without_kernels()),
            "torch": ours(case, on_torch),
            "PyTorch": of_pytorch(case),
        }
        expected = candidates["PyTorch"]()
        for run in candidates.values():
            for found, wanted in zip(run(), expected, strict=True):
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * abs(wanted).max())
        seconds = interleaved(candidates, repeats)
        times = [f"{median(seconds[c]) * 1e3:.2f}" for c in candidates]
        ratios = [f"{median_ratio(seconds, c, 'PyTorch'):.1f}" for c in ("numpy", "torch")]
        yield [name, *times, *ratios]


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
        "# Functions with their gradients: milliseconds\n\n"
        f"{environment(('numpy', 'torch'))}\n"
        f"One thread, {X.shape[0]} × {X.shape[1]} normal numbers of float32, for padding "
        f"{' × '.join(map(str, IMAGES.shape))}; the LSTM reads 50 vectors of 64 numbers for each "
        f"of 32 samples, and has 128 units. Medians of {given.repeats} repeats, in turn.\n\n"
    )
    publish(text + table(header, list(rows(given.repeats))), given.out)


if __name__ == "__main__":
    main()

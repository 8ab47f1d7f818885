"""What recording costs: one op on 4×4 arrays, forward and forward + backward, beside peers.

    python tests/benchmarks/engine_overhead.py [--out results.md]

A chain of ops on recorded arrays ends in a sum. micrograd has scalars only: "micrograd" computes
the 16 elements one by one, and "micrograd on arrays" puts a NumPy array into micrograd's Value,
whose add and multiply happen to work with arrays.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import autograd
import autograd.numpy as anp
import micrograd.engine
import mygrad
import numpy as np
import torch
from measure import environment, interleaved, median_ratio, publish, table

import polynet
from polynet.ops import OPS

LENGTH = 400
START = np.random.default_rng(0).uniform(0.4, 0.6, size=(4, 4))
HALF = np.full((4, 4), 0.5)

Chain = Callable[[Any, Any], Any]


def chain(step: Chain) -> Chain:
    def run(x: Any, other: Any) -> Any:
        for _ in range(LENGTH):
            x = step(x, other)
        return x

    return run


def ops_with(tanh: Callable[[Any], Any], matmul: Callable[[Any, Any], Any]) -> dict[str, Chain]:
    """The ops of a peer: its operators, and its own tanh and matmul."""
    return {
        "add": lambda x, y: x + y,
        "multiply": lambda x, y: x * y,
        "tanh": lambda x, _: tanh(x),
        "matmul": matmul,
    }


def polynet_ops() -> dict[str, Chain]:
    return ops_with(OPS["tanh"], OPS["matmul"])


def torch_ops() -> dict[str, Chain]:
    return ops_with(torch.tanh, torch.matmul)


def autograd_ops() -> dict[str, Chain]:
    return ops_with(anp.tanh, anp.matmul)


def mygrad_ops() -> dict[str, Chain]:
    return ops_with(mygrad.tanh, mygrad.matmul)


def micrograd_ops() -> dict[str, Chain]:
    return {"add": lambda x, y: x + y, "multiply": lambda x, y: x * y}


def with_polynet(step: Chain, backward: bool) -> Callable[[], object]:
    run = chain(step)
    if backward:
        f = polynet.value_and_grad(lambda x, y: OPS["sum"](run(x, y)), (0, 1))
    else:
        f = polynet.value_and_grad(lambda x, y: polynet.stop_gradient(OPS["sum"](run(x, y))))
    return lambda: f(START, HALF)


def with_torch(step: Chain, backward: bool) -> Callable[[], object]:
    run = chain(step)

    def f() -> object:
        x, y = (torch.tensor(a, requires_grad=True) for a in (START, HALF))
        out = run(x, y)
        if backward:
            out.sum().backward()
        return out

    return f


def with_autograd(step: Chain, backward: bool) -> Callable[[], object]:
    run = chain(step)
    if backward:
        f = autograd.value_and_grad(lambda x, y: anp.sum(run(x, y)), (0, 1))
    else:
        f = autograd.value_and_grad(lambda x, y: (run(x, y), anp.sum(x))[1])
    return lambda: f(START, HALF)


def with_mygrad(step: Chain, backward: bool) -> Callable[[], object]:
    run = chain(step)

    def f() -> object:
        x, y = mygrad.tensor(START), mygrad.tensor(HALF)
        out = run(x, y)
        if backward:
            out.sum().backward()
        return out

    return f


def with_micrograd_arrays(step: Chain, backward: bool) -> Callable[[], object]:
    run = chain(step)
    value = micrograd.engine.Value

    def f() -> object:
        out = run(value(START), value(HALF))
        if backward:
            out.backward()
        return out

    return f


def with_micrograd(step: Chain, backward: bool) -> Callable[[], object]:
    run = chain(step)
    value = micrograd.engine.Value

    def f() -> object:
        outs = [run(value(a), value(b)) for a, b in zip(START.flat, HALF.flat, strict=True)]
        if backward:
            for out in outs:
                out.backward()
        return outs

    return f


PEERS: dict[
    str, tuple[Callable[[], dict[str, Chain]], Callable[[Chain, bool], Callable[[], object]]]
] = {
    "polynet": (polynet_ops, with_polynet),
    "PyTorch": (torch_ops, with_torch),
    "autograd": (autograd_ops, with_autograd),
    "MyGrad": (mygrad_ops, with_mygrad),
    "micrograd on arrays": (micrograd_ops, with_micrograd_arrays),
    "micrograd": (micrograd_ops, with_micrograd),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = ["# Cost of an op on 4×4 arrays, recorded, in microseconds\n"]
    report.append(
        environment(["polynet-array", "numpy", "torch", "autograd", "mygrad", "micrograd"])
    )
    report.append(
        f"- medians of {options.repeats} repeats in turn, each of 5 chains of {LENGTH} ops\n"
        "- one thread\n"
    )
    for backward in (False, True):
        report.append(f"\n## {'Forward and backward' if backward else 'Forward'}\n")
        rows = []
        for op in ("add", "multiply", "tanh", "matmul"):
            candidates = {
                peer: make(ops()[op], backward)
                for peer, (ops, make) in PEERS.items()
                if op in ops()
            }
            seconds = interleaved(candidates, options.repeats, number=5)
            cells = [
                f"{statistics.median(seconds[p]) / LENGTH * 1e6:.2f}" if p in seconds else "–"
                for p in PEERS
            ]
            least = max(median_ratio(seconds, "polynet", p) for p in candidates if p != "polynet")
            to_torch = median_ratio(seconds, "polynet", "PyTorch")
            rows.append([op, *cells, f"{to_torch:.2f}", f"{least:.2f}"])
        report.append(table(["op", *PEERS, "polynet / PyTorch", "polynet / best peer"], rows))
    publish("\n".join(report), options.out)


if __name__ == "__main__":
    main()

"""A training step on CUDA: captured as a graph, one operation at a time, and PyTorch's own.

`python tests/benchmarks/cuda_graph.py` first checks that the captured steps give the numbers of
the loop bit for bit, and those of NumPy after 100 steps of Adam; then it times. Without a CUDA
device it says so and exits with 2.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import environment, interleaved, median_ratio, publish, table

from polynet import get_backend, losses, nn, optim, use_backend
from polynet.backend import Backend, to_numpy
from polynet.step import initial_state, make_step
from polynet.tree import named_leaves

SIZES = {"784-256-128-10": (784, 256, 128, 10), "32-64-64-2": (32, 64, 64, 2)}
BATCH = {"784-256-128-10": 128, "32-64-64-2": 32}
ADAM = optim.Adam(lr=1e-3, eps=1e-5)
SAMPLES = 1024
STEPS = 100
CALL = 16
"""Steps of a call, and of what is timed."""


def network(sizes: tuple[int, ...], dropout: float = 0.0) -> nn.Module:
    layers: list[nn.Module] = []
    for i, o in itertools.pairwise(sizes):
        layers += [nn.Linear(i, o), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


def host_data(sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(SAMPLES, sizes[0])), rng.integers(0, sizes[-1], size=SAMPLES)


def host_rows(batch: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([rng.permutation(SAMPLES)[:batch] for _ in range(count)])


class Job:
    """The step of a network on a device: its state, data and rows, and the step itself."""

    def __init__(
        self, backend: Backend, device: str, name: str, dtype: str, dropout: float
    ) -> None:
        sizes, native = SIZES[name], backend.device(device)
        net = network(sizes, dropout).init(0, backend=backend, device=device, dtype=dtype)
        with use_backend(backend):
            self.state = initial_state(net, ADAM, 0)
        x, y = host_data(sizes)
        self.data = backend.from_host(x.astype(dtype), native), backend.from_host(y, native)
        self.rows = backend.from_host(host_rows(BATCH[name], STEPS), native)
        self.step = make_step(net, losses.cross_entropy, ADAM, backend.xp)
        self.losses: list[Any] = []

    def run(self, runner: Callable[..., Any], rows: Any) -> None:
        self.state, found = runner(self.state, self.data, rows)
        self.losses.append(found)

    def numbers(self) -> dict[str, np.ndarray]:
        leaves = named_leaves({"state": self.state, "losses": self.losses})
        return {path: to_numpy(leaf) for path, leaf in leaves}


def loop(backend: Backend, step: Any) -> Callable[..., Any]:
    """The steps one operation at a time: what every backend does that compiles nothing."""
    eager = Backend.compile(backend, step)

    def run(*args: Any) -> Any:
        with torch.no_grad():
            return eager(*args)

    return run


def check(name: str, dtype: str, dropout: float) -> list[str]:
    """Captured beside the loop, bit for bit, and beside NumPy."""
    backend, numpy = get_backend("torch"), get_backend("numpy")
    jobs = [Job(backend, "cuda:0", name, dtype, dropout) for _ in range(2)]
    reference = Job(numpy, "cpu", name, dtype, dropout)
    runners = [backend.compile(jobs[0].step), loop(backend, jobs[1].step)]
    for job, runner in [
        *zip(jobs, runners, strict=True),
        (reference, numpy.compile(reference.step)),
    ]:
        with use_backend(numpy if job is reference else backend):
            for at in range(0, STEPS, CALL):
                job.run(runner, job.rows[at : at + CALL])
    captured, looped, expected = (job.numbers() for job in (*jobs, reference))
    off = [path for path, value in looped.items() if not np.array_equal(captured[path], value)]
    if off:
        raise AssertionError(f"{name}, {dtype}: captured steps differ from the loop in {off}")
    weights = [path for path in expected if path.startswith("state.params")]
    worst = max(float(np.abs(captured[p] - expected[p]).max()) for p in weights)
    limit = {"float64": 1e-10, "float32": 1e-4}[dtype]
    if not worst <= limit:
        raise AssertionError(f"{name}, {dtype}: weights are {worst:.2g} from NumPy's, not {limit}")
    return [name, dtype, f"{dropout}", "yes", f"{worst:.1e}"]


# What is timed: CALL steps


def by_polynet(name: str, compiled: bool) -> Callable[[], None]:
    backend = get_backend("torch")
    job = Job(backend, "cuda:0", name, "float32", 0.0)
    runner = backend.compile(job.step) if compiled else loop(backend, job.step)

    def run() -> None:
        with use_backend(backend):
            job.run(runner, job.rows[:CALL])
        job.losses.clear()
        torch.cuda.synchronize()

    return run


def by_hand(name: str, compiled: bool) -> Callable[[], None]:
    """The same steps in PyTorch, with its fastest Adam."""
    sizes, batch = SIZES[name], BATCH[name]
    modules: list[Any] = []
    for i, o in itertools.pairwise(sizes):
        modules += [torch.nn.Linear(i, o), torch.nn.ReLU()]
    net = torch.nn.Sequential(*modules[:-1]).cuda()
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, eps=1e-5, fused=True, capturable=compiled)
    x, y = host_data(sizes)
    data = torch.asarray(x.astype(np.float32)).cuda(), torch.asarray(y).cuda()
    rows = [torch.asarray(r).cuda() for r in host_rows(batch, CALL)]
    slot = rows[0].clone()

    def step(at: Any) -> Any:
        adam.zero_grad(set_to_none=True)
        inputs, targets = (torch.index_select(a, 0, at) for a in data)
        loss = torch.nn.functional.cross_entropy(net(inputs), targets)
        loss.backward()
        adam.step()
        return loss.detach()

    if compiled:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step(slot)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            static_loss = step(slot)

    def run() -> None:
        found = []
        for r in rows:
            if compiled:
                slot.copy_(r)
                graph.replay()
                found.append(static_loss.clone())
            else:
                found.append(step(r))
        torch.stack(found)
        torch.cuda.synchronize()

    return run


CANDIDATES: dict[str, Callable[[str], Callable[[], None]]] = {
    "captured": lambda name: by_polynet(name, compiled=True),
    "loop": lambda name: by_polynet(name, compiled=False),
    "PyTorch": lambda name: by_hand(name, compiled=False),
    "PyTorch, graph": lambda name: by_hand(name, compiled=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device")
        sys.exit(2)
    # A step that could not be captured must not be timed as one that was.
    warnings.filterwarnings("error", message="this training step cannot be recorded")
    report = ["# A training step on CUDA\n", environment(["polynet-array", "numpy", "torch"])]
    report.append(f"- device: {torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}\n")
    rows = [
        check(name, dtype, dropout)
        for name in SIZES
        for dtype in ("float64", "float32")
        for dropout in (0.0, 0.3)
    ]
    header = ["network", "dtype", "dropout", "captured = loop", "farthest weight from NumPy's"]
    report += [f"\n## After {STEPS} steps of Adam\n", table(header, rows)]
    rows = []
    for name in SIZES:
        seconds = interleaved(
            {c: make(name) for c, make in CANDIDATES.items()}, options.repeats, 10
        )
        times = [f"{statistics.median(seconds[c]) / CALL * 1e6:.1f}" for c in CANDIDATES]
        ratios = [
            f"{median_ratio(seconds, 'captured', c):.2f}" for c in CANDIDATES if c != "captured"
        ]
        rows.append([f"{name}, batch {BATCH[name]}", *times, *ratios])
    header = ["network", *CANDIDATES, *(f"captured / {c}" for c in CANDIDATES if c != "captured")]
    report += [f"\n## Microseconds a step, in calls of {CALL} steps, float32, Adam\n"]
    report.append(table(header, rows))
    publish("\n".join(report), options.out)


if __name__ == "__main__":
    main()

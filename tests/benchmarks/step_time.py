"""Time of one training step (forward, loss, gradient, Adam) beside the same step by hand.

    python tests/benchmarks/step_time.py [--backends jax,torch,numpy] [--networks 784] [--out FILE]

Polynet's step is `make_step`, run as `Trainer` runs it. JAX's peer is JAX with optax; PyTorch's is
an nn.Module, eager. All gather the same batches by the same rows, from data that is on the device
already, and start from the same parameters; where losses differ, the program ends with exit code 1
before anything is timed. Work is started without waiting, and waited for at the end of a run.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
os.environ.update(NPROC="1", JAX_PLATFORMS="cpu")  # XLA's own pool has a thread for every NPROC

import jax
import numpy as np
import optax
import torch
from measure import environment, interleaved, paired_ratio, publish, table

import polynet
from polynet import losses, nn, optim
from polynet.backend import get_backend
from polynet.step import initial_state, make_step

STEPS = 16  # a pass over the data: what `JaxBackend.steps_per_call` puts into one program
SECONDS = 0.15  # a run has as many passes as take this long
LR = 1e-3
EPS = 1e-5  # with Adam's own 1e-8, PyTorch's two Adams drift apart by 3e-4 within 16 steps
AGREEMENT = 1e-4  # relative, of losses in float32 over one pass

Arrays = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A network three times over, whose parameters have polynet's names and shapes."""

    batch: int
    sample: tuple[int, ...]
    classes: int
    polynet: Callable[[], nn.Module]
    torch: Callable[[], torch.nn.Module]
    jax: Callable[[Arrays, Any], Any]
    """From the parameters and a batch to the logits."""
    jax_layout: Callable[[np.ndarray], np.ndarray] = lambda p: p
    """From a parameter of polynet's to the layout that `jax` wants."""


def dense(batch: int, *sizes: int) -> Network:
    """Linear layers with ReLU between."""
    last = len(sizes) - 2

    def layers(module: Any) -> list[Any]:
        pairs = [(module.Linear(i, o), module.ReLU()) for i, o in pairwise(sizes)]
        return [layer for pair in pairs for layer in pair][:-1]

    def by_jax(p: Arrays, x: Any) -> Any:
        for i in range(last):
            x = jax.nn.relu(x @ p[f"{2 * i}.weight"] + p[f"{2 * i}.bias"])
        return x @ p[f"{2 * last}.weight"] + p[f"{2 * last}.bias"]

    return Network(
        batch=batch,
        sample=sizes[:1],
        classes=sizes[-1],
        polynet=lambda: nn.Sequential(*layers(nn)),
        torch=lambda: torch.nn.Sequential(*layers(torch.nn)),
        jax=by_jax,
        jax_layout=np.transpose,  # (in, out), as is the custom
    )


def lenet(module: Any) -> list[Any]:
    """LeNet-5 (LeCun et al., 1998) with ReLU and maxima."""
    return [
        *(module.Conv2d(1, 6, 5, padding=2), module.ReLU(), module.MaxPool2d(2)),
        *(module.Conv2d(6, 16, 5), module.ReLU(), module.MaxPool2d(2), module.Flatten()),
        *(module.Linear(400, 120), module.ReLU(), module.Linear(120, 84), module.ReLU()),
        module.Linear(84, 10),
    ]


def lenet_by_jax(p: Arrays, x: Any) -> Any:
    relu, lax = jax.nn.relu, jax.lax
    for name, ends in (("0", 2), ("3", 0)):
        x = lax.conv_general_dilated(
            x, p[f"{name}.weight"], (1, 1), [(ends, ends)] * 2,
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
        ) + p[f"{name}.bias"][:, None, None]  # fmt: skip
        x = lax.reduce_window(relu(x), -jax.numpy.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = x.reshape(x.shape[0], -1)
    for name in ("7", "9", "11"):
        x = x @ p[f"{name}.weight"].T + p[f"{name}.bias"]
        x = relu(x) if name != "11" else x
    return x


WIDTH, HEADS, LENGTH = 128, 4, 64


def transformer(base: Any, module: Any, mean: Callable[[Any], Any]) -> Any:
    """One encoder layer, the mean over places, and a Linear layer."""

    class Network(base):
        def __init__(self) -> None:
            super().__init__()
            self.block = module.TransformerEncoderLayer(
                WIDTH, HEADS, 4 * WIDTH, 0.0, batch_first=True, norm_first=True
            )
            self.out = module.Linear(WIDTH, 10)

        def forward(self, x: Any) -> Any:
            return self.out(mean(self.block(x)))

    return Network()


def transformer_by_jax(p: Arrays, x: Any) -> Any:
    np = jax.numpy
    p = {name.removeprefix("block."): a for name, a in p.items()}

    def linear(x: Any, name: str) -> Any:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        x = jax.nn.standardize(x, axis=-1, epsilon=1e-5)
        return x * p[f"{name}.weight"] + p[f"{name}.bias"]

    qkv = norm(x, "norm1") @ p["self_attn.in_proj_weight"].T + p["self_attn.in_proj_bias"]
    q, k, v = (a.reshape(*x.shape[:2], HEADS, -1) for a in np.split(qkv, 3, axis=-1))
    seen = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
    x = x + linear(seen, "self_attn.out_proj")
    x = x + linear(jax.nn.relu(linear(norm(x, "norm2"), "linear1")), "linear2")
    return linear(x.mean(axis=1), "out")


NETWORKS = {
    "784-256-128-10, batch 32": dense(32, 784, 256, 128, 10),
    "784-256-128-10, batch 128": dense(128, 784, 256, 128, 10),
    "32-64-64-2, batch 32": dense(32, 32, 64, 64, 2),
    "784-1024-1024-10, batch 128": dense(128, 784, 1024, 1024, 10),
    "LeNet, batch 64": Network(
        batch=64,
        sample=(1, 28, 28),
        classes=10,
        polynet=lambda: nn.Sequential(*lenet(nn)),
        torch=lambda: torch.nn.Sequential(*lenet(torch.nn)),
        jax=lenet_by_jax,
    ),
    "transformer block, batch 16": Network(
        batch=16,
        sample=(LENGTH, WIDTH),
        classes=10,
        polynet=lambda: transformer(
            nn.Module, nn, lambda x: polynet.array_namespace(x).mean(x, axis=1)
        ),
        torch=lambda: transformer(torch.nn.Module, torch.nn, lambda x: x.mean(dim=1)),
        jax=transformer_by_jax,
    ),
}


class Task:
    """The numbers that every candidate gets: parameters, data, and the rows of each batch.

    Each sample comes again in every batch, with another label: nothing can be learnt by heart,
    so gradients keep their size however long it runs. (Denormal numbers cost each library
    something else.)
    """

    def __init__(self, network: Network) -> None:
        rng = np.random.default_rng(0)
        count = STEPS * network.batch
        samples = rng.normal(size=(network.batch, *network.sample)).astype("float32")
        self.network = network
        self.x = np.concatenate([samples] * STEPS)
        self.y = rng.integers(0, network.classes, size=count)
        self.rows = rng.permutation(count).reshape(STEPS, network.batch)
        drawn = network.polynet().init(seed=0, backend="numpy").parameters()
        self.parameters = {name: np.asarray(p) for name, p in drawn.items()}


@dataclass(frozen=True)
class Candidate:
    """A way to take a step."""

    launch: Callable[[], Any]
    """Start one pass and return its losses, on the device."""
    wait: Callable[[], object]
    """Return once what was started has ended."""


def with_polynet(task: Task, backend_name: str, steps_per_call: int | None = None) -> Candidate:
    backend = get_backend(backend_name)
    device = backend.device(None)
    put = lambda host: polynet.asarray(host, backend=backend)  # noqa: E731
    net = task.network.polynet().init(seed=0, backend=backend)
    optimizer = optim.Adam(LR, eps=EPS)
    run = backend.compile(make_step(net, losses.cross_entropy, optimizer, backend.xp))
    with polynet.use_backend(backend):
        state = initial_state(net, optimizer, seed=0)
    index = backend.index_dtype(device)
    data = put(task.x), put(task.y.astype(index))
    rows = np.stack(task.rows).astype(index)
    size = steps_per_call or backend.steps_per_call
    chunks = [put(rows[i : i + size]) for i in range(0, STEPS, size)]

    def launch() -> Any:
        nonlocal state
        found = []
        for chunk in chunks:
            state, values = run(state, data, chunk)
            found.append(values)
        return found[0] if len(found) == 1 else backend.xp.concat(found)

    return Candidate(launch, lambda: polynet.to_numpy(state["step"]))  # ready when all is


def with_jax(task: Task, *, scan: bool) -> Candidate:
    network, optimizer = task.network, optax.adam(LR, eps=EPS)

    def step(state: Any, data: Any, rows: Any) -> Any:
        params, optimizer_state = state
        x, y = (a[rows] for a in data)

        def objective(p: Arrays) -> Any:
            logits = network.jax(p, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        loss, grads = jax.value_and_grad(objective)(params)
        updates, optimizer_state = optimizer.update(grads, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), loss

    def steps(state: Any, data: Any, rows: Any) -> Any:
        return jax.lax.scan(lambda s, r: step(s, data, r), state, rows)

    run = jax.jit(steps if scan else step, donate_argnums=0)
    params = {
        name: jax.device_put(np.array(network.jax_layout(p), order="C"))
        for name, p in task.parameters.items()
    }
    state = params, optimizer.init(params)
    data = jax.device_put((task.x, task.y.astype("int32")))
    rows = task.rows.astype("int32")
    batches = [jax.device_put(rows)] if scan else [jax.device_put(r) for r in rows]

    def launch() -> Any:
        nonlocal state
        found = []
        for batch in batches:
            state, values = run(state, data, batch)
            found.append(values)
        return found[0] if scan else jax.numpy.stack(found)

    return Candidate(launch, lambda: jax.block_until_ready(state))


def with_torch(task: Task, **options: Any) -> Candidate:
    net = task.network.torch()
    net.load_state_dict({name: torch.tensor(p) for name, p in task.parameters.items()})
    optimizer = torch.optim.Adam(net.parameters(), LR, eps=EPS, **options)
    x, y = torch.tensor(task.x), torch.tensor(task.y)
    batches = [torch.tensor(rows) for rows in task.rows]

    def launch() -> Any:
        found = []
        for rows in batches:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            found.append(loss.detach())
        return torch.stack(found)

    return Candidate(launch, lambda: None)


CANDIDATES: dict[str, dict[str, Callable[[Task], Candidate]]] = {
    "jax": {
        "polynet on jax": lambda task: with_polynet(task, "jax"),
        "JAX + optax, scan": lambda task: with_jax(task, scan=True),
        "polynet on jax, a call a step": lambda task: with_polynet(task, "jax", 1),
        "JAX + optax, a call a step": lambda task: with_jax(task, scan=False),
    },
    "torch": {
        "polynet on torch": lambda task: with_polynet(task, "torch"),
        "PyTorch": lambda task: with_torch(task),
        "PyTorch, fused Adam": lambda task: with_torch(task, fused=True),
    },
    "numpy": {"polynet on numpy": lambda task: with_polynet(task, "numpy")},
}
PAIRS = (
    ("polynet on jax", "JAX + optax, scan"),
    ("polynet on jax", "JAX + optax, a call a step"),
    ("polynet on jax, a call a step", "JAX + optax, a call a step"),
    ("polynet on torch", "PyTorch"),
    ("polynet on torch", "PyTorch, fused Adam"),
    ("polynet on numpy", "PyTorch"),
    ("polynet on numpy", "PyTorch, fused Adam"),
    ("polynet on numpy", "JAX + optax, scan"),
)
"""Who is compared with whom, where both are there."""


def disagreement(first_losses: Mapping[str, np.ndarray]) -> float:
    """The largest relative difference of any loss from the first candidate's."""
    expected = next(iter(first_losses.values()))
    return max(float(np.max(np.abs(found / expected - 1))) for found in first_losses.values())


def timed(candidate: Candidate) -> tuple[Callable[[], object], int]:
    """A run that lasts for SECONDS or more, and its number of steps."""
    candidate.launch()
    candidate.wait()
    start = time.perf_counter()
    candidate.launch()
    candidate.wait()
    passes = math.ceil(SECONDS / (time.perf_counter() - start))

    def run() -> None:
        for _ in range(passes):
            candidate.launch()
        candidate.wait()

    return run, passes * STEPS


def measured(name: str, backends: list[str], repeats: int) -> tuple[float, dict[str, list[float]]]:
    """The largest difference between losses, and by candidate the seconds of a step."""
    task = Task(NETWORKS[name])
    candidates = {n: make(task) for b in backends for n, make in CANDIDATES[b].items()}
    apart = disagreement({n: np.asarray(c.launch()) for n, c in candidates.items()})
    if not apart <= AGREEMENT:
        raise SystemExit(f"{name}: losses differ by {apart:.1e}; they are not the same step")
    runs = {n: timed(c) for n, c in candidates.items()}
    taken = interleaved({n: run for n, (run, _) in runs.items()}, repeats)
    return apart, {n: [t / runs[n][1] for t in times] for n, times in taken.items()}


def ratios(name: str, seconds: Mapping[str, list[float]]) -> Iterator[list[str]]:
    """A row of the report for each pair that is there."""
    for ours, peer in PAIRS:
        if ours in seconds and peer in seconds:
            ratio, low, high = paired_ratio(seconds[ours], seconds[peer])
            yield [name, ours, peer, f"{ratio:.2f}", f"{low:.2f} to {high:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backends", default=",".join(CANDIDATES))
    parser.add_argument("--networks", default="", help="only those with this in their name")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    backends = options.backends.split(",")
    names = [name for name in NETWORKS if options.networks in name]
    if not names or not set(backends) <= set(CANDIDATES):
        parser.error(f"there are backends {list(CANDIDATES)} and networks {list(NETWORKS)}")
    torch.set_num_threads(1)
    found = {name: measured(name, backends, options.repeats) for name in names}
    columns = [candidate for b in backends for candidate in CANDIDATES[b]]
    micros = [
        [name, *(f"{statistics.median(seconds[c]) * 1e6:.1f}" for c in columns)]
        for name, (_, seconds) in found.items()
    ]
    pairs = [row for name, (_, seconds) in found.items() for row in ratios(name, seconds)]
    parts = [
        "# Time of one training step, beside the same step by hand\n",
        environment(["polynet-array", "numpy", "torch", "jax", "optax"])
        + f"- medians of {options.repeats} repeats in turn, each of {SECONDS} s or more\n"
        "- one thread; float32, cross entropy, Adam\n"
        f"- polynet on jax, and scan: {STEPS} steps a call\n"
        f"- the losses of the first {STEPS} steps agree within "
        f"{max(apart for apart, _ in found.values()):.0e} of their size\n",
        "## Microseconds a step\n",
        table(["network", *columns], micros),
        "## Ratios: medians over repeats, with a 95% confidence interval\n",
        table(["network", "polynet's", "peer's", "ratio", "95%"], pairs),
    ]
    publish("\n".join(parts), options.out)


if __name__ == "__main__":
    main()

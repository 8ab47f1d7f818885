"""The candidates on a GPU, each in a process of its own: polynet, PyTorch, JAX.

The task is that of `candidates.py`: the same parameters, batches and Adam for all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from candidates import EPS, LR, Candidate, Task, with_jax, with_polynet
from networks import (
    Network,
    Stages,
    dense,
    lenet,
    lenet_by_jax,
    resnet,
    resnet_by_jax,
    transformer,
    transformer_by_jax,
)
from workers import Bench

STAGES: Stages = (
    *((64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)),
    *((128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)),
)
"""The blocks of a ResNet-18."""
WIDTH, HEADS, LENGTH = 512, 8, 256
LARGE = "4096-4096-4096-4096, batch 8192"

NETWORKS = {
    "ResNet-18 on 32×32, batch 256": Network(
        256, (3, 32, 32), partial(resnet, stages=STAGES), partial(resnet_by_jax, stages=STAGES)
    ),
    "transformer block, batch 32": Network(
        32,
        (LENGTH, WIDTH),
        partial(transformer, width=WIDTH, heads=HEADS, blocks=1),
        partial(transformer_by_jax, heads=HEADS, blocks=1),
    ),
    LARGE: dense(LARGE),
    "LeNet, batch 512": Network(512, (1, 28, 28), lenet, lenet_by_jax),
    **{name: dense(name) for name in ("784-256-128-10, batch 128", "784-1024-1024-10, batch 512")},
}
"""Those that say most come first, should the time not suffice for all."""
WARM_UP = 6
"""Passes before anything is timed: polynet captures after three, and PyTorch compiles."""


class TaskIn(Task):
    """A task, and the precision of its products."""

    precision = "float32"


def polynet_on(task: TaskIn, name: str, *, compiled: bool = True) -> Candidate:
    """polynet's steps, compiled or one operation at a time."""
    from polynet.backend import Backend, get_backend, use_backend

    backend: Any = get_backend(name)
    backend = backend.with_precision(task.precision) if name == "cupy" else backend
    if not compiled:
        backend.compile = partial(Backend.compile, backend)
    with use_backend(backend):
        candidate = with_polynet(task, backend)

    def launch() -> Any:
        with use_backend(backend):
            return candidate.launch()

    return Candidate(launch, candidate.wait)


def by_torch(task: TaskIn, *, graph: bool = False, mode: str | None = None) -> Candidate:
    """PyTorch on CUDA with its fused Adam: eager, in a CUDA graph, or compiled in a mode."""
    import torch

    device = torch.device("cuda")
    net = task.network.build(torch.nn).to(device)
    start = {name: torch.tensor(p) for name, p in task.parameters.items()}
    net.load_state_dict({**net.state_dict(), **start})
    adam = torch.optim.Adam(net.parameters(), LR, eps=EPS, fused=True, capturable=graph)
    data = torch.tensor(task.x, device=device), torch.tensor(task.y, device=device)
    batches = [torch.tensor(rows, device=device) for rows in task.rows]

    def objective(x: Any, y: Any) -> Any:
        with torch.autocast("cuda", torch.bfloat16, enabled=task.precision == "bfloat16"):
            outputs = net(x)
        return torch.nn.functional.cross_entropy(outputs.float(), y)

    if mode is not None:
        torch._dynamo.reset()
        objective = torch.compile(objective, dynamic=False, mode=mode)

    def step(rows: Any) -> Any:
        adam.zero_grad(set_to_none=True)
        loss = objective(*(torch.index_select(a, 0, rows) for a in data))
        loss.backward()
        adam.step()
        return loss.detach()

    run = captured(step, batches[0], net, adam) if graph else step

    def launch() -> Any:
        return torch.stack([run(rows).clone() for rows in batches])

    return Candidate(launch, torch.cuda.synchronize)


def captured(step: Callable[[Any], Any], rows: Any, net: Any, adam: Any) -> Callable[[Any], Any]:
    """The step as PyTorch's own CUDA graph; the weights of before the warm-up are restored."""
    import copy

    import torch

    before = copy.deepcopy(net.state_dict())
    slot, side = rows.clone(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(slot)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step(slot)
    net.load_state_dict(before)
    for state in adam.state.values():
        for number in state.values():
            number.zero_()

    def replay(rows: Any) -> Any:
        slot.copy_(rows)
        graph.replay()
        return loss

    return replay


CANDIDATES: dict[str, Callable[[TaskIn], Candidate]] = {
    "polynet": partial(polynet_on, name="cupy"),
    "polynet, loop": partial(polynet_on, name="cupy", compiled=False),
    "polynet on torch": partial(polynet_on, name="torch"),
    "polynet on torch, loop": partial(polynet_on, name="torch", compiled=False),
    "PyTorch": by_torch,
    "PyTorch, graph": partial(by_torch, graph=True),
    "torch.compile": partial(by_torch, mode="max-autotune"),
    "torch.compile, reduce-overhead": partial(by_torch, mode="reduce-overhead"),
    "JAX": partial(with_jax, scan=True),
}
COMPILED = ("torch.compile", "torch.compile, reduce-overhead")
"""Candidates that run as CUDA graphs; the second uses cuBLAS, and is ready in seconds."""
BY_TORCH = ("PyTorch", "PyTorch, graph", *COMPILED)
"""Candidates for which cuDNN tries all algorithms for a convolution, and takes the fastest."""
USUAL = ("polynet", "PyTorch, graph", "JAX", "torch.compile, reduce-overhead")
"""Candidates that are timed if none are named: ours, and the fastest of the others."""
MODULES = {"polynet": "cupy", "polynet, loop": "cupy", "JAX": "jax"}
"""The module that a candidate needs; all others need PyTorch."""
PRECISIONS = {"bfloat16": LARGE, "tf32": LARGE, "float32": ""}
"""For each precision, a part of the names of the networks that are timed in it."""
NOT_BY = {("bfloat16", "polynet on torch"), ("bfloat16", "polynet on torch, loop")}
"""Not timed: polynet on PyTorch obeys PyTorch's settings, which have only autocast for bfloat16."""
JAX_SAYS = {"float32": "highest", "tf32": "TF32_TF32_F32", "bfloat16": "BF16_BF16_F32"}


def set_precision(candidate: str, precision: str) -> None:
    """Set the precision of products, where that is a setting of the whole process."""
    if candidate == "JAX":
        import jax

        jax.config.update("jax_default_matmul_precision", JAX_SAYS[precision])
    elif "torch" in candidate.lower():
        import torch

        tf32 = precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = candidate in BY_TORCH


class GpuBench(Bench):
    """A candidate on a GPU, asked for a network and a precision."""

    task: TaskIn

    def draw(self, name: str) -> None:
        """Make the task's numbers. Only the host works here, so all candidates do this at once."""
        self.task = TaskIn(NETWORKS[name])

    def build(self, *what: str) -> tuple[Candidate | None, int]:
        _, precision = what
        steps = self.task.network.steps
        if (precision, self.name) in NOT_BY:
            return None, steps
        self.task.precision = precision
        set_precision(self.name, precision)
        return CANDIDATES[self.name](self.task), steps

    def prepare(self, *what: str) -> tuple[list[float] | None, float] | None:
        """Prepare as any candidate does, and then run `WARM_UP` passes."""
        answer = super().prepare(*what)
        if answer:
            self._passes(WARM_UP)
        return answer

    def wake(self) -> None:
        """Import the module that the candidate needs; all candidates do this at once."""
        import_module(MODULES.get(self.name, "torch"))

"""The candidates: polynet on its backends, PyTorch, JAX, scikit-learn, and bare matrix products.

All gather the same batches by the same rows, and start from the same parameters. They compute in
float32, with cross entropy and Adam. Each candidate runs in a process of its own (`workers.py`),
and imports no library but its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from networks import Network

LR = 1e-3
EPS = 1e-5  # with Adam's own 1e-8, PyTorch's two Adams drift apart by 3e-4 within 16 steps


class Task:
    """The numbers that every candidate gets: parameters, data, and the rows of each batch.

    Each sample is in the data several times, with other labels. So the network cannot learn them by
    heart, and gradients keep their size however long it runs. (Otherwise they would become denormal
    numbers, whose cost differs from library to library.)
    """

    def __init__(self, network: Network) -> None:
        from polynet import nn

        rng = np.random.default_rng(0)
        count, shape = network.steps * network.batch, (network.batch, *network.sample)
        words = network.words
        samples = rng.integers(words, size=shape) if words else rng.normal(size=shape)
        self.network = network
        self.x = np.concatenate([samples.astype("int64" if words else "float32")] * network.steps)
        self.y = rng.integers(0, network.classes, size=count)
        self.rows = rng.permutation(count).reshape(network.steps, network.batch)
        drawn = network.build(nn).init(seed=0, backend="numpy").parameters()
        self.parameters = {name: np.asarray(p) for name, p in drawn.items()}


@dataclass(frozen=True)
class Candidate:
    """A way to take a step."""

    launch: Callable[[], Any]
    """Start one pass and return its losses, on the device; None where there is no loss."""
    wait: Callable[[], object] = lambda: None
    """Return once what was started has ended."""


def with_polynet(task: Task, backend_name: str, steps_per_call: int | None = None) -> Candidate:
    import polynet
    from polynet import losses, nn, optim
    from polynet.step import initial_state, make_step

    backend = polynet.get_backend(backend_name)
    device = backend.device(None)
    put = lambda host: polynet.asarray(host, backend=backend)
    net = task.network.build(nn).init(seed=0, backend=backend)
    optimizer = optim.Adam(LR, eps=EPS)
    run = backend.compile(make_step(net, losses.cross_entropy, optimizer, backend.xp))
    with polynet.use_backend(backend):
        state = initial_state(net, optimizer, seed=0)
    del net
    index = backend.index_dtype(device)
    x = task.x.astype(index) if task.network.words else task.x
    data = put(x), put(task.y.astype(index))
    rows = task.rows.astype(index)
    size = steps_per_call or backend.steps_per_call
    chunks = [put(rows[i : i + size]) for i in range(0, len(rows), size)]

    def launch() -> Any:
        nonlocal state
        found = []
        for chunk in chunks:
            state, values = run(state, data, chunk)
            found.append(values)
        return found[0] if len(found) == 1 else backend.xp.concat(found)

    return Candidate(
        launch, lambda: polynet.to_numpy(state["step"])
    )  # the step's number is ready when everything is


def numba_at_once() -> None:
    """Use Numba from the first step on; in other programs it begins after some seconds."""
    from polynet_numpy import compiled

    compiled.WORTH = 0


def traced_on_torch(task: Task) -> Candidate:
    """polynet on PyTorch with a traced program, which otherwise begins after many steps."""
    from polynet_torch import traced

    traced.AFTER = 0
    return with_polynet(task, "torch")


def with_numba(task: Task) -> Candidate:
    numba_at_once()
    return with_polynet(task, "numpy")


def no_numba() -> None:
    """Let polynet compute as if Numba were not installed."""
    from polynet_numpy import compiled

    compiled.version = lambda: None


def without_numba(task: Task) -> Candidate:
    no_numba()
    return with_polynet(task, "numpy")


def with_jax(task: Task, *, scan: bool) -> Candidate:
    import jax
    import optax

    network, optimizer = task.network, optax.adam(LR, eps=EPS)

    def step(state: Any, data: Any, rows: Any) -> Any:
        params, optimizer_state = state
        x, y = (a[rows] for a in data)

        def objective(p: Any) -> Any:
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
    x = task.x.astype("int32") if network.words else task.x
    data = jax.device_put((x, task.y.astype("int32")))
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


def with_torch(task: Task, *, compiled: bool = False, **options: Any) -> Candidate:
    import torch

    net = task.network.build(torch.nn)
    start = {name: torch.tensor(p) for name, p in task.parameters.items()}
    net.load_state_dict({**net.state_dict(), **start})
    optimizer = torch.optim.Adam(net.parameters(), LR, eps=EPS, **options)
    x, y = torch.tensor(task.x), torch.tensor(task.y)
    batches = [torch.tensor(rows) for rows in task.rows]

    def objective(x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(net(x), y)

    if compiled:
        torch._dynamo.reset()
        objective = torch.compile(objective, dynamic=False)

    def launch() -> Any:
        found = []
        for rows in batches:
            optimizer.zero_grad()
            loss = objective(x[rows], y[rows])
            loss.backward()
            optimizer.step()
            found.append(loss.detach())
        return torch.stack(found)

    return Candidate(launch)


def with_sklearn(task: Task) -> Candidate | None:
    """`MLPClassifier.partial_fit` of each batch; for two classes its network has one output."""
    from sklearn.neural_network import MLPClassifier

    network = task.network
    if not network.widths:
        return None
    net = MLPClassifier(
        network.widths[1:-1], alpha=0.0, batch_size=network.batch, learning_rate_init=LR,
        epsilon=EPS, shuffle=False,
    )  # fmt: skip
    batches = [(task.x[rows], task.y[rows]) for rows in task.rows]
    labels = np.arange(network.classes)
    net.partial_fit(*batches[0], classes=labels)
    for i, (weights, biases) in enumerate(zip(net.coefs_, net.intercepts_, strict=True)):
        weight, bias = (task.parameters[f"{2 * i}.{kind}"] for kind in ("weight", "bias"))
        if weights.shape[1] != len(bias):  # one output for two: the second less the first
            weight, bias = np.diff(weight, axis=0), np.diff(bias)
        weights[...] = weight.T
        biases[...] = bias
    del net._optimizer  # the next call makes a new one, whose moments are 0

    def launch() -> Any:
        found = []
        for rows in task.rows:
            net.partial_fit(task.x[rows], task.y[rows])
            found.append(net.loss_)
        return np.asarray(found)

    return Candidate(launch)


def products(task: Task) -> Candidate | None:
    """The matrix products of a dense network alone, into memory that is already allocated."""
    network = task.network
    if not network.widths:
        return None
    rng = np.random.default_rng(0)

    def matrix(*shape: int) -> Any:
        return rng.normal(size=shape).astype("float32")

    layers = [
        (matrix(network.batch, i), matrix(o, i), matrix(network.batch, o))
        for i, o in pairwise(network.widths)
    ]
    outs = [[np.empty_like(a) for a in (g, w, x)] for x, w, g in layers]

    def step() -> None:
        for (x, w, _), (y, _, _) in zip(layers, outs, strict=True):
            np.dot(x, w.T, out=y)
        for i in reversed(range(len(layers))):
            (x, w, g), (_, dw, dx) = layers[i], outs[i]
            np.dot(g.T, x, out=dw)
            if i:  # the gradient of the samples is not needed
                np.dot(g, w, out=dx)

    def launch() -> None:
        for _ in range(network.steps):
            step()

    return Candidate(launch)


CANDIDATES: dict[str, Callable[[Task], Candidate | None]] = {
    "polynet, Numba": with_numba,
    "polynet, NumPy": without_numba,
    "polynet on torch": traced_on_torch,
    "polynet on jax": lambda task: with_polynet(task, "jax"),
    "polynet on jax, a call a step": lambda task: with_polynet(task, "jax", 1),
    "PyTorch": with_torch,
    "PyTorch, fused Adam": lambda task: with_torch(task, fused=True),
    "torch.compile, fused Adam": lambda task: with_torch(task, compiled=True, fused=True),
    "scikit-learn": with_sklearn,
    "JAX": lambda task: with_jax(task, scan=False),
    "JAX, scan": lambda task: with_jax(task, scan=True),
    "matrix products": products,
}
"""By name; a candidate is None for a network that its library does not have."""


# A whole fit

HIDDEN, EPOCHS, BATCH = (128, 64), 20, 32


def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y


def fit_polynet(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    from networks import dense_layers

    from polynet import Trainer, losses, nn, optim

    net = dense_layers((64, *HIDDEN, 10), nn)
    trainer = Trainer(net, losses.cross_entropy, optim.Adam(LR), backend="numpy")
    trainer.fit(x, y, epochs=EPOCHS, batch_size=BATCH, progress=False)
    return trainer.predict(x).argmax(axis=1)


def fit_torch(x: np.ndarray, y: np.ndarray, **options: Any) -> np.ndarray:
    import torch
    from networks import dense_layers

    net = dense_layers((64, *HIDDEN, 10), torch.nn)
    optimizer = torch.optim.Adam(net.parameters(), LR, **options)
    samples, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(samples[rows]), labels[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        return net(samples).argmax(dim=1).numpy()


def fit_sklearn(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier(
        HIDDEN, alpha=0.0, batch_size=BATCH, learning_rate_init=LR, max_iter=EPOCHS,
        tol=0.0, n_iter_no_change=EPOCHS,
    )  # fmt: skip
    with warnings.catch_warnings():  # it warns that it may not have converged; no candidate has
        warnings.simplefilter("ignore")
        return net.fit(x, y).predict(x)


FITS: dict[str, Callable[..., np.ndarray]] = {
    "polynet, Numba": fit_polynet,
    "polynet, NumPy": fit_polynet,
    "PyTorch": fit_torch,
    "PyTorch, fused Adam": lambda x, y: fit_torch(x, y, fused=True),
    "scikit-learn": fit_sklearn,
}
"""From samples and labels to the classes that are predicted for them after EPOCHS epochs."""

"""Checks on a GPU, before anything is timed: each one returns what it found, or raises."""

from __future__ import annotations

import itertools
import tempfile
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from polynet import Trainer, get_backend, losses, nn, optim, random, use_backend
from polynet.backend import Backend, to_numpy
from polynet.step import initial_state, make_step
from polynet.tree import named_leaves

SIZES = {"784-1024-128-10": (784, 1024, 128, 10), "32-64-64-2": (32, 64, 64, 2)}
BATCH = {"784-1024-128-10": 512, "32-64-64-2": 32}
"""Networks, with products for cuBLASLt and with products for the plug-in's own kernel."""
ADAM = optim.Adam(lr=1e-3, eps=1e-5)
SAMPLES = 1024
STEPS = 100
LIMITS = {"float64": 1e-10, "float32": 1e-4}
"""How far weights may be from NumPy's after STEPS, relative to the largest of them."""
BETWEEN: dict[str, type[nn.Module]] = {"float64": nn.ReLU, "float32": nn.GELU}
"""Activations by dtype. In float32 the argument of a ReLU is sometimes so near 0 that two libraries
see it on different sides of 0. NumPy's own weights, changed by 6e-8 at the start, end up to 2e-4
apart."""
REPLAYS = 1000


def require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


# Steps on any backend that captures them


def network(
    sizes: tuple[int, ...], dropout: float = 0.0, between: type[nn.Module] = nn.ReLU
) -> nn.Module:
    layers: list[nn.Module] = []
    for i, o in itertools.pairwise(sizes):
        layers += [nn.Linear(i, o), between(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


class Job:
    """The training steps of a network on a backend's default device, for any runner."""

    def __init__(self, backend: Backend, name: str, dtype: str, dropout: float) -> None:
        sizes, native = SIZES[name], backend.device(None)
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(SAMPLES, sizes[0])), rng.integers(0, sizes[-1], size=SAMPLES)
        rows = np.stack([rng.permutation(SAMPLES)[: BATCH[name]] for _ in range(STEPS)])
        net = network(sizes, dropout, BETWEEN[dtype]).init(0, backend=backend, dtype=dtype)
        self.backend = backend
        with use_backend(backend):
            self.state = initial_state(net, ADAM, 0)
        self.data = backend.from_host(x.astype(dtype), native), backend.from_host(y, native)
        self.rows = backend.from_host(rows, native)
        self.step = make_step(net, losses.cross_entropy, ADAM, backend.xp)

    def run(self, runner: Callable[..., Any], steps_a_call: int) -> dict[str, np.ndarray]:
        """Take all STEPS; returns the state after them, and the losses."""
        found = []
        with use_backend(self.backend):
            for at in range(0, STEPS, steps_a_call):
                rows = self.rows[at : at + steps_a_call]
                self.state, values = runner(self.state, self.data, rows)
                found.append(to_numpy(values))
        leaves = {path: to_numpy(leaf) for path, leaf in named_leaves(self.state)}
        return {**leaves, "losses": np.concatenate(found)}


def agreement(backend_name: str, name: str, dtype: str, dropout: float) -> str:
    """Captured steps give the bits of the loop, with one or 16 in a launch, and NumPy's numbers."""
    backend, numpy = get_backend(backend_name), get_backend("numpy")
    job = Job(backend, name, dtype, dropout)
    looped = job.run(Backend.compile(backend, job.step), 16)
    for steps in (16, 1):
        job = Job(backend, name, dtype, dropout)
        captured = job.run(backend.compile(job.step), steps)
        off = [path for path, a in looped.items() if not np.array_equal(captured[path], a)]
        require(not off, f"{steps} steps a launch differ from the loop in {', '.join(off)}")
    job = Job(numpy, name, dtype, dropout)
    expected = job.run(numpy.compile(job.step), 16)
    weights = [path for path in expected if path.startswith("params")]
    worst = max(
        float(np.abs(looped[p] - expected[p]).max() / np.abs(expected[p]).max()) for p in weights
    )
    require(worst <= LIMITS[dtype], f"weights are {worst:.1e} from NumPy's, not {LIMITS[dtype]}")
    return f"bit for bit; {worst:.1e} from NumPy's"


def resume(first: str, then: str) -> str:
    """Ten epochs, begun on one backend and continued on another, equal ten epochs on NumPy."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 32)), rng.integers(0, 2, size=300)

    def trainer(backend: str) -> Trainer:
        net = network((32, 64, 2), 0.3)
        return Trainer(net, losses.cross_entropy, ADAM, backend=backend, dtype="float64")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run")
        begun = trainer(first)
        begun.fit(x, y, epochs=5, batch_size=32)
        begun.save(path)
        gone_on = trainer(then)
        gone_on.load(path)
        gone_on.fit(x, y, epochs=5, batch_size=32)
    whole = trainer("numpy")
    whole.fit(x, y, epochs=10, batch_size=32)
    worst = max(
        float(np.abs(to_numpy(gone_on.net.state_dict()[n]) - to_numpy(p)).max())
        for n, p in whole.net.state_dict().items()
    )
    require(worst <= 1e-10, f"weights are {worst:.1e} from those of a run on NumPy alone")
    return f"{worst:.1e} from NumPy alone"


# The first checks on CuPy, in order


def product_replays() -> str:
    """A captured product by cuBLASLt, replayed while eager work allocates and frees memory."""
    import cupy

    from polynet_cupy.graph import Capturer
    from polynet_cupy.products import library_product

    xp, rng = get_backend("cupy").xp, cupy.random.default_rng(0)
    x, y = (rng.standard_normal(s, dtype=cupy.float32) for s in ((256, 300), (300, 128)))
    out = cupy.empty((256, 128), dtype=cupy.float32)

    def run() -> None:
        out[...] = library_product(xp, x + 1, y) * 2

    run()
    replay = Capturer(cupy).capture(run)
    held: list[Any] = []
    for i in range(REPLAYS):
        held.append(cupy.full(int(1000 * (1 + i % 97)), float(i)))
        if len(held) > 20:
            del held[:: 1 + i % 3]
        if i % 100 == 0:
            x[...] = rng.standard_normal(x.shape, dtype=cupy.float32)
        out.fill(float("nan"))
        replay()
        if i % 100 == 99:
            again = library_product(xp, x + 1, y) * 2
            require(bool((out == again).all()), f"replay {i} has other bits")
    return f"{REPLAYS} replays, bit for bit"


def epilogues() -> str:
    """A product by cuBLASLt with a bias and a ReLU, in each precision, beside float64."""
    import cupy

    from polynet_cupy.products import library_product

    rng, words = np.random.default_rng(0), []
    for dtype, precision, limit in (
        ("float64", "float32", 1e-13), ("float32", "float32", 1e-5), ("float32", "tf32", 5e-3),
        ("float32", "bfloat16", 2e-2),
    ):  # fmt: skip
        xp = get_backend("cupy").with_precision(precision).xp
        fused: list[bool] = []
        xp.gemm = noting(xp.gemm, fused)
        worst = 0.0
        for m, k, n in ((128, 784, 256), (64, 33, 10), (512, 1024, 1024)):
            x, w, b = rng.normal(size=(m, k)), rng.normal(size=(n, k)), rng.normal(size=n)
            given = [cupy.asarray(a.astype(dtype)) for a in (x, w, b)]
            y = library_product(xp, given[0], given[1].T, given[2], relu=True)
            expected = np.maximum(x @ w.T + b, 0)
            error = np.abs(cupy.asnumpy(y) - expected).max() / np.abs(expected).max()
            worst = max(worst, float(error))
        kind = dtype if dtype == "float64" else precision
        require(worst <= limit, f"{kind}: {worst:.1e} from float64, not {limit}")
        words.append(f"{kind} {worst:.0e}, {sum(fused)} of {len(fused)} fused")
    return "; ".join(words)


def noting(gemm: Any, fused: list[bool]) -> Any:
    """`gemm`, which also notes for each product whether bias and ReLU were part of it."""

    def noted(how: Any, *args: Any) -> Any:
        done = gemm(how, *args)
        fused.append(done == how)
        return done

    return noted


def masks() -> str:
    """Dropout's masks are the same on the GPU and on the host."""
    cupy, numpy, count = get_backend("cupy"), get_backend("numpy"), 0
    for shape, keep, first in (((128, 256), 0.5, 0), ((7, 3, 5), 0.9, 11), ((1, 1), 0.1, 2**20)):
        key, step = random.key(3, "layer"), np.asarray([12345], np.int32)
        found = []
        for backend in (cupy, numpy):
            given = [backend.from_host(a, backend.device(None)) for a in (key, step)]
            with use_backend(backend):
                found.append(
                    to_numpy(random.keep_mask(*given, shape=shape, keep=keep, first=first))
                )
        require(np.array_equal(*found), f"the masks of {shape} differ")
        count += found[0].size
    return f"{count} bits, the same"


def streams_and_pools() -> str:
    """Steps on a stream, or with a memory pool, that the user chose give the same bits."""
    import cupy

    backend, found = get_backend("cupy"), []
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    for where in (nullcontext(), stream, cupy.cuda.using_allocator(pool.malloc)):
        with where:
            job = Job(backend, "32-64-64-2", "float32", 0.3)
            found.append(job.run(backend.compile(job.step), 16))
            backend.synchronize()
    for other in found[1:]:
        require(all(np.array_equal(other[p], a) for p, a in found[0].items()), "other bits")
    require(pool.total_bytes() > 0, "nothing came from the user's pool")
    return f"the same bits; the user's pool gave {pool.total_bytes()} bytes"


def no_leak() -> str:
    """10,000 steps of a small network use no more memory at the end than at the start."""
    import cupy

    backend, used = get_backend("cupy"), []
    job = Job(backend, "32-64-64-2", "float32", 0.3)
    run = backend.compile(job.step)
    for _ in range(100):
        job.run(run, 16)
        used.append(cupy.get_default_memory_pool().used_bytes())
    require(used[-1] <= used[5], f"{used[5]} bytes were in use after 600 steps, {used[-1]} at last")
    return f"{len(used) * STEPS} steps, {used[-1]} bytes in use from first to last"


def says_what_does_not_fit() -> str:
    """With the pool limited, the error says how much was asked for and what to lower."""
    import cupy

    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=pool.used_bytes() + (128 << 20))  # less than one layer's output
    try:
        x, y = np.zeros((16384, 256), np.float32), np.zeros(16384, np.int64)
        net = network((256, 4096, 10))
        Trainer(net, losses.cross_entropy, ADAM, backend="cupy").fit(x, y, batch_size=16384)
    except MemoryError as error:
        require("smaller batch_size" in str(error), f"it says only: {error}")
        return str(error).partition(". Give")[0]
    finally:
        pool.set_limit(size=0)
        pool.free_all_blocks()
    raise AssertionError("a step that needs more than the pool may have was taken")


def names_what_cannot_be_captured() -> str:
    """A loss that reads an array on the host trains one operation at a time, after a warning."""

    def reading(outputs: Any, targets: Any) -> Any:
        loss = losses.cross_entropy(outputs, targets)
        return loss if float(to_numpy(targets)[0]) >= 0 else loss * 2

    x, y = np.zeros((64, 8), np.float32), np.zeros(64, np.int64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = Trainer(network((8, 4, 2)), reading, ADAM, backend="cupy")
        run.fit(x, y, epochs=40, batch_size=16)
    words = [str(w.message) for w in caught if "one operation at a time" in str(w.message)]
    require(len(words) == 1, f"{len(words)} warnings; expected one")
    require(Path(__file__).name in words[0], f"it does not name the loss's line: {words[0]}")
    require(np.isfinite(run.history.step_losses).all(), "its losses are not finite")
    return words[0]


CHECKS: dict[str, Callable[[], str]] = {
    "1. a captured product replays": product_replays,
    "2. epilogues": epilogues,
    "4. dropout's masks": masks,
    "streams and pools": streams_and_pools,
    "memory over 10,000 steps": no_leak,
    "a step that does not fit": says_what_does_not_fit,
    "an op that cannot be captured": names_what_cannot_be_captured,
}
"""Check 3 is `agreement`, the conformance suite has the kernels of check 4, and 5 is the timing."""


def outcome(check: Callable[..., str], *args: Any) -> str:
    """What a check found, or how it failed; a failure does not stop the other checks."""
    try:
        return check(*args)
    except Exception as error:
        traceback.print_exc()
        return " ".join(f"FAILED: {type(error).__name__}: {error}".split())

"""polynet on a GPU: first checks of what must hold, then its speed beside PyTorch's and JAX's.

    python tests/benchmarks/gpu.py [--parts checks,agreement,…]
        [--backends cupy,torch] [--networks "LeNet;ResNet"] [--candidates "polynet;PyTorch"]
        [--out gpu.md]

`checks`: the first checks, in order; `agreement`: 100 steps, captured, in a loop, and on NumPy;
`resume`: runs that go on from NumPy to the GPU, and back; `suite`: the conformance suite, and every
activation, loss and optimizer in a captured step; `examples`: the examples as they are;
`optimizer`: Adam's bytes per second beside those of a copy; `product`: a large matrix product
beside PyTorch's; `choices`: which algorithms products get, and in which way convolutions are
computed; `steps`: training steps beside PyTorch (eager, in a CUDA graph, compiled) and `jax.jit`;
`sanitizer`, which runs only if it is named: the kernels under NVIDIA's compute-sanitizer. Without a
GPU the program says so, and exits with 2. The file is written after each part, and after each
network.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from gpu_checks import CHECKS, SIZES, agreement, outcome, resume
from gpu_peers import CANDIDATES, COMPILED, MODULES, NETWORKS, PRECISIONS, GpuBench
from measure import environment, paired_ratio, table
from workers import NoAnswerError, Seconds, Worker, in_turn

from polynet import get_backend, optim, use_backend
from polynet.backend import registry

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "examples"
RESULTS = Path("gpu.md")
CAPTURED = str(HERE.parent / "test_captured_parts.py")
LIKE = {"float32": 1e-2, "tf32": 1e-2, "bfloat16": 5e-2}
"""How far the losses of two candidates may be apart, relative to their size."""
LIMIT, OTHERS = {**dict.fromkeys(COMPILED, 240.0), "JAX": 150.0}, 60.0
"""Seconds that a candidate may take to get ready for all networks."""
REPEATS, SECONDS = 7, 0.1
"""How steps are timed: repeats, of which the interval needs six, and the seconds of each."""
AT_START = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.3"}
"""The environment of a candidate's process: JAX must leave memory to the others."""
PYTEST = ["-m", "pytest", "-q", "-rf", "-p", "no:benchmark"]  # that plug-in warns beside xdist
PYTEST += ["-n", "6"] if find_spec("xdist") else []
ALONE = {"OMP_NUM_THREADS": "1"}
"""The environment of programs that run together: with more threads than processors they took twice
as long."""
PARAMETERS = 50_000_000
WIDTH = 8192


class Program:
    """The parts, with the settings of the command line."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.backends = [b for b in options.backends if registry.status(b).available]
        self.networks = options.networks
        self.candidates = [c for c in options.candidates if find_spec(MODULES.get(c, "torch"))]

    # What must hold

    def checks(self) -> str:
        rows = [[name, outcome(check)] for name, check in CHECKS.items()]
        return "## First checks\n\n" + table(["check", "outcome"], rows)

    def agreement(self) -> str:
        rows = [
            [backend, name, dtype, f"{dropout}", outcome(agreement, backend, name, dtype, dropout)]
            for backend in self.backends
            for name in SIZES
            for dtype in ("float64", "float32")
            for dropout in (0.0, 0.3)
        ]
        header = ["backend", "network", "dtype", "dropout", "captured beside the loop, and NumPy"]
        return "## 100 steps of Adam, in launches of 16 and of one\n\n" + table(header, rows)

    def resume(self) -> str:
        pairs = [p for b in self.backends for p in (("numpy", b), (b, "numpy"))]
        rows = [[*pair, outcome(resume, *pair)] for pair in pairs]
        header = ["begun on", "then on", "farthest"]
        return "## Runs continued on another backend\n\n" + table(header, rows)

    def suite(self) -> str:
        """Run the suites together: nothing is timed, and most of the time goes to compiling."""
        runs = []
        for backend in self.backends:
            suite = ["--pyargs", "polynet.testing", "--polynet-backend", backend]
            runs += [(backend, "conformance", suite)]
            runs += [(backend, "captured", [CAPTURED, "-k", backend])]
        with ThreadPoolExecutor(len(runs)) as pool:
            done = list(pool.map(lambda run: _python(*PYTEST, *run[2], limit=240, **ALONE), runs))
        rows = []
        for (backend, what, _), answer in zip(runs, done, strict=True):
            said = answer.stdout.strip().splitlines() or [answer.stderr[-500:]]
            failed = f"FAILED, exit status {answer.returncode}: " if answer.returncode else ""
            rows.append([backend, what, failed + said[-1]])
            rows += [[backend, what, line] for line in said if line.startswith(("FAILED", "ERROR"))]
        header = ["backend", "suite", "outcome"]
        return "## The conformance suite, and captured steps\n\n" + table(header, rows)

    def examples(self) -> str:
        """Run the examples that take a backend, as they are, and all at the same time."""
        runs = [(b, e) for b in self.backends for e in sorted(EXAMPLES.glob("*.py"))]
        runs = [(b, e) for b, e in runs if '"--backend"' in e.read_text(encoding="utf-8")]

        def run(backend: str, example: Path) -> subprocess.CompletedProcess[str]:
            with tempfile.TemporaryDirectory() as folder:
                given = ("--backend", backend, "--out", folder)
                return _python(str(example), *given, limit=240, MPLBACKEND="agg", **ALONE)

        with ThreadPoolExecutor(len(runs)) as pool:
            done = list(pool.map(run, *zip(*runs, strict=True)))
        rows = []
        for (backend, example), answer in zip(runs, done, strict=True):
            said = answer.stdout.strip().splitlines() or [""]
            failed = f"FAILED: {said[-1]} {answer.stderr[-300:]}"
            outcome = failed if answer.returncode else said[-1]
            rows.append([backend, example.name, outcome.replace("\n", " ")])
        return "## The examples\n\n" + table(["backend", "example", "its last line"], rows)

    def sanitizer(self) -> str:
        tool = shutil.which("compute-sanitizer")
        if tool is None:
            return "## compute-sanitizer\n\nIt is not installed.\n"
        suite = ["--pyargs", "polynet.testing", "--polynet-backend", "cupy"]
        command = [tool, "--target-processes", "all", "--error-exitcode", "9", sys.executable]
        done = subprocess.run(
            [*command, *PYTEST, *suite, "--polynet-level", "kernels"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = [s for s in done.stdout.splitlines() if "passed" in s or "ERROR SUMMARY" in s]
        said += [f"FAILED: {done.stderr[-2000:]}"] if done.returncode else []
        return "## compute-sanitizer\n\n" + "\n".join(said) + "\n"

    # What is timed here

    def optimizer(self) -> str:
        """Adam's rate: it reads four numbers per parameter and writes three, which is 28 bytes."""
        import cupy

        backend = get_backend("cupy")
        adam = optim.Adam(1e-3)

        def step(state: Any, data: Any, rows: Any) -> Any:
            params, slots = adam.update(state["params"], data, state["slots"], state["step"])
            new = {"params": params, "slots": slots, "step": state["step"] + 1}
            return new, cupy.zeros((), dtype=cupy.float32)

        step.consumes = True
        params = {"w": cupy.ones(PARAMETERS, dtype=cupy.float32)}
        with use_backend(backend):
            state = {"params": params, "slots": adam.init(params)}
            state["step"] = cupy.zeros(1, dtype=cupy.int32)
            run, rows = backend.compile(step), cupy.zeros((16, 1), dtype=cupy.int64)
            grads, held = {"w": cupy.ones(PARAMETERS, dtype=cupy.float32)}, [state]

            def sixteen() -> None:
                held[0], _ = run(held[0], grads, rows)

            taken = _device_seconds(sixteen) / 16
        large, other = (cupy.zeros(1 << 28, dtype=cupy.float32) for _ in range(2))
        copied = 2 * large.nbytes / _device_seconds(lambda: cupy.copyto(other, large))
        rate = 28 * PARAMETERS / taken
        tera = [f"{r / 1e12:.2f}" for r in (rate, copied)]
        cells = [f"{taken * 1e3:.3f}", *tera, f"{rate / copied:.0%}"]
        header = ["ms", "TB/s", "a copy's TB/s", "of the copy's"]
        return f"## Adam on {PARAMETERS:,} parameters, float32\n\n" + table(header, [cells])

    def choices(self) -> str:
        programs = [("gpu_products.py", precision) for precision in PRECISIONS]
        programs += [("gpu_convolutions.py",)]
        tables = []
        for program, *settings in programs:
            done = _python(str(HERE / program), *settings, limit=60)
            failed = f"\nFAILED: {done.stderr[-2000:]}" if done.returncode else ""
            tables.append(f"{done.stdout}{failed}")
        return "\n".join(tables)

    def product(self) -> str:
        ours, theirs = (_seconds_of_products(who) for who in ("polynet", "torch"))
        rows = []
        for precision in PRECISIONS:
            both = [seconds.get(precision) for seconds in (ours, theirs)]
            rates = [f"{2 * WIDTH**3 / s / 1e12:.1f}" if s else "FAILED" for s in both]
            rows.append([precision, *rates, f"{both[1] / both[0]:.2f}" if all(both) else "–"])
        header = ["precision", "polynet, TFLOP/s", "PyTorch, TFLOP/s", "of PyTorch's"]
        return f"## A product of {WIDTH}×{WIDTH} matrices\n\n" + table(header, rows)

    # Steps, each candidate in a process of its own

    def steps(self) -> Iterator[str]:
        """Yield the table after each network, so that a failure later on loses no results."""
        left = {name: LIMIT.get(name, OTHERS) for name in self.candidates}
        header = ["network", "precision", *self.candidates, "polynet / best peer", "its 95 %"]
        rows = []
        with ExitStack() as stack:
            workers = [stack.enter_context(Worker(c, GpuBench, AT_START)) for c in self.candidates]
            workers = _all_at_once(workers, "wake")
            for name in (n for n in NETWORKS if any(part in n for part in self.networks)):
                workers = _all_at_once(workers, "draw", name)
                for precision in (p for p, only in PRECISIONS.items() if only in name):
                    ready = list(_ready(workers, (name, precision), left))
                    workers = [w for w in workers if w.alive]
                    seconds = {}
                    while ready and not seconds:  # without a candidate that fails
                        try:
                            seconds = in_turn(ready, REPEATS, SECONDS, within=60)
                        except NoAnswerError as error:
                            print(f"FAILED: {name}, {precision}: {error}", file=sys.stderr)
                            ready = [w for w in ready if w.name != error.name]
                    workers = [w for w in workers if w.alive]
                    rows.append([name, precision, *_cells(seconds, self.candidates)])
                    yield "## Microseconds a step\n\n" + table(header, rows)


def _all_at_once(workers: Sequence[Worker], method: str, *args: str) -> list[Worker]:
    """Ask all workers for work that does not use the device; return those that answer."""
    started = [w for w in workers if not _failed(partial(w.start, method, *args))]
    return [w for w in started if not _failed(w.answer)]


def _failed(ask: Callable[[], object]) -> bool:
    """Whether a candidate does not answer; if so, its error is printed."""
    try:
        ask()
    except NoAnswerError as error:
        print(f"FAILED: {error}", file=sys.stderr, flush=True)
        return True
    return False


def _ready(
    workers: Sequence[Worker], case: tuple[str, str], left: dict[str, float]
) -> Iterator[Worker]:
    """The candidates that can take the steps, and whose losses agree within their precision.

    They get ready one after another, since some of them time algorithms on the device meanwhile.
    `left` holds the seconds that each of them may still take.
    """
    expected: np.ndarray | None = None
    for worker in workers:
        began = time.perf_counter()
        answer: Any = None
        try:
            answer = worker.ask("prepare", *case, within=left[worker.name])
        except NoAnswerError as error:
            print(f"FAILED: {case}: {error}", file=sys.stderr, flush=True)
        taken = time.perf_counter() - began
        left[worker.name] -= taken
        print(f"{case}: {worker.name}: {taken:.1f} s", file=sys.stderr, flush=True)
        if answer is None:
            continue
        losses = np.asarray(answer[0])
        expected = losses if expected is None else expected
        apart = np.abs(losses / expected - 1).max()
        if apart <= LIKE[case[1]]:
            yield worker
        else:
            print(f"FAILED: {case}: {worker.name}: losses {apart:.0e} away", file=sys.stderr)


def _cells(seconds: Seconds, candidates: Sequence[str]) -> Iterator[str]:
    """The medians, the ratio to the best peer, and the interval of that ratio."""
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name in candidates:
        yield f"{medians[name] * 1e6:.1f}" if name in medians else "–"
    peers = [name for name in medians if "polynet" not in name]
    if "polynet" not in medians or not peers:
        yield from ("–", "–")
        return
    best = min(peers, key=medians.__getitem__)
    ratio, low, high = paired_ratio(seconds["polynet"], seconds[best])
    yield from (f"{ratio:.2f} ({best})", f"{low:.2f} to {high:.2f}")


def _python(*args: str, limit: int, **environment: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [sys.executable, *args], capture_output=True, text=True, timeout=limit, check=False,
            env=os.environ | environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        out = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        return subprocess.CompletedProcess(late.cmd, 124, f"{out}\nnot done in {limit} s", "")


def _device_seconds(run: Callable[[], object], repeats: int = 10) -> float:
    """The device's time for one run, after a few runs that are not timed."""
    import cupy

    for _ in range(5):
        run()
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(start, end) / repeats / 1e3


PRODUCTS = {
    "polynet": """
import cupy, time
from polynet import get_backend
x = cupy.random.default_rng(0).standard_normal((N, N), dtype=cupy.float32)
wait = cupy.cuda.Device().synchronize
def product(precision):
    xp = get_backend("cupy").with_precision(precision).xp
    return lambda: xp.matmul(x, x)
""",
    "torch": """
import torch, time
x = torch.randn((N, N), device="cuda")
wait = torch.cuda.synchronize
def product(precision):
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    to = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return lambda: torch.matmul(x.to(to), x.to(to))
""",
}
TIMED = """
for precision in PRECISIONS:
    f = product(precision)
    for _ in range(5): f()
    wait()
    start = time.perf_counter()
    for _ in range(20): f()
    wait()
    print(precision, (time.perf_counter() - start) / 20)
"""


def _seconds_of_products(who: str) -> dict[str, float]:
    if not find_spec(MODULES.get(who, "torch")):
        return {}
    program = f"N, PRECISIONS = {WIDTH}, {tuple(PRECISIONS)}\n{PRODUCTS[who]}{TIMED}"
    done = _python("-c", program, limit=60)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {line[0]: float(line[1]) for line in lines if line and line[0] in PRECISIONS}


PARTS = (
    "checks", "agreement", "resume", "suite", "examples",
    "optimizer", "product", "choices", "steps",
)  # fmt: skip
NAMED_ONLY = ("sanitizer",)


def gpu() -> str:
    """A description of the device; the program ends if there is none."""
    status = registry.status("cupy")
    if not status.available:
        print(f"cupy: {status.state}: {status.reason}")
        sys.exit(2)
    import cupy

    found = cupy.cuda.runtime.getDeviceProperties(0)
    versions = cupy.cuda.runtime.driverGetVersion(), cupy.cuda.runtime.runtimeGetVersion()
    return f"{found['name'].decode()}, CUDA driver {versions[0]}, runtime {versions[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    listed: Callable[[str], Sequence[str]] = lambda text: text.split(",")
    parser.add_argument("--parts", type=listed, default=list(PARTS))
    parser.add_argument("--backends", type=listed, default=["cupy", "torch"])
    parser.add_argument(
        "--networks",
        type=lambda text: text.split(";"),
        default=[""],
        help="only those with one of these in their name",
    )
    parser.add_argument(
        "--candidates", type=lambda text: text.split(";"), default=list(CANDIDATES),
        help=f"those of {'; '.join(CANDIDATES)}",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not set(options.parts) <= {*PARTS, *NAMED_ONLY} or not set(options.candidates) <= set(
        CANDIDATES
    ):
        parser.error(f"parts are {(*PARTS, *NAMED_ONLY)}, candidates {list(CANDIDATES)}")
    device, program = gpu(), Program(options)
    if not program.backends:
        parser.error(f"none of {options.backends} can be used")
    packages = ["polynet-array", "numpy", *_distributions(), "torch", "jax", "optax"]
    parts = [f"# polynet on a GPU\n\n{environment(packages)}- device: {device}\n"]
    for part in (*PARTS, *NAMED_ONLY):
        if part in options.parts:
            began = time.perf_counter()
            parts.append("")
            told = getattr(program, part)()
            for text in [told] if isinstance(told, str) else told:
                parts[-1] = f"{text}\nTaken: {time.perf_counter() - began:.0f} s.\n"
                # written now, so that it stays if a later part fails
                options.out.write_text("\n".join(parts), encoding="utf-8")
                print(parts[-1], flush=True)
    if any("FAILED" in part for part in parts):
        sys.exit(1)


def _distributions() -> list[str]:
    """The distributions that brought CuPy and cuBLAS."""
    from importlib import metadata

    names = {str(d.metadata["Name"]) for d in metadata.distributions()}
    return sorted(n for n in names if n.startswith(("cupy", "nvidia-cublas")))


if __name__ == "__main__":
    main()

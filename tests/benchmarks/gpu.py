"""polynet on a GPU: first checks of what must hold, then its speed beside PyTorch's and JAX's.

    python tests/benchmarks/gpu.py [--parts checks,agreement,…] [--seconds 570]
        [--backends cupy,torch] [--networks "LeNet;ResNet"] [--candidates "polynet;PyTorch"]
        [--out gpu.md]

Parts in which nothing is timed run at the same time: `suite`, the conformance suite, and every
activation, loss and optimizer in a captured step; `checks`, the first checks, in order;
`agreement`, 100 steps, captured, in a loop, and on NumPy; `sanitizer`, the kernels under NVIDIA's
compute-sanitizer; `resume`, runs that go on from NumPy to the GPU, and back; `examples`, the
examples as they are. Then come, in turn: `steps`, training steps beside PyTorch (eager, in a CUDA
graph, compiled) and `jax.jit`; `convolutions`, the two ways to compute them; `optimizer`, Adam's
bytes per second beside those of a copy; `product`, a large matrix product beside PyTorch's; and
`choices`, which algorithms products get.

Each part is a process of its own. The file holds what is known so far whenever the program is
ended. Parts for which `--seconds` leaves no time are named in it. Without a GPU the program says
so, and exits with 2.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import gpu_steps
from gpu_checks import CHECKS, SIZES, agreement, outcome, resume
from gpu_peers import CANDIDATES, MODULES, PRECISIONS, USUAL
from measure import environment, table
from parts import Part, run

from polynet import get_backend, optim, use_backend
from polynet.backend import registry

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "examples"
RESULTS = Path("gpu.md")
CAPTURED = str(HERE.parent / "test_captured_parts.py")
PYTEST = ["-m", "pytest", "-v", "-rfE", "-p", "no:benchmark"]  # that plug-in warns beside xdist
PYTEST += ["-n", "6"] if find_spec("xdist") else []
ALONE = {"OMP_NUM_THREADS": "1"}
"""The environment of programs that run together: with more threads than processors they took twice
as long."""
PARAMETERS = 50_000_000
WIDTH = 8192


class Program:
    """The parts, with the settings of the command line."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._until = time.monotonic() + options.seconds
        self.backends = [b for b in options.backends if registry.status(b).available]
        self.networks = options.networks
        self.candidates = [c for c in options.candidates if find_spec(MODULES.get(c, "torch"))]

    def left(self, most: float = math.inf) -> float:
        """The seconds, at most `most`, that a program may take, so that its answer is told."""
        return max(1.0, min(most, self._until - time.monotonic() - 5))

    # What must hold

    def checks(self) -> Iterator[str]:
        rows = []
        for name, check in CHECKS.items():
            rows.append([name, outcome(check)])
            yield "## First checks\n\n" + table(["check", "outcome"], rows)

    def agreement(self) -> Iterator[str]:
        header = ["backend", "network", "dtype", "dropout", "captured beside the loop, and NumPy"]
        rows = []
        for job in product(self.backends, SIZES, ("float64", "float32"), (0.0, 0.3)):
            rows.append([*map(str, job), outcome(agreement, *job)])
            yield "## 100 steps of Adam, in launches of 16 and of one\n\n" + table(header, rows)

    def resume(self) -> Iterator[str]:
        header, rows = ["begun on", "then on", "farthest"], []
        for pair in [p for b in self.backends for p in (("numpy", b), (b, "numpy"))]:
            rows.append([*pair, outcome(resume, *pair)])
            yield "## Runs continued on another backend\n\n" + table(header, rows)

    def suite(self) -> str:
        """Run the suites together: nothing is timed, and most of the time goes to compiling."""
        runs = []
        for backend in self.backends:
            suite = ["--pyargs", "polynet.testing", "--polynet-backend", backend]
            runs += [(backend, "conformance", suite)]
            runs += [(backend, "captured", [CAPTURED, "-k", backend])]
        with ThreadPoolExecutor(len(runs)) as pool:
            limit = self.left()
            done = list(pool.map(lambda run: _python(*PYTEST, *run[2], limit=limit, **ALONE), runs))
        rows = []
        for (backend, what, _), answer in zip(runs, done, strict=True):
            said = answer.stdout.strip().splitlines() or [answer.stderr[-500:]]
            failed = f"FAILED, exit status {answer.returncode}: " if answer.returncode else ""
            rows.append([backend, what, " ".join(f"{failed}{said[-1]}".strip("= ").split())])
            summed = [line for line in said if line.startswith(("FAILED", "ERROR"))]
            so_far = [line for line in said if re.search(r"\b(FAILED|ERROR)\b", line)]
            rows += [[backend, what, line] for line in summed or so_far]
        header = ["backend", "suite", "outcome"]
        return "## The conformance suite, and captured steps\n\n" + table(header, rows)

    def examples(self) -> str:
        """Run the examples that take a backend, as they are, and all at the same time."""
        runs = [(b, e) for b in self.backends for e in sorted(EXAMPLES.glob("*.py"))]
        runs = [(b, e) for b, e in runs if '"--backend"' in e.read_text(encoding="utf-8")]
        limit = self.left()

        def run(backend: str, example: Path) -> subprocess.CompletedProcess[str]:
            with tempfile.TemporaryDirectory() as folder:
                given = ("--backend", backend, "--out", folder)
                return _python(str(example), *given, limit=limit, MPLBACKEND="agg", **ALONE)

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
        found = f"{os.environ.get('PATH', '')}:/usr/local/cuda/bin"
        tool = shutil.which("compute-sanitizer", path=found)
        if tool is None:
            return "## compute-sanitizer\n\nIt is not installed.\n"
        suite = ["--pyargs", "polynet.testing", "--polynet-backend", "cupy"]
        command = [tool, "--target-processes", "all", "--error-exitcode", "9", sys.executable]
        command += [*PYTEST, *suite, "--polynet-level", "kernels"]
        done = _run(command, limit=self.left(), **ALONE)
        said = [s for s in done.stdout.splitlines() if re.search(r"\d passed|ERROR SUMMARY", s)]
        failed = (
            f"FAILED, exit status {done.returncode}: {done.stdout[-1500:]} {done.stderr[-500:]}"
        )
        said += [failed] if done.returncode else []
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

    def choices(self) -> Iterator[str]:
        """Yield the tables of all precisions so far."""
        said = ""
        for precision in PRECISIONS:
            said += self._said("gpu_products.py", precision)
            yield said

    def convolutions(self) -> str:
        return self._said("gpu_convolutions.py")

    def _said(self, program: str, *settings: str) -> str:
        """What a program in this folder prints."""
        done = _python(str(HERE / program), *settings, limit=self.left(90))
        failed = f"\nFAILED: {done.stderr[-2000:]}\n" if done.returncode else ""
        return f"{done.stdout}{failed}\n"

    def product(self) -> str:
        limit = self.left(60)
        ours, theirs = (_seconds_of_products(who, limit) for who in ("polynet", "torch"))
        rows = []
        for precision in PRECISIONS:
            both = [seconds.get(precision) for seconds in (ours, theirs)]
            rates = [f"{2 * WIDTH**3 / s / 1e12:.1f}" if s else "FAILED" for s in both]
            rows.append([precision, *rates, f"{both[1] / both[0]:.2f}" if all(both) else "–"])
        header = ["precision", "polynet, TFLOP/s", "PyTorch, TFLOP/s", "of PyTorch's"]
        return f"## A product of {WIDTH}×{WIDTH} matrices\n\n" + table(header, rows)

    def steps(self) -> Iterator[str]:
        return gpu_steps.tables(self.networks, self.candidates)


def _python(*args: str, limit: float, **environment: str) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable, *args], limit, **environment)


def _run(
    command: Sequence[str], limit: float, **environment: str
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=limit, check=False,
            env=os.environ | environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        out, err = (
            said.decode(errors="replace") if isinstance(said, bytes) else said or ""
            for said in (late.stdout, late.stderr)
        )
        return subprocess.CompletedProcess(command, 124, f"{out}\nnot done in {limit:.0f} s", err)


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


def _seconds_of_products(who: str, limit: float) -> dict[str, float]:
    if not find_spec(MODULES.get(who, "torch")):
        return {}
    program = f"N, PRECISIONS = {WIDTH}, {tuple(PRECISIONS)}\n{PRODUCTS[who]}{TIMED}"
    done = _python("-c", program, limit=limit)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {line[0]: float(line[1]) for line in lines if line and line[0] in PRECISIONS}


TOGETHER = ("suite", "checks", "agreement", "sanitizer", "resume", "examples")
"""Parts that time nothing."""
PARTS = (*TOGETHER, "steps", "convolutions", "optimizer", "product", "choices")


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
    options = _options()
    device, program = gpu(), Program(options)
    if not program.backends:
        sys.exit(f"none of {options.backends} can be used")
    packages = ["polynet-array", "numpy", *_distributions(), "torch", "jax", "optax"]
    header = f"# polynet on a GPU\n\n{environment(packages)}- device: {device}\n"

    def write(texts: Sequence[str]) -> None:
        options.out.write_text("\n".join((header, *texts)), encoding="utf-8")

    if len(options.parts) == 1:
        said = _alone(program, options.parts[0], write)
    else:
        with tempfile.TemporaryDirectory() as folder:
            parts = [_part(name, Path(folder, f"{name}.md")) for name in options.parts]
            said = "".join(run(parts, TOGETHER, options.seconds, write))
    if "FAILED" in said:
        sys.exit(1)


def _alone(program: Program, name: str, write: Callable[[Sequence[str]], None]) -> str:
    """Run a part in this process, writing what it says as it says it; return the last of that."""
    began, said = time.perf_counter(), f"## {name}\n"
    try:
        told = getattr(program, name)()
        for text in [told] if isinstance(told, str) else told:
            said = f"{text}\nTaken: {time.perf_counter() - began:.0f} s.\n"
            write([said])
    except Exception as error:
        traceback.print_exc()
        said += f"\nFAILED: {type(error).__name__}: {error}\n"
        write([said])
    print(said, flush=True)
    return said


def _part(name: str, file: Path) -> Part:
    """This program, with the same settings, for one part only."""

    def command(seconds: float, out: Path) -> list[str]:
        given = [sys.executable, *sys.argv, "--parts", name]  # of two such options the last counts
        return [*given, "--seconds", f"{seconds:.0f}", "--out", str(out)]

    return Part(name, command, file)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])

    def listed(by: str, among: Sequence[str] | None = None) -> Callable[[str], list[str]]:
        def read(text: str) -> list[str]:
            names = text.split(by)
            if among and not set(names) <= set(among):
                raise argparse.ArgumentTypeError(f"got {text!r}; there are {by.join(among)}")
            return names

        return read

    parser.add_argument("--parts", type=listed(",", PARTS), default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=570.0, help="for all parts")
    parser.add_argument("--backends", type=listed(","), default=["cupy", "torch"])
    parser.add_argument(
        "--networks", type=listed(";"), default=[""],
        help="only those with one of these in their name",
    )  # fmt: skip
    parser.add_argument(
        "--candidates", type=listed(";", list(CANDIDATES)), default=list(USUAL),
        help=f"those of {'; '.join(CANDIDATES)}",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def _distributions() -> list[str]:
    """The distributions that brought CuPy and cuBLAS."""
    from importlib import metadata

    names = {str(d.metadata["Name"]) for d in metadata.distributions()}
    return sorted(n for n in names if n.startswith(("cupy", "nvidia-cublas")))


if __name__ == "__main__":
    main()

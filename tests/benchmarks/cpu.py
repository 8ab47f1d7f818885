"""Training on a CPU: polynet beside PyTorch, JAX, scikit-learn and the bare matrix products.

    python tests/benchmarks/cpu.py [--quick] [--parts steps,fit,memory,growth] [--networks 784]
        [--threads 1,2] [--backends numpy] [--out tests/benchmarks/results/cpu.md]

`steps`: a training step, as `Trainer` repeats it; `fit`: a whole fit on the digits; `memory`: the
memory of steps; `growth`: time by batch, width, depth and parameters. Each candidate runs in a
process of its own, and they run in turn. If their losses differ, the program ends before anything
is timed. `--backends jax,torch` times polynet on these backends, beside the same step written by
hand in JAX and PyTorch.

Unset OPENBLAS_CORETYPE before: with it NumPy's matrix products may be made for an older processor,
and take twice the time. The results say for which one they were made.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

from candidates import BATCH, EPOCHS, FITS, HIDDEN
from cpu_bench import CpuBench, parameters
from cpu_bench import environment as of_threads
from measure import environment, paired_ratio, publish, table
from networks import NETWORKS
from workers import Seconds, Worker, in_turn

AGREEMENT = 1e-4  # relative, of losses in float32 over the first pass
RESULTS = Path(__file__).parent / "results" / "cpu.md"

OURS = {
    "numpy": ["polynet, Numba", "polynet, NumPy"],
    "torch": ["polynet on torch"],
    "jax": ["polynet on jax", "polynet on jax, a call a step"],
}
FUSED, COMPILED, PRODUCTS = "PyTorch, fused Adam", "torch.compile, fused Adam", "matrix products"
PEERS = {
    "numpy": ["PyTorch", FUSED, COMPILED, "scikit-learn", "JAX", PRODUCTS],
    "torch": ["PyTorch", FUSED],
    "jax": ["JAX", "JAX, scan"],
}
SERIES = {
    "batch": [f"256-256-256-10, batch {n}" for n in (8, 32, 128, 512, 2048)],
    "width": [f"256-{n}-{n}-10, batch 64" for n in (32, 128, 512, 2048)],
    "depth": [f"128-{'128-' * n}10, batch 64" for n in (1, 2, 4, 8, 16, 32)],
}


def present(names: Sequence[str]) -> list[str]:
    """The candidates that this machine can run."""
    absent = set() if find_spec("numba") else {"polynet, Numba"}
    absent |= set() if any(map(shutil.which, ("c++", "g++", "clang++"))) else {COMPILED}
    return [name for name in dict.fromkeys(names) if name not in absent]


def started(name: str, threads: int) -> Worker:
    return Worker(name, partial(CpuBench, threads=threads), of_threads(threads))


def micros(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1e6:.0f}"


def ratio(ours: Sequence[float], peer: Sequence[float] | None) -> str:
    if peer is None:
        return "–"
    middle, low, high = paired_ratio(ours, peer)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


class Program:
    """The parts, with the settings of the command line."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.repeats = 6 if options.quick else options.repeats
        self.seconds = 0.0 if options.quick else 0.06
        self.threads = options.threads
        self.backends = options.backends
        self.networks = [name for name in NETWORKS if options.networks in name]
        self.apart = 0.0

    # A step

    def steps(self) -> str:
        names = present([c for b in self.backends for c in chain(OURS[b], PEERS[b])])
        found: dict[tuple[str, int], Seconds] = {}
        costs: list[dict[str, float]] = []
        for threads in self.threads:
            with ExitStack() as stack:
                workers = [stack.enter_context(started(name, threads)) for name in names]
                for network in self.networks:
                    found[network, threads] = self._timed(network, workers)
                costs += [w.ask("startup") for w in workers if w.name == "polynet, Numba"]
        found = dict(sorted(found.items(), key=lambda item: self.networks.index(item[0][0])))
        rows = [
            [*map(str, key), *(micros(times[n]) if n in times else "–" for n in names)]
            for key, times in found.items()
        ]
        parts = ["## A step: polynet's time over the other's (95 % interval)\n"]
        for backend in self.backends:
            peers = present(PEERS[backend])
            header = ["network", "threads", "polynet", *peers, "best peer"]
            parts.append(table(header, list(self._ratios(found, backend, peers))))
        for cost in costs[:1]:
            begun = cost.pop("import")
            parts.append(
                f"What Numba cost the process once: {begun:.2f} s to import it, and "
                f"{sum(cost.values()):.2f} s to load {len(cost)} loops, or compile them.\n"
            )
        if self.apart:
            parts.append(f"The losses of the first pass agree within {self.apart:.0e}.\n")
        parts += ["## A step: microseconds\n", table(["network", "threads", *names], rows)]
        return "\n".join(parts)

    def _timed(self, network: str, workers: Sequence[Worker]) -> Seconds:
        """Seconds per step in each repeat, for the candidates that have such a network.

        They must all take the same step.
        """
        losses = {}
        for worker in workers:
            if answer := worker.ask("prepare", network):
                losses[worker] = answer[0]
        self._check(network, losses)
        print(f"{network}: prepared", file=sys.stderr)
        return in_turn(losses, self.repeats, self.seconds)

    def _check(self, network: str, losses: dict[Worker, list[float] | None]) -> None:
        """End the program if losses differ from the first candidate's.

        For scikit-learn only the first step is compared: its Adam adds the same ε at another place,
        and for two classes it trains one output only.
        """
        expected = next(iter(losses.values()))
        assert expected is not None
        for worker, found in losses.items():
            if found is None:
                continue
            count = 1 if worker.name == "scikit-learn" else len(expected)
            pairs = list(zip(found, expected, strict=True))[:count]
            apart = max(abs(a / b - 1) for a, b in pairs)
            if not apart <= AGREEMENT:
                raise SystemExit(
                    f"{network}: losses of {worker.name} differ by {apart:.1e} from "
                    f"{next(iter(losses)).name}'s; they are not the same step"
                )
            self.apart = max(self.apart, apart)

    def _ratios(
        self, found: dict[tuple[str, int], Seconds], backend: str, peers: Sequence[str]
    ) -> Iterator[list[str]]:
        for (network, threads), times in found.items():
            rivals = [name for name in peers if name in times and name != PRODUCTS]
            best = min(rivals, key=lambda name: statistics.median(times[name]))
            for ours in present(OURS[backend]):
                columns = [ratio(times[ours], times.get(peer)) for peer in peers]
                last = f"{best}: {ratio(times[ours], times[best])}"
                yield [network, str(threads), ours.removeprefix("polynet, "), *columns, last]

    # A whole fit

    def fit(self) -> str:
        names = present(list(FITS))
        rows = []
        for threads in self.threads:
            with ExitStack() as stack:
                workers = [stack.enter_context(started(name, threads)) for name in names]
                seconds: Seconds = {name: [] for name in names}
                scores: Seconds = {name: [] for name in names}
                for again in range(self.repeats + 1):
                    for worker in workers:
                        taken, score = worker.ask("fit")
                        if again:  # the first one imports and compiles
                            seconds[worker.name].append(taken)
                            scores[worker.name].append(score)
            for name in names:
                middle, score = (statistics.median(s[name]) for s in (seconds, scores))
                columns = [ratio(seconds[o], seconds[name]) for o in present(OURS["numpy"])]
                rows.append([name, str(threads), f"{middle:.3f}", f"{score:.3f}", *columns])
        ours = [f"{name} over it" for name in present(OURS["numpy"])]
        sizes = "-".join(map(str, (64, *HIDDEN, 10)))
        return (
            f"## A whole fit: the digits, {sizes}, {EPOCHS} epochs, batch {BATCH}, Adam\n\n"
            + table(["who", "threads", "seconds", "accuracy in training", *ours], rows)
        )

    # Memory

    def memory(self) -> str:
        names = present(["polynet, Numba", "polynet, NumPy", "PyTorch", FUSED])
        rows = []
        for network in self.networks:
            with ExitStack() as stack:
                workers = [stack.enter_context(started(name, 1)) for name in names]
                for worker in workers:  # all at once: nothing is timed
                    worker.start("memory", network)
                answers = [worker.answer() for worker in workers]
            for i, what in enumerate(("a step adds", "in all")):
                mib = [answer[i] / 2**20 for answer in answers]
                columns = [f"{value:.1f}" for value in mib]
                theirs = mib[names.index("PyTorch")]
                rows.append([network, what, *columns, f"{mib[0] - theirs:+.1f}"])
        return (
            "## Memory at its peak, in MiB\n\n"
            '"A step adds": beyond the memory that is in use between steps. "In all": beyond that '
            "of a process that has loaded its libraries. Anonymous memory, one thread.\n\n"
            + table(["network", "what", *names, f"{names[0]} less PyTorch"], rows)
        )

    # Growth

    def growth(self) -> str:
        names = present(["polynet, Numba", "polynet, NumPy", "PyTorch", FUSED])
        rows = []
        with ExitStack() as stack:
            workers = [stack.enter_context(started(name, self.threads[0])) for name in names]
            for axis, networks in SERIES.items():
                before: list[float] | None = None
                for network in networks:
                    times = self._timed(network, workers)
                    now = [statistics.median(times[name]) * 1e6 for name in names]
                    growth = [f" ×{b / a:.1f}" for a, b in zip(before or (), now, strict=False)]
                    columns = [
                        f"{value:.0f}{more}"
                        for value, more in zip(now, growth or [""] * len(now), strict=True)
                    ]
                    beside = ratio(times[names[0]], times[FUSED])
                    rows.append([axis, network, str(parameters(network)), *columns, beside])
                    before = now
        return (
            f"## Growth: microseconds a step, {self.threads[0]} thread(s), and the factor over the "
            "line above\n\n"
            + table(
                ["by", "network", "parameters", *names, f"{names[0]} over {FUSED}"],
                rows,
            )
        )


PARTS = ("steps", "fit", "memory", "growth")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    listed = lambda text: text.split(",")
    parser.add_argument("--parts", type=listed, default=list(PARTS))
    parser.add_argument("--networks", default="", help="only those with this in their name")
    parser.add_argument(
        "--threads", type=lambda text: list(map(int, text.split(","))), default=[1, 2]
    )
    parser.add_argument("--backends", type=listed, default=["numpy"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a trial: short runs, few repeats")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    program = Program(options)
    known = set(options.parts) <= set(PARTS) and set(options.backends) <= set(OURS)
    if not known or not program.networks or options.repeats < 6:
        parser.error(
            f"there are parts {PARTS}, backends {list(OURS)}, networks {list(NETWORKS)}, and 6 "
            "repeats or more"
        )
    start = time.perf_counter()
    parts = [getattr(program, part)() for part in PARTS if part in options.parts]
    packages = ["polynet-array", "numpy", "numba", "torch", "scikit-learn", "jax", "optax"]
    head = (
        "# Training on a CPU, beside others\n\n"
        + environment(packages)
        + f"- {program.repeats} repeats in turn, each of {program.seconds} s or more after "
        "a warm-up, a process for each candidate; medians, of ratios within a repeat\n"
        "- float32, cross entropy, Adam; JAX: jitted, a call a step, its ResNet without running "
        "statistics\n"
        + (
            "- A TRIAL of the program, not a measurement: short runs, few repeats\n"
            if options.quick
            else ""
        )
        + f"- measured in {time.perf_counter() - start:.0f} s\n"
    )
    publish("\n".join([head, *parts]), options.out)


if __name__ == "__main__":
    main()

"""What the benchmarks share: interleaved timing, and a description of the machine and versions."""

from __future__ import annotations

import datetime
import gc
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path


def interleaved(
    candidates: Mapping[str, Callable[[], object]], repeats: int, number: int = 1
) -> dict[str, list[float]]:
    """Seconds per run of each candidate, in each repeat.

    In a repeat all candidates run in turn, so that drift of the machine affects them alike. Before
    each one, garbage is collected and one run is not timed, so that no candidate pays for what
    another left in memory or in the processor's caches. A repeat takes `number` runs.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            gc.collect()
            run()
            start = time.perf_counter()
            for _ in range(number):
                run()
            seconds[name].append((time.perf_counter() - start) / number)
    return seconds


def median_ratio(seconds: Mapping[str, Sequence[float]], name: str, other: str) -> float:
    """The median over all repeats of the time of `name` divided by that of `other`."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[other], strict=True))


def paired_ratio(ours: Sequence[float], peer: Sequence[float]) -> tuple[float, float, float]:
    """The median of the ratios in each repeat, and the ends of its 95% confidence interval.

    The ends are two of the ratios themselves: in sorted order, the k-th from either end. The true
    median lies outside only if fewer than k ratios fall on one side of it. Each ratio falls on
    either side with probability 1/2, as a coin does, and k is chosen by that.
    """
    ratios = sorted(a / b for a, b in zip(ours, peer, strict=True))
    n, k = len(ratios), 0
    while 2 * sum(math.comb(n, i) for i in range(k + 1)) <= 0.05 * 2**n:
        k += 1
    if not k:
        raise ValueError(f"{n} repeats have no 95% interval; expected 6 or more")
    return statistics.median(ratios), ratios[k - 1], ratios[n - k]


def environment(packages: Sequence[str]) -> str:
    """The date, the hardware and the versions, as lines of Markdown."""
    versions = ", ".join(f"{p} {_version(p)}" for p in packages)
    return (
        f"- date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d}\n"
        f"- hardware: {_processor()}, {os.cpu_count()} cores (shared, noisy)\n"
        f"- versions: Python {platform.python_version()}, {versions}\n"
        f"- NumPy's matrix products: {_blas()}\n"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def publish(text: str, out: Path | None) -> None:
    """Print a report, and write it to a file if one is given."""
    print(text)
    if out is not None:
        out.write_text(text, encoding="utf-8")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(absent)"


def _blas() -> str:
    """The library that multiplies NumPy's matrices, and the processor that its kernels are for."""
    import numpy as np  # noqa: F401 (which loads the library)
    from threadpoolctl import threadpool_info

    found = [i for i in threadpool_info() if i["user_api"] == "blas" and "numpy" in i["filepath"]]
    kernels = [f"{i['internal_api']} {i['version']} for {i.get('architecture')}" for i in found]
    return ", ".join(kernels) or "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

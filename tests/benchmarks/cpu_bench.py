"""A candidate on a CPU, in a process of its own, with a number of threads."""

from __future__ import annotations

import ctypes
import gc
import time
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from candidates import CANDIDATES, FITS, Candidate, Task, digits, no_numba, numba_at_once
from networks import dense, network
from workers import Bench

FIRST = "8-8-2, batch 4"
"""A small network, with which a library does the work that it does only once."""


def environment(threads: int) -> dict[str, str]:
    """Environment variables that the libraries read when they are imported."""
    names = ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB_MAXIMUM")
    return {
        **{f"{name}_NUM_THREADS": str(threads) for name in names},
        "NPROC": str(threads),  # XLA's own pool has a thread for each
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()}",
        "JAX_PLATFORMS": "cpu",
    }


class CpuBench(Bench):
    """A candidate that may use `threads` threads."""

    def __init__(self, name: str, threads: int) -> None:
        super().__init__(name)
        if "torch" in name.lower():
            import torch

            torch.set_num_threads(threads)
        self._costs = _numba_costs() if name == "polynet, Numba" else {}

    def build(self, *what: str) -> tuple[Candidate | None, int]:
        task = Task(network(*what))
        return CANDIDATES[self.name](task), task.network.steps

    def memory(self, name: str) -> tuple[int, int] | None:
        """Bytes at the peak of a pass: beyond the memory in use between steps, and in all.

        Anonymous memory, after two passes that are not measured. "In all" is beyond the memory in
        use before this network was made.
        """
        for each in (FIRST, name):
            before = _resident()
            if self.prepare(each) is None:
                return None
        self._passes(1)
        gc.collect()
        rests = _resident()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # reset the peak
        self._passes(1)
        peak = _peak()
        return peak - rests, peak - before

    def fit(self) -> tuple[float, float]:
        """Seconds, and the share of the digits that it classifies right afterwards."""
        if self.name == "polynet, Numba":
            numba_at_once()
        elif self.name == "polynet, NumPy":
            no_numba()
        x, y = digits()
        gc.collect()
        start = time.perf_counter()
        found = FITS[self.name](x, y)
        return time.perf_counter() - start, float((found == y).mean())

    def startup(self) -> dict[str, float]:
        """The seconds that Numba cost this process once, by what they were spent on."""
        return self._costs


def _numba_costs() -> dict[str, float]:
    """Seconds to import Numba, and to compile each loop or load it from disk.

    The dict fills as these things happen.
    """
    from polynet_numpy import compiled

    costs: dict[str, float] = {}

    def timed(function: Any) -> Any:
        @cache
        def call(*args: Any) -> Any:
            start = time.perf_counter()
            found = function(*args)
            costs[repr(args) if args else "import"] = time.perf_counter() - start
            return found

        return call

    compiled._numba = timed(compiled._numba)
    compiled._compiled = timed(compiled._compiled)
    return costs


def _status(*names: str) -> list[int]:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    table = dict(line.split(":", 1) for line in lines)
    return [1024 * int(table[name].split()[0]) for name in names]


def _resident() -> int:
    """Anonymous memory, without the free memory that the allocator keeps for later."""
    ctypes.CDLL(None).malloc_trim(0)
    return _status("RssAnon")[0]


def _peak() -> int:
    peak, *files = _status("VmHWM", "RssFile", "RssShmem")
    return peak - sum(files)


def parameters(name: str) -> int:
    """How many parameters a dense network has."""
    widths = dense(name).widths
    return sum((i + 1) * o for i, o in pairwise(widths))

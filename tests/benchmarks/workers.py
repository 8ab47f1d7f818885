"""A process for each candidate, with its number of threads: the libraries do not meet.

The parent asks them in turn, so that drift of the machine meets all alike; the time is taken where
the work is done.
"""

from __future__ import annotations

import ctypes
import gc
import math
import multiprocessing
import os
import time
import traceback
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np
from candidates import (
    CANDIDATES,
    FITS,
    Candidate,
    Task,
    digits,
    no_numba,
    numba_at_once,
)
from networks import dense, network

FIRST = "8-8-2, batch 4"
"""A network that wakes what a library does once."""


def environment(threads: int) -> dict[str, str]:
    """What the libraries read when they are imported."""
    names = ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB_MAXIMUM")
    return {
        **{f"{name}_NUM_THREADS": str(threads) for name in names},
        "NPROC": str(threads),  # XLA's own pool has a thread for each
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()}",
        "JAX_PLATFORMS": "cpu",
    }


class Bench:
    """One candidate, in its own process."""

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self.candidate: Candidate | None = None
        self.passes = self.steps = 1
        if "torch" in name.lower():
            import torch

            torch.set_num_threads(threads)

    def prepare(self, name: str) -> tuple[list[float] | None, float] | None:
        """The losses of the first pass, and what it took; None where it has no such network."""
        self.candidate, self.passes = None, 1
        gc.collect()
        start = time.perf_counter()
        task = Task(network(name))
        self.steps = task.network.steps
        self.candidate = CANDIDATES[self.name](task)
        if self.candidate is None:
            return None
        losses = self.candidate.launch()
        self.candidate.wait()
        return None if losses is None else np.asarray(losses).tolist(), time.perf_counter() - start

    def run(self, seconds: float) -> float:
        """Seconds a step, of a run that lasts about so long, after a pass that is not timed."""
        gc.collect()
        self._passes(1)
        taken = self._passes(self.passes)
        needed = math.ceil(seconds / (taken / self.passes))
        if 2 * self.passes < needed:  # the first time
            self.passes = needed
            taken = self._passes(needed)
        return taken / (self.passes * self.steps)

    def _passes(self, count: int) -> float:
        assert self.candidate is not None
        start = time.perf_counter()
        for _ in range(count):
            self.candidate.launch()
        self.candidate.wait()
        return time.perf_counter() - start

    def memory(self, name: str) -> tuple[int, int] | None:
        """Bytes that steps add at their peak to what rests between them, and to nothing.

        Of anonymous memory, after two passes that are not measured.
        """
        for each in (FIRST, name):
            before = _resident()
            if self.prepare(each) is None:
                return None
        self._passes(1)
        gc.collect()
        rests = _resident()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
        self._passes(1)
        peak = _peak()
        return peak - rests, peak - before

    def fit(self) -> tuple[float, float]:
        """Seconds, and the share of the digits that it then knows."""
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
        """What Numba cost this process, once: seconds by what they were for."""
        from polynet_numpy import compiled

        return dict(compiled.seconds)


def _status(*names: str) -> list[int]:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    table = dict(line.split(":", 1) for line in lines)
    return [1024 * int(table[name].split()[0]) for name in names]


def _resident() -> int:
    """Without what the allocator has at hand: that is free, and whose it was is chance."""
    ctypes.CDLL(None).malloc_trim(0)
    return _status("RssAnon")[0]


def _peak() -> int:
    peak, *files = _status("VmHWM", "RssFile", "RssShmem")
    return peak - sum(files)


def serve(pipe: Connection, name: str, threads: int) -> None:
    """Answer what the parent asks, until it hangs up."""
    bench = None
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        try:
            bench = bench or Bench(name, threads)
            pipe.send((getattr(bench, method)(*args), None))
        except Exception:
            pipe.send((None, traceback.format_exc()))


class Worker:
    """A candidate's process, as the parent sees it."""

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        before = dict(os.environ)
        os.environ.update(environment(threads))
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=serve, args=(theirs, name, threads), daemon=True)
        self._process.start()
        theirs.close()
        os.environ.clear()
        os.environ.update(before)

    def start(self, method: str, *args: Any) -> None:
        self._pipe.send((method, args))

    def answer(self) -> Any:
        result, error = self._pipe.recv()
        if error:
            raise SystemExit(f"{self.name}: {error}")
        return result

    def ask(self, method: str, *args: Any) -> Any:
        self.start(method, *args)
        return self.answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join()


def parameters(name: str) -> int:
    """How many numbers a dense network learns."""
    widths = dense(name).widths
    return sum((i + 1) * o for i, o in pairwise(widths))

"""A process for each candidate, so that their libraries do not affect each other.

The parent asks the processes in turn, so that drift of the machine affects all alike. Each process
times its own work.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.connection import Connection
from typing import Any, Self

from candidates import Candidate

Seconds = dict[str, list[float]]
"""For each candidate, the seconds of a step in each repeat."""


class Bench(ABC):
    """One candidate, in its own process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.candidate: Candidate | None = None
        self.passes = self.steps = 1

    @abstractmethod
    def build(self, *what: str) -> tuple[Candidate | None, int]:
        """The candidate for a network, or None if it has none such; and the steps of a pass."""

    def prepare(self, *what: str) -> tuple[list[float] | None, float] | None:
        """The losses of the first pass, and its seconds; None if there is no such network."""
        self.candidate, self.passes = None, 1
        gc.collect()
        start = time.perf_counter()
        self.candidate, self.steps = self.build(*what)
        if self.candidate is None:
            return None
        losses = self.candidate.launch()
        self.candidate.wait()
        taken = time.perf_counter() - start
        return None if losses is None else [float(loss) for loss in losses], taken

    def run(self, seconds: float) -> float:
        """Seconds per step, of a run of about `seconds`, after a pass that is not timed."""
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


def serve(pipe: Connection, bench: Callable[[str], Bench], name: str) -> None:
    """Answer the parent's requests until it closes the pipe."""
    made = None
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        try:
            made = made or bench(name)
            pipe.send((getattr(made, method)(*args), None))
        except Exception:
            pipe.send((None, traceback.format_exc()))


class NoAnswerError(Exception):
    """A candidate failed, with its traceback, or took too long."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name


class Worker:
    """A candidate's process, as the parent sees it."""

    def __init__(
        self, name: str, bench: Callable[[str], Bench], environment: Mapping[str, str]
    ) -> None:
        self.name = name
        before = dict(os.environ)
        os.environ.update(environment)  # what the libraries read when they are imported
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=serve, args=(theirs, bench, name))
        self._process.start()
        theirs.close()
        os.environ.clear()
        os.environ.update(before)

    def start(self, method: str, *args: Any) -> None:
        """Send a request, which `answer` then answers; NoAnswerError if the process has ended."""
        try:
            self._pipe.send((method, args))
        except OSError:
            raise NoAnswerError(self.name, "its process ended") from None

    def answer(self, within: float | None = None) -> Any:
        """The answer to the last request, or NoAnswerError.

        A process that takes longer than `within` seconds is ended.
        """
        if not self._pipe.poll(within):
            self.kill()
            raise NoAnswerError(self.name, f"no answer in {within:.0f} s")
        try:
            result, error = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            raise NoAnswerError(self.name, "its process ended") from None
        if error:
            raise NoAnswerError(self.name, error)
        return result

    def ask(self, method: str, *args: Any, within: float | None = None) -> Any:
        self.start(method, *args)
        return self.answer(within)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(10)
        self._process.kill()


def in_turn(
    workers: Iterable[Worker], repeats: int, seconds: float, within: float | None = None
) -> Seconds:
    """Seconds per step of each worker, in each repeat; the workers run in turn.

    A run takes about `seconds`. Raises NoAnswerError if a worker fails, or takes longer than
    `within` seconds.
    """
    found: Seconds = {worker.name: [] for worker in workers}
    for _ in range(repeats):
        for worker in workers:
            found[worker.name].append(worker.ask("run", seconds, within=within))
    return found

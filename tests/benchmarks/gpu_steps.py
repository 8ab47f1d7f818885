"""Training steps on a GPU, timed in turn, each candidate in a process of its own."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from gpu_peers import COMPILED, NETWORKS, PRECISIONS, GpuBench
from measure import paired_ratio, table
from workers import NoAnswerError, Seconds, Worker, in_turn

LIKE = {"float32": 1e-2, "tf32": 1e-2, "bfloat16": 5e-2}
"""How far the losses of two candidates may be apart, relative to their size."""
LIMIT, OTHERS = {**dict.fromkeys(COMPILED, 150.0), "JAX": 120.0}, 120.0
"""Seconds that a candidate may take to get ready for all networks: for each, half of what is left.
"""
REPEATS, SECONDS = 7, 0.1
"""How steps are timed: repeats, of which the interval needs six, and the seconds of each."""
AT_START = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.3"}
"""The environment of a candidate's process: JAX must leave memory to the others."""


def tables(networks: Sequence[str], candidates: Sequence[str]) -> Iterator[str]:
    """Yield the table after each network, so that a failure later on loses no results."""
    header = ["network", "precision", *candidates, "polynet / best peer", "its 95 %"]
    rows, race = [], Race(candidates)
    try:
        for name in (n for n in NETWORKS if any(part in n for part in networks)):
            race.draw(name)
            for precision in (p for p, only in PRECISIONS.items() if only in name):
                seconds = race.timed(list(race.ready(name, precision)))
                rows.append([name, precision, *_cells(seconds, candidates)])
                failed = "".join(f"\nFAILED: {note}\n" for note in race.notes)
                yield f"## Microseconds a step\n\n{table(header, rows)}{failed}"
    finally:
        race.end()


class Race:
    """Candidates, each in a process of its own, which is a new one after a failure."""

    def __init__(self, candidates: Sequence[str]) -> None:
        self.notes: list[str] = []
        self._left = {name: LIMIT.get(name, OTHERS) for name in candidates}
        self._workers: dict[str, Worker] = {}

    def draw(self, network: str) -> None:
        """Make the network's numbers, all candidates at once: only the host works here."""
        for name in self._left:
            if name not in self._workers:
                self._workers[name] = Worker(name, GpuBench, AT_START)
        self._all("wake")
        self._left = {name: self._left[name] for name in self._workers}
        self._all("draw", network)

    def _all(self, method: str, *args: str) -> None:
        for ask in (lambda w: w.start(method, *args), lambda w: w.answer()):
            for name, worker in list(self._workers.items()):
                try:
                    ask(worker)
                except NoAnswerError as error:
                    self._failed(name, error)

    def ready(self, *case: str) -> Iterator[Worker]:
        """The candidates that can take the steps, and whose losses agree within their precision.

        They get ready one after another, since some of them time algorithms on the device
        meanwhile.
        """
        expected: np.ndarray | None = None
        for name, worker in list(self._workers.items()):
            began = time.perf_counter()
            answer: Any = None
            try:
                answer = worker.ask("prepare", *case, within=self._left[name] / 2)
            except NoAnswerError as error:
                self._failed(name, f"{', '.join(case)}: {error}")
            taken = time.perf_counter() - began
            self._left[name] -= taken
            print(f"{case}: {name}: {taken:.1f} s", file=sys.stderr, flush=True)
            if answer is None:
                continue
            losses = np.asarray(answer[0])
            expected = losses if expected is None else expected
            apart = np.abs(losses / expected - 1).max()
            if apart <= LIKE[case[1]]:
                yield worker
            else:
                self._note(f"{', '.join(case)}: {name}: losses {apart:.0e} away")

    def timed(self, ready: list[Worker]) -> Seconds:
        """The seconds of steps of those that are ready, without one that fails meanwhile."""
        while ready:
            try:
                return in_turn(ready, REPEATS, SECONDS, within=60)
            except NoAnswerError as error:
                self._failed(error.name, error)
                ready = [w for w in ready if w.name != error.name]
        return {}

    def _failed(self, name: str, what: object) -> None:
        """Note what failed, and end the process: its device may be spoilt."""
        self._workers.pop(name).kill()
        self._note(str(what))

    def _note(self, what: str) -> None:
        print(f"FAILED: {what}", file=sys.stderr, flush=True)
        first, *rest = what.strip().splitlines()
        self.notes.append(f"{first} {rest[-1]}" if rest else first)

    def end(self) -> None:
        for worker in self._workers.values():
            worker.kill()


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

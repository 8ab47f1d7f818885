"""Training steps on a GPU, timed in turn, each candidate in a process of its own."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from gpu_peers import COMPILED, NETWORKS, PRECISIONS, GpuBench
from measure import paired_ratio, table
from workers import NoAnswerError, Seconds, Worker, in_turn

LIKE = {"float32": 1e-2, "tf32": 1e-2, "bfloat16": 5e-2}
"""How far the losses of two candidates may be apart, relative to their size."""
LIMIT, OTHERS = {**dict.fromkeys(COMPILED, 150.0), "JAX": 120.0}, 90.0
"""Seconds that a candidate may take to get ready for all networks."""
REPEATS, SECONDS = 7, 0.1
"""How steps are timed: repeats, of which the interval needs six, and the seconds of each."""
AT_START = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.3"}
"""The environment of a candidate's process: JAX must leave memory to the others."""


def tables(networks: Sequence[str], candidates: Sequence[str]) -> Iterator[str]:
    """Yield the table after each network, so that a failure later on loses no results."""
    left = {name: LIMIT.get(name, OTHERS) for name in candidates}
    header = ["network", "precision", *candidates, "polynet / best peer", "its 95 %"]
    rows, notes = [], Notes()
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(c, GpuBench, AT_START)) for c in candidates]
        workers = _all_at_once(workers, notes, "wake")
        for name in (n for n in NETWORKS if any(part in n for part in networks)):
            workers = _all_at_once(workers, notes, "draw", name)
            for precision in (p for p, only in PRECISIONS.items() if only in name):
                ready = list(_ready(workers, notes, (name, precision), left))
                seconds = _timed(ready, notes, f"{name}, {precision}")
                workers = [w for w in workers if w.alive]
                rows.append([name, precision, *_cells(seconds, candidates)])
                failed = "".join(f"\nFAILED: {note}\n" for note in notes)
                yield f"## Microseconds a step\n\n{table(header, rows)}{failed}"


class Notes(list[str]):
    """What failed, in a line each; all that is known of it is printed at once."""

    def add(self, what: object) -> None:
        print(f"FAILED: {what}", file=sys.stderr, flush=True)
        first, *rest = str(what).strip().splitlines()
        self.append(f"{first} {rest[-1]}" if rest else first)


def _all_at_once(workers: Sequence[Worker], notes: Notes, method: str, *args: str) -> list[Worker]:
    """Ask all workers for work that does not use the device; return those that answer."""
    started = [w for w in workers if _works(notes, partial(w.start, method, *args))]
    return [w for w in started if _works(notes, w.answer)]


def _works(notes: Notes, ask: Callable[[], object]) -> bool:
    """Whether a candidate answers."""
    try:
        ask()
    except NoAnswerError as error:
        notes.add(error)
        return False
    return True


def _timed(ready: list[Worker], notes: Notes, what: str) -> Seconds:
    """The seconds of steps of the candidates that are ready, without one that fails meanwhile."""
    while ready:
        try:
            return in_turn(ready, REPEATS, SECONDS, within=60)
        except NoAnswerError as error:
            notes.add(f"{what}: {error}")
            ready = [w for w in ready if w.name != error.name]
    return {}


def _ready(
    workers: Sequence[Worker], notes: Notes, case: tuple[str, str], left: dict[str, float]
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
            notes.add(f"{', '.join(case)}: {error}")
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
            notes.add(f"{', '.join(case)}: {worker.name}: losses {apart:.0e} away")


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

"""Losses that have not been read from the device yet, so that steps need not wait for them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np

from polynet.errors import NotFiniteError
from polynet.history import History


class Unread:
    """The losses of the latest calls, oldest first: for each call, a function that fetches them."""

    def __init__(self) -> None:
        self._calls: list[tuple[int, Callable[[], np.ndarray]]] = []

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, step: int, fetch: Callable[[], np.ndarray]) -> None:
        """Add the losses of one call, whose first step is number `step`, counted from 0."""
        self._calls.append((step, fetch))

    def clear(self) -> None:
        self._calls.clear()

    def read(self, history: History, epoch: int, *, keep: int = 0) -> None:
        """Fetch the losses of all calls but the last `keep`, up to the first that is not finite.

        The loss that is not finite stays unread, so every later `read` raises for it again. After
        an interruption, a call may be read twice; this does no harm, since each loss has its own
        position in the history.
        """
        while len(self._calls) > keep:
            first, fetch = self._calls[0]
            values = fetch()
            fine = list(itertools.takewhile(math.isfinite, values.tolist()))
            history.step_losses[first:] = fine
            if len(fine) < len(values):
                step = first + len(fine)
                self._calls[0] = step, partial(np.array, values[len(fine) :])
                raise NotFiniteError(
                    f"the loss is {values[len(fine)]} at step {step} (epoch {epoch}); the "
                    f"parameters are spoilt. {_advice(step)}",
                    step,
                )
            del self._calls[0]


def _advice(step: int) -> str:
    """Where to look for the cause of a loss that is not finite at `step`.

    Loss 0 is computed before any update, and loss 1 after the first.
    """
    if not step:
        return (
            "No step was taken before: look for what is not finite in the network or the loss, "
            "such as a logarithm of 0, or an index out of range"
        )
    if step == 1:
        return (
            "It was finite before the first step: look for a derivative that is not finite, such "
            "as that of a root at 0, or lower the learning rate"
        )
    return "Lower the learning rate, or look for extreme numbers in the data"

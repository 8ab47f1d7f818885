"""Consecutive batches stacked into one array, so that one call of the step can take them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from polynet.data.source import Batch
from polynet.tree import leaves, structure
from polynet.tree import map as tree_map

MOST_BYTES = 1 << 27
"""The most bytes of batches in one array: a step on large batches is worth a call of its own."""


def stacked(made: Iterable[Batch], together: int) -> Iterator[tuple[int, Batch]]:
    """Up to `together` consecutive batches of one shape in one array, after their number.

    There are fewer where they would have more bytes than `MOST_BYTES`. Batches are copied into the
    array, so that whoever made a batch may write the next one over it.
    """
    group: _Group | None = None
    for batch in made:
        if group is not None and not group.takes(batch):
            yield group.joined()
            group = None
        group = group or _Group(batch, together)
        group.add(batch)
        if group.count == group.room:
            yield group.joined()
            group = None
    if group is not None:
        yield group.joined()


class _Group:
    """Arrays with room for up to `together` batches of one shape, and the batches added so far."""

    def __init__(self, first: Batch, together: int) -> None:
        self.count = 0
        self.room = max(1, min(together, MOST_BYTES // sum(a.nbytes for a in leaves(first))))
        self._kind = self._kind_of(first)
        self._arrays = tree_map(lambda a: np.empty((self.room, *a.shape), a.dtype), first)

    @staticmethod
    def _kind_of(batch: Batch) -> tuple[Any, ...]:
        return structure(batch), *((a.shape, a.dtype) for a in leaves(batch))

    def takes(self, batch: Batch) -> bool:
        return self._kind_of(batch) == self._kind

    def add(self, batch: Batch) -> None:
        for array, a in zip(leaves(self._arrays), leaves(batch), strict=True):
            array[self.count] = a
        self.count += 1

    def joined(self) -> tuple[int, Batch]:
        """The number of batches, and the samples of all of them."""
        return self.count, tree_map(
            lambda a: a[: self.count].reshape(-1, *a.shape[2:]), self._arrays
        )

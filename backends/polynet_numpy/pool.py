"""Memory that captured steps reuse."""

from __future__ import annotations

import numpy as np

ALIGNED = 64
"""Bytes of a cache line; each array begins at the start of one."""


class Pool:
    """Memory for the intermediate results of steps, shared by one capture after another."""

    def __init__(self) -> None:
        self.free: list[np.ndarray] = []

    def take(self, size: int) -> Block:
        """A block of at least `size` bytes: the smallest free one, unless all are far too large."""
        fits = [b for b in self.free if size <= b.nbytes <= 2 * size + ALIGNED]
        if fits:
            best = min(reversed(fits), key=lambda b: b.nbytes)  # among equals, the last used
            self.free = [b for b in self.free if b is not best]
            return Block(self, best)
        memory = np.empty(size + ALIGNED, np.uint8)
        start = -memory.ctypes.data % ALIGNED
        return Block(self, memory[start : start + size])


class Block:
    """Memory in use; it is free again when the last array on it is gone."""

    __slots__ = ("memory", "pool")

    def __init__(self, pool: Pool, memory: np.ndarray) -> None:
        self.pool = pool
        self.memory = memory

    def __del__(self) -> None:
        self.pool.free.append(self.memory)

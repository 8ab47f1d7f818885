"""Memory that recorded steps use again and again."""

from __future__ import annotations

import numpy as np

ALIGNED = 64
"""Bytes of a cache line, at the start of which each array begins."""


class Pool:
    """Memory for what steps compute on their way, of one recording after another."""

    def __init__(self) -> None:
        self.free: list[np.ndarray] = []

    def take(self, size: int) -> Block:
        """A block of at least so many bytes: the smallest that is free and not far too large."""
        fits = [b for b in self.free if size <= b.nbytes <= 2 * size + ALIGNED]
        if fits:
            best = min(reversed(fits), key=lambda b: b.nbytes)  # of equal ones the last used
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

"""Keeping Python's cycle collector off while a step is captured."""

from __future__ import annotations

import gc
import os
import threading


class CollectorOff:
    """A context in which Python's cycle collector is off, so that it frees no CUDA graph.

    A CUDA graph that is destroyed during a capture invalidates the capture. Several threads may
    capture; the last one to end restores the collector to the state that the first one found.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._capturing: list[int] = []  # the threads that are capturing
        self._collecting = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._capturing:
                self._collecting = gc.isenabled()
            self._capturing.append(threading.get_ident())
            gc.disable()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if len(self._capturing) == 1 and self._collecting:
                gc.enable()
            self._capturing.remove(threading.get_ident())

    def forked(self) -> None:
        """Forget the other threads, which a forked process lacks, and a lock they may have held."""
        self._lock = threading.Lock()
        others = bool(self._capturing)
        self._capturing = [t for t in self._capturing if t == threading.get_ident()]
        if others and not self._capturing and self._collecting:
            gc.enable()


collector_off = CollectorOff()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=collector_off.forked)

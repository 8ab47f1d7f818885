"""Ctrl-C, at a moment of our choice."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupt_between_steps() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that a step is never cut in two; a second one acts at once.

    A program that ignores it, or has a handler of its own, before or from now on, keeps that. One
    `fit` within another, as a callback may have it, has the event of the other.
    """
    event = getattr(signal.getsignal(signal.SIGINT), "event", None) or threading.Event()
    before = signal.default_int_handler
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not before:
        yield event
        return

    def handler(_number: int, _frame: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    handler.event = event  # type: ignore[attr-defined]  # a function may have attributes
    signal.signal(signal.SIGINT, handler)
    try:
        yield event
    finally:
        if signal.getsignal(signal.SIGINT) is handler:
            signal.signal(signal.SIGINT, before)

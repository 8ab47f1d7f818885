"""Ctrl-C that takes effect between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupt_between_steps() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that a step is never cut in two; a second Ctrl-C acts at once.

    A program that ignores Ctrl-C, or has a handler of its own, set before or inside this context,
    keeps it. A `fit` inside another `fit`, such as in a callback, shares the event of the outer.
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

"""Items made ahead in a thread, while the main thread computes."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")

THREADS = sys.platform not in {"emscripten", "wasi"}
"""Whether there are threads: Python in a browser (Pyodide) has none."""


def prefetched(items: Iterable[T], ahead: int = 2) -> AbstractContextManager[Iterator[T]]:
    """The items in their order, made in a thread that runs up to `ahead` items in front.

    The iteration raises an error of the thread after the items before it, with its traceback. At
    the end of the `with` block, however the block is left, the thread has ended: it finishes the
    item that it is making, and closes `items` where that is a generator.

    On a platform without threads, the items are the same; each is made when it is asked for.

    >>> with prefetched(range(3)) as numbers:
    ...     list(numbers)
    [0, 1, 2]
    """
    return _ahead(items, ahead) if THREADS else _one_by_one(items)


@contextmanager
def _one_by_one(items: Iterable[T]) -> Iterator[Iterator[T]]:
    iterator = iter(items)
    try:
        yield iterator
    finally:
        getattr(iterator, "close", lambda: None)()


@contextmanager
def _ahead(items: Iterable[T], ahead: int) -> Iterator[Iterator[T]]:
    ready: deque[T] = deque()
    errors: list[BaseException] = []
    changed = threading.Condition()
    ended = stopped = False

    def work() -> None:
        nonlocal ended
        iterator: Iterator[T] = iter(())
        try:
            iterator = iter(items)
            for item in iterator:
                with changed:
                    changed.wait_for(lambda: len(ready) < ahead or stopped)
                    if stopped:
                        break
                    ready.append(item)
                    changed.notify_all()
        except BaseException as error:  # noqa: BLE001 (the main thread raises it)
            errors.append(error)
        finally:
            try:
                getattr(iterator, "close", lambda: None)()
            finally:
                with changed:
                    ended = True
                    changed.notify_all()

    def received() -> Iterator[T]:
        while True:
            with changed:
                changed.wait_for(lambda: ready or ended)
                if not ready:
                    break
                item = ready.popleft()
                changed.notify_all()
            yield item
        if errors:
            raise errors[0]

    thread = threading.Thread(target=work, name="polynet-prefetch", daemon=True)
    thread.start()
    try:
        yield received()
    finally:
        with changed:
            stopped = True
            changed.notify_all()
        thread.join()

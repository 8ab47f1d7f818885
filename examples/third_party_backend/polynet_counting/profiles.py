"""Which functions were called, how often, on how many numbers, and for how long."""

import threading
import time
from contextlib import contextmanager

import numpy as np


class Profile(dict):
    """Calls, elements made, bytes moved and seconds, by function. It prints as a table."""

    seconds = 0.0  # of the whole `with` block

    def add(self, name, *numbers):
        before = self.get(name, (0, 0, 0, 0.0))
        self[name] = tuple(a + b for a, b in zip(before, numbers, strict=True))

    def __str__(self):
        total = [sum(column) for column in zip((0, 0, 0, 0.0), *self.values(), strict=True)]
        longest_first = sorted(self.items(), key=lambda item: -item[1][3])
        lines = ["function               calls     elements   MB moved        ms   share"]
        for name, (calls, elements, moved, seconds) in [*longest_first, ("all of them", total)]:
            lines.append(
                f"{name:18}{calls:10,}{elements:13,}{moved / 1e6:11,.1f}{seconds * 1e3:10,.1f}"
                f"{seconds / (total[3] or 1):8.1%}"
            )
        rest = self.seconds - total[3]
        return "\n".join([*lines, f"{'everything else':52}{rest * 1e3:10,.1f}"])


_open = []  # the open profiles, which may be nested or in several threads; each counts every call
_lock = threading.Lock()


@contextmanager
def profile(show=print):
    """Count what the backend does within a `with` block, and show it at the end.

    The block gets the `Profile`, a dict by function. With `show=None` nothing is shown.
    """
    counts = Profile()
    with _lock:
        _open.append(counts)
    start = time.perf_counter()
    try:
        yield counts
    finally:
        counts.seconds = time.perf_counter() - start
        with _lock:
            _open[:] = [other for other in _open if other is not counts]
        if show is not None:
            show(counts)


INDEXING = ("getitem", "take", "take_along_axis")


def count(name, given, made, seconds):
    """Add a call to the open profiles; `given` and `made` are NumPy's arrays.

    A call counts as reading all of its arguments and writing all of its results. There are two
    exceptions: indexing reads as much as it writes, and a result that is a view of an argument
    moves nothing.
    """
    if not _open or not made:  # a function such as isdtype makes no array
        return
    new = [a for a in made if not any(np.may_share_memory(a, b) for b in given)]
    written = sum(a.nbytes for a in new)
    read = written if name in INDEXING else sum(a.nbytes for a in given)
    with _lock:
        for counts in _open:
            counts.add(name, 1, sum(a.size for a in made), written + read if new else 0, seconds)

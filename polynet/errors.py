"""polynet's errors and warnings, and helpers that word them."""

from __future__ import annotations

import difflib
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = [
    "BackendError",
    "BackendUnavailableError",
    "MissingDependency",
    "MixedBackendsError",
    "NotCompiledError",
    "NotFiniteError",
    "RecordError",
    "UnknownBackendError",
]


A_NUMBER_DID = "a number of NumPy's did: write float(np.sqrt(2)) for np.sqrt(2)"
"""What makes float64 of float32 unasked, on NumPy, and the remedy."""


DOZEN = 12
"""How many names an error lists in full."""


class BackendError(RuntimeError):
    """A backend that was asked for cannot be used."""


class UnknownBackendError(BackendError):
    """No plug-in of that name is installed."""


class BackendUnavailableError(BackendError):
    """The plug-in is installed, but its library or device cannot be used here."""


class MissingDependency(ImportError):
    """Raised by a plug-in's factory whose array library is not installed.

    `install` is the command that would install it; `python -m polynet` prints it.
    """

    def __init__(self, package: str, install: str) -> None:
        super().__init__(f"{package} is not installed; install it with: {install}", name=package)
        self.install = install

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.install), self.__dict__


class MixedBackendsError(TypeError):
    """Arrays of different backends or devices met; polynet never moves one silently."""


class RecordError(RuntimeError):
    """A recorded array was used where its record would be lost, or after the record ended."""


class NotCompiledError(RuntimeError):
    """A training step cannot run as one program, as `compile="require"` asks."""


class NotFiniteError(ArithmeticError):
    """A loss that is NaN or infinite; `step` is the first step it appeared in."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.step), self.__dict__


def unknown(kind: str, given: object, choices: Iterable[str]) -> str:
    """The message for a name that is not among `choices`, with the nearest one."""
    names = list(choices)
    return (
        f"unknown {kind} {given!r}.{did_you_mean(given, names)} "
        f"Expected one of: {listed(names, given) or '(none)'}."
    )


def listed(names: Iterable[str], near: object = None) -> str:
    """The names, with commas; of more than a dozen, five, and how many more there are.

    The five are those nearest to `near` or, where that is not given, the first.

    >>> listed([f"{i}.weight" for i in range(100)], "40.wieght")
    '40.weight, 4.weight, 0.weight, 94.weight, 90.weight and 95 more'
    """
    several = list(names)
    if len(several) <= DOZEN:
        return ", ".join(several)
    few = several[:5] if near is None else difflib.get_close_matches(str(near), several, 5, 0)
    return f"{', '.join(few)} and {len(several) - len(few)} more"


def did_you_mean(given: object, choices: Iterable[str], near: float = 0.6) -> str:
    """A sentence with the nearest of `choices`, if its similarity (0 to 1) is at least `near`."""
    by_lower = {name.lower(): name for name in reversed(list(choices))}  # Adam before adam
    found = difflib.get_close_matches(str(given).lower(), by_lower, n=1, cutoff=near)
    return f" Did you mean {by_lower[found[0]]!r}?" if found else ""


def warn(message: str) -> None:
    """Give a RuntimeWarning at the line that called polynet or one of its plug-ins."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_inner(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, RuntimeWarning, stacklevel=level)


def _is_inner(module: str) -> bool:
    """Whether a module is of polynet, or of one of its plug-ins."""
    package = module.partition(".")[0]
    return package == "polynet" or package.startswith("polynet_")


@contextmanager
def advising_on_memory(samples: int) -> Iterator[None]:
    """A context whose MemoryErrors say what to lower, for training steps of `samples` samples."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(
            f"training steps of {samples} samples do not fit on the device: {error}. Give a "
            "smaller batch_size, or fit(…, accumulate=2) or more, which sends parts of a batch "
            "through the network one after another, with the same gradients"
        ) from error


def users_line(error: BaseException, inner: Iterable[str]) -> str:
    """The last line in a traceback that is outside polynet and the `inner` packages."""
    packages = "polynet", *inner
    found = filter(None, map(find_spec, packages))
    folders = [folder for s in found for folder in s.submodule_search_locations or ()]
    folders += packages  # Cython names its files from there, such as cupy/cuda/memory.pyx
    frames = traceback.extract_tb(error.__traceback__)
    named = [f for f in frames if not any(map(Path(f.filename).is_relative_to, folders))]
    last = named[-1] if named else frames[-1]
    text = f": {last.line}" if last.line else ""
    return f"line {last.lineno} of {last.filename}{text}"

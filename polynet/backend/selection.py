"""Choosing a backend, by argument, context manager, function, environment or the arrays."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from polynet.backend.contract import Array, Backend
from polynet.backend.registry import registry
from polynet.errors import BackendError, MixedBackendsError

PRECEDENCE = (
    "an argument",
    "use_backend",
    "set_backend",
    "POLYNET_BACKEND",
    "the arrays that come in",
    "numpy",
)
"""What decides which backend is used, the strongest first."""

AUTO_ORDER = ("cupy", "torch", "jax")
"""`"auto"` takes the first of these that has a device other than the CPU, else numpy."""

_in_context: ContextVar[Backend | None] = ContextVar("polynet_backend", default=None)
_process_wide: Backend | None = None
_by_type: dict[type, Backend] = {}


def get_backend(backend: str | Backend | None = None) -> Backend:
    """The backend called `backend`; for None, the backend chosen before, else numpy.

    Raises UnknownBackendError, or BackendUnavailableError with the cause chained.

    >>> import polynet
    >>> polynet.get_backend("numpy").name
    'numpy'
    """
    if backend is None:
        return chosen_backend() or registry.status("numpy").require()
    if isinstance(backend, Backend):
        return backend
    if backend == "auto":
        return _auto()
    return registry.status(backend).require()


def chosen_backend() -> Backend | None:
    """The backend somebody chose by context manager, function or environment, or None."""
    chosen = _in_context.get() or _process_wide
    if chosen is not None:
        return chosen
    name = os.environ.get("POLYNET_BACKEND", "").strip()
    if not name:
        return None
    try:
        return get_backend(name)
    except BackendError as error:
        raise type(error)(f"POLYNET_BACKEND: {error}") from error.__cause__


def _named(name: str, changes: Iterable[Sequence[str]]) -> Backend:
    """The backend of that name, changed by methods, each with its arguments."""
    backend = get_backend(name)
    for method, *args in changes:
        backend = getattr(backend, method)(*args)
    return backend


Backend.named = _named


def set_backend(backend: str | Backend | None) -> None:
    """Choose a backend for the whole process, worker threads included; None undoes it.

    >>> import polynet
    >>> polynet.set_backend("numpy")
    >>> polynet.get_backend().name
    'numpy'
    >>> polynet.set_backend(None)
    """
    global _process_wide  # noqa: PLW0603 (the choice for the process is one variable)
    _process_wide = None if backend is None else get_backend(backend)


@contextmanager
def use_backend(backend: str | Backend) -> Iterator[Backend]:
    """Choose a backend within a `with` block.

    It holds for this thread or task. A thread started inside the block has a context of its
    own, except on free-threaded Python: run it in `contextvars.copy_context()`, or choose with
    `set_backend`.

    >>> import polynet
    >>> with polynet.use_backend("numpy") as backend:
    ...     print(backend.name)
    numpy
    """
    found = get_backend(backend)
    token = _in_context.set(found)
    try:
        yield found
    finally:
        _in_context.reset(token)


@functools.cache  # POLYNET_BACKEND is read at every array, but "auto" prints its choice once
def _auto() -> Backend:
    found = registry.status("numpy")
    for name in AUTO_ORDER:
        if name in registry.names():
            status = registry.status(name)
            if status.available and any(d != "cpu" for d in status.devices):
                found = status
                break
    order = ", ".join((*AUTO_ORDER, "numpy"))
    # printed, since a user who leaves the choice open should see what was chosen
    print(f'polynet: "auto" chose {found.name} (order: {order})', file=sys.stderr)  # noqa: T201
    return found.require()


def backend_of(array: Array) -> Backend:
    """The backend that `array` belongs to.

    It is the chosen backend if the array is one of its own, else the only backend that claims
    arrays of this type. Raises TypeError if `array` is an array of no backend found, or if several
    backends claim it.
    """
    chosen = chosen_backend()
    if chosen is not None and chosen.is_array(array):
        return chosen
    kind = type(array)
    if kind not in _by_type:
        _by_type[kind] = _claimant(array)
    return _by_type[kind]


def _claimant(array: Array) -> Backend:
    kind = type(array)
    module = kind.__module__.partition(".")[0]
    names = registry.claimants(module)
    if len(names) > 1:  # a backend that cannot be used must not make the choice ambiguous
        names = tuple(n for n in names if registry.status(n).available) or names[:1]
    if len(names) > 1:
        raise TypeError(
            f"several backends take {module}'s arrays: {', '.join(names)}; "
            "choose one with polynet.use_backend(name)"
        )
    backend = registry.status(names[0]).require() if names else None
    if backend is None or not backend.is_array(array):
        raise TypeError(
            f"{module}.{kind.__qualname__} is not an array of any backend found "
            f"({', '.join(registry.names())}); convert it, or install the plug-in for it"
        )
    return backend


def is_claimed(x: object) -> bool:
    """Whether `x` is an array of the chosen backend, or of a package that some backend claims."""
    chosen = chosen_backend()
    if chosen is not None and chosen.is_array(x):
        return True
    return bool(registry.claimants(type(x).__module__.partition(".")[0]))


def common_backend(arrays: Iterable[Array], what: str = "these arrays") -> tuple[Backend, Any]:
    """The one backend and the one native device that all `arrays` are on.

    Raises MixedBackendsError, naming both, where they differ. The device is None where no array
    has one yet, as inside `jax.jit`.
    """
    backend: Backend | None = None
    device = None
    for array in arrays:
        here = backend_of(array)
        at = here.device_of(array)
        if backend is None:
            backend, device = here, at
        elif here.name != backend.name:
            raise MixedBackendsError(
                f"{what} are on different backends, {backend.name!r} and {here.name!r}; "
                "move them to one with polynet.asarray(x, backend=…)"
            )
        elif device is None:
            device = at
        elif at is not None and at != device:  # a library's device may refuse None
            raise MixedBackendsError(
                f"{what} are on different devices of {backend.name!r}, {device} and {at}; "
                "move them to one with polynet.asarray(x, device=…)"
            )
    if backend is None:
        raise ValueError(f"{what} are empty: expected at least one array")
    return backend, device


def refresh() -> None:
    """Look for plug-ins again, and forget which arrays belong to which backend."""
    registry.refresh()
    _by_type.clear()
    _auto.cache_clear()

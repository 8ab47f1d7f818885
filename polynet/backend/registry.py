"""Finding plug-ins, and whether each can be used, or why not."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from polynet.backend.contract import CONTRACT, Backend
from polynet.errors import (
    BackendUnavailableError,
    MissingDependency,
    UnknownBackendError,
    unknown,
)

GROUP = "polynet.backends"
ARRAYS_GROUP = "polynet.arrays"

AVAILABLE = "available"
MISSING = "missing dependency"
NO_DEVICE = "no device"
INCOMPATIBLE = "incompatible"
BROKEN = "broken"

MISTAKES = (AttributeError, NameError, TypeError)
"""Errors that show a mistake in a plug-in; any other error means that no device can be used."""
RESERVED = ("all", "auto")
"""Words that choose among backends, and so cannot be the name of one."""


@dataclass(frozen=True)
class Status:
    """The state of one plug-in, and all that is known about the reason for it."""

    name: str
    state: str
    distribution: str
    reason: str = ""
    install: str = ""
    devices: tuple[str, ...] = ()
    backend: Backend | None = field(default=None, repr=False)
    error: BaseException | None = field(default=None, repr=False)

    @property
    def available(self) -> bool:
        return self.state == AVAILABLE

    def require(self) -> Backend:
        """The backend, or BackendUnavailableError with the original exception as its cause."""
        if self.backend is not None:
            return self.backend
        todo = f" To install it: {self.install}" if self.install else ""
        raise BackendUnavailableError(
            f"backend {self.name!r} (from {self.distribution}) cannot be used: {self.state}: "
            f"{self.reason}. `python -m polynet` shows every backend.{todo}"
        ) from self.error


class Registry:
    """The plug-ins installed.

    Listing their names loads no plug-in. Each is loaded once, when somebody asks for it.
    """

    def __init__(self) -> None:
        self.forked()
        self.refresh()

    def forked(self) -> None:
        """Make a new lock: a thread that held the old one does not exist in a forked process."""
        self._lock = threading.RLock()

    def refresh(self) -> None:
        """Forget what was found, so that newly installed plug-ins are seen."""
        with self._lock:
            self._found: dict[str, list[metadata.EntryPoint]] | None = None
            self._claims: dict[str, set[str]] | None = None
            self._statuses: dict[str, Status] = {}

    def _entry_points(self) -> dict[str, list[metadata.EntryPoint]]:
        with self._lock:
            if self._found is None:
                found: dict[str, list[metadata.EntryPoint]] = {}
                for point in sorted(metadata.entry_points(group=GROUP), key=_order):
                    same = found.setdefault(point.name, [])
                    if all(point.value != other.value for other in same):
                        same.append(point)
                self._found = found
            return self._found

    def names(self) -> tuple[str, ...]:
        """The plug-ins' names, in alphabetical order."""
        return tuple(self._entry_points())

    def claimants(self, module: str) -> tuple[str, ...]:
        """The backends that claim the arrays of the top-level package `module`."""
        with self._lock:
            if self._claims is None:
                found = [(name, p) for name, ps in self._entry_points().items() for p in ps]
                by_value = {point.value: name for name, point in found}
                of_owner: dict[str, set[str]] = {}
                for name, point in found:
                    of_owner.setdefault(_owner(point), set()).add(name)
                claims: dict[str, set[str]] = {}
                for point in metadata.entry_points(group=ARRAYS_GROUP):
                    only = of_owner.get(_owner(point), set())
                    names = {by_value[point.value]} if point.value in by_value else only
                    if len(names) == 1:  # otherwise it is not clear which backend claims the arrays
                        claims.setdefault(point.name, set()).update(names)
                self._claims = claims
            return tuple(sorted(self._claims.get(module, ())))

    def status(self, name: str) -> Status:
        """Load and probe one plug-in, once; only an unknown name raises."""
        with self._lock:
            if name not in self._statuses:
                points = self._entry_points().get(name)
                if points is None:
                    raise UnknownBackendError(unknown("backend", name, self.names()))
                self._statuses[name] = _examine(name, points)
            return self._statuses[name]


def _owner(point: metadata.EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "?"


def _order(point: metadata.EntryPoint) -> tuple[str, str]:
    return point.name, _owner(point)


class _Refused(Exception):
    """A plug-in that cannot be used: its state, and why. The plug-in's own error is the cause."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state


def _examine(name: str, points: list[metadata.EntryPoint]) -> Status:
    owner = " and ".join(map(_owner, points))
    try:
        _check_alone(name, points, owner)
        _check_name(name)
        backend = _load(points[0])
        _check(backend, name)
        devices = _probe(backend)
    except _Refused as refused:
        error = refused.__cause__
        install = getattr(error, "install", "")
        return Status(name, refused.state, owner, str(refused), install, error=error)
    return Status(name, AVAILABLE, owner, devices=devices, backend=backend)


def _check_name(name: str) -> None:
    if not (name.isidentifier() and name == name.lower()):
        raise _Refused(INCOMPATIBLE, f"{name!r} is not a lower-case identifier")
    if name in RESERVED:
        raise _Refused(INCOMPATIBLE, f"{name!r} is a reserved word, not the name of one backend")


def _check_alone(name: str, points: list[metadata.EntryPoint], owners: str) -> None:
    if len(points) > 1:
        reason = f"{owners} both register {name!r}; uninstall one of them"
        raise _Refused(INCOMPATIBLE, reason)


def _load(point: metadata.EntryPoint) -> Any:
    try:
        factory = point.load()
        if isinstance(factory, type):  # a class for another contract may fail to instantiate
            _check_contract(factory)
        return factory()
    except _Refused:
        raise
    except MissingDependency as error:
        raise _Refused(MISSING, f"{error.name} is not installed") from error
    except ImportError as error:
        lost = f"{error.name}." if isinstance(error, ModuleNotFoundError) else None
        if lost and f"{point.module}.".startswith(lost):
            reason = f"its entry point names the module {point.module}, which is not there"
            raise _Refused(BROKEN, reason) from error
        raise _Refused(MISSING, str(error)) from error
    except Exception as error:
        raise _Refused(BROKEN, f"loading it raised {_described(error)}") from error


def _check_contract(plugin: Any) -> None:
    contract = getattr(plugin, "contract", None)
    if contract is None:
        reason = f"it states no version of the contract; this polynet has {CONTRACT}"
        raise _Refused(INCOMPATIBLE, reason)
    if contract != CONTRACT:
        reason = (
            f"it was written for version {contract!r} of the contract; this polynet has {CONTRACT}"
        )
        raise _Refused(INCOMPATIBLE, reason)


def _check(backend: Any, name: str) -> None:
    if not isinstance(backend, Backend):
        came = type(backend).__name__
        raise _Refused(BROKEN, f"its factory returned {came}; expected a polynet.backend.Backend")
    _check_contract(backend)
    absent = [a for a in ("name", "version", "xp") if not hasattr(backend, a)]
    if absent:
        raise _Refused(BROKEN, f"it lacks the attribute {' and '.join(absent)}")
    if backend.name != name:
        reason = f"it calls itself {backend.name!r}, but is registered as {name!r}"
        raise _Refused(BROKEN, reason)


def _probe(backend: Backend) -> tuple[str, ...]:
    """The devices' names, once the default device has computed something."""
    try:
        devices = _checked_mapping(backend.devices())
        if devices:
            backend.probe(next(iter(devices.values())))
    except Exception as error:
        reason = f"computing on its default device raised {_described(error)}"
        state = BROKEN if isinstance(error, MISTAKES) else NO_DEVICE
        raise _Refused(state, reason) from error
    if not devices:
        raise _Refused(NO_DEVICE, "it found no device")
    return tuple(devices)


def _checked_mapping(devices: Any) -> Mapping[str, Any]:
    if not isinstance(devices, Mapping):
        came = type(devices).__name__
        raise TypeError(f"devices() returned a {came}; expected a dict of devices by name")
    return devices


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


registry = Registry()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=registry.forked)

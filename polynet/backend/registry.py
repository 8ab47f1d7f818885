"""Finding plug-ins, and telling for each whether it can be used and why not."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from importlib import metadata

from polynet.backend.contract import CONTRACT, Backend
from polynet.errors import BackendUnavailableError, UnknownBackendError, unknown

GROUP = "polynet.backends"
ARRAYS_GROUP = "polynet.arrays"

AVAILABLE = "available"
MISSING = "missing dependency"
NO_DEVICE = "no device"
INCOMPATIBLE = "incompatible"
BROKEN = "broken"


@dataclass(frozen=True)
class Status:
    """One plug-in: its state, and all that is known of the reason."""

    name: str
    state: str
    distribution: str
    reason: str = ""
    install: str = ""
    devices: tuple[str, ...] = ()
    backend: Backend | None = field(default=None, repr=False)
    error: Exception | None = field(default=None, repr=False)

    @property
    def available(self) -> bool:
        return self.state == AVAILABLE

    def require(self) -> Backend:
        """The backend, or BackendUnavailableError with the original exception as its cause."""
        if self.backend is not None and self.available:
            return self.backend
        todo = f" To install it: {self.install}" if self.install else ""
        raise BackendUnavailableError(
            f"backend {self.name!r} (from {self.distribution}) cannot be used: {self.state}: "
            f"{self.reason}.{todo} `python -m polynet` shows every backend."
        ) from self.error


class Registry:
    """The plug-ins installed. Listing names loads none of them; each is loaded once, when asked for."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.refresh()

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
                for point in sorted(metadata.entry_points(group=GROUP), key=lambda p: p.name):
                    same = found.setdefault(point.name, [])
                    if all(point.value != other.value for other in same):
                        same.append(point)
                self._found = found
            return self._found

    def names(self) -> tuple[str, ...]:
        """The plug-ins' names, in alphabetical order."""
        return tuple(self._entry_points())

    def claimants(self, module: str) -> tuple[str, ...]:
        """The backends that arrays from the top-level package `module` choose."""
        with self._lock:
            if self._claims is None:
                by_value = {p.value: name for name, ps in self._entry_points().items() for p in ps}
                claims: dict[str, set[str]] = {}
                for point in metadata.entry_points(group=ARRAYS_GROUP):
                    if point.value in by_value:
                        claims.setdefault(point.name, set()).add(by_value[point.value])
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


def _examine(name: str, points: list[metadata.EntryPoint]) -> Status:
    owners = [f"{p.dist.name} {p.dist.version}" if p.dist else "?" for p in points]
    owner = " and ".join(owners)

    def status(state: str, reason: str, error: Exception | None = None) -> Status:
        install = getattr(error, "install", "")
        return Status(name, state, owner, reason, install, error=error)

    if len(points) > 1:
        return status(INCOMPATIBLE, f"{owner} both register {name!r}; uninstall one of them")
    if not (name.isidentifier() and name == name.lower()):
        return status(INCOMPATIBLE, f"{name!r} is not a lower-case identifier")
    try:
        backend = points[0].load()()
    except ImportError as error:
        return status(MISSING, str(error), error)
    except Exception as error:
        return status(BROKEN, f"loading it raised {_words(error)}", error)
    contract = getattr(backend, "contract", None)
    if contract != CONTRACT:
        return status(
            INCOMPATIBLE,
            f"it was written for version {contract} of the contract, this polynet has {CONTRACT}",
        )
    if not isinstance(backend, Backend):
        return status(
            BROKEN,
            f"its factory returned {type(backend).__name__}; expected a polynet.backend.Backend",
        )
    if backend.name != name:
        return status(BROKEN, f"it calls itself {backend.name!r}, but is registered as {name!r}")
    try:
        devices = backend.devices()
        if not devices:
            return status(NO_DEVICE, "it found no device")
        backend.probe(next(iter(devices.values())))
    except Exception as error:
        return status(NO_DEVICE, f"computing on its default device raised {_words(error)}", error)
    return Status(name, AVAILABLE, owner, devices=tuple(devices), backend=backend)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


registry = Registry()

"""What a plug-in must be."""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Self

import numpy as np

from polynet.errors import NotCompiledError

Array = Any
"""An array of any backend, or a `Tensor` around one."""

CONTRACT = 1
"""The version of this contract. A plug-in states the one it was written for."""


def looped(
    backend: Backend, step: Callable[[Any, Any, Array], tuple[Any, Array]]
) -> Callable[[Any, Any, Array], tuple[Any, Array]]:
    """A runner that takes the steps one after another, each one operation at a time."""

    def run(state: Any, data: Any, rows: Array) -> tuple[Any, Array]:
        losses = []
        for i in range(rows.shape[0]):
            state, loss = step(state, data, rows[i, ...])
            check_loss(backend, loss)
            losses.append(loss)
        return state, backend.xp.stack(losses)

    return run


def check_loss(backend: Backend, loss: Any) -> None:
    """Raise TypeError if a step's loss is not an array."""
    if not backend.is_array(loss):
        raise TypeError(
            f"the training step returned a {type(loss).__name__} for its loss; expected an array "
            f"of {backend.name!r} without axes: a step returns (state, loss)"
        )


class Backend(abc.ABC):
    """One array library, as polynet uses it.

    A plug-in is a subclass, and a zero-argument factory that returns an instance,
    registered under the entry-point group `polynet.backends`:

        [project.entry-points."polynet.backends"]
        metal = "polynet_metal:load"

        [project.entry-points."polynet.arrays"]   # optional: arrays that choose this backend
        metal_arrays = "polynet_metal:load"

    The second group names the top-level module of the array class: where nobody has chosen a
    backend, an array from that module chooses this one. Without this entry point, users have to
    choose the backend before they use its arrays.

    Set the attributes `name`, `contract`, `version` and `xp` (an Array API namespace), and define
    the methods `devices`, `is_array`, `from_host` and `to_host`. Everything else has a default.
    """

    name: str
    """The entry point's name: a lower-case identifier."""
    contract: int
    """The `CONTRACT` this plug-in was written for, as a literal."""
    version: str
    """The version of the array library."""
    xp: Any
    """The Array API namespace (2024.12)."""

    @abc.abstractmethod
    def devices(self) -> Mapping[str, Any]:
        """The devices by name, the default first: `{"cuda:0": <native device>, …}`.

        A native device is what `device=` takes, and equals the `.device` of the arrays made there.
        """

    @abc.abstractmethod
    def is_array(self, x: object) -> bool:
        """Whether `x` is an array of this library."""

    @abc.abstractmethod
    def from_host(self, array: np.ndarray, device: Any) -> Array:
        """A copy of a NumPy array on a native device, with the same dtype.

        Raises TypeError for a dtype that the device lacks.
        """

    @abc.abstractmethod
    def to_host(self, array: Array) -> np.ndarray:
        """A copy as a NumPy array that can be written to, with the same dtype."""

    # Optional from here on.

    def synchronize(self) -> None:  # noqa: B027 (a library may have nothing to do)
        """Wait until all work that was started on the devices has ended.

        Code that measures time calls this method. The default does nothing: it is for libraries
        whose functions return only when their work is done.
        """

    kernels: Mapping[str, Callable[..., Any]] = {}
    """Faster implementations of compositions, by the composition's name.

    A kernel has the signature of a rule (`polynet.tensor.op`): `kernel(xp, *arrays, **options)`
    returns its result and one pullback per array, or `NotImplemented` to decline. A kernel with
    several results returns them as a tuple, and one pullback for all of them, as a rule does. A
    kernel writes to none of its arguments, and its pullbacks may be called any number of times.
    They are given each gradient in the dtype of the result.
    """

    steps_per_call: int = 1
    """How many training steps polynet hands to a compiled runner at a time."""

    def device_of(self, array: Array) -> Any:
        """The native device that holds `array`: its `.device`, which the standard requires.

        A backend overrides this where an array has no device yet, such as inside a compiler.
        """
        try:
            return array.device
        except AttributeError:
            raise TypeError(
                f"a {type(array).__qualname__} of {self.name!r} has no .device, which arrays have "
                "by the Python array API standard; give the class one"
            ) from None

    def on(self, device: Any) -> AbstractContextManager[Any]:  # noqa: ARG002 (others use it)
        """A context in which new arrays are made on `device`.

        It is for libraries that compute on a current device, not on the device of the arguments.
        """
        return nullcontext()

    def to_host_later(self, array: Array) -> Callable[[], np.ndarray]:
        """Start a copy to the host; the function returned waits for the copy and returns it.

        A backend that starts the copy now need not wait for work that is started after it. This
        default makes the copy when the function is called.
        """
        return lambda: self.to_host(array)

    def probe(self, device: Any) -> None:
        """Allocate and compute on `device`; raise if that is impossible."""
        xp = self.xp
        ones = xp.ones((2, 2), dtype=xp.float32, device=device)
        found = self.device_of(ones)
        if found != device:
            raise TypeError(
                f"xp.ones(…, device={device!r}) is on {found!r}, which does not equal it; in "
                "devices(), give each device as the .device of its arrays"
            )
        total = float(self.to_host(xp.sum(ones)))
        if total != 4.0:
            raise ArithmeticError(f"the sum of four ones on {device} came out as {total}")

    def owned(self, array: Array) -> Array:
        """`array` itself, or a copy if it may share memory with another or have unusual strides."""
        return self.xp.asarray(array, copy=True)

    def share(self, x: Array, device: Any) -> Array:
        """An array on a native device that shares the memory of `x`, an array of any library.

        It never copies: where memory cannot be shared, it raises an error that gives the reason.
        Read-only memory, such as that of a JAX array, never becomes a writable array. The default
        uses DLPack, the standard's protocol.
        """
        return x if self.is_array(x) else self.xp.from_dlpack(x, device=device, copy=False)

    def compile(self, step: Callable[[Any, Any, Array], tuple[Any, Array]]) -> Callable[..., Any]:
        """Make a runner, which takes several training steps, of a function that takes one.

        `step(state, data, rows) -> (state, loss)` is pure. The runner is called as
        `run(state, data, rows)`, where `rows` has shape (steps, batch): one row for each step. It
        returns the last state, and the losses on the device in an array of shape (steps,).

        The runner may write over the state it was given, even if the step then raises, provided
        that it calls `overwriting()` first: this tells a Trainer that an exception left it without
        a state. Where `step.consumes` is true, the step no longer needs the parameters and the
        optimizer's state once an optimizer's kernel has computed the new ones, and its loss shares
        no memory with them.

        A runner that keeps copies of the data has a method `refresh()`. It is called when the
        arrays that the runner was given may have changed: at the start of a `fit`. A runner that
        keeps the state in memory of its own has a method `replace(old, new)`. There, `old` is the
        state returned last, which nobody needs any more, and `new` is that state with some leaves
        changed; the method returns `new` in the runner's memory.

        Where `step.required` is true, steps that cannot be taken as one program raise
        NotCompiledError, here or when they run. This default is a loop, `looped`.
        """
        if getattr(step, "required", False):
            raise NotCompiledError(
                f'compile="require": backend {self.name!r} takes training steps one operation at '
                'a time; choose another, such as "numpy" or "jax", or leave compile="auto"'
            )
        return looped(self, step)

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile a pure function of trees of arrays, and of integers: one program for each shape.

        A Trainer evaluates and predicts with the result. This default returns `function` itself.
        """
        return function

    # What polynet derives from the above.

    def device(self, name: str | None) -> Any:
        """The native device called `name`; the default one for None."""
        devices = self.devices()
        if name is None:
            return next(iter(devices.values()))
        if name not in devices:
            raise ValueError(
                f"backend {self.name!r} has no device {name!r}; "
                f"it has: {', '.join(devices) or '(none)'}"
            )
        return devices[name]

    def device_name(self, array: Array) -> str:
        """The name, in `devices()`, of the device that holds `array`."""
        native = self.device_of(array)
        return next((name for name, d in self.devices().items() if d == native), str(native))

    def dtype(self, name: str) -> Any:
        """The dtype called `name`, such as `"float32"`."""
        names = ("float32", "float64", "int32", "int64", "bool")
        if name not in names:
            raise ValueError(
                f"unknown dtype {name!r}: expected one of {', '.join(names)}, as a string"
            )
        if not hasattr(self.xp, name):
            raise TypeError(f"the library of backend {self.name!r} has no {name}")
        return getattr(self.xp, name)

    def without_kernels(self) -> Backend:
        """The same backend without kernels: every composition runs its definition."""
        plain = self.variant("without_kernels")
        plain.kernels = {}
        return plain

    def variant(self, method: str, *args: str) -> Self:
        """A copy of the backend, which the caller, the method called `method`, then changes.

        The copy remembers that name and `args`: unpickling it calls the method again.
        """
        other = copy.copy(self)
        other.differentiable = None
        other._changes = (*self._changes, (method, *args))
        return other

    _changes: tuple[tuple[str, ...], ...] = ()

    def __copy__(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, _memo: Any) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """The name and the changes: unpickling takes the backend of its own process, changed so."""
        return type(self).named, (self.name, self._changes)

    named: ClassVar[Callable[..., Backend]]
    """Returns the backend of a name with some changes made to it; `selection` sets it."""

    def with_precision(self, precision: str) -> Backend:
        """The same backend, which computes products of float32 matrices in a lower precision.

        Raises ValueError for a precision that the backend does not offer. Most backends offer
        none: their libraries have settings of their own for it. One that does uses `variant`.
        """
        raise ValueError(
            f"backend {self.name!r} computes products as its library does, and offers no precision "
            f"{precision!r}; set it there, as by torch.set_float32_matmul_precision or "
            "jax.default_matmul_precision"
        )

    differentiable: Any = None
    """The differentiable namespace around `xp`, which `polynet.ops` keeps here."""

    def index_dtype(self, device: Any) -> str:
        """The name of the integer dtype that `device` indexes with."""
        kind = self.xp.__array_namespace_info__().default_dtypes(device=device)["indexing"]
        return "int32" if kind == self.xp.int32 else "int64"

    def __repr__(self) -> str:
        return f"<polynet backend {self.name!r}>"

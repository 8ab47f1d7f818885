"""Levels, which hold the records, and Tensors, which are values on a level."""

from __future__ import annotations

import itertools
import numbers
import operator
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from polynet.backend import Array, Backend
from polynet.errors import MixedBackendsError, RecordError

_ids = itertools.count(1)

CONSTANT = 0
"""The id of levels that record nothing: their Tensors are constant for every derivative."""

LINE = 4
"""How many entries a line has in a record, which is one flat list.

A flat list saves the garbage collector work: it traverses every container that is alive, and a
line is not a container of its own.
"""


class Level:
    """One derivative being taken. Later levels have higher ids.

    `xp` is the backend's own namespace, `namespace` the differentiable one around it. A level is
    `plain` while all values on it are plain arrays and no other derivative is open around it, since
    gradients could be Tensors of that derivative. On a level that is not plain, all values are
    Tensors, and all rules run in the differentiable namespace. `kernels` are those that may run on
    this level, and `types` the types of values that need no check.
    """

    __slots__ = ("backend", "id", "kernels", "namespace", "plain", "record", "types", "watch", "xp")

    def __init__(
        self, backend: Backend, namespace: Any, *, plain: bool = True, constant: bool = False
    ) -> None:
        self.id = CONSTANT if constant else next(_ids)
        self.backend = backend
        self.xp = backend.xp
        self.namespace = namespace
        self.kernels: Any = {}
        self.plain = plain
        self.record: Any = []
        self.types: set[type] = {bool, int, float, complex}
        self.watch: Callable[..., None] | None = None

    def leaf(self, value: Array) -> Tensor:
        """A recorded Tensor that was computed from no other."""
        if type(value) is Tensor:
            value = unaliased(value)
        elif not self.plain:
            value = Tensor(value, self.namespace.constants)
        return Tensor(value, self, self.write(value.shape, (), (), None))

    def write(self, shape: Any, inputs: Any, pullbacks: Any, saved: tuple[Any, ...] | None) -> int:
        """Add a line to the record, and return its number.

        A line holds the shape of a result, the lines of its `inputs`, the pullbacks to the inputs,
        and the values `saved` that the pullbacks are called with beside the gradient: None where
        the pullbacks hold these values themselves.
        """
        record = self.record
        at = len(record)
        record.extend((shape, inputs, pullbacks, saved))
        while record[at + 1] is not inputs:  # another thread has written in between
            at += LINE
        return at // LINE

    def observe(self, watch: Callable[..., None]) -> None:
        """Call `watch(rule, result)` after every op from here on.

        The level stops being plain: all ops then take the general path, and definitions run
        instead of kernels.
        """
        self.plain = False
        self.kernels = {}
        self.watch = watch

    def admit(self, value: Any) -> None:
        """Raise MixedBackendsError for an array of another backend, and remember its own types.

        Values that are not arrays pass: the rule checks them. So do NumPy's integers, which are
        numbers, and occur in shapes.
        """
        if self.backend.is_array(value):
            self.types.add(type(value))
        elif isinstance(value, type | numbers.Integral):
            return
        elif hasattr(value, "dtype") and hasattr(value, "shape"):
            raise mixed(value, self.backend)

    def require_open(self) -> None:
        """Raise RecordError if the derivative has ended."""
        if self.record is ENDED:
            ENDED.extend(())

    def close(self) -> None:
        """End the derivative; an op on a Tensor that outlives it raises RecordError."""
        self.record = ENDED
        self.watch = None


class _Ended:
    """The record of a level that has ended: to add a line raises RecordError."""

    def extend(self, _line: object) -> NoReturn:
        raise RecordError(
            "this Tensor belongs to a derivative that has ended; return what you need from the "
            "differentiated function (has_aux=True), or keep polynet.stop_gradient of it"
        )

    def __len__(self) -> int:
        return 0


ENDED = _Ended()

API_VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12", "2025.12")
"""The versions of the array API standard that a Tensor's namespace fulfils."""


class Tensor:
    """An array that belongs to a derivative being taken. Its operators are ops.

    `_line` is the number of its line in the record, or None where no gradient can reach it.
    """

    __slots__ = ("_level", "_line", "_value")
    __array_ufunc__ = None  # NumPy's operators leave `array @ tensor` to the Tensor
    __hash__ = None  # type: ignore[assignment]  # == is elementwise, as in the standard

    def __init__(self, value: Array, level: Level, line: int | None = None) -> None:
        self._value = value
        self._level = level
        self._line = line

    @property
    def shape(self) -> tuple[int, ...]:
        return self._value.shape

    @property
    def dtype(self) -> Any:
        return self._value.dtype

    @property
    def device(self) -> Any:
        value = plain_value(self)
        return self._level.backend.device_of(value)

    @property
    def ndim(self) -> int:
        return len(self._value.shape)

    @property
    def size(self) -> int:
        count = 1
        for n in self._value.shape:
            count *= n
        return count

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        if api_version is not None and api_version not in API_VERSIONS:
            raise ValueError(
                f"unknown version {api_version!r} of the array API standard; expected one of "
                f"{', '.join(API_VERSIONS)}"
            )
        return self._level.namespace

    def __repr__(self) -> str:
        state = "constant" if self._line is None else f"line {self._line}"
        return f"Tensor({self._value!r}, {state})"

    def __format__(self, spec: str) -> str:
        """The number formatted by `spec`, even if it is recorded: its value is only shown."""
        if not spec:
            return repr(self)
        return format(self._level.backend.to_host(plain_value(self))[()], spec)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a 0-d Tensor has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i, ...] for i in range(len(self)))  # type: ignore[index]  # see ops.operators

    def _leave(self, convert: Callable[[Any], Any], what: str) -> Any:
        if is_recorded(self):
            raise RecordError(
                f"{what} of a recorded Tensor would lose its gradient: functions with a gradient "
                "are those of polynet.array_namespace(x). If you need no gradient, take it of "
                "polynet.stop_gradient(x), or return x from the differentiated function"
            )
        return convert(plain_value(self))

    def __float__(self) -> float:
        return self._leave(float, "float()")

    def __int__(self) -> int:
        return self._leave(int, "int()")

    def __bool__(self) -> bool:
        return self._leave(bool, "the truth value")

    def __complex__(self) -> complex:
        return self._leave(complex, "complex()")

    def __index__(self) -> int:
        return self._leave(operator.index, "the index")

    def __deepcopy__(self, _memo: Any) -> Tensor:
        """A Tensor of the same value, through which the same gradient flows."""
        return unaliased(self)

    def _become(self, other: Tensor) -> None:
        """Take over another Tensor's value and line; results made from the old ones keep those."""
        self._value, self._level, self._line = other._value, other._level, other._line

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> NoReturn:
        """Refuse a call of a PyTorch function; PyTorch's operators leave it to the Tensor's own."""
        name = getattr(function, "__name__", function)
        raise TypeError(
            f"PyTorch's {name} was given a polynet Tensor, whose gradient it would lose; functions "
            "with a gradient are those of xp = polynet.array_namespace(x), called within the "
            "function that is differentiated"
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if copy is False:
            raise ValueError("a NumPy array of a Tensor is a copy; leave copy=False out")
        return self._leave(self._level.backend.to_host, "a NumPy array")

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[Any, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        asked = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
        options = {name: value for name, value in asked.items() if value is not None}
        return self._leave(lambda value: value.__dlpack__(**options), "the memory")

    def __dlpack_device__(self) -> Any:
        return plain_value(self).__dlpack_device__()


class Parts(dict[int, Array]):
    """The gradients of an op with several results, by the number of the result.

    The sweep adds them up like a gradient, on the op's own line, whose shape is None. A sum updates
    this dict in place: to copy it for each of n results would cost n² entries. This is safe, since
    only the sweep holds these dicts.
    """

    shape = None

    def __add__(self, other: dict[int, Array]) -> Parts:
        self.update(other)
        return self


def is_recorded(x: Any) -> bool:
    """Whether a gradient of some level can reach `x`."""
    while type(x) is Tensor:
        if x._line is not None:
            return True
        x = x._value
    return False


def plain_value(x: Any) -> Any:
    """The array inside all levels of a Tensor; anything else is returned as it is."""
    while type(x) is Tensor:
        x = x._value
    return x


def without_level(level: Level, x: Any) -> Any:
    """`x` without `level`, and without levels of constants.

    A Tensor of a lower level is `unaliased`: a record may keep it, while the user goes on with `x`.
    """
    while type(x) is Tensor and (x._level is level or x._level.id == CONSTANT):
        x = x._value
    return unaliased(x) if type(x) is Tensor else x


def unaliased(x: Tensor) -> Tensor:
    """The same Tensor as an object of its own, which `x += y` and `x[key] = y` do not change."""
    return Tensor(x._value, x._level, x._line)


def mixed(array: Any, backend: Backend) -> MixedBackendsError:
    """The error for an array of another library than `backend`'s."""
    kind = type(array)
    number = ", or make it a number of Python: x.item()" if array.shape == () else ""
    return MixedBackendsError(
        f"an array of {kind.__module__}.{kind.__qualname__} met an array of backend "
        f"{backend.name!r}; move it there with polynet.asarray(x, backend={backend.name!r}){number}"
    )

"""Descriptions of a layer's arrays: `Parameter` and `Buffer`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from polynet import random
from polynet.backend import Array
from polynet.backend.transfer import dtype_name
from polynet.integers import several
from polynet.nn.init import Initialiser, check_initialiser, text_of


def _no_initialiser() -> Initialiser:
    raise TypeError(
        "a Parameter, or a Buffer, has a shape and an initialiser; give the initialiser too: "
        "nn.Parameter((2, 1), nn.init.normal(0.0, 0.1))"
    )


@dataclass(frozen=True, eq=False)
class Described:
    """The description of an array: a shape and an initialiser.

    The same description in two places is one array, named after the first place.
    """

    shape: tuple[int, ...]
    init: Initialiser = field(default_factory=_no_initialiser)

    def __post_init__(self) -> None:
        check_initialiser(self.init)
        shape: Any = self.shape
        sizes = several(shape.tolist() if hasattr(shape, "tolist") else shape, least=0)
        if sizes is None:
            own = getattr(shape, "shape", None)
            got = repr(shape) if own is None else f"an array: give its shape, {tuple(own)}"
            raise TypeError(
                f"{type(self).__name__}: the shape is a tuple of integers, such as (2, 1) or (2,); "
                f"got {got}"
            )
        object.__setattr__(self, "shape", sizes)

    def draw(self, seed: int, name: str, dtype: str) -> Any:
        """The array on the host, drawn from the random stream of its name.

        A Buffer may have a dtype of its own in place of `dtype`.
        """
        host = self.init(random.key(seed, "init", name), self.shape)
        drawn = getattr(host, "shape", f"a {type(host).__name__}")
        if drawn != self.shape:
            raise ValueError(
                f"{type(self).__name__.lower()} {name!r} has shape {self.shape}, but its "
                f"initialiser drew {drawn}"
            )
        return host.astype(getattr(self, "dtype", None) or dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({tuple(self.shape)}, {text_of(self.init)})"


class Parameter(Described):
    """An array that is trained, described by a shape and an initialiser.

    The same Parameter in two places is one parameter, named after the first place.
    """

    if TYPE_CHECKING:  # a layer's formulas see the array that the Parameter becomes

        def __new__(cls, shape: tuple[int, ...], init: Initialiser) -> Any: ...


@dataclass(frozen=True, eq=False, repr=False)
class _OfDtype(Described):
    """The fields of Buffer, not a dataclass itself, so that type checkers use its `__new__`."""

    dtype: str | None = None

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {self.dtype!r})" if self.dtype else super().__repr__()


class Buffer(_OfDtype):
    """An array that is kept beside the parameters and not trained, such as a running mean.

    It is drawn, moved, named and saved as parameters are. A layer may `renew` it in a training
    pass. Without `dtype`, its dtype is the network's. For whole numbers, give "int32", which every
    backend has; `checkpoint.save` writes them as int64, as PyTorch does.

    >>> import numpy as np
    >>> from polynet import nn
    >>> class Count(nn.Module):
    ...     def __init__(self):
    ...         self.calls = nn.Buffer((), nn.init.zeros, "int32")
    ...     def forward(self, x):
    ...         if self.training:
    ...             self.renew(calls=self.calls + 1)
    ...         return x
    >>> context = nn.Context(np, np.zeros(1, "int32"), {})
    >>> _ = Count().init(backend="numpy").bind({}, context)(np.ones(2))
    >>> int(context.buffers["calls"])
    1
    """

    if TYPE_CHECKING:  # as for a Parameter

        def __new__(
            cls, shape: tuple[int, ...], init: Initialiser, dtype: str | None = None
        ) -> Any: ...


def check_dtype(who: str, dtype: str) -> None:
    """Refuse a dtype that a network cannot have."""
    if dtype not in ("float32", "float64"):
        raise ValueError(f"{who}: dtype is 'float32' or 'float64'; got {dtype!r}")


def check_like(what: str, array: Array, now: Any) -> None:
    """Refuse an array unless it has the shape of `now` and, where `now` has one, its dtype."""
    if not hasattr(array, "shape"):
        raise TypeError(
            f"{what} is replaced by an array; got a {type(array).__name__}: make one with "
            "polynet.asarray"
        )
    if tuple(array.shape) != tuple(now.shape):
        raise ValueError(
            f"{what} has shape {tuple(now.shape)}; got an array of shape {tuple(array.shape)}"
        )
    dtype = dtype_name(getattr(now, "dtype", None) or array.dtype)
    if dtype_name(array.dtype) != dtype:
        raise TypeError(
            f"{what} is {now.dtype}; got an array of {array.dtype}: convert it, such as by "
            f"polynet.asarray(array, backend=…, dtype={dtype!r})"
        )

"""One run of a function on recorded arrays, from which every derivative is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from polynet import tree
from polynet.backend import Array, Backend, common_backend
from polynet.errors import RecordError, warn
from polynet.ops import namespace
from polynet.ops.complex_numbers import is_complex
from polynet.tensor import Level, Tensor, in_dtype, plain_value, sweep, without_level

Argnums = int | tuple[int, ...]

_OF_A_LIBRARY = (
    "A library's own functions know no gradient: in place of np.exp(x) write xp.exp(x), with "
    "xp = polynet.array_namespace(x), called within the function that is differentiated, and "
    "y = y + x in place of y += x where y is not recorded yet"
)
NOTES = {
    "__array_ufunc__=None": _OF_A_LIBRARY,
    repr(Tensor): _OF_A_LIBRARY,
    "Multiple namespaces for array inputs": "Functions of other libraries take arrays of one "
    "namespace: beside a recorded array x, give them polynet.array_namespace(x).asarray(a) in "
    "place of a plain array a",
    "a NumPy array of a recorded Tensor": "If a function of SciPy wanted it: those that are "
    "written against the standard take a Tensor, if the environment variable SCIPY_ARRAY_API was "
    "1 when SciPy was imported",
}
"""What to do, by words of an error with which a call of another library ended."""

_open_levels: ContextVar[int] = ContextVar("polynet_open_levels", default=0)


class Run:
    """What a function returned for recorded arrays, and the record to sweep back.

    `wanted` are the arguments at `places`, by which the function is differentiated. `value` and
    `aux` are what the function returned. All of them are without the level of this run. The level
    is closed when the function returns, so that using a leaked Tensor raises an error; the record
    lives as long as the run.

    With `keep`, the arguments are copied first, so that they may change before the sweep. With
    `nested`, all rules run in the differentiable namespace, as they do within another derivative,
    so that sweeps from Tensors are recorded in turn. Unless `unshared`, `aux` may share memory with
    other arrays.
    """

    __slots__ = ("aux", "level", "lines", "record", "value", "wanted", "xp")

    def __init__(
        self,
        f: Callable[..., Any],
        args: Sequence[Any],
        places: tuple[int, ...],
        options: dict[str, Any] | None = None,
        *,
        has_aux: bool = False,
        scalar: bool = False,
        keep: bool = False,
        nested: bool = False,
        unshared: bool = True,
    ) -> None:
        if not callable(f):
            raise TypeError(
                f"expected a function to differentiate, got a {type(f).__name__}: write "
                "grad(f)(x), not grad(f(x))"
            )
        wanted = [args[place] for place in places]
        level = _open(wanted, places, nested, scalar)
        token = _open_levels.set(_open_levels.get() + 1)
        try:
            if keep:
                wanted = tree.map(lambda x: copied_without_level(level, x), wanted)
            full = list(args)
            for place, branch in zip(places, tree.map(level.leaf, wanted), strict=True):
                full[place] = branch
            result = _called(f, full, options or {})
            output, aux = _pair(result) if has_aux else (result, None)
            self.lines = _lines(level, output, scalar)
            if scalar and type(output) is not Tensor:
                warn(
                    "the differentiated function returned a number that it computed of none of the "
                    "arrays to differentiate by, so that its gradient is 0 everywhere. A network "
                    "takes them by net.bind(parameters)(x)"
                )
            self.value = tree.map(lambda y: copied_without_level(level, y), output)
            released = copied_without_level if unshared else without_level
            self.aux = tree.map(lambda a: released(level, a), aux)
            self.record = level.record
        finally:
            level.close()
            _open_levels.reset(token)
        self.level = level
        self.xp = level.xp if level.plain else level.namespace
        self.wanted = wanted

    def gradients(
        self, seeds: Sequence[Array | None], *, unshared: bool = True, last: bool = False
    ) -> list[tree.Tree]:
        """The gradient by each of `wanted`, from `seeds`, the gradients by the leaves of `value`.

        A seed may be None for 0. Unless `unshared`, gradients may share memory with other arrays.
        The `last` sweep frees the record on its way.
        """
        pairs = zip(self.lines, seeds, strict=True)
        starts = [(line, g) for line, g in pairs if line is not None and g is not None]
        leaves = tree.leaves(self.wanted)
        record = self.record if last else list(self.record)
        swept = sweep(self.level, record, starts, len(leaves))
        gradients = iter(self._finished(swept, leaves, unshared))
        return tree.map(lambda _: next(gradients), self.wanted)

    def _finished(self, swept: list[Any], leaves: list[Array], unshared: bool) -> list[Array]:
        """The gradients that the user gets: one for each leaf, in its dtype, without this level."""
        xp, level = self.xp, self.level
        gradients: list[Any] = []
        dtype, conjugates = None, False
        for g, leaf in zip(swept, leaves, strict=True):
            if g is None:
                g = xp.zeros_like(leaf)
            elif g.dtype != leaf.dtype:
                g = in_dtype(xp, g, leaf.dtype)
            if dtype is None or g.dtype != dtype:
                dtype, conjugates = g.dtype, is_complex(xp, g)
            if conjugates:  # what arrived is ∂f/∂x - i ∂f/∂y
                g = xp.conj(g)
            shared = any(g is other for other in gradients)
            gradients.append(xp.asarray(g, copy=True) if shared else g)
        plain = [without_level(level, g) for g in gradients]
        if not unshared:
            return plain
        owned, is_array = level.backend.owned, level.backend.is_array
        return [owned(g) if is_array(g) else g for g in plain]


def places_of(argnums: Argnums, args: Sequence[Any]) -> tuple[int, ...]:
    """The places among `args` that `argnums` names."""
    places = argnums if isinstance(argnums, tuple) else (argnums,)
    if not places or any(type(place) is not int for place in places):
        raise TypeError(
            f"argnums is {argnums!r}; expected the place of an argument, such as 0, or a tuple "
            "of places, such as (0, 1)"
        )
    for place in places:
        if not -len(args) <= place < len(args):
            raise TypeError(
                f"argnums names argument {place}, but {len(args)} were given by position"
            )
    places = tuple(place % len(args) for place in places)
    if len(set(places)) < len(places):
        raise ValueError(f"argnums is {argnums!r}, which names an argument twice; name it once")
    return places


def copied_without_level(level: Level, x: Any) -> Any:
    """A copy of `x` without `level`, for the user; `x` itself may be an input."""
    x = without_level(level, x)
    return level.xp.asarray(x, copy=True) if level.backend.is_array(x) else x


def _open(wanted: list[Any], places: Sequence[int], nested: bool, scalar: bool) -> Level:
    """A new level for the arrays in `wanted`, of one backend and device.

    The arrays must be real; for the gradient of a `scalar` they may be complex.
    """
    kinds = ("real floating", "complex floating") if scalar else "real floating"
    named_leaves = [
        named
        for place, branch in zip(places, wanted, strict=True)
        for named in tree.named_leaves(branch, f"argument {place}")
    ]
    backend, within = _backend_of_leaves(named_leaves)
    known = None
    for where, leaf in named_leaves:
        dtype = plain_value(leaf).dtype
        if known is not None and dtype == known:  # some dtypes cannot be compared with None
            continue
        known = dtype
        if not backend.xp.isdtype(dtype, kinds):
            raise TypeError(
                f"cannot differentiate by {where}, which is {dtype}; expected floating point"
                f"{'' if scalar else ', and real'}: cast it, or pass it as another argument"
            )
    outermost = not nested and not within and _open_levels.get() == 0
    level = Level(backend, namespace(backend), plain=outermost)
    if outermost:
        level.kernels = backend.kernels
    return level


def _backend_of_leaves(named_leaves: list[tuple[str, Any]]) -> tuple[Backend, bool]:
    """The backend of the named leaves, and whether one of them is recorded already."""
    for where, leaf in named_leaves:
        if not hasattr(leaf, "dtype"):
            advice = (
                "differentiate by its parameters: value_and_grad(lambda p: loss(net.bind(p)(x), y))"
                "(net.parameters())"
                if hasattr(leaf, "parameters")
                else "expected an array: polynet.asarray(x) makes one"
            )
            raise TypeError(f"cannot differentiate by {where}, a {type(leaf).__name__}; {advice}")
    for _, leaf in named_leaves:
        if type(leaf) is Tensor:
            return leaf._level.backend, True
    return common_backend((leaf for _, leaf in named_leaves), "the arrays to differentiate by")[
        0
    ], False


def _called(f: Callable[..., Any], args: list[Any], options: dict[str, Any]) -> Any:
    """The result of `f`. If a library refused a Tensor, a note says what to do."""
    try:
        return f(*args, **options)
    except (TypeError, RecordError) as error:
        for sign, note in NOTES.items():
            if sign in str(error) and note not in getattr(error, "__notes__", ()):
                error.add_note(note)
        raise


def _pair(result: Any) -> tuple[Any, Any]:
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(
            f"with has_aux, the function returns a pair (value, aux); it returned a "
            f"{type(result).__name__}"
        )
    return result


def _lines(level: Level, output: Any, scalar: bool) -> list[int | None]:
    """The lines of the result's leaves, which must be real; None for a leaf without a gradient."""
    named_leaves = [("", output)] if scalar else tree.named_leaves(output)
    if not named_leaves:
        raise TypeError(
            f"the differentiated function returned a {type(output).__name__} without arrays; "
            "expected an array, or a tree of them"
        )
    for name, leaf in named_leaves:
        where = f" in {name!r}" if name else ""
        shape = getattr(leaf, "shape", None)
        if shape is None or (scalar and tuple(shape) != ()):
            came = type(leaf).__name__ if shape is None else f"an array of shape {tuple(shape)}"
            expected = "a 0-d array, such as a sum or mean" if scalar else "an array"
            raise TypeError(
                f"the differentiated function returned {came}{where}; expected {expected}"
            )
        if type(leaf) is Tensor:
            leaf._level.require_open()
        if not level.backend.xp.isdtype(plain_value(leaf).dtype, "real floating"):
            raise TypeError(
                f"the differentiated function returned {leaf.dtype}{where}; expected floating "
                "point; what is not to be differentiated goes into aux (has_aux=True)"
            )
    return [
        leaf._line if type(leaf) is Tensor and leaf._level is level else None
        for _, leaf in named_leaves
    ]

"""The base of all optimizers, and that of the ones that apply one formula to every parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, TypeVar

import array_api_compat

from polynet import tree
from polynet.backend import Array, overwriting
from polynet.errors import listed
from polynet.ops import array_namespace
from polynet.optim.checks import settings_of
from polynet.optim.schedules import Schedule
from polynet.tensor import told_class

Arrays = dict[str, Array]
State = dict[str, Any]
Formula = Callable[..., tuple[Arrays, State]]
Update = TypeVar("Update", bound=Callable[..., Any])


def consuming(update: Update) -> Update:
    """Mark an optimizer's `update` as one that consumes: see `Optimizer.consumes`."""
    update.consuming = True  # type: ignore[attr-defined]  # a function may have attributes
    return update


class Optimizer:
    """Two pure functions: `init` makes a state, `update` goes one step downhill.

    Parameters and gradients are dicts of arrays by name. A state is a tree of arrays, whose
    structure never changes. Gradients are given only for the parameters that the optimizer
    `trains`.

    `update` must not write to the arrays it is given. It makes new ones: `p - lr * g`, not
    `p -= lr * g`, which keeps a step on NumPy from being captured, and so makes it slower. Where
    steps are captured or compiled, the Python code of `update` runs for only a few of them, and for
    some twice, so it must not count steps itself. The number of the step is `step`, an int32 array
    of shape (1,). A rate that falls is `0.1 / (1 + xp.reshape(xp.astype(step, p.dtype), ()))`, with
    `xp = array_namespace(p)`.

    >>> from polynet import optim
    >>> class Descent(optim.Optimizer):
    ...     def init(self, params):
    ...         return {}
    ...     def update(self, params, grads, state, step):
    ...         return {name: p - 0.1 * grads[name] for name, p in params.items()}, state
    """

    def __repr__(self) -> str:
        """The class and its settings; a saved run is compared by them, in wrappers too."""
        return settings_of(self)

    def init(self, params: Arrays) -> State:
        """The state before the first update."""
        raise NotImplementedError(
            f"{type(self).__name__} defines no init(self, params); it returns the state: {{}} if "
            "the optimizer keeps nothing"
        )

    def update(
        self, params: Arrays, grads: Arrays, state: State, step: Array
    ) -> tuple[Arrays, State]:
        """A pair of the parameters and the state after one step, with the same names as before.

        `step` is the number of the step, int32 of shape (1,), counted from 0.
        """
        raise NotImplementedError(
            f"{type(self).__name__} defines no update(self, params, grads, state, step)"
        )

    def trains(self, names: Iterable[str]) -> list[str]:
        """The names of the parameters whose gradients are needed: all, unless some are frozen."""
        return list(names)

    @property
    def consumes(self) -> bool:
        """Whether the new parameters and state may be written over the old ones.

        This is so if `update` reads neither of the old ones once a rule's kernel has run. An
        `update` marked by `consuming` states this. One that a subclass defines is not marked, even
        if it calls a marked one.
        """
        return getattr(type(self).update, "consuming", False)

    def averages(self, state: State) -> Arrays:
        """The averaged parameters in the state, by name: none, unless an `EMA` keeps them."""
        return {}

    def lr_factors(self, state: State) -> list[Array]:
        """The factors, one for each learning rate that is a schedule, that multiply the rates."""
        return []

    def with_lr_factor(self, state: State, factor: float) -> State:
        """The state in which every schedule's rate is multiplied by `factor`."""
        return state


def updated(
    optimizer: Optimizer, params: Arrays, grads: Arrays, state: State, step: Array
) -> tuple[Arrays, State]:
    """The result of `optimizer.update`.

    A user's own optimizer is given copies of the dicts, so that it may write to them, and its
    result is checked: raises TypeError unless it is a pair, ValueError if it has other names.
    """
    if optimizer.consumes:
        return optimizer.update(params, grads, state, step)
    copied = tree.map(lambda a: a, state)
    overwriting()  # it should not, but may
    result: Any = optimizer.update(dict(params), grads, copied, step)
    kind = type(optimizer).__name__
    if not isinstance(result, tuple) or len(result) != 2:
        found = type(result).__name__ + (f" of {len(result)}" if isinstance(result, tuple) else "")
        raise TypeError(f"{kind}.update returned a {found}; expected a pair (params, state)")
    _same_names(f"{kind}.update returned params", params, result[0])
    _same_names(f"{kind}.update returned a state", state, result[1])
    return result


def _unrecorded(params: Arrays) -> Arrays:
    """The parameters; raises TypeError if PyTorch records their updates, which it never forgets."""
    if hasattr(next(iter(params.values()), None), "requires_grad"):
        for name, p in params.items():
            if p.requires_grad:
                raise TypeError(
                    f"parameter {name!r} requires grad: PyTorch records every update of it, and "
                    "forgets none. Give p.detach()"
                )
    return params


def _same_names(what: str, before: Any, after: Any) -> None:
    """Raise ValueError unless the leaves of two trees have the same names."""
    old, new = (dict(tree.named_leaves(leaves)) for leaves in (before, after))
    lacking, more = ([n for n in a if n not in b] for a, b in ((old, new), (new, old)))
    if lacking or more:
        found = [f"without {listed(map(repr, lacking))}"] if lacking else []
        found += [f"with {listed(map(repr, more))}, which it was not given"] if more else []
        raise ValueError(
            f"{what} {' and '.join(found)}; expected all names that it was given, and no others"
        )


@told_class
@dataclass(frozen=True)
class Rule(Optimizer):
    """An optimizer that applies one formula to every parameter.

    `lr` is a number, which is compiled into the step, or a schedule, whose rate at each step is a
    0-d array in the parameters' dtype. Each formula is one composition over the whole tree, which
    a backend may replace by a kernel.
    """

    lr: float | Schedule

    _rule: ClassVar[Formula]

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name == "lr" and isinstance(value, Schedule):
                continue
            numbers = value if isinstance(value, tuple | list) else (value,)
            if not all(isinstance(n, Real) and float(n) >= 0 for n in numbers):
                raise ValueError(f"{type(self).__name__}: {name} must be {_expected(name, value)}")
            if not isinstance(value, bool):  # NumPy's numbers would change the parameters' dtype
                plain = tuple(map(float, numbers))
                several = isinstance(value, tuple | list)
                object.__setattr__(self, name, plain if several else plain[0])

    def slots(self) -> tuple[str, ...]:
        """The names of the running values that the rule keeps for every parameter."""
        return ()

    def _start(self, p: Array) -> Array:
        """A parameter's running value before the first step."""
        return array_namespace(p).zeros_like(p)

    def init(self, params: Arrays) -> State:
        """The first value of every slot for every parameter; for a schedule, its factor, 1."""
        for name, p in params.items():
            if array_namespace(p).isdtype(p.dtype, "complex floating"):
                raise TypeError(
                    f"parameter {name!r} is {p.dtype}; the optimizers are for real parameters: "
                    "keep the real and the imaginary part as two parameters"
                )
        state: State = {slot: tree.map(self._start, params) for slot in self.slots()}
        if isinstance(self.lr, Schedule):
            state["lr_factor"] = single(params, 1.0)
        return state

    @consuming
    def update(
        self, params: Arrays, grads: Arrays, state: State, step: Array
    ) -> tuple[Arrays, State]:
        if set(grads) != set(params):
            odd = sorted(set(grads) ^ set(params))
            raise KeyError(f"parameters and gradients have different names: {listed(odd)}")
        if tuple(getattr(step, "shape", ())) != (1,):
            raise TypeError(
                f"{type(self).__name__}.update: step is the number of steps so far, an int32 array "
                f"of shape (1,) on the parameters' device; got {step!r}"
            )
        settings = dict(vars(self))
        lr = settings.pop("lr")
        if not isinstance(lr, Schedule):
            params, state = type(self)._rule(params, grads, state, step, lr, **settings)
            return _unrecorded(params), state
        rest = dict(state)
        factor = rest.pop("lr_factor")
        xp = array_namespace(factor)
        lr = xp.reshape(lr(step, dtype=factor.dtype) * factor, ())
        params, rest = type(self)._rule(params, grads, rest, step, lr, **settings)
        return _unrecorded(params), {name: rest.get(name, factor) for name in state}

    def lr_factors(self, state: State) -> list[Array]:
        return [state["lr_factor"]] if "lr_factor" in state else []

    def with_lr_factor(self, state: State, factor: float) -> State:
        if "lr_factor" not in state:
            return state
        old = state["lr_factor"]
        return {**state, "lr_factor": array_namespace(old).full_like(old, factor)}


def _expected(name: str, value: Any) -> str:
    """What a setting is to be, what came, and what to do where that is known."""
    if name != "lr":
        return f"a number, at least 0; got {value!r}"
    given, todo = repr(value), ""
    if isinstance(value, Mapping) or hasattr(value, "parameters"):
        given = f"a {type(value).__name__}"
        todo = ". It is given no parameters: a Trainer hands it those of its network"
    elif callable(value):
        todo = ". A schedule of your own is a class: see the docstring of optim.schedules.Schedule"
    return f"a number, at least 0, or a schedule; got {given}{todo}"


@told_class
@dataclass(frozen=True)
class Wrapper(Optimizer):
    """An optimizer around another one, to which it passes every call that it does not change."""

    optimizer: Optimizer

    def __post_init__(self) -> None:
        check_optimizer(type(self).__name__, self.optimizer)

    def init(self, params: Arrays) -> State:
        return self.optimizer.init(params)

    def trains(self, names: Iterable[str]) -> list[str]:
        return self.optimizer.trains(names)

    @property
    def consumes(self) -> bool:
        return super().consumes and self.optimizer.consumes

    def averages(self, state: State) -> Arrays:
        return self.optimizer.averages(state)

    def lr_factors(self, state: State) -> list[Array]:
        return self.optimizer.lr_factors(state)

    def with_lr_factor(self, state: State, factor: float) -> State:
        return self.optimizer.with_lr_factor(state, factor)


def check_optimizer(who: str, given: Any) -> None:
    """Raise TypeError unless `given` is an optimizer; `who` begins the message."""
    if not isinstance(given, Optimizer):
        raise TypeError(f"{who}: expected an optimizer such as optim.Adam(lr=1e-3); got {given!r}")


def single(params: Arrays, value: float) -> Array:
    """One number of shape (1,), in the dtype and on the device of the first parameter."""
    first = next(iter(params.values()))
    device = array_api_compat.device(first)
    return array_namespace(first).full((1,), value, dtype=first.dtype, device=device)


def update_each(trees: list[Arrays], update: Callable[..., tuple[Array, ...]]) -> list[Arrays]:
    """`update` applied to the arrays of each name in turn; one dict for each of its results."""
    results = {name: update(*(arrays[name] for arrays in trees)) for name in trees[0]}
    count = len(next(iter(results.values()))) if results else 1
    return [{name: result[i] for name, result in results.items()} for i in range(count)]


def in_dtype(xp: Any, number: Any, dtype: Any) -> Any:
    """A learning rate in a parameter's dtype; a Python float (not NumPy's) fits any dtype."""
    if type(number) is float or number.dtype == dtype:
        return number
    return xp.astype(number, dtype)

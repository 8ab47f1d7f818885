"""Different optimizers for different parameters, and none for frozen parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from polynet.backend import Array
from polynet.errors import listed
from polynet.optim.base import Arrays, Optimizer, State, check_optimizer, consuming, updated
from polynet.tensor import told_class


@told_class
@dataclass(frozen=True)
class Frozen(Optimizer):
    """Leaves parameters as they are, and computes no gradients for them. For use in `Groups`.

    A BatchNorm with frozen parameters still updates its running statistics, as it does with
    `requires_grad=False` in PyTorch; with `momentum=0.0` the layer keeps the statistics it has.
    Dropout in a frozen part still drops; to turn it off too, call the part in `forward` as
    `self.part.bind(self.part.state_dict())`.
    """

    def init(self, params: Arrays) -> State:
        return {}

    @consuming
    def update(
        self, params: Arrays, grads: Arrays, state: State, step: Array
    ) -> tuple[Arrays, State]:
        return params, state

    def trains(self, names: Iterable[str]) -> list[str]:
        return []


@told_class
@dataclass(frozen=True)
class Groups(Optimizer):
    """An optimizer for each group of parameters, by patterns of their names; `others` for the rest.

    In a pattern, `*` stands for any text, dots included, and `?` for one character. Every parameter
    belongs to exactly one group. Raises ValueError, with the names, where two patterns fit one
    parameter, where no pattern fits a parameter and there is no `others`, and where a pattern fits
    no parameter.

    >>> from polynet import optim
    >>> optimizer = optim.Groups({"*.bias": optim.SGD(lr=0.1)}, others=optim.Frozen())
    >>> optimizer.trains(["0.weight", "0.bias", "2.weight", "2.bias"])
    ['0.bias', '2.bias']
    """

    groups: Mapping[str, Optimizer]
    others: Optimizer | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.groups, Mapping):
            raise TypeError(
                "Groups: expected a dict of optimizers by pattern, such as "
                f'{{"*.bias": optim.SGD(0.1)}}; got {self.groups!r}'
            )
        object.__setattr__(self, "groups", dict(self.groups))
        for pattern, optimizer in self.groups.items():
            check_optimizer(f"Groups: {pattern!r}", optimizer)
        if self.others is not None:
            check_optimizer("Groups: others", self.others)

    def init(self, params: Arrays) -> State:
        return {
            key: optimizer.init({n: params[n] for n in names})
            for key, optimizer, names in self._parts(params)
        }

    @consuming
    def update(
        self, params: Arrays, grads: Arrays, state: State, step: Array
    ) -> tuple[Arrays, State]:
        new, states = dict(params), {}
        for key, optimizer, names in self._parts(params):
            new_part, states[key] = updated(
                optimizer,
                {n: params[n] for n in names},
                {n: grads[n] for n in optimizer.trains(names)},
                state[key],
                step,
            )
            new |= new_part
        return new, states

    def trains(self, names: Iterable[str]) -> list[str]:
        names = list(names)
        wanted = {n for _, optimizer, part in self._parts(names) for n in optimizer.trains(part)}
        return [n for n in names if n in wanted]

    @property
    def consumes(self) -> bool:
        return super().consumes and all(o.consumes for _, o in self._members())

    def averages(self, state: State) -> Arrays:
        found: Arrays = {}
        for key, optimizer in self._members():
            found |= optimizer.averages(state.get(key, {}))
        return found

    def lr_factors(self, state: State) -> list[Array]:
        return [
            factor
            for key, optimizer in self._members()
            for factor in optimizer.lr_factors(state.get(key, {}))
        ]

    def with_lr_factor(self, state: State, factor: float) -> State:
        members = dict(self._members())
        return {key: members[key].with_lr_factor(part, factor) for key, part in state.items()}

    def _members(self) -> list[tuple[str, Optimizer]]:
        """The optimizers, each with the name of its state."""
        named = [(f"group_{i}", optimizer) for i, optimizer in enumerate(self.groups.values())]
        return named if self.others is None else [*named, ("others", self.others)]

    def _parts(self, names: Iterable[str]) -> list[tuple[str, Optimizer, list[str]]]:
        """The name of each optimizer's state, the optimizer, and the names of its parameters."""
        names = list(names)
        fits = {n: [p for p in self.groups if fnmatchcase(n, p)] for n in names}
        for name, patterns in fits.items():
            if len(patterns) > 1:
                both = " and ".join(map(repr, patterns))
                raise ValueError(
                    f"Groups: parameter {name!r} fits {both}; write the patterns so that one fits"
                )
        rest = [n for n, patterns in fits.items() if not patterns]
        if rest and self.others is None:
            raise ValueError(
                f"Groups: no pattern fits {listed(map(repr, rest))}; give others=, such as "
                "others=optim.Frozen()"
            )
        fitting = [[n for n in names if fits[n] == [p]] for p in self.groups]
        for pattern, part in zip(self.groups, fitting, strict=True):
            if not part:
                raise ValueError(
                    f"Groups: the pattern {pattern!r} fits no parameter; there are "
                    f"{listed(map(repr, names), pattern)}"
                )
        return [
            (key, optimizer, part)
            for (key, optimizer), part in zip(self._members(), [*fitting, rest], strict=False)
            if part
        ]

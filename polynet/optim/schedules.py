"""Learning rates that change from step to step.

A schedule stands in place of a number: `optim.Adam(lr=schedules.StepLR(1e-3, step_size=500))`.
It is a pure function of the number of the step, counted from 0. It counts steps, not epochs, as in
PyTorch where `scheduler.step()` follows every `optimizer.step()`. Names, formulas and defaults are
PyTorch's; the first argument is the rate that PyTorch takes from the optimizer. After its last
step, a schedule keeps its last rate.

The rate is computed on the device, so a new rate needs no step to be compiled or captured anew.
`trainer.lr_factor` multiplies the rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from polynet.backend import Array
from polynet.integers import positive
from polynet.ops import array_namespace
from polynet.optim.checks import set_number, settings_of
from polynet.pytorch_names import named_in
from polynet.tensor import told_class

__all__ = [
    "ChainedScheduler",
    "Constant",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "PolynomialLR",
    "Schedule",
    "SequentialLR",
    "StepLR",
]


@told_class
@dataclass(frozen=True)
class Schedule:
    """A learning rate as a function of the step: the base class of all schedules.

    To write your own schedule, make a frozen dataclass with a method `rate`, which is array code.

    >>> import numpy as np
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class InverseRoot(Schedule):
    ...     lr: float
    ...     def rate(self, xp, step, dtype):
    ...         return self.lr / xp.sqrt(xp.astype(step, dtype) + 1)
    >>> InverseRoot(0.5)(np.asarray([0, 3]))
    array([0.5 , 0.25])
    """

    def __repr__(self) -> str:
        """The class and its settings; a saved run is compared by them."""
        return settings_of(self)

    def __call__(self, step: Array, *, dtype: Any = None) -> Array:
        """The rates at the steps in `step`, an array of integers; the result has its shape.

        Where `dtype` is not given, it is the default floating-point dtype of the array's library.
        """
        xp = array_namespace(step)
        if dtype is None:
            info = xp.__array_namespace_info__()
            dtype = info.default_dtypes()["real floating"]
        return self.rate(xp, step, dtype)

    def rate(self, xp: Any, step: Array, dtype: Any) -> Array:
        """The formula, in functions of `xp`; the result has `dtype` and the shape of `step`."""
        raise NotImplementedError(f"{type(self).__name__} defines no rate(self, xp, step, dtype)")

    def _check(self, *names: str, above_0: bool = False) -> None:
        """Raise ValueError unless these are numbers from 0, or above 0; turn them into floats."""
        for name in names:
            set_number(self, name, above_0=above_0)

    def _check_steps(self, name: str) -> None:
        """Raise ValueError unless this is a positive integer; turn it into a Python int."""
        steps = positive(f"{type(self).__name__}: {name}", getattr(self, name))
        object.__setattr__(self, name, steps)

    def _check_milestones(self, milestones: Any) -> None:
        """Raise ValueError unless they are rising positive integers; turn them into a tuple."""
        steps = tuple(positive(f"{type(self).__name__}: milestones", step) for step in milestones)
        object.__setattr__(self, "milestones", steps)
        if any(a >= b for a, b in pairwise(steps)):
            raise ValueError(f"{type(self).__name__}: milestones must rise; got {milestones!r}")


@told_class
@dataclass(frozen=True)
class Constant(Schedule):
    """Always `lr`: unlike a plain number, the rate can be changed by `trainer.lr_factor`."""

    lr: float

    def __post_init__(self) -> None:
        self._check("lr")

    def rate(self, xp: Any, step: Array, dtype: Any) -> Array:
        return xp.astype(xp.ones_like(step), dtype) * self.lr


@told_class
@dataclass(frozen=True)
class StepLR(Schedule):
    """lr · γ^⌊t / step_size⌋: the rate is multiplied by γ after every `step_size` steps."""

    lr: float
    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        self._check("lr")
        self._check("gamma", above_0=True)
        self._check_steps("step_size")

    def rate(self, xp: Any, step: Array, dtype: Any) -> Array:
        return self.lr * power(xp, self.gamma, step // self.step_size, dtype)


@told_class
@dataclass(frozen=True)
class MultiStepLR(Schedule):
    """lr · γ^(number of `milestones` reached)."""

    lr: float
    milestones: Sequence[int]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        self._check("lr", "gamma")
        self._check_milestones(self.milestones)

    def rate(self, xp: Any, step: Array, dtype: Any) -> Array:
        y = Constant(self.lr).rate(xp, step, dtype)
        for i, milestone in enumerate(self.milestones, 1):
            y = xp.where(step >= milestone, self.lr * self.gamma**i, y)
        return y


@told_class
@dataclass(frozen=True)
class ExponentialLR(Schedule):
    """lr · γᵗ."""

    lr: float
    gamma: float

    def __post_init__(self) -> None:
        self._check("lr")
        self._check("gamma", above_0=True)

    def rate(self, xp: Any, step: Array, dtype: Any) -> Array:
        return self.lr * power(xp, self.gamma, step, dtype)


@told_class
@dataclass(frozen=True)
class ConstantLR(Schedule):
    """lr · factor for `total_iters` steps, then lr; `Constant` is the same at all steps."""

    lr: float
    factor: float = 1 / 3
    total_iters: int = 5

    def __post_init__(self) -> None:
        self._check("lr", "factor")
        self._check_steps("total_iters")

    def rate(self, xp: Any, step: Array, dtype: Any) -> Array:
        y = Constant(self.lr).rate(xp, step, dtype)
        return xp.where(step < self.total_iters, self.lr * self.factor, y)


@told_class
@dataclass(frozen=True)
class LinearLR(Schedule):
    """From lr · start_factor to lr · end_factor, in a line of `total_iters` steps."""

    lr: float
    start_factor: float = 1 / 3
    end_factor: float = 1.0
    total_iters: int = 5

    def __post_init__(self) -> None:
        self._check("lr", "start_factor", "end_factor")
        self._check_steps("total_iters")

    def rate(self, xp: Any, step: Array, dtype: Any) -> Array:
        done = xp.minimum(step, self.total_iters)
        start, end = (self.lr * f / self.total_iters for f in (self.start_factor, self.end_factor))
        return xp.astype(self.total_iters - done, dtype) * start + xp.astype(done, dtype) * end


@told_class
@dataclass(frozen=True)
class PolynomialLR(Schedule):
    """lr · (1 - t / total_iters)^power, and 0 from step `total_iters` on."""

    lr: float
    total_iters: int = 5
    power: float = 1.0

    def __post_init__(self) -> None:
        self._check("lr", "power")
        self._check_steps("total_iters")

    def rate(self, xp: Any, step: Array, dtype: Any) -> Array:
        left = self.total_iters - xp.minimum(step, self.total_iters)
        return (xp.astype(left, dtype) / self.total_iters) ** self.power * self.lr


@told_class
@dataclass(frozen=True)
class CosineAnnealingLR(Schedule):
    """η + (lr - η)·(1 + cos(π t / T_max)) / 2 with η = `eta_min`; after `T_max` it rises again.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017,
    without the restarts.
    """

    lr: float
    T_max: int
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        self._check("lr", "eta_min")
        self._check_steps("T_max")

    def rate(self, xp: Any, step: Array, dtype: Any) -> Array:
        left = xp.abs(self.T_max - step % (2 * self.T_max))
        return _swing(xp, self.eta_min, self.lr, xp.astype(left, dtype), self.T_max)


@told_class
@dataclass(frozen=True)
class CosineAnnealingWarmRestarts(Schedule):
    """`CosineAnnealingLR` that restarts at lr after T_0 steps, after T_0·T_mult steps, and so on.

    Each cycle is `T_mult` times as long as the one before.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.
    """

    lr: float
    T_0: int
    T_mult: int = 1
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        self._check("lr", "eta_min")
        self._check_steps("T_0")
        self._check_steps("T_mult")

    def rate(self, xp: Any, step: Array, dtype: Any) -> Array:
        if self.T_mult == 1:
            start, length = step - step % self.T_0, self.T_0
        else:
            start = xp.zeros_like(step)
            for begin in self._begins():
                start = xp.where(step >= begin, begin, start)
            length = xp.astype(start, dtype) * (self.T_mult - 1) + self.T_0
        left = length - xp.astype(step - start, dtype)
        return _swing(xp, self.eta_min, self.lr, left, length)

    def _begins(self) -> Iterator[int]:
        """The steps at which a cycle begins, as far as 32 bits count; the first is 0."""
        begin = self.T_0
        while begin < 2**31:
            yield begin
            begin = begin * self.T_mult + self.T_0


@told_class
@dataclass(frozen=True)
class OneCycleLR(Schedule):
    """From max_lr / div_factor up to max_lr in the first `pct_start` of the steps, then down.

    The last rate is the first rate divided by `final_div_factor`. `anneal_strategy` is "cos" or
    "linear". It is PyTorch's schedule with `cycle_momentum=False`: it does not change the momentum.

    Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
    Rates" (2017).
    """

    max_lr: float
    total_steps: int
    pct_start: float = 0.3
    anneal_strategy: str = "cos"
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def __post_init__(self) -> None:
        self._check("max_lr", "pct_start", "div_factor", "final_div_factor", above_0=True)
        self._check_steps("total_steps")
        if self.anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f'OneCycleLR: anneal_strategy is "cos" or "linear"; got {self.anneal_strategy!r}'
            )
        if not 0 < self._top < self.total_steps - 1:
            raise ValueError(
                f"OneCycleLR: with pct_start {self.pct_start} of {self.total_steps} steps there is "
                "no step to go up, or none to go down"
            )

    @property
    def _top(self) -> float:
        """The step with the highest rate; it may lie between two steps."""
        return self.pct_start * self.total_steps - 1

    def rate(self, xp: Any, step: Array, dtype: Any) -> Array:
        start = self.max_lr / self.div_factor
        between = _swing if self.anneal_strategy == "cos" else _line
        up, down = self._top, self.total_steps - 1 - self._top
        done = xp.astype(xp.minimum(step, math.floor(up)), dtype)
        left = xp.astype(self.total_steps - 1 - xp.minimum(step, self.total_steps - 1), dtype)
        return xp.where(
            step <= math.floor(up),
            between(xp, start, self.max_lr, done, up),
            between(xp, start / self.final_div_factor, self.max_lr, left, down),
        )


@told_class
@dataclass(frozen=True)
class SequentialLR(Schedule):
    """One schedule after another: at each milestone, the next schedule begins at its own step 0.

    >>> import numpy as np
    >>> warm = SequentialLR([LinearLR(1.0, 0.5, 1.0, 2), CosineAnnealingLR(1.0, 4)], milestones=[2])
    >>> warm(np.arange(6)).round(2)
    array([0.5 , 0.75, 1.  , 0.85, 0.5 , 0.15])
    """

    schedulers: Sequence[Schedule]
    milestones: Sequence[int]

    def __post_init__(self) -> None:
        self._check_milestones(self.milestones)
        object.__setattr__(self, "schedulers", _several("SequentialLR", self.schedulers))
        if len(self.schedulers) != len(self.milestones) + 1:
            raise ValueError(
                f"SequentialLR: {len(self.schedulers)} schedules have {len(self.schedulers) - 1} "
                f"milestones between them; got {len(self.milestones)}"
            )

    def rate(self, xp: Any, step: Array, dtype: Any) -> Array:
        begins, ends = (0, *self.milestones), (*self.milestones, None)
        y = None
        for schedule, begin, end in zip(self.schedulers, begins, ends, strict=True):
            since = xp.maximum(step, begin) - begin
            if end is not None:
                since = xp.minimum(since, end - 1 - begin)
            new = schedule.rate(xp, since, dtype)
            y = new if y is None else xp.where(step >= begin, new, y)
        return y


@told_class
@dataclass(frozen=True)
class ChainedScheduler(Schedule):
    """The product of several schedules at the same step: give all but one of them lr = 1."""

    schedulers: Sequence[Schedule]

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedulers", _several("ChainedScheduler", self.schedulers))

    def rate(self, xp: Any, step: Array, dtype: Any) -> Array:
        return math.prod(schedule.rate(xp, step, dtype) for schedule in self.schedulers)


def _several(who: str, schedules: Any) -> tuple[Schedule, ...]:
    found = tuple(schedules) if isinstance(schedules, Iterable) else ()
    if not found or not all(isinstance(s, Schedule) for s in found):
        raise TypeError(f"{who}: schedulers is a list of schedules; got {schedules!r}")
    return found


# Formulas that are accurate to the last digits of float32, even for small rates and large steps


def power(xp: Any, base: float, exponent: Array, dtype: Any) -> Array:
    """`base` to the power of an array of integers, to the last digits of float32.

    exp(exponent · log(base)) would lose digits. So the exponent is split into two digits in base
    4096, and the factor of each digit into its first 12 bits and a small rest. The products with
    the 12 bits are exact for exponents up to 2²⁴, and those with the rest are small.
    """
    logarithm = math.log(base)
    high, rest = 1.0, 0.0
    for digit, factor in ((exponent % 4096, logarithm), (exponent // 4096, 4096 * logarithm)):
        mantissa, places = math.frexp(factor)
        short = math.ldexp(round(mantissa * 4096), places - 12)
        count = xp.astype(digit, dtype)
        high = xp.exp(count * short) * high
        rest = count * (factor - short) + rest
    return xp.exp(xp.clip(rest, -1.0, 1.0)) * high  # beyond, `high` is 0 or infinite


def _swing(xp: Any, low: float, high: float, left: Array, length: float | Array) -> Array:
    """Half a cosine wave, from `low` where `left` is 0 to `high` where `left` is `length`.

    low·cos² + high·sin² over a quarter turn adds no negative terms, so no digits cancel.
    """
    turn = left * (math.pi / 2 / length)
    return low + (high - low) * xp.square(xp.sin(turn))


def _line(xp: Any, low: float, high: float, left: Array, length: float) -> Array:
    """A straight line, from `low` where `left` is 0 to `high` where `left` is `length`."""
    return low + left * ((high - low) / length)


if not TYPE_CHECKING:  # which would believe that every name exists
    __getattr__ = named_in(__name__, __all__)

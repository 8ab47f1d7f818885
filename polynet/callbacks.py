"""Callbacks: functions that `fit(callbacks=[…])` calls with the Trainer after each epoch.

A callback of your own is a function of the Trainer. Where it returns True, training ends. No other
result ends training, not even a number such as 1.

>>> def good_enough(trainer):
...     return trainer.history["loss"][-1] < 0.01
>>> import numpy as np
>>> from polynet import Trainer, losses, nn, optim
>>> x = np.linspace(-1, 1, 64)[:, None]
>>> trainer = Trainer(nn.Linear(1, 1), losses.mse, optim.Adam(lr=0.1))
>>> history = trainer.fit(x, 3 * x, epochs=100, callbacks=[good_enough])
>>> trainer.epoch < 100
True

A callback's decisions should be a function of `trainer.history`, which is saved with the run. Then
they are the same in a run that was stopped and went on.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Collection
from typing import TYPE_CHECKING

from polynet.errors import did_you_mean, unknown
from polynet.files import check_folder
from polynet.integers import at_least_0, positive
from polynet.optim.checks import number, settings_of
from polynet.tensor import told_class

if TYPE_CHECKING:
    from polynet.train import Trainer

__all__ = ["Checkpoint", "EarlyStopping", "ReduceLROnPlateau"]


class _Best:
    """Base of the callbacks that watch a number of the history, and know its best epoch."""

    min_delta = 0.0

    def __init__(self, monitor: str, mode: str | None) -> None:
        name = type(self).__name__
        if mode is None and monitor.endswith("loss"):
            mode = "min"
        if mode not in {"min", "max"}:
            hint = did_you_mean(monitor, ["loss", "val_loss"], near=0.8) if mode is None else ""
            raise ValueError(
                f"{name}: mode is {mode!r}; for {monitor!r} say mode='max' where more is better, "
                f"or mode='min': it is known for names that end in 'loss' only.{hint}"
            )
        self.monitor = monitor
        self.mode = mode

    def __repr__(self) -> str:
        return settings_of(self)

    def best_epoch(self, trainer: Trainer) -> int:
        """The epoch, counted from 1, which no later one improved upon by more than `min_delta`."""
        best, epoch = math.inf, 1
        for i, cost in enumerate(self._costs(trainer), start=1):
            if cost < best - self.min_delta:
                best, epoch = cost, i
        return epoch

    def check_before_fit(self, trainer: Trainer, numbers: Collection[str]) -> None:  # noqa: ARG002 (for ReduceLROnPlateau)
        """Raise KeyError unless `monitor` is among the numbers kept; `fit` calls it first."""
        self._check(numbers)

    def _check(self, numbers: Collection[str]) -> None:
        if self.monitor not in numbers:
            raise KeyError(
                f"{type(self).__name__}: {unknown('number', self.monitor, numbers)} Those that "
                "begin with val_ are the loss and the Trainer's metrics on validation data, which "
                "fit takes as validation_data=(x, y) or validation_split=0.2"
            )

    def _costs(self, trainer: Trainer) -> list[float]:
        """The numbers of all epochs, signed so that less is better; NaN where one is missing."""
        self._check(trainer.history)
        sign = 1 if self.mode == "min" else -1
        return [sign * value for value in trainer.history[self.monitor]]


@told_class
class EarlyStopping(_Best):
    """Ends training after `patience` epochs in a row that were no better than the best before.

    An epoch is better where `monitor` falls by more than `min_delta` (rises, with mode="max";
    mode may be left out for a loss). With `restore_best_weights`, the network then gets the weights
    of the best epoch. Where `fit` ends earlier for another reason, call `restore(trainer)` for
    that. These weights belong to the run and are saved with it, so a run that was loaded stops
    where one that never stopped does. Raises RuntimeError where the best epoch came before this
    callback was in use.

    Names and meaning are those of Keras, but by default the weights are restored.
    Prechelt, "Early Stopping — But When?", 1998.

    >>> import numpy as np
    >>> from polynet import Trainer, losses, nn, optim
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> trainer = Trainer(nn.Linear(1, 1), losses.mse, optim.SGD(lr=0.5))
    >>> stop = EarlyStopping(patience=3)
    >>> history = trainer.fit(x, 3 * x, epochs=1000, validation_split=0.25, callbacks=[stop])
    >>> trainer.epoch == stop.best_epoch(trainer) + 3
    True
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best_weights: bool = True,
    ) -> None:
        super().__init__(monitor, mode)
        self.min_delta = number("EarlyStopping: min_delta", min_delta)
        self.patience = positive("EarlyStopping: patience", patience)
        self.restore_best_weights = restore_best_weights

    @property
    def _name(self) -> str:
        return f"best {self.mode} {self.monitor}"

    def __call__(self, trainer: Trainer) -> bool:
        best = self.best_epoch(trainer)
        if self.restore_best_weights:
            if best == trainer.epoch:
                trainer.keep_weights(self._name)
            elif trainer.kept.get(self._name) != best:
                raise RuntimeError(
                    f"EarlyStopping: the best {self.monitor} was in epoch {best}, whose weights "
                    "were not kept: this callback was not there, or had another min_delta. Give "
                    "it from the first fit on, or with restore_best_weights=False"
                )
        stop = trainer.epoch - best >= self.patience
        if stop and self.restore_best_weights:
            self.restore(trainer)
        return stop

    def restore(self, trainer: Trainer) -> None:
        """Give the network the weights of the best epoch so far."""
        trainer.restore_weights(self._name)


@told_class
class Checkpoint(_Best):
    """Saves the run to `path` after every `every` epochs, as `trainer.save` does.

    With `save_best_only`, only after an epoch that is the best so far by `monitor` (see
    `EarlyStopping`). It is called after the other callbacks, so that it saves their changes.

    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from polynet import Trainer, losses, nn, optim
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> trainer = Trainer(nn.Linear(1, 1), losses.mse, optim.Adam(lr=0.1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "run.safetensors")
    ...     _ = trainer.fit(x, 3 * x, epochs=3, callbacks=[Checkpoint(path, every=2)])
    ...     path.exists()
    True
    """

    last = True  # `fit` calls it after the other callbacks

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        every: int = 1,
        save_best_only: bool = False,
        monitor: str = "val_loss",
        mode: str | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        self.path = path
        self.every = positive("Checkpoint: every", every)
        self.save_best_only = save_best_only

    def check_before_fit(self, trainer: Trainer, numbers: Collection[str]) -> None:
        """Raise FileNotFoundError where the folder of `path` is missing; `fit` calls it first."""
        check_folder(self.path)
        if self.save_best_only:
            super().check_before_fit(trainer, numbers)

    def __call__(self, trainer: Trainer) -> None:
        if trainer.epoch % self.every:
            return
        if not self.save_best_only or self.best_epoch(trainer) == trainer.epoch:
            trainer.save(self.path)


@told_class
class ReduceLROnPlateau(_Best):
    """Lowers `trainer.lr_factor` where a number no longer improves.

    The optimizer's lr must be a schedule, such as `Constant(1e-3)`. `lr_factor` is multiplied by
    `factor`, down to `min_factor`, after more than `patience` epochs in a row in which `monitor`
    (see `EarlyStopping`) was not better than the best by more than a margin. The margin is
    `threshold` times the size of the best, or, with `threshold_mode="abs"`, `threshold` itself.
    The next `cooldown` epochs do not count. Names and meaning are PyTorch's.

    >>> import numpy as np
    >>> from polynet import Trainer, losses, nn, optim
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> optimizer = optim.SGD(optim.schedules.Constant(0.5))
    >>> trainer = Trainer(nn.Linear(1, 1), losses.mse, optimizer)
    >>> _ = trainer.fit(x, x, epochs=50, callbacks=[ReduceLROnPlateau("loss", patience=1)])
    >>> trainer.lr_factor < 1
    True
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        mode: str | None = None,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_factor: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode)
        if not 0 < factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor is between 0 and 1; got {factor!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f"ReduceLROnPlateau: threshold_mode is 'rel' or 'abs'; got {threshold_mode!r}"
            )
        self.factor = factor
        self.patience = at_least_0("ReduceLROnPlateau: patience", patience)
        self.threshold = number("ReduceLROnPlateau: threshold", threshold)
        self.threshold_mode = threshold_mode
        self.cooldown = at_least_0("ReduceLROnPlateau: cooldown", cooldown)
        self.min_factor = number("ReduceLROnPlateau: min_factor", min_factor, most=1.0)

    def check_before_fit(self, trainer: Trainer, numbers: Collection[str]) -> None:
        """Raise TypeError where no learning rate is a schedule; `fit` calls it first."""
        super().check_before_fit(trainer, numbers)
        trainer.lr_factor = trainer.lr_factor

    def __call__(self, trainer: Trainer) -> None:
        """Set `trainer.lr_factor` after an epoch."""
        trainer.lr_factor = self._factor_after(self._costs(trainer))

    def _factor_after(self, costs: list[float]) -> float:
        """The factor after epochs with these numbers, of which less is better."""
        best, factor, bad, cooling = math.inf, 1.0, 0, 0
        for cost in itertools.dropwhile(math.isnan, costs):  # `monitor` may have begun later
            margin = self.threshold * (abs(best) if self.threshold_mode == "rel" else 1.0)
            if cost < (best if best == math.inf else best - margin):
                best, bad = cost, 0
            else:
                bad += 1
            if cooling:
                cooling, bad = cooling - 1, 0
            if bad > self.patience:
                factor, bad = max(factor * self.factor, self.min_factor), 0
                cooling = self.cooldown
        return factor

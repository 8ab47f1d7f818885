"""Callbacks: what `fit(callbacks=[…])` calls with the Trainer after each epoch.

One of your own is a function; where it returns True, the epoch was the last. Nothing else that
it returns ends training, be it a number.

>>> def good_enough(trainer):
...     return trainer.history["loss"][-1] < 0.01
>>> import numpy as np
>>> from polynet import Trainer, losses, nn, optim
>>> x = np.linspace(-1, 1, 64)[:, None]
>>> trainer = Trainer(nn.Linear(1, 1), losses.mse, optim.Adam(lr=0.1))
>>> history = trainer.fit(x, 3 * x, epochs=100, callbacks=[good_enough])
>>> trainer.epoch < 100
True

What a callback decides should be a function of `trainer.history`, which is saved with the run:
a run that was stopped and went on then decides the same.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from polynet.checkpoint import check_folder
from polynet.errors import did_you_mean, unknown
from polynet.integers import positive

if TYPE_CHECKING:
    from polynet.train import Trainer


class _Best:
    """Which epoch was the best, by a number of the history."""

    def __init__(self, monitor: str, mode: str | None, min_delta: float = 0.0) -> None:
        name = type(self).__name__
        if mode is None and monitor.endswith("loss"):
            mode = "min"
        if mode not in {"min", "max"}:
            hint = did_you_mean(monitor, ["loss", "val_loss"], near=0.8) if mode is None else ""
            raise ValueError(
                f"{name}: mode is {mode!r}; for {monitor!r} say mode='max' where more is better, "
                f"or mode='min': it is known for names that end in 'loss' only.{hint}"
            )
        if not 0 <= min_delta < math.inf:
            raise ValueError(f"{name}: min_delta is a number, at least 0; got {min_delta!r}")
        self.monitor = monitor
        self.mode = mode
        self.min_delta = min_delta

    def best_epoch(self, trainer: Trainer) -> int:
        """The epoch, counted from 1, which no later one improved upon by more than `min_delta`."""
        if self.monitor not in trainer.history:
            raise KeyError(
                f"{type(self).__name__}: {unknown('number', self.monitor, trainer.history)} "
                "Those that begin with val_ need validation data"
            )
        best, epoch = math.inf, 1
        for i, value in enumerate(trainer.history[self.monitor], start=1):
            cost = value if self.mode == "min" else -value
            if cost < best - self.min_delta:
                best, epoch = cost, i
        return epoch


class EarlyStopping(_Best):
    """Ends training once `patience` epochs in a row were no better than the best before them.

    An epoch is better where `monitor` falls by more than `min_delta` (rises, with mode="max";
    mode may be left out for a loss). With `restore_best` the network then has the weights of
    the best epoch; where `fit` ends before that, `restore(trainer)` gives it them. They belong
    to the run, and are saved with it: one that is loaded stops where the run that never stopped
    does. Raises RuntimeError where the best epoch was before this callback was there.

    Names and meaning are those of Keras. Prechelt, "Early Stopping — But When?", 1998.

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
        restore_best: bool = True,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = positive("EarlyStopping: patience", patience)
        self.restore_best = restore_best

    @property
    def _name(self) -> str:
        return f"best {self.mode} {self.monitor}"

    def __call__(self, trainer: Trainer) -> bool:
        best = self.best_epoch(trainer)
        if self.restore_best:
            if best == trainer.epoch:
                trainer.keep_weights(self._name)
            elif trainer.kept.get(self._name) != best:
                raise RuntimeError(
                    f"EarlyStopping: the best {self.monitor} was in epoch {best}, whose weights "
                    "were not kept: this callback was not there, or had another min_delta. Give "
                    "it from the first fit on, or with restore_best=False"
                )
        stop = trainer.epoch - best >= self.patience
        if stop and self.restore_best:
            self.restore(trainer)
        return stop

    def restore(self, trainer: Trainer) -> None:
        """Give the network the weights of the best epoch so far."""
        trainer.restore_weights(self._name)


class Checkpoint(_Best):
    """Saves the run to `path` after every `every` epochs, as `trainer.save` does.

    With `save_best_only`, only after an epoch that is the best so far by `monitor` (see
    `EarlyStopping`). It is called after the other callbacks, so that what they did is saved.

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

    last = True

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

    def check_folder(self) -> None:
        """Raise FileNotFoundError where `path` is in no folder; `fit` asks before it trains."""
        check_folder(self.path)

    def __call__(self, trainer: Trainer) -> None:
        if trainer.epoch % self.every:
            return
        if not self.save_best_only or self.best_epoch(trainer) == trainer.epoch:
            trainer.save(self.path)

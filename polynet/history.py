"""The numbers of a run of training, and its position in the data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from polynet.errors import unknown

__all__ = ["History"]


class History(Mapping[str, list[float]]):
    """The numbers of each epoch: by name, a list of one number per epoch, NaN where there was none.

    The names are `"loss"` (the mean over the epoch's samples, each measured when it was trained
    on) and, where there is validation data, `"val_loss"` and `"val_…"` for each metric.
    `pandas.DataFrame(dict(history))` is a table of them.

    `step_losses` has one number per step. `step_weights` has the weight of each step in the
    epoch's mean: the number of its samples, or the sum of their weights.
    """

    def __init__(self) -> None:
        self.epochs: dict[str, list[float]] = {}
        self.step_losses: list[float] = []
        self.step_weights: list[float] = []

    def __getitem__(self, name: str) -> list[float]:
        if name not in self.epochs:
            also = " Metrics are measured on validation data, as val_…" if self.epochs else ""
            raise KeyError(unknown("number of the history", name, self.epochs) + also)
        return self.epochs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.epochs)

    def __len__(self) -> int:
        return len(self.epochs)

    def record(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Keep the numbers of an epoch, counted from 0; they replace any that it had before."""
        for name in {**self.epochs, **numbers}:
            column = self.epochs.setdefault(name, [math.nan] * epoch)
            column[epoch:] = [numbers.get(name, math.nan)]

    def last(self) -> dict[str, float]:
        """The newest number of each name."""
        return {name: values[-1] for name, values in self.epochs.items()}

    def __repr__(self) -> str:
        newest = ", ".join(f"{k} {v:.4g}" for k, v in self.last().items())
        count = max(map(len, self.epochs.values()), default=0)
        return f"<History of {count} epochs: {newest}>"


@dataclass(frozen=True)
class Position:
    """The position of a run in its data.

    `epoch` counts from 0. `batches` of this epoch are done, one for each step; it is 0 between
    epochs. Each batch has `batch_size` of the epoch's `samples`; both of these are 0 where the data
    makes its batches itself.
    """

    epoch: int = 0
    batches: int = 0
    batch_size: int = 0
    samples: int = 0

    def check(self, batch_size: int, samples: int) -> None:
        """Raise ValueError where these do not give the batches of the epoch that was cut."""
        if self.batches and (batch_size, samples) != (self.batch_size, self.samples):
            raise ValueError(
                f"epoch {self.epoch} was cut after {self.batches} batches"
                f"{_of(self.batch_size, self.samples)}; got batches{_of(batch_size, samples)}. "
                "Finish it with those it began with, or begin anew with Trainer(trainer.net, …)"
            )


def _of(batch_size: int, samples: int) -> str:
    if not batch_size:
        return " that the data made itself"
    return f" of {batch_size}, of {samples} samples"

"""How samples reach the step: moved to the device all at once, or streamed batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from polynet.backend import Array
from polynet.backend.transfer import on_host
from polynet.data.named import NAMES, each, same_length, samples
from polynet.data.order import batches, chunks, count_of, varied
from polynet.data.place import Place, check_host, is_device_array, lies_on_the_host
from polynet.data.prefetch import prefetched
from polynet.data.source import Batch, Batches, Source, batches_in_order, training_batches
from polynet.data.stacked import stacked
from polynet.tree import map as tree_map

Data = tuple[Any, ...]
"""x, y and, where there are any, the samples' weights, on the device; x and y may be dicts."""
Check = Callable[[np.ndarray, np.ndarray | None], None]
"""A function that checks targets and, where there are any, the samples' weights, on the host."""


class Call(NamedTuple):
    """One call of the compiled step: its arguments `data` and `rows`, and the steps' weights.

    `rows` has one row per step, with the indices of its samples in `data`. `weights` has the weight
    of each step in the epoch's mean: the number of its samples, or the sum of their weights.
    """

    data: Data
    rows: Array
    weights: list[float]


class Resident:
    """Data `(x, y[, sample_weight])` that is on the device as a whole; `predict` has `x` alone."""

    makes_batches = False

    def __init__(self, place: Place, given: tuple[Any, ...], seed: int, prefix: str = "") -> None:
        self.names = names = [prefix + name for name in NAMES]
        self.arrays: Data = tuple(map(place.take_in, given[:2], names))
        for a, name in zip(given[1:], names[1:], strict=False):
            same_length(given[0], a, (names[0], name))
        self._weights: np.ndarray | None = None
        if len(given) > 2:
            weights = on_host(given[2])
            self._weights = _weights(weights, place, names[2])
            if not self._weights.any():
                raise ValueError(f"{names[2]} holds zeros only; give some samples a weight above 0")
            on_device = is_device_array(given[2])
            self.arrays += (place.take_in(given[2] if on_device else self._weights, names[2]),)
        self._place = place
        self._seed = seed
        self._drop_last = False
        self.samples = samples(self.arrays[0], names[0])

    def steps(self, batch_size: int) -> int | None:
        """How many steps an epoch has."""
        return count_of(self.samples, batch_size, drop_last=self._drop_last)

    def step_size(self, batch_size: int | None, accumulate: int, *, drop_last: bool) -> int:
        """How many samples a step takes: `accumulate` batches of `batch_size`, by default 32.

        `drop_last` sets whether, from here on, an epoch leaves out a shorter last step.
        """
        self._drop_last = drop_last
        return _step_size(self.samples, batch_size, accumulate, drop_last=drop_last)

    def check_targets(self, check: Check) -> None:
        """Let `check` look at the targets, on the host, before they are used."""
        check(on_host(self.arrays[1]), self._weights)

    def first(self, count: int) -> Data:
        """Up to `count` samples, to try the network on."""
        return self._copied(0, count)

    def mixed(self, count: int, of: int) -> Data:  # noqa: ARG002 (it chooses among all)
        """Up to `count` samples with as many different labels as possible."""
        rows = self._place.index(varied(self.arrays[1], count))
        return tree_map(lambda a: self._place.backend.xp.take(a, rows, axis=0), self.arrays)

    def calls(self, batch_size: int, *, epoch: int, start: int, together: int) -> Generator[Call]:
        """The calls for an epoch from batch `start` on, each of up to `together` steps."""
        rows = batches(
            self.samples, batch_size, seed=self._seed, epoch=epoch, drop_last=self._drop_last
        )
        for chunk in chunks(list(rows)[start:], together):
            moved = self._place.index(np.stack(chunk))  # one transfer a call
            yield Call(self.arrays, moved, [self._weight(r) for r in chunk])

    def _weight(self, rows: np.ndarray) -> float:
        return len(rows) if self._weights is None else float(self._weights[rows].sum())

    def in_order(self, batch_size: int) -> Generator[Data]:
        """All samples in their order, in batches, for evaluation and prediction."""
        for start in range(0, self.samples, batch_size):
            yield self._copied(start, start + batch_size)

    def _copied(self, start: int, end: int) -> Data:
        """A copy of samples: a layer may write over its input, but not over the user's array."""
        xp, end = self._place.backend.xp, min(end, self.samples)
        return tree_map(lambda a: xp.asarray(a[start:end, ...], copy=True), self.arrays)


class Streamed:
    """Batches of a source, or of data that makes its own, made in a thread and moved when needed.

    The methods are those of `Resident`.
    """

    def __init__(self, place: Place, source: Source | Batches, seed: int, prefix: str = "") -> None:
        self._place = place
        self._seed = seed
        self._source = source
        self.names = [prefix + name for name in NAMES]
        self._check: Check | None = None
        self._drop_last = False
        self.makes_batches = not isinstance(source, Source)
        self.samples: int = len(source) if isinstance(source, Source) else 0
        if isinstance(source, Source) and not self.samples:
            raise ValueError(f"{prefix}{type(source).__name__} is empty; give at least one sample")

    def steps(self, batch_size: int) -> int | None:
        if self.makes_batches:
            return None
        return count_of(self.samples, batch_size, drop_last=self._drop_last)

    def step_size(self, batch_size: int | None, accumulate: int, *, drop_last: bool) -> int:
        """As `Resident.step_size`; 0 where the data makes its own batches, one for each step."""
        self._drop_last = drop_last
        if not self.makes_batches:
            return _step_size(self.samples, batch_size, accumulate, drop_last=drop_last)
        if batch_size is not None or accumulate != 1 or drop_last:
            raise ValueError(
                "batch_size, accumulate and drop_last are for arrays and sources; these data make "
                "their own batches, one for each step"
            )
        return 0

    def check_targets(self, check: Check) -> None:
        self._check = check

    def first(self, count: int) -> Data:
        """As `Resident.first`; the first batch where the data makes its own batches."""
        some = batches_in_order(self._source, count, seed=self._seed)
        for batch in self._prepared(some):
            return self._put(batch)
        raise ValueError("the source gives no batch; expected at least one")

    def mixed(self, count: int, of: int) -> Data:
        """As `Resident.mixed`, from the first `of` samples of training, since a source is large."""
        some = training_batches(self._source, of, seed=self._seed, epoch=0, start=0)
        batch = next(self._prepared(some))
        rows = varied(batch[1], count)
        return self._put(tree_map(lambda a: a[rows], batch))

    def _put(self, batch: Batch) -> Data:
        return tree_map(self._place.put, batch)

    def calls(self, batch_size: int, *, epoch: int, start: int, together: int) -> Generator[Call]:
        made = training_batches(
            self._source,
            batch_size,
            seed=self._seed,
            epoch=epoch,
            start=start,
            drop_last=self._drop_last,
        )
        with prefetched(stacked(self._prepared(made), together)) as stacks:
            for count, stack in stacks:
                data = self._put(stack)
                size = samples(stack[0]) // count
                rows = np.arange(count * size).reshape(count, size)
                sums = stack[2].reshape(count, size).sum(axis=1) if len(stack) > 2 else size
                weights = np.broadcast_to(sums, count).tolist()
                yield Call(data, self._place.index(rows), weights)

    def in_order(self, batch_size: int) -> Generator[Data]:
        made = batches_in_order(self._source, batch_size, seed=self._seed)
        with prefetched(stacked(self._prepared(made), 1)) as batches_:
            for _, batch in batches_:
                yield self._put(batch)

    def _prepared(self, made: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, checked and cast."""
        for number, batch in enumerate(made):
            if not isinstance(batch, tuple | list) or len(batch) not in {2, 3}:
                size = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
                columns = isinstance(batch, Mapping)
                raise TypeError(
                    f"{self.names[0]}: a batch is (x, y) or (x, y, sample_weight); batch {number} "
                    f"is a {type(batch).__name__}{size}"
                    + "; of data in columns, give the columns: fit(data['x'], data['y'])"
                    * columns
                )
            names = [f"batch {number}'s {name}" for name in self.names]
            for a, name in zip(batch, names, strict=False):
                if np.isscalar(a) or getattr(a, "shape", None) == ():
                    raise ValueError(
                        f"{name} is a single value; a batch holds several samples. Make two arrays "
                        "of a list of samples, x, y = map(np.stack, zip(*samples)); a Dataset of "
                        "PyTorch's goes into a DataLoader"
                    )
            pairs = zip(batch, names, strict=False)
            x, y, *others = (each(_from_the_host, a, name) for a, name in pairs)
            found = [self._place.prepare(a, n) for a, n in zip((x, y), names, strict=False)]
            found += [_weights(on_host(w), self._place, names[2]) for w in others]
            for a, name in zip(found[1:], names[1:], strict=False):
                same_length(found[0], a, (names[0], name))
            if self._check is not None:
                self._check(found[1], found[2] if others else None)
            yield tuple(found)


Feed = Resident | Streamed


def _step_size(count: int, batch_size: int | None, accumulate: int, *, drop_last: bool) -> int:
    size = (batch_size or 32) * accumulate
    if drop_last and count < size:
        raise ValueError(
            f"drop_last leaves nothing: a step takes {size} samples, and there are {count}; give a "
            "smaller batch_size"
        )
    return size


def _from_the_host(a: Any, name: str) -> Any:
    """An array of a batch; one of another library, such as PyTorch, must be in host memory."""
    if not is_device_array(a):
        return a
    if lies_on_the_host(a):
        return on_host(a)
    raise TypeError(
        f"{name} is a {type(a).__name__} on a device; a source makes arrays on the host: "
        "polynet.to_numpy(x) moves it there"
    )


def _weights(weights: np.ndarray, place: Place, name: str) -> np.ndarray:
    """One weight for each sample, in the network's dtype."""
    check_host(weights, name)
    if weights.ndim != 1 or (weights < 0).any():
        found = "a number below 0" if weights.ndim == 1 else f"the shape {weights.shape}"
        raise ValueError(
            f"{name} has {found}; expected one weight a sample, at least 0, of shape (samples,)"
        )
    return weights.astype(place.dtype, copy=False)

"""Sources: data that is made batch by batch on the host, because it is large or generated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from inspect import signature
from itertools import islice
from typing import Any

import numpy as np

from polynet import random
from polynet.data.augment import Augmentation
from polynet.data.named import NAMES, arrays_of, each, same_length, samples
from polynet.data.order import batches
from polynet.data.place import host_array, is_device_array

Batch = tuple[Any, ...]
"""`(x, y)`, or `(x, y, sample_weight)`: NumPy arrays whose first axes count the same samples.

x and y may each be a dict of such arrays.
"""
Batches = Iterable[Batch] | Callable[[int, int], Iterable[Batch]]
"""Data that makes its own batches: an iterable of batches, or a function of (seed, epoch)."""


class Source:
    """Samples that are made a batch at a time, in a thread that runs beside the training step.

    A source of your own is a subclass with `__len__` and `batch`. The order of the rows in an epoch
    is a function of (seed, epoch), and so are the augmentations.

    >>> import numpy as np
    >>> class Squares(Source):
    ...     def __len__(self):
    ...         return 100
    ...     def batch(self, rows):
    ...         x = rows[:, None] / 100
    ...         return x, x**2
    >>> from polynet import Trainer, losses, nn, optim
    >>> trainer = Trainer(nn.Linear(1, 1), losses.mse, optim.Adam(lr=0.1))
    >>> trainer.fit(Squares(), epochs=5)["loss"][-1] < 0.1
    True
    """

    def __len__(self) -> int:
        """The number of samples."""
        raise NotImplementedError(f"{type(self).__name__} defines no __len__(self)")

    def __repr__(self) -> str:
        counted = type(self).__len__ is not Source.__len__
        return f"<{type(self).__name__}{f' of {len(self)} samples' if counted else ''}>"

    def batch(self, rows: np.ndarray) -> Batch:
        """The samples at these indices, in their order: `(x, y)` or `(x, y, sample_weight)`."""
        raise NotImplementedError(f"{type(self).__name__} defines no batch(self, rows)")

    def training_batch(self, rows: np.ndarray, rng: random.SampleStream) -> Batch:  # noqa: ARG002 (for those who augment)
        """The samples as training sees them: augmented, with numbers from `rng`."""
        return self.batch(rows)

    def augmented(self, augmentation: Augmentation) -> Source:
        """This source with `augmentation(x, rng)` in place of `x` in training, and only there.

        The numbers that `rng` draws for a sample are a function of (seed, epoch, index of the
        sample). See `data.augment`.
        """
        if not callable(augmentation) or isinstance(augmentation, type):
            raise TypeError(
                f"augmented: expected a function (x, rng) -> x; got {augmentation!r}. Call a class "
                "of data.augment first, RandomHorizontalFlip(); several go into a Compose"
            )
        return _Augmented(self, augmentation)

    def map(self, function: Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]) -> Source:
        """This source with `function(x, y)` in place of each batch (x, y), in evaluation too."""
        return _Mapped(self, function)

    def subset(self, rows: Any) -> Source:
        """A source of some samples: those at indices, those where a mask is true, or a slice.

        Raises IndexError if there is no such sample, and unless `rows` has one dimension.
        """
        try:
            indices = np.arange(len(self))[rows if isinstance(rows, slice) else np.asarray(rows)]
        except IndexError as error:
            raise IndexError(f"subset: {error}; {_ROWS.format(len(self))}") from None
        if indices.ndim != 1:
            raise IndexError(
                f"subset: got rows of shape {indices.shape}; {_ROWS.format(len(self))}"
            )
        return _Subset(self, indices)


_ROWS = "expected indices of the {0} samples, whole numbers below {0}, or a mask of shape ({0},)"


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", None) or repr(function)


class _Wrapped(Source):
    def __init__(self, inner: Source) -> None:
        self._inner = inner

    def __len__(self) -> int:
        return len(self._inner)


class _Augmented(_Wrapped):
    def __init__(self, inner: Source, augmentation: Augmentation) -> None:
        super().__init__(inner)
        self._augmentation = augmentation

    def __repr__(self) -> str:
        return f"{self._inner!r}.augmented({_name_of(self._augmentation)})"

    def batch(self, rows: np.ndarray) -> Batch:
        return self._inner.batch(rows)

    def training_batch(self, rows: np.ndarray, rng: random.SampleStream) -> Batch:
        x, *others = self._inner.training_batch(rows, rng)
        return self._augmentation(x, rng), *others


class _Mapped(_Wrapped):
    def __init__(self, inner: Source, function: Callable[..., tuple[Any, Any]]) -> None:
        super().__init__(inner)
        self._function = function

    def __repr__(self) -> str:
        return f"{self._inner!r}.map({_name_of(self._function)})"

    def batch(self, rows: np.ndarray) -> Batch:
        return self._made(self._inner.batch(rows))

    def training_batch(self, rows: np.ndarray, rng: random.SampleStream) -> Batch:
        return self._made(self._inner.training_batch(rows, rng))

    def _made(self, batch: Batch) -> Batch:
        x, y, *weights = batch
        made: Any = self._function(x, y)
        if not isinstance(made, tuple | list) or len(made) != 2:
            size = f" of {len(made)}" if isinstance(made, tuple | list) else ""
            raise TypeError(
                f"map: expected a function (x, y) -> (x, y); {_name_of(self._function)} returned a "
                f"{type(made).__name__}{size}"
            )
        return *made, *weights


class _Subset(_Wrapped):
    def __init__(self, inner: Source, rows: np.ndarray) -> None:
        super().__init__(inner)
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<{len(self)} samples of {self._inner!r}>"

    def batch(self, rows: np.ndarray) -> Batch:
        return self._inner.batch(self._rows[rows])

    def training_batch(self, rows: np.ndarray, rng: random.SampleStream) -> Batch:
        return self._inner.training_batch(self._rows[rows], rng)


class _Arrays(Source):
    def __init__(self, arrays: Batch) -> None:
        self._arrays = arrays
        self._samples = samples(arrays[0])

    def __len__(self) -> int:
        return self._samples

    def __repr__(self) -> str:
        named = zip(NAMES, self._arrays, strict=False)  # there may be no weights
        each_array = [pair for name, x in named for pair in arrays_of(x, name)]
        kinds = ", ".join(f"{name} {a.shape} {a.dtype}" for name, a in each_array)
        return f"<arrays of {len(self)} samples: {kinds}>"

    def batch(self, rows: np.ndarray) -> Batch:
        return tuple(each(lambda a, _: a[rows], of_samples) for of_samples in self._arrays)


def arrays(x: Any, y: Any, sample_weight: Any = None) -> Source:
    """A source of host arrays, or dicts of them, which stay there and are moved batch by batch.

    `fit(x, y)` moves whole arrays, which is faster where they fit on the device; only an
    `np.memmap` is streamed as here. Raises ValueError where the arrays have different numbers of
    samples.

    >>> len(arrays([[0.0], [1.0]], [0, 1]))
    2
    """
    named = zip((x, y, sample_weight), NAMES, strict=True)
    hosts = tuple(each(_of_host, a, name) for a, name in named if a is not None)
    same_length(x, y)
    if sample_weight is not None:
        same_length(x, sample_weight, ("x", "sample_weight"))
    return _Arrays(hosts)


def _of_host(a: Any, name: str) -> np.ndarray:
    if is_device_array(a):
        raise TypeError(
            f"data.arrays takes arrays of the host; {name} is a {type(a).__name__}. (An np.memmap, "
            "and arrays that are given with one, go there too.) fit(x, y) takes device arrays as "
            "they are; polynet.to_numpy(x) moves one to the host"
        )
    return a if isinstance(a, np.memmap) else host_array(a, name)


def memory_mapped(x: str | os.PathLike[str], y: str | os.PathLike[str]) -> Source:
    """A source of the arrays in two .npy files, which may be larger than the memory.

    They are read from the files batch by batch. Raises ValueError for a file that cannot be
    mapped, such as .npz, and where the numbers of samples differ.
    """
    return arrays(*(_mapped(path) for path in (x, y)))


def _mapped(path: str | os.PathLike[str]) -> np.ndarray:
    array = np.load(path, mmap_mode="r")
    if not isinstance(array, np.memmap):
        array.close()
        raise ValueError(  # noqa: TRY004 (the path has the right type)
            f"{path} holds several arrays; expected a .npy file, as np.save writes it"
        )
    return array


def training_batches(
    source: Source | Batches,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    start: int,
    drop_last: bool = False,
) -> Iterator[Batch]:
    """The batches of an epoch from number `start` on; a Source does not make the earlier ones."""
    if not isinstance(source, Source):
        yield from islice(batches_of(source, seed, epoch), start, None)
        return
    all_rows = batches(len(source), batch_size, seed=seed, epoch=epoch, drop_last=drop_last)
    for rows in islice(all_rows, start, None):
        rng = random.SampleStream(random.key(seed, "augment", epoch), rows)
        yield _checked(rows, source.training_batch(rows, rng))


def batches_in_order(source: Source | Batches, batch_size: int, *, seed: int) -> Iterator[Batch]:
    """All batches in their order, without augmentation; a function is called for epoch 0."""
    if not isinstance(source, Source):
        yield from batches_of(source, seed, 0)
        return
    for start in range(0, len(source), batch_size):
        rows = np.arange(start, min(start + batch_size, len(source)))
        yield _checked(rows, source.batch(rows))


def _checked(rows: np.ndarray, batch: Batch) -> Batch:
    """The batch; raises ValueError unless it has one sample for each row."""
    x = batch[0] if isinstance(batch, tuple | list) and batch else rows  # feed refuses the rest
    shape = next((np.shape(a) for _, a in arrays_of(x)), ())
    if shape and shape[0] != len(rows):
        raise ValueError(
            f"a source was asked for {len(rows)} rows, and its batch has {shape[0]} samples; "
            "batch(rows) returns one for each, in their order"
        )
    return batch


def batches_of(source: Batches, seed: int, epoch: int) -> Iterator[Batch]:
    """The batches of data that makes its own; TypeError for data that gives them only once."""
    if callable(source):
        _check_called_with_epoch(source)
    made = source(seed, epoch) if callable(source) else source
    if not callable(source) and iter(made) is made:
        raise TypeError(
            f"a {type(made).__name__} gives its batches once; give the function (seed, epoch) "
            "that makes it, or a list of batches"
        )
    return iter(made)


def _check_called_with_epoch(source: Callable[..., Any]) -> None:
    """Refuse a function that does not take two arguments."""
    try:  # what is called is the decorated function, whatever the one inside takes
        signature(source, follow_wrapped=False).bind(0, 0)
    except ValueError:  # a function that does not say what it takes
        return
    except TypeError as error:
        name = _name_of(source)
        raise TypeError(
            f"{name} makes batches, and is called as {name}(seed, epoch), for each epoch anew: "
            f"{error}"
        ) from None

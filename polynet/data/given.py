"""Data as users give it: told apart by kind, held out for validation, and made into a feed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from polynet.data.feeds import Feed, Resident, Streamed
from polynet.data.named import NAMES, arrays_of, same_length, samples
from polynet.data.order import rows_of, split_rows
from polynet.data.place import Place, is_device_array
from polynet.data.source import Batch, Source, arrays, batches_of

Given = tuple[Any, Any, Any]
"""x, y and sample_weight, as a user gives them; y is None beside a source."""


def feed(place: Place, x: Any, y: Any, sample_weight: Any, *, seed: int, prefix: str = "") -> Feed:
    """The feed for data given to `fit` or `evaluate`; `y` is None for a source."""
    if isinstance(x, Source) or callable(x) or (y is None and is_batches(x)):
        for value, name in ((y, "y"), (sample_weight, "sample_weight")):
            if value is not None:
                raise TypeError(
                    f"{prefix}{name} was given beside a source, whose batches hold it: they are "
                    "(x, y) or (x, y, sample_weight)"
                )
        return Streamed(place, x, seed, prefix)
    if y is None:
        raise TypeError(
            f"{prefix}y is missing: x is a {type(x).__name__}; expected x and y (any y, such as "
            "zeros, for a loss without targets), or a source of both (polynet.data), a function "
            "(seed, epoch) -> batches, a list of batches or a DataLoader, into which a Dataset of "
            "PyTorch's goes"
        )
    given = (x, y) if sample_weight is None else (x, y, sample_weight)
    if _is_mapped(given):
        return Streamed(place, arrays(*given), seed, prefix)
    return Resident(place, given, seed, prefix)


def inputs(place: Place, x: Any, *, seed: int) -> Feed:
    """The feed for data given to `predict`; of a batch, only x is read.

    Nested lists are one array, unless each item is a batch; ValueError if they may be either.
    """
    if isinstance(x, Source):
        return Streamed(place, x, seed)
    made = _are_batches(x) if isinstance(x, Sequence) else callable(x) or is_batches(x)
    if made:
        return Streamed(
            place, lambda seed, epoch: map(_without_y, batches_of(x, seed, epoch)), seed
        )
    if _is_mapped([x]):
        return Streamed(place, arrays(x, np.zeros(samples(x))), seed)
    try:
        return Resident(place, (x,), seed)
    except (TypeError, ValueError) as error:
        of_samples = hasattr(x, "__getitem__") and not isinstance(x, Sequence | Mapping)
        if not of_samples or hasattr(x, "shape") or hasattr(x, "__array__"):
            raise
        raise TypeError(
            f"x is a {type(x).__name__}, of which no array can be made; expected an array, a dict "
            "of arrays, a source (polynet.data), a function (seed, epoch) -> batches, a list of "
            "batches or a DataLoader, into which a Dataset of PyTorch's goes"
        ) from error


def with_validation(
    given: Given, validation_data: Any, share: float | None, *, seed: int, stratify: bool
) -> tuple[Given, Given | None]:
    """The training data, and the validation data if there is any, given or held out."""
    if share is None:
        if stratify:
            raise ValueError("stratify is for validation_split: give the share to hold out")
        return given, None if validation_data is None else _validation(validation_data)
    if validation_data is not None:
        raise ValueError("give validation_data or validation_split, not both")
    return hold_out(*given, share, seed=seed, stratify=stratify)


def _validation(given: Any) -> Given:
    """`validation_data` as x, y and sample_weight."""
    several = isinstance(given, tuple) or (
        isinstance(given, list) and not all(map(is_batch, given))
    )
    if not several and (isinstance(given, Source) or callable(given) or is_batches(given)):
        return given, None, None
    if not several or len(given) not in {2, 3}:
        raise TypeError(
            "validation_data is (x, y), (x, y, sample_weight), a list of such batches or a source; "
            f"got a {type(given).__name__}"
        )
    return given[0], given[1], given[2] if len(given) > 2 else None


def hold_out(
    x: Any, y: Any, sample_weight: Any, share: float, *, seed: int, stratify: bool
) -> tuple[Given, Given]:
    """The training data and the held-out data, each as x, y and sample_weight."""
    given = [a for a in (x, y, sample_weight) if a is not None]
    if isinstance(x, Source):
        if stratify:
            raise ValueError("stratify is for arrays: the classes of a source are not known")
        kept, held = split_rows(len(x), share, seed=seed)
        return (x.subset(kept), y, sample_weight), (x.subset(held), None, None)
    if y is None:
        raise TypeError(
            "validation_split is for arrays and sources, whose samples can be held out; give "
            "validation_data"
        )
    for a, name in zip(given[1:], NAMES[1:], strict=False):
        same_length(x, a, ("x", name))
    kept, held = split_rows(samples(x), share, seed=seed, y=y if stratify else None)
    if _is_mapped(given):
        source = arrays(*given)
        return (source.subset(kept), None, None), (source.subset(held), None, None)

    def part(rows: np.ndarray) -> Given:
        weights = None if sample_weight is None else rows_of(sample_weight, rows, NAMES[2])
        return rows_of(x, rows, NAMES[0]), rows_of(y, rows, NAMES[1]), weights

    return part(kept), part(held)


def is_batches(x: Any) -> bool:
    """Whether `x` is an iterable of batches, such as a list or PyTorch's DataLoader: no array."""
    alone = isinstance(x, str | Mapping) or hasattr(x, "__array__") or is_device_array(x)
    return isinstance(x, Iterable) and not alone


def is_batch(x: Any) -> bool:
    """Whether `x` is a batch: (x, y) or (x, y, sample_weight), of arrays or dicts of them."""
    several = isinstance(x, tuple | list) and len(x) in {2, 3}
    return several and all(getattr(a, "shape", ()) or isinstance(a, Mapping) for a in x)


def _are_batches(x: Sequence[Any]) -> bool:
    """Whether a list holds batches; ValueError if it may as well be one array."""
    if not len(x) or not all(map(is_batch, x)):
        return False
    shapes = {getattr(a, "shape", None) for batch in x for a in batch}
    if None not in shapes and len(shapes) == len(set(map(len, x))) == 1:
        raise ValueError(
            f"x is a list of {len(x)} times {len(x[0])} arrays of the same shape {shapes.pop()}: "
            "give np.asarray(x) if it is one array, and lambda seed, epoch: x if it is batches"
        )
    return True


def _without_y(batch: Any) -> Batch:
    """A batch for `predict`, (x, …) or x alone, as a batch (x, y) whose y is zeros."""
    x, *others = batch if isinstance(batch, tuple | list) and batch else [batch]
    if any(map(np.isscalar, others)):  # one sample, refused as in `fit`
        return x, others[0]
    return x, np.zeros(samples(x))


def _is_mapped(given: Sequence[Any]) -> bool:
    return any(isinstance(a, np.memmap) for x in given for _, a in arrays_of(x))

"""How samples reach the step: in parts, weighed, or streamed, the numbers are the same."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest

from polynet import Trainer, asarray, composition, data, functional, nn, optim
from polynet.backend import Backend, to_numpy
from polynet.ops import OPS
from polynet.testing.suite.cases import dtypes

rng = np.random.default_rng(8)
X = rng.normal(size=(70, 6))
Y = np.stack([X[:, 0] * 2, np.sin(X[:, 1])], axis=1)
WEIGHTS = rng.uniform(0, 3, size=70) * (rng.uniform(size=70) > 0.3)
NEAR = {"float32": 2e-5, "float64": 1e-10}


class Twice(nn.Module):
    """Dropout called twice, of whole samples and of their parts as samples."""

    def __init__(self) -> None:
        self.inner = nn.Linear(3, 4)
        self.drop = nn.Dropout(0.3)
        self.outer = nn.Linear(8, 2)

    def forward(self, x: Any) -> Any:
        reshape = OPS["reshape"]
        parts = reshape(self.drop(x), (-1, 3))  # two rows of each sample
        parts = self.drop(functional.gelu(self.inner(parts)))
        return self.outer(reshape(parts, (-1, 8)))


@composition
def weighted_mse(xp: Any, outputs: Any, targets: Any, /, *, sample_weight: Any = None) -> Any:
    """Σwl/Σw, where l is the mean over a sample's outputs."""
    each = xp.mean(xp.square(outputs - targets), axis=1)
    if sample_weight is None:
        return xp.mean(each)
    return xp.sum(each * sample_weight) / xp.sum(sample_weight)


def fitted(backend: Backend, dtype: str, *given: Any, **options: Any) -> Trainer:
    job = Trainer(
        Twice(), weighted_mse, optim.Adam(1e-2, eps=1e-5), seed=3, backend=backend, dtype=dtype
    )
    job.fit(*given, epochs=2, **options)
    return job


def near(one: Trainer, other: Trainer, size: float) -> None:
    assert len(one.history.step_losses) == len(other.history.step_losses)
    for found, expected in (
        (one.history.step_losses, other.history.step_losses),
        (one.history["loss"], other.history["loss"]),
    ):
        np.testing.assert_allclose(found, expected, rtol=size)
    for name, p in one.net.parameters().items():
        q = other.net.parameters()[name]
        np.testing.assert_allclose(to_numpy(p), to_numpy(q), rtol=0, atol=size)


def equal(one: Trainer, other: Trainer) -> None:
    assert one.history.step_losses == other.history.step_losses
    assert dict(one.history) == dict(other.history)
    for name, p in one.net.parameters().items():
        assert np.array_equal(to_numpy(p), to_numpy(other.net.parameters()[name])), name


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighed"])
@pytest.mark.parametrize(("size", "parts"), [(8, 2), (6, 4)])
def test_parts_of_a_step_are_the_step(
    backend: Backend, size: int, parts: int, weights: np.ndarray | None
) -> None:
    """Of 70 samples, the last step of an epoch is short, and so may be its last part."""
    dtype = dtypes(backend)[-1]
    whole = fitted(backend, dtype, X, Y, sample_weight=weights, batch_size=size * parts)
    split = fitted(backend, dtype, X, Y, sample_weight=weights, batch_size=size, accumulate=parts)
    near(split, whole, NEAR[dtype])


def test_a_part_without_weight_adds_nothing(backend: Backend) -> None:
    dtype = dtypes(backend)[-1]
    weights = np.where(np.arange(70) % 20, 0.0, 2.0)
    whole = fitted(backend, dtype, X, Y, sample_weight=weights, batch_size=24)
    split = fitted(backend, dtype, X, Y, sample_weight=weights, batch_size=8, accumulate=3)
    near(split, whole, NEAR[dtype])


def test_whole_weights_are_copies_of_samples(backend: Backend) -> None:
    """A weight of 2 counts as the sample given twice, in one batch without dropout."""
    dtype = dtypes(backend)[-1]
    weights = np.arange(70) % 3
    jobs = [
        Trainer(nn.Linear(6, 2), weighted_mse, optim.SGD(0.1), backend=backend, dtype=dtype)
        for _ in range(2)
    ]
    jobs[0].fit(X, Y, sample_weight=weights, batch_size=100, epochs=4)
    copies = np.repeat(X, weights, axis=0), np.repeat(Y, weights, axis=0)
    jobs[1].fit(*copies, batch_size=100, epochs=4)
    near(*jobs, NEAR[dtype])
    weighed, repeated = jobs[0].evaluate(X, Y, sample_weight=weights), jobs[1].evaluate(*copies)
    assert weighed["loss"] == pytest.approx(repeated["loss"], rel=NEAR[dtype])


@pytest.mark.parametrize("weights", [(), (WEIGHTS,)], ids=["alike", "weighed"])
def test_streamed_data_are_those_that_stay(backend: Backend, weights: tuple[np.ndarray]) -> None:
    options: dict[str, Any] = {"batch_size": 4, "validation_split": 0.2}
    kept = dict(zip(["sample_weight"], weights, strict=False))
    source = data.arrays(X, Y, *weights)
    streamed = fitted(backend, "float32", source, **options)
    stayed = fitted(backend, "float32", X, Y, **kept, **options)
    near(streamed, stayed, 1e-6)
    assert np.array_equal(streamed.predict(source), streamed.predict(X))


def test_a_stream_in_parts(backend: Backend) -> None:
    dtype = dtypes(backend)[-1]
    whole = fitted(backend, dtype, X, Y, batch_size=16)
    split = fitted(backend, dtype, data.arrays(X, Y), batch_size=8, accumulate=2)
    near(split, whole, NEAR[dtype])


@pytest.mark.parametrize("how", ["stay", "are streamed"])
@pytest.mark.parametrize(("size", "parts", "steps"), [(8, 1, 8), (8, 2, 4), (10, 1, 7)])
def test_a_short_last_step_may_be_left_out(
    backend: Backend, how: str, size: int, parts: int, steps: int
) -> None:
    """Of 70 samples; the others come in the order in which they would have come."""
    dtype = dtypes(backend)[-1]
    given = (X, Y) if how == "stay" else (data.arrays(X, Y),)
    options = {"batch_size": size, "accumulate": parts}
    dropped = fitted(backend, dtype, *given, drop_last=True, **options)
    assert len(dropped.history.step_losses) == 2 * steps
    whole = fitted(backend, dtype, *given, **options)
    first = dropped.history.step_losses[:steps], whole.history.step_losses[:steps]
    np.testing.assert_allclose(*first, rtol=NEAR[dtype])
    assert dropped.history["loss"][0] == pytest.approx(np.mean(first[0]), rel=1e-6)


def test_a_stream_that_was_cut_goes_on(backend: Backend) -> None:
    """After an error in the data, the run has the numbers of the run without it."""

    class Fails(data.Source):
        def __init__(self, after: int) -> None:
            self.left = after

        def __len__(self) -> int:
            return 70

        def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            self.left -= 1
            if not self.left:
                raise OSError("the disk is gone")
            return X[rows], Y[rows]

    dtype = dtypes(backend)[-1]
    whole = fitted(backend, dtype, data.arrays(X, Y), batch_size=2)
    cut = Trainer(
        Twice(), weighted_mse, optim.Adam(1e-2, eps=1e-5), seed=3, backend=backend, dtype=dtype
    )
    source = Fails(after=60)
    with pytest.raises(OSError, match="the disk is gone"):
        cut.fit(source, batch_size=2, epochs=2)
    assert 35 < len(cut.history.step_losses) + len(cut._run.unread) < 60
    cut.fit(source, batch_size=2, epochs=2 - cut.epoch)
    if backend.steps_per_call == 1:
        equal(cut, whole)
    else:  # a call of other steps is another program
        near(cut, whole, NEAR[dtype])


# Samples that are several arrays


class OfBoth(Twice):
    """The same of two inputs, and its outputs by their names."""

    def forward(self, left: Any, right: Any) -> Any:
        outputs = super().forward(OPS["concat"]([left, right], axis=1))
        return {"double": outputs[:, :1], "sine": outputs[:, 1:]}


def of_both(outputs: Any, targets: Any, sample_weight: Any = None) -> Any:
    joined = (OPS["concat"]([a["double"], a["sine"]], axis=1) for a in (outputs, targets))
    return weighted_mse(*joined, sample_weight=sample_weight)


def off(targets: Any, outputs: Any) -> float:
    """A metric, which gets NumPy's arrays."""
    targets, outputs = (
        np.concatenate([a["double"], a["sine"]], 1) if isinstance(a, dict) else a
        for a in (targets, outputs)
    )
    return float(np.abs(targets - outputs).mean())


INPUTS = {"left": X[:, :2], "right": X[:, 2:]}
TARGETS = {"sine": Y[:, 1:], "double": Y[:, :1]}  # in another order


@pytest.mark.parametrize("weights", [(), (WEIGHTS,)], ids=["alike", "weighed"])
@pytest.mark.parametrize("how", ["stay", "are streamed", "come in batches", "come in parts"])
def test_several_arrays_by_name_are_as_one(
    backend: Backend, how: str, weights: tuple[np.ndarray, ...]
) -> None:
    """Forth and back, with metrics and predictions."""
    dtype = dtypes(backend)[-1]
    found = []
    for net, loss, x, y in ((Twice(), weighted_mse, X, Y), (OfBoth(), of_both, INPUTS, TARGETS)):
        job = Trainer(
            net,
            loss,
            optim.Adam(1e-2, eps=1e-5),
            metrics=[off],
            seed=3,
            backend=backend,
            dtype=dtype,
        )
        options: dict[str, Any] = {"batch_size": 8, "epochs": 2}
        given: tuple[Any, ...] = (x, y)
        if how == "stay" and weights:
            options |= {"sample_weight": weights[0]}
        elif how == "come in batches":
            cuts = [slice(i, i + 8) for i in range(0, 70, 8)]
            del options["batch_size"]
            given = ([tuple(_cut(a, c) for a in (x, y, *weights)) for c in cuts],)
        elif how != "stay":
            given = (data.arrays(x, y, *weights),)
        if how == "come in parts":
            options |= {"batch_size": 4, "accumulate": 2}
        if how != "come in batches":
            options |= {"validation_split": 0.2}
        job.fit(*given, **options)
        found.append(job)
    near(found[1], found[0], NEAR[dtype])
    whole, several = found[0].predict(X), found[1].predict(INPUTS)
    np.testing.assert_allclose(several["double"], whole[:, :1], atol=NEAR[dtype])
    np.testing.assert_allclose(several["sine"], whole[:, 1:], atol=NEAR[dtype])
    numbers = found[0].evaluate(X, Y), found[1].evaluate(INPUTS, TARGETS)
    assert numbers[0] == pytest.approx(numbers[1], rel=100 * NEAR[dtype])


def _cut(a: Any, rows: slice) -> Any:
    return _each(a, lambda part: part[rows])


def test_several_arrays_of_the_backend(backend: Backend) -> None:
    """They say where the network goes, as one does; and so are the predictions."""
    dtype = dtypes(backend)[-1]
    x, y = (
        {name: asarray(a, backend=backend, dtype=dtype) for name, a in of.items()}
        for of in (INPUTS, TARGETS)
    )
    job = Trainer(OfBoth(), of_both, optim.Adam(1e-2), dtype=dtype)
    job.fit(x, y, batch_size=8)
    found = job.predict(x)
    assert sorted(found) == ["double", "sine"]
    assert all(backend.is_array(a) for a in found.values())


class Told(nn.Module):
    """What it computes hangs on which of its inputs it is given."""

    def __init__(self) -> None:
        self.linear = nn.Linear(6, 2)

    def forward(self, x: Any, plus: Any = None, less: Any = None) -> Any:
        x = x if plus is None else x + plus
        return self.linear(x if less is None else x - 2 * less)


def by_name(outputs: Any, targets: Any, sample_weight: Any = None) -> Any:
    if isinstance(targets, dict):
        targets = targets["y"] if "y" in targets else -targets["not y"]
    return weighted_mse(outputs, targets, sample_weight=sample_weight)


OTHER = rng.normal(size=(70, 6))
AS_THEY_ARE: list[tuple[Any, ...]] = [
    ({"x": X, "plus": OTHER}, Y),
    ({"x": X, "less": OTHER}, Y),
    ({"less": OTHER, "x": X}, {"y": Y}),
    ({"x": X, "plus": OTHER}, {"not y": Y}),
    ({"x": X}, Y),
    ({"x": X}, Y, WEIGHTS),
    ({"x": X, "plus": OTHER}, Y),
]
"""Arrays of the same shapes, one by one, whose names differ."""


def test_arrays_are_known_by_their_names(backend: Backend) -> None:
    """A program that was made for some is not run for others: in a later call, and in a stream."""
    dtype = dtypes(backend)[-1]
    given = [tuple(_each(a, lambda a: a.astype(dtype)) for a in some) for some in AS_THEY_ARE]
    for streamed in (False, True):
        jobs = [
            Trainer(Told(), by_name, optim.SGD(0.05), backend=b, dtype=dtype, seed=2)
            for b in (backend, _looping(backend))
        ]
        for job in jobs:
            if streamed:
                job.fit(given, epochs=5)
            else:
                for x, y, *weights in given:
                    kept = dict(zip(["sample_weight"], weights, strict=False))
                    job.fit(x, y, **kept, batch_size=70, epochs=5)
        near(*jobs, NEAR[dtype])


class Signs(nn.Module):
    def __init__(self) -> None:
        self.linear = nn.Linear(6, 2)

    def forward(self, **given: Any) -> Any:
        return self.linear(given["a"]["b"]) if "a" in given else -self.linear(given["a.b"])


def test_names_are_not_paths(backend: Backend) -> None:
    """A name with a dot is no dict within a dict."""
    dtype = dtypes(backend)[-1]
    given = [({"a": {"b": X}}, Y), ({"a.b": X}, Y)]
    jobs = [
        Trainer(Signs(), by_name, optim.SGD(0.05), backend=b, dtype=dtype, seed=2)
        for b in (backend, _looping(backend))
    ]
    for job in jobs:
        job.fit(given, epochs=5)
    near(*jobs, NEAR[dtype])


class Shifted(nn.Module):
    """It writes over what it is given, where the library lets it."""

    def __init__(self) -> None:
        self.linear = nn.Linear(6, 2)

    def forward(self, x: Any) -> Any:
        x -= 1.0
        return self.linear(x)


def over_targets(outputs: Any, targets: Any) -> Any:
    targets *= 2.0
    return weighted_mse(outputs, targets)


@pytest.mark.parametrize("where", ["host", "device"])
def test_what_a_layer_or_loss_writes_over_is_its_own(backend: Backend, where: str) -> None:
    """Not the user's array; and evaluation gives the same number each time, that of training."""
    dtype = dtypes(backend)[-1]
    given = [a.astype(dtype) for a in (X, Y)]
    if where == "device":
        given = [backend.from_host(a, backend.device(None)) for a in given]
    job = Trainer(
        Shifted(), over_targets, optim.SGD(0.0), metrics=[_size], backend=backend, dtype=dtype
    )
    history = job.fit(*given, batch_size=70, validation_data=tuple(given))
    expected = pytest.approx(history["loss"][0], rel=1e-4)
    assert history["val_loss"] == [expected]
    assert [job.evaluate(*given)["loss"] for _ in range(2)] == [expected] * 2
    job.predict(given[0])
    for found, before in zip(given, (X, Y), strict=True):
        assert np.array_equal(to_numpy(found), before.astype(dtype))


def _size(targets: Any, outputs: Any) -> float:
    return float(np.mean(targets**2)) + float(np.mean(outputs**2))


def _looping(backend: Backend) -> Backend:
    """It keeps nothing of a step."""
    plain = copy.copy(backend)
    plain.compile = partial(Backend.compile, plain)
    return plain


def _each(a: Any, function: Any) -> Any:
    several = isinstance(a, dict)
    return {name: function(part) for name, part in a.items()} if several else function(a)

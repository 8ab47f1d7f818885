"""Data beyond arrays: sources, functions, lists of batches, files, folders of images."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_by_one import OneByOne

from polynet import Trainer, data, losses, metrics, nn, optim
from polynet.backend import get_backend
from polynet.data import stacked
from polynet.testing.suite.test_feeding import weighted_mse

rng = np.random.default_rng(4)
X = rng.normal(size=(50, 4)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def trainer(**options: Any) -> Trainer:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    options = {"metrics": [metrics.accuracy], "seed": 5, "backend": "numpy", **options}
    return Trainer(net, losses.cross_entropy, optim.Adam(1e-2), **options)


def fit(*given: Any, epochs: int = 3, **options: Any) -> Trainer:
    job = trainer()
    job.fit(*given, epochs=epochs, **{"batch_size": 8, **options})
    return job


def assert_same_run(one: Trainer, other: Trainer) -> None:
    assert one.history.step_losses == other.history.step_losses
    assert dict(one.history) == dict(other.history)
    for name, p in one.net.parameters().items():
        assert np.array_equal(p, other.net.parameters()[name]), name


def no_thread_is_left() -> bool:
    return not [t for t in threading.enumerate() if t.name == "polynet-prefetch"]


@pytest.fixture(autouse=True)
def _threads_end() -> Iterator[None]:
    yield
    assert no_thread_is_left()


@pytest.fixture
def mapped(tmp_path: Path) -> tuple[Path, Path]:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", LABELS)
    return tmp_path / "x.npy", tmp_path / "y.npy"


# Arrays and files


def test_files_that_are_mapped_train_as_arrays_do(mapped: tuple[Path, Path]) -> None:
    source = data.memory_mapped(*mapped)
    x = np.load(mapped[0], mmap_mode="r")
    for options in ({}, {"validation_split": 0.2}):
        whole = fit(X, LABELS, **options)
        assert_same_run(fit(source, **options), whole)
        assert_same_run(fit(x, LABELS, **options), whole)
    assert_same_run(
        fit(x, LABELS, validation_split=0.2, stratify=True),
        fit(X, LABELS, validation_split=0.2, stratify=True),
    )
    assert whole.evaluate(source) == whole.evaluate(x, LABELS) == whole.evaluate(X, LABELS)
    assert np.array_equal(whole.predict(x), whole.predict(X))
    assert np.array_equal(whole.predict(source), whole.predict(X))


def test_a_mapped_file_is_never_read_whole(mapped: tuple[Path, Path]) -> None:
    """Nothing but batches is taken out of it: a NumPy array of all would be a copy of all."""

    class Watched(np.memmap):
        def __getitem__(self, key: Any) -> Any:
            taken.append(len(key))
            return super().__getitem__(key)

    taken: list[int] = []
    x = np.load(mapped[0], mmap_mode="r").view(Watched)
    job = fit(x, LABELS, validation_split=0.2, epochs=2)
    assert max(taken) <= 10  # the batches of 8, and the 10 held out
    assert sum(taken) == 2 * 50 + 2 * 8  # and as many of each part as a batch, tried first
    taken.clear()
    np.testing.assert_array_equal(job.predict(x, batch_size=8), job.predict(X, batch_size=8))
    assert max(taken) <= 8
    assert sum(taken) == 50


def test_validation_data_of_three_and_of_a_source() -> None:
    weights = rng.uniform(size=50)

    job = Trainer(nn.Linear(4, 1), weighted_mse, optim.SGD(0.01), backend="numpy", dtype="float64")
    y = X[:, :1].astype(float)
    job.fit(X, y, validation_data=(X, y, weights))
    found = [job.history["val_loss"][-1], job.evaluate(X, y, sample_weight=weights)["loss"]]
    expected = np.average((job.predict(X) - y)[:, 0] ** 2, weights=weights)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    job.fit(X, y, validation_data=data.arrays(X, y, weights))
    assert job.history["val_loss"][-1] == job.evaluate(X, y, sample_weight=weights)["loss"]


def test_the_epochs_loss_weighs_steps_by_their_weights() -> None:
    job = Trainer(nn.Linear(4, 1), weighted_mse, optim.SGD(0.01), backend="numpy", dtype="float64")
    weights = rng.uniform(size=50)
    history = job.fit(X, X[:, :1], sample_weight=weights, batch_size=16)
    rows = list(data.batches(50, 16, seed=0, epoch=0))
    assert history.step_weights == pytest.approx([weights[r].sum() for r in rows])
    expected = np.average(history.step_losses, weights=history.step_weights)
    assert history["loss"] == [pytest.approx(expected)]


# What makes its batches itself


def batches_of(seed: int, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for rows in data.batches(50, 8, seed=seed, epoch=epoch):
        yield X[rows], LABELS[rows]


def test_a_function_of_seed_and_epoch() -> None:
    job = trainer()
    job.fit(batches_of, epochs=3)
    assert_same_run(job, fit(X, LABELS))
    job.fit(batches_of, validation_data=batches_of)
    assert job.history["val_loss"][-1] == pytest.approx(job.evaluate(X, LABELS)["loss"], rel=1e-6)


def test_a_decorated_function_is_called_as_its_decorator_says() -> None:
    def by_epoch(make: Callable[[int], Any]) -> Callable[[int, int], Any]:
        return functools.wraps(make)(lambda seed, epoch: make(epoch))

    @by_epoch
    def made(epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return batches_of(5, epoch)

    assert_same_run(fit(made, batch_size=None), fit(X, LABELS))


def test_a_list_of_batches_is_taken_in_its_order() -> None:
    batches = list(batches_of(5, 0))
    job = trainer()
    job.fit(batches, epochs=1)
    assert_same_run(job, fit(X, LABELS, epochs=1))


def test_batches_written_over_one_another() -> None:
    def reused(seed: int, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        x, y = np.empty((10, 4), np.float32), np.empty(10, np.int64)
        for rows in data.batches(50, 10, seed=seed, epoch=epoch):
            x[...], y[...] = X[rows], LABELS[rows]
            yield x, y

    job = trainer()
    job.fit(reused, epochs=3)
    assert_same_run(job, fit(X, LABELS, batch_size=10))


@pytest.mark.parametrize(
    ("most", "shapes"),
    [
        (1 << 20, [(4, 8), (2, 8), (1, 2)]),
        (3 * 8 * (4 * 4 + 8) + 1, [(3, 8), (3, 8), (1, 2)]),
        (1, [*[(1, 8)] * 6, (1, 2)]),
    ],
)
def test_a_call_gets_batches_of_one_shape_as_far_as_they_are_few_bytes(
    most: int, shapes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacked, "MOST_BYTES", most)
    backend = get_backend("numpy")
    place = data.Place(backend, backend.device(None), "float32")
    fed = data.feed(place, data.arrays(X, LABELS), None, None, seed=5)
    calls = list(fed.calls(8, epoch=1, start=0, together=4))
    assert [call.rows.shape for call in calls] == shapes
    for call in calls:
        assert call.rows.tolist() == np.arange(call.rows.size).reshape(call.rows.shape).tolist()
        assert call.weights == [call.rows.shape[1]] * call.rows.shape[0]
    for i, whole in enumerate((X, LABELS)):
        streamed = np.concatenate([call.data[i] for call in calls])
        order = np.concatenate(list(data.batches(50, 8, seed=5, epoch=1)))
        assert np.array_equal(streamed, whole[order])


# Augmented, mapped, cut


def shifted(images: np.ndarray, rng: Any) -> np.ndarray:
    return images + rng.random(images.shape).astype(images.dtype)


def test_augmentation_is_a_function_of_seed_and_epoch_and_of_training_alone() -> None:
    source = data.arrays(X, LABELS).augmented(shifted)
    one, other = fit(source, validation_split=0.2), fit(source, validation_split=0.2)
    assert_same_run(one, other)
    plain = fit(X, LABELS, validation_split=0.2)
    assert one.history.step_losses[0] != plain.history.step_losses[0]
    assert one.evaluate(source) == one.evaluate(X, LABELS)
    assert np.array_equal(one.predict(source), one.predict(X))


@pytest.mark.parametrize(
    "rows", [[0, 1, 48, 49], [0, 1, -2, -1], np.arange(50) % 48 < 2, slice(10, None, 9)]
)
def test_a_subset_is_what_numpy_takes(rows: Any) -> None:
    """Of a mask it was samples 0 and 1, again and again, where `batch` computes with its rows."""

    class Rows(data.Source):
        def __len__(self) -> int:
            return 50

        def batch(self, rows: np.ndarray) -> Any:
            return rows[:, None] + 0.0, rows

    wanted = np.arange(50)[rows if isinstance(rows, slice) else np.asarray(rows)]
    subset = Rows().subset(rows)
    assert len(subset) == len(wanted)
    assert subset.batch(np.arange(len(wanted)))[1].tolist() == wanted.tolist()


def test_map_is_for_all() -> None:
    source = data.arrays(X / 2, LABELS).map(lambda x, y: (2 * x, y))
    one = fit(source)
    assert_same_run(one, fit(X, LABELS))
    assert np.array_equal(one.predict(source), one.predict(X))
    both = data.arrays(X / 2, LABELS).map(lambda x, y: (2 * x, y)).augmented(shifted)
    assert_same_run(fit(both), fit(data.arrays(X, LABELS).augmented(shifted)))


@pytest.mark.parametrize("saved_in", ["the file", "the Trainer"])
def test_cut_within_an_epoch(tmp_path: Path, saved_in: str) -> None:
    """Ctrl-C in the second epoch: the same batches follow, and those done are not made again."""
    asked: list[np.ndarray] = []

    class Counted(data.Source):
        def __len__(self) -> int:
            return 50

        def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            asked.append(rows)
            return X[rows], LABELS[rows]

    source = Counted().augmented(shifted)
    whole = fit(source)
    calls = []

    def interrupting(outputs: Any, targets: Any) -> Any:
        calls.append(1)
        if len(calls) == 12:
            signal.raise_signal(signal.SIGINT)
        return losses.cross_entropy(outputs, targets)

    job = trainer(backend=OneByOne())
    job.loss = interrupting
    with pytest.raises(KeyboardInterrupt):
        job.fit(source, epochs=3, batch_size=8)
    assert no_thread_is_left()
    done = len(job.history.step_losses)
    assert 7 < done < 14
    if saved_in == "the file":
        job.save(tmp_path / "run")
        job = trainer()
        job.load(tmp_path / "run")
    asked.clear()
    job.fit(source, epochs=2, batch_size=8)
    assert_same_run(job, whole)
    assert len(asked) == 1 + 21 - done  # one batch is tried


def test_a_function_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    def failing(seed: int, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for i, batch in enumerate(batches_of(seed, epoch)):
            if epoch == 1 and i == 4:
                raise OSError("no disk")
            yield batch

    job, again = trainer(), trainer()
    with pytest.raises(OSError, match="no disk"):
        job.fit(failing, epochs=3)
    job.save(tmp_path / "run")
    again.load(tmp_path / "run")
    again.fit(batches_of, epochs=2)
    assert_same_run(again, fit(X, LABELS))


def test_an_error_in_the_step_leaves_no_thread() -> None:
    def loss(outputs: Any, targets: Any) -> Any:
        if len(outputs) > 1:
            raise MemoryError
        return losses.cross_entropy(outputs, targets)

    job = trainer()
    job.loss = loss
    with pytest.raises(MemoryError):
        job.fit(data.arrays(X, LABELS))
    assert no_thread_is_left()


# What is refused


def squares(seed: int, epoch: int) -> Iterator[Any]:
    yield X


class NoBatch(data.Source):
    def __len__(self) -> int:
        return 3


BAD = np.where(np.arange(50) == 33, np.nan, X[:, 0])[:, None] * np.ones(4)
CASES: dict[str, tuple[Any, type[Exception], str]] = {
    "no y": (lambda: fit(X), TypeError, "y is missing: x is a ndarray; expected x and y "),
    "y twice": (lambda: fit(data.arrays(X, LABELS), LABELS), TypeError, "y was given beside a"),
    "weights twice": (
        lambda: fit(data.arrays(X, LABELS), sample_weight=X[:, 0]),
        TypeError,
        "sample_weight was given beside a source",
    ),
    "a generator": (
        lambda: trainer().fit(batches_of(0, 0)),
        TypeError,
        r"a generator gives its batches once.*the function \(seed, epoch\)",
    ),
    "a batch of one": (lambda: trainer().fit(squares), TypeError, r"a batch is \(x, y\) or"),
    "no batch": (lambda: trainer().fit(lambda seed, epoch: []), ValueError, "gives no batch"),
    "an empty list": (lambda: trainer().fit([]), ValueError, "gives no batch"),
    "batch_size": (lambda: fit(batches_of), ValueError, "batch_size, accumulate and drop_"),
    "accumulate": (
        lambda: trainer().fit(batches_of, accumulate=2),
        ValueError,
        "batch_size, accumulate and drop_last are for arrays",
    ),
    "a split of a function": (
        lambda: fit(batches_of, validation_split=0.5),
        TypeError,
        "validation_split is for arrays and sources",
    ),
    "a stratified source": (
        lambda: fit(data.arrays(X, LABELS), validation_split=0.5, stratify=True),
        ValueError,
        "stratify is for arrays",
    ),
    "a map to x alone": (
        lambda: fit(data.arrays(X, LABELS).map(lambda x, y: x)),
        TypeError,
        r"map: expected a function \(x, y\) -> \(x, y\); <lambda> returned a ndarray",
    ),
    "a map to three": (
        lambda: fit(data.arrays(X, LABELS).map(lambda x, y: (x, y, y))),
        TypeError,
        "<lambda> returned a tuple of 3",
    ),
    "a subset beyond the end": (
        lambda: data.arrays(X, LABELS).subset([1, 50]),
        IndexError,
        "subset: index 50 is out of bounds .*expected indices of the 50 samples",
    ),
    "a mask of other samples": (
        lambda: data.arrays(X, LABELS).subset(np.arange(49) > 3),
        IndexError,
        r"subset: .*or a mask of shape \(50,\)",
    ),
    "a subset of numbers": (
        lambda: data.arrays(X, LABELS).subset([0.5]),
        IndexError,
        "subset: .*whole numbers below 50",
    ),
    "a subset of one": (
        lambda: data.arrays(X, LABELS).subset(3),
        IndexError,
        r"subset: got rows of shape \(\); expected indices",
    ),
    "NaN": (lambda: fit(data.arrays(BAD, LABELS)), ValueError, "batch .'s x holds . NaN"),
    "a label": (
        lambda: fit(data.arrays(X, np.where(np.arange(50) == 40, 3, LABELS))),
        ValueError,
        "y holds class 3, the network has 3 outputs",
    ),
    "lengths": (lambda: data.arrays(X, LABELS[:-1]), ValueError, "x has 50 samples, y 49"),
    "lengths of weights": (
        lambda: data.arrays(X, LABELS, X[:-1, 0]),
        ValueError,
        "x has 50 samples, sample_weight 49",
    ),
    "batches of other lengths": (
        lambda: trainer().fit([(X, LABELS[:-1])]),
        ValueError,
        "batch 0's x has 50 samples, batch 0's y 49",
    ),
    "no method": (lambda: fit(NoBatch()), NotImplementedError, "NoBatch defines no batch"),
    "a loss without weights": (
        lambda: Trainer(nn.Linear(4, 1), lambda o, t: o.mean(), optim.SGD()).fit(
            X, X[:, :1], sample_weight=X[:, 0] ** 2
        ),
        TypeError,
        "which the loss .* does not take",
    ),
    "weights below 0": (
        lambda: fit(X, LABELS, sample_weight=X[:, 0]),
        ValueError,
        "sample_weight has a number below 0",
    ),
    "weights in two dimensions": (
        lambda: fit(X, LABELS, sample_weight=X**2),
        ValueError,
        r"sample_weight has the shape \(50, 4\)",
    ),
    "no weight at all": (
        lambda: fit(X, LABELS, sample_weight=X[:, 0] * 0),
        ValueError,
        "sample_weight holds zeros only",
    ),
    "too few weights": (
        lambda: fit(X, LABELS, sample_weight=np.ones(49)),
        ValueError,
        "x has 50 samples, sample_weight 49",
    ),
    "validation data": (
        lambda: fit(X, LABELS, validation_data=(X,)),
        TypeError,
        "validation_data is .* or a source; got a tuple",
    ),
    "accumulate 0": (lambda: fit(X, LABELS, accumulate=0), ValueError, "accumulate is a positive"),
    "batch_size 0": (lambda: fit(X, LABELS, batch_size=0), ValueError, "batch_size is a positive"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str) -> None:
    attempt, error, words = CASES[case]
    with pytest.raises(error, match=words):
        attempt()


def test_arrays_of_a_device_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    x = strict.asarray(X)
    with pytest.raises(TypeError, match=r"takes arrays of the host; x is a Array"):
        data.arrays(x, LABELS)
    monkeypatch.setattr(type(x), "__dlpack_device__", lambda self: (2, 0))  # as CUDA's arrays say
    with pytest.raises(TypeError, match="batch 0's x is a Array on a device; a source makes array"):
        trainer().fit([(x, LABELS)])


def test_batches_of_arrays_of_another_library_on_the_host() -> None:
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    rows = list(data.batches(50, 8, seed=0, epoch=0))
    job, other = trainer(), trainer()
    job.fit([(strict.asarray(X[r]), strict.asarray(LABELS[r])) for r in rows])
    other.fit([(X[r], LABELS[r]) for r in rows])
    assert_same_run(job, other)


def test_a_data_loader_of_pytorch_s() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pairs = torch.utils.data.TensorDataset(torch.asarray(X), torch.asarray(LABELS))
    loader = torch.utils.data.DataLoader(pairs, batch_size=8)
    job, other = trainer(), trainer()
    job.fit(loader, epochs=2, validation_data=list(loader))
    batches = [(X[i : i + 8], LABELS[i : i + 8]) for i in range(0, 50, 8)]
    other.fit(batches, epochs=2, validation_data=batches)
    assert_same_run(job, other)


def test_a_file_of_several_arrays_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "both.npz", x=X, y=LABELS)
    with pytest.raises(ValueError, match=r"both\.npz holds several arrays; expected a \.npy file"):
        data.memory_mapped(tmp_path / "both.npz", tmp_path / "both.npz")

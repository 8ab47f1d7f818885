"""Data that make their own batches, in predict and evaluate as in fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from polynet import Trainer, array_namespace, losses, nn, optim

rng = np.random.default_rng(4)
X = rng.normal(size=(50, 4)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def trainer() -> Trainer:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    return Trainer(net, losses.cross_entropy, optim.Adam(1e-2), backend="numpy")


def by_8(x: Any, y: Any) -> list[Any]:
    return [(x[i : i + 8], y[i : i + 8]) for i in range(0, 50, 8)]


NOT_READ = np.full((50, 1), np.nan)
BATCHES: dict[str, Callable[[], Any]] = {
    "a function": lambda: lambda seed, epoch: iter(by_8(X, LABELS)) if epoch == 0 else None,
    "a list": lambda: by_8(X, LABELS),
    "lists of lists": lambda: list(map(list, by_8(X, LABELS))),
    "x of the shape of y": lambda: by_8(X, X),
    "targets that are no numbers": lambda: by_8(X, NOT_READ),
    "x in a tuple": lambda: lambda seed, epoch: [(x,) for x, _ in by_8(X, LABELS)],
    "x alone": lambda: lambda seed, epoch: [x for x, _ in by_8(X, LABELS)],
    "a DataLoader of (x, y)": lambda: loader_of(X, LABELS),
    "a DataLoader of x": lambda: loader_of(X),
}


def loader_of(*arrays: np.ndarray) -> Any:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pairs = torch.utils.data.TensorDataset(*map(torch.asarray, arrays))
    return torch.utils.data.DataLoader(pairs, batch_size=8)


@pytest.mark.parametrize("kind", BATCHES)
def test_predict_takes_batches_as_fit_does(kind: str) -> None:
    job = trainer()
    job.fit(X, LABELS)
    np.testing.assert_array_equal(job.predict(BATCHES[kind]()), job.predict(X, batch_size=8))


def test_batches_of_several_arrays_are_predicted() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            self.last = nn.Linear(X.shape[1], 3)

        def forward(self, left: Any, right: Any) -> Any:
            return self.last(left + right)

    job = Trainer(Sum(), losses.cross_entropy, optim.SGD(), backend="numpy")
    batches = [({"left": x, "right": -x}, y) for x, y in by_8(X, LABELS)]
    found = job.predict(batches)
    np.testing.assert_array_equal(found, job.predict({"left": X, "right": -X}, batch_size=8))
    for alone in (x for x, _ in batches):
        assert len(job.predict(lambda seed, epoch, x=alone: [x])) == len(alone["left"])


@pytest.mark.parametrize("rows", [X[:3].tolist(), list(X[:3]), [list(r) for r in X[:3]]])
def test_nested_lists_are_one_array(rows: Any) -> None:
    """Also where they hold numbers of NumPy, which have a shape."""
    job = trainer()
    np.testing.assert_allclose(job.predict(rows), job.predict(X[:3]), rtol=1e-5)


def test_a_list_of_matrices_is_one_array() -> None:
    """Also of two rows each, though a batch has two arrays."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 3))
    job = Trainer(net, losses.cross_entropy, optim.SGD(), backend="numpy")
    matrices = X[:12].reshape(6, 2, 4)
    job.fit(list(matrices.copy()), LABELS[:6])
    np.testing.assert_array_equal(job.predict(list(matrices)), job.predict(matrices))


def test_a_list_that_may_be_one_array_or_batches_is_refused() -> None:
    """Samples of two rows each: as batches, the second rows would not be read."""
    job = trainer()
    for pair in (tuple, list):
        rows = [pair(X[i : i + 2]) for i in range(0, 50, 2)]
        with pytest.raises(ValueError, match=r"25 times 2 arrays of the same shape \(4,\): give"):
            job.predict(rows)
        assert job.predict(np.asarray(rows)).shape == (25, 2, 3)
    batches = by_8(X, X)[:6]
    with pytest.raises(ValueError, match=r"give .* lambda seed, epoch: x if it is batches"):
        job.predict(batches)
    np.testing.assert_array_equal(
        job.predict(lambda seed, epoch: batches), job.predict(X[:48], batch_size=8)
    )


@pytest.mark.parametrize("verb", ["fit", "evaluate", "predict"])
def test_what_gives_its_batches_once_is_refused_everywhere(verb: str) -> None:
    with pytest.raises(TypeError, match="generator gives its batches once; give the function"):
        getattr(trainer(), verb)(batch for batch in by_8(X, LABELS))
    with pytest.raises(ValueError, match="no batch"):
        getattr(trainer(), verb)(lambda seed, epoch: [])


def test_one_sample_is_no_batch_of_its_numbers() -> None:
    """A Linear takes it, and gave one row for what predict counts as four samples."""
    job = trainer()
    with pytest.raises(ValueError, match=r"shape \(3,\) for 4 samples; .* x\[None\]"):
        job.predict(X[0])
    assert job.predict(X[0][None]).shape == (1, 3)


class Pooled(nn.Module):
    def __init__(self) -> None:
        self.last = nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return array_namespace(x, self.last.weight).mean(self.last(x), axis=0, keepdims=True)


def test_a_batch_that_is_a_whole_may_have_one_output() -> None:
    job = Trainer(Pooled(), losses.mse, optim.SGD())
    assert job.predict([(X, X[:, :3])]).shape == (1, 3)


class Dataset:
    """A map-style Dataset of PyTorch."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        return X[i], int(LABELS[i])


@pytest.mark.parametrize("verb", ["fit", "evaluate", "predict"])
def test_a_dataset_of_samples_is_sent_to_a_loader(verb: str) -> None:
    """An iterable one gave predictions of its first sample, taken for a batch."""
    act = getattr(trainer(), verb)
    for samples in (Dataset(), lambda seed, epoch: [(X[0], 0), (X[1], 1)]):
        with pytest.raises((TypeError, ValueError), match=r"Dataset of PyTorch's goes"):
            act(samples)

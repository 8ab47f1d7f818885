"""What a Trainer, its data or its callbacks are given and cannot be: what came, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import f1_score

import polynet
from polynet import Trainer, array_namespace, data, losses, metrics, nn, optim
from polynet.backend import Backend, to_numpy

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y = np.arange(12) % 3
SEVERAL = (X[:, :3] > 0).astype("float32")
"""Several labels a sample, or none."""


def trainer(loss: Any = losses.cross_entropy, outputs: int = 3, **options: Any) -> Trainer:
    return Trainer(nn.Linear(4, outputs), loss, optim.Adam(1e-3), **options)


def binary(y: np.ndarray) -> tuple[Trainer, np.ndarray]:
    return trainer(losses.binary_cross_entropy_with_logits, 1), y.astype("float32")[:, None]


class Short(data.Source):
    """A source that leaves out what it cannot read."""

    def __len__(self) -> int:
        return 12

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return X[rows[1:]], Y[rows[1:]]


def constant(outputs: Any, targets: Any) -> Any:
    return array_namespace(targets).mean(targets)


def of_signs(outputs: Any, targets: Any) -> Any:
    xp = array_namespace(outputs)
    return xp.mean(xp.astype(outputs > 0, targets.dtype) - targets)


def stopped(outputs: Any, targets: Any) -> Any:
    return losses.mse(polynet.stop_gradient(outputs), targets)


class Frame:
    """As much of a data frame as is looked at: columns by name, and an array of all."""

    def __init__(self, **columns: list[Any]) -> None:
        self._columns = columns

    @property
    def columns(self) -> list[str]:
        return list(self._columns)

    def __getitem__(self, name: str) -> list[Any]:
        return self._columns[name]

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        rows = zip(*self._columns.values(), strict=True)
        return np.asarray([list(row) for row in rows], dtype or object)


class Days(Frame):
    """A data frame of Polars: beside other numbers, its dates become numbers of days."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        columns = (np.asarray(column) for column in self._columns.values())
        return np.stack([c if c.dtype.kind == "f" else c.astype(float) for c in columns], axis=1)


class Lazy:
    """A lazy frame of Polars."""

    def collect(self) -> None: ...


class Dataset:
    """A map-style Dataset of PyTorch."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        return X[i], int(Y[i])


def of_weights(weight: Any) -> Trainer:
    return trainer(partial(losses.cross_entropy, weight=weight))


def per_sample(targets: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    return np.abs(outputs.argmax(axis=1) - targets)


def nothing(targets: np.ndarray, outputs: np.ndarray) -> None:
    return None


def fit(pair: tuple[Trainer, np.ndarray], **options: Any) -> Any:
    return pair[0].fit(X, pair[1], **options)


class Plain(nn.Module):
    """A network whose weights are no parameters."""

    def __init__(self) -> None:
        self.weight = X[:4, :1]

    def forward(self, x: Any) -> Any:
        return x @ self.weight


# name: (what is done, the error, words that its message must hold)
CASES: dict[str, tuple[Callable[[], Any], type[BaseException], list[str]]] = {
    # networks
    "plain arrays as weights": (
        lambda: Trainer(Plain(), losses.mse, optim.SGD()).fit(X, X[:, :1]),
        ValueError,
        [
            "Plain has no parameters: there is nothing to train",
            "__init__",
            "self.layer = nn.Linear(2, 1)",
            "self.w = nn.Parameter((2, 1), nn.init.normal(0.0, 0.1))",
            "plain arrays",
            "are not parameters",
        ],
    ),
    # targets
    "signs as targets": (
        lambda: fit(binary(Y % 2 * 2 - 1)),
        ValueError,
        ["y holds numbers from -1.0 to 1.0", "binary_cross_entropy_with_logits", "(y + 1) / 2"],
    ),
    "0 and 2 as targets": (
        lambda: fit(binary(Y % 2 * 2)),
        ValueError,
        ["y holds numbers from 0.0 to 2.0", "y == label"],
    ),
    "labels in a column": (
        lambda: trainer().fit(X, Y[:, None]),
        ValueError,
        ["have shape (12,)", "got (12, 1): give targets[..., 0]"],
    ),
    "one-hot rows of integers": (
        lambda: trainer().fit(X, np.eye(3, dtype=int)[Y]),
        ValueError,
        [
            "have shape (12,)",
            "got (12, 3): turn one-hot rows into labels by targets.argmax(axis=1)",
        ],
    ),
    "no whole step": (
        lambda: trainer().fit(X, Y, batch_size=8, accumulate=64, drop_last=True),
        ValueError,
        ["drop_last leaves nothing: a step takes 512 samples", "smaller batch_size"],
    ),
    "0 and 1 for hinge": (
        lambda: Trainer(nn.Linear(4, 1), losses.hinge, optim.SGD(0.1), backend="numpy").fit(
            X[:, :4], (Y % 2).astype("float32")[:, None]
        ),
        ValueError,
        ["y holds 0.0; hinge takes -1 and 1", "2.0 * y - 1"],
    ),
    "signs in evaluate": (
        lambda: binary(Y)[0].evaluate(X, Y.astype("float32")[:, None] - 1),
        ValueError,
        ["y holds numbers from -1.0 to 1.0"],
    ),
    "signs in a source": (
        lambda: binary(Y)[0].fit(data.arrays(X, Y.astype("float32")[:, None] - 1)),
        ValueError,
        ["y holds numbers from -1.0 to 1.0"],
    ),
    "signs in validation": (
        lambda: fit(binary(Y % 2), validation_data=(X, binary(Y - 1)[1])),
        ValueError,
        ["validation y holds numbers from -1.0"],
    ),
    "accuracy of several labels": (
        lambda: metrics.accuracy(SEVERAL, X[:, :3]),
        ValueError,
        ["accuracy: row 0", "not one-hot", "np.mean((outputs > 0) == targets)"],
    ),
    "accuracy of probabilities": (
        lambda: metrics.accuracy(np.asarray([[0.0, 1.0], [0.6, 0.4]]), X[:2, :2]),
        ValueError,
        ["row 1", "targets.argmax(axis=1)"],
    ),
    "accuracy of ignored labels": (
        lambda: metrics.accuracy(np.asarray([0, -100]), X[:2]),
        ValueError,
        ["accuracy: the targets hold -100", "classes 0 to 3", "[targets != -100].mean()"],
    ),
    "accuracy of places that are ignored": (
        lambda: metrics.accuracy(np.asarray([[0, 1], [4, 0]]), np.zeros((2, 4, 2))),
        ValueError,
        ["accuracy: the targets hold 4", "classes 0 to 3"],
    ),
    "accuracy of numbers": (
        lambda: metrics.accuracy(X[:, :1], X[:, :1]),
        ValueError,
        ["accuracy: the targets hold", "0 and 1, or -1 and 1", "r2_score"],
    ),
    "accuracy of three signs": (
        lambda: metrics.accuracy(np.asarray([-1, 0, 1]), X[:3, 0]),
        ValueError,
        ["accuracy: the targets hold 0", "0 and 1, or -1 and 1"],
    ),
    "the best of ignored labels": (
        lambda: metrics.top_k(2)(np.asarray([0, -1]), X[:2]),
        ValueError,
        ["top_2: the targets hold -1", "classes 0 to 3"],
    ),
    "the best of single scores": (
        lambda: metrics.top_k(2)(np.asarray([0, 1]), X[:2, 0]),
        ValueError,
        ["top_2: expected outputs (batch, 2 classes or more)"],
    ),
    "the best of several labels": (
        lambda: metrics.top_k(2)(SEVERAL, X[:, :3]),
        ValueError,
        ["top_2: row 0", "not one-hot"],
    ),
    # sources
    "a short batch": (
        lambda: trainer().fit(Short(), batch_size=4),
        ValueError,
        ["asked for 4 rows", "has 3 samples", "batch(rows)"],
    ),
    "a short batch in evaluate": (lambda: trainer().evaluate(Short()), ValueError, ["12 rows"]),
    "an augmentation that drops": (
        lambda: trainer().fit(data.arrays(X, Y).augmented(lambda x, rng: x[1:]), batch_size=4),
        ValueError,
        ["asked for 4 rows", "has 3 samples"],
    ),
    "augmentations in a list": (
        lambda: data.arrays(X, Y).augmented([lambda x, rng: x]),
        TypeError,
        ["augmented: expected a function (x, rng)", "Compose"],
    ),
    "an augmentation's class": (
        lambda: data.arrays(X, Y).augmented(data.augment.RandomHorizontalFlip),
        TypeError,
        ["augmented: expected a function", "RandomHorizontalFlip()"],
    ),
    # what is no number
    "text in a data frame": (
        lambda: trainer().fit(Frame(a=[1.0] * 12, city=["x"] * 12, day=["y"] * 12), Y),
        TypeError,
        ["from Frame", "the columns 'city', 'day'", "leave them out", "pandas.get_dummies"],
    ),
    "many columns of text": (
        lambda: polynet.to_numpy(Frame(**{f"c{i}": ["x"] for i in range(9)})),
        TypeError,
        ["'c3', 'c4' and 4 more"],
    ),
    "columns of several dtypes": (
        lambda: trainer().fit(Frame(a=[1.0] * 12, b=[True] * 12), Y),
        TypeError,
        ["no dtype of NumPy in common", "x.astype('float64')"],
    ),
    "columns in which None is": (
        lambda: trainer().fit(Frame(a=[1.0, None] * 6, b=["x"] * 12), Y),
        TypeError,
        ["the columns 'b' hold no numbers: leave them out"],
    ),
    "dates, of which Polars makes numbers": (
        lambda: trainer().fit(Days(a=[1.0] * 12, day=[np.datetime64("2026-01-01")] * 12), Y),
        TypeError,
        ["dtype float64", "the columns 'day' hold no numbers: leave them out"],
    ),
    "a lazy data frame": (
        lambda: trainer().fit(Lazy(), Y),
        TypeError,
        ["from Lazy", "is computed by x.collect()"],
    ),
    "dates": (
        lambda: trainer().fit(np.arange(12).astype("datetime64[D]")[:, None], Y),
        TypeError,
        ["dtype datetime64[D]", "(x - x.min()) / np.timedelta64(1, 'D') makes numbers of dates"],
    ),
    "a structured array": (
        lambda: trainer().fit(np.zeros(12, [("a", "f4"), ("b", "f4")]), Y),
        TypeError,
        ["structured_to_unstructured(x) makes columns of its fields"],
    ),
    "rows that are dicts": (
        lambda: trainer().fit([{"a": 1.0}] * 12, Y),
        TypeError,
        ["its rows are dicts: give its columns"],
    ),
    "samples of several lengths": (
        lambda: trainer().fit([[1.0] * (i % 3 + 1) for i in range(12)], Y),
        ValueError,
        ["x is not one array", "pad samples of different lengths to one"],
    ),
    "objects of several lengths": (
        lambda: trainer().fit(np.asarray([[1.0], [1.0, 2.0]] * 6, object), Y),
        TypeError,
        ["rows of equal length: pad rows that are shorter"],
    ),
    # what makes no batches
    "a list of samples": (
        lambda: trainer().fit(list(zip(X, Y, strict=True))),
        ValueError,
        ["batch 0's y is a single value", "x, y = map(np.stack, zip(*samples))", "DataLoader"],
    ),
    "a list of rows that are dicts": (
        lambda: trainer().fit([{"x": X, "y": Y}]),
        TypeError,
        ["batch 0 is a dict", "of data in columns, give the columns: fit(data['x'], data['y'])"],
    ),
    "a function of nothing": (
        lambda: trainer().fit(lambda: [(X, Y)]),
        TypeError,
        ["is called as <lambda>(seed, epoch), for each epoch anew: too many positional arguments"],
    ),
    "a Dataset": (
        lambda: trainer().fit(Dataset()),
        TypeError,
        ["y is missing: x is a Dataset", "a DataLoader, into which a Dataset of PyTorch's goes"],
    ),
    "numbers that are objects": (
        lambda: trainer().fit(X.astype(object), Y),
        TypeError,
        ["dtype object", "np.asarray(x, dtype='float64')"],
    ),
    "labels that are objects of Python": (
        lambda: trainer().fit(X, np.asarray([1, 2, None] * 4)),
        TypeError,
        ["y: cannot", "np.asarray(x, dtype='float64'), or 'int64' of labels"],
    ),
    "a sparse matrix": (
        lambda: trainer().fit(csr_matrix(X), Y),
        TypeError,
        ["from csr_matrix", "x.toarray()"],
    ),
    "labels that are text": (
        lambda: trainer().fit(X, ["cat", "dog", "cow"] * 4),
        TypeError,
        ["names, y = np.unique(y, return_inverse=True)"],
    ),
    "labels that are objects": (
        lambda: trainer().fit(X, np.asarray(["cat", "dog", "cow"] * 4, object)),
        TypeError,
        ["dtype object", "np.unique(y, return_inverse=True)"],
    ),
    # networks, losses, metrics
    "a network of several outputs": (
        lambda: Trainer(nn.LSTM(4, 3), losses.mse, optim.SGD()).fit(X[:, None], X[:, None, :3]),
        TypeError,
        ["the network returned a tuple", "one array", "self.lstm(x)[0]"],
    ),
    "… in predict": (
        lambda: Trainer(nn.LSTM(4, 3), losses.mse, optim.SGD()).predict(X[:, None]),
        TypeError,
        ["the network returned a tuple"],
    ),
    "weights of classes by label": (
        lambda: of_weights({0: 1.0, 1: 2.0, 2: 3.0}).fit(X, Y),
        TypeError,
        ["cross_entropy: the classes' weights are a dict", "a list of numbers"],
    ),
    "weights of classes in another dtype": (
        lambda: of_weights(np.asarray([1.0, 2.0, 3.0])).fit(X, Y),
        TypeError,
        ["weights are float64; expected float32", "weight.tolist()"],
    ),
    "a metric by name": (
        lambda: trainer(metrics=["accuracy"]),
        TypeError,
        ["metrics is a list of functions", "got a list with 'accuracy'"],
    ),
    "one metric, in no list": (
        lambda: trainer(metrics=nothing),
        TypeError,
        ["metrics is a list of functions", "got <function nothing"],
    ),
    "a callback that is no function": (
        lambda: trainer().fit(X, Y, callbacks=[Frame()]),
        TypeError,
        ["callbacks is a list of functions", "got a list with <", "Frame object"],
    ),
    "a metric of every sample": (
        lambda: trainer(metrics=[per_sample]).evaluate(X, Y),
        TypeError,
        ["metric 'per_sample' returned a ndarray of shape (12,)", "a number"],
    ),
    "a metric of nothing": (
        lambda: trainer(metrics=[nothing]).evaluate(X, Y),
        TypeError,
        ["metric 'nothing' returned a NoneType; expected a number"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_error_says_what_and_where_and_what_to_do(case: str, raises: Callable[..., None]) -> None:
    raises(*CASES[case])


def test_an_error_of_a_metric_says_what_it_was_given() -> None:
    """Whose author may think of classes, as scikit-learn does."""
    with pytest.raises(ValueError, match="mix of multiclass and continuous") as caught:
        trainer(metrics=[f1_score]).evaluate(X, Y)
    (note,) = caught.value.__notes__
    assert note == (
        "metric 'f1_score' was given targets of shape (12,) and the network's outputs, of shape "
        "(12, 3). A metric of classes takes polynet.metrics.classes(outputs)"
    )


def test_the_note_is_of_the_metrics_own_errors() -> None:
    def nothing(targets: np.ndarray, outputs: np.ndarray) -> Any:
        return None

    with pytest.raises(TypeError, match="returned a NoneType; expected a number") as caught:
        trainer(metrics=[nothing]).evaluate(X, Y)
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("loss", [constant, of_signs, stopped])
def test_a_loss_that_depends_on_no_parameter_is_refused(backend: Backend, loss: Any) -> None:
    job = trainer(loss, backend=backend)
    with pytest.raises(ValueError, match="does not depend on the parameters that are trained"):
        job.fit(X, SEVERAL)
    assert job.history.step_losses == []
    job.evaluate(X, SEVERAL)


def test_what_the_errors_say_is_taken() -> None:
    """Weights as a list, labels by number, outputs without the state."""
    names, y = np.unique(["cat", "dog", "cow"] * 4, return_inverse=True)
    of_weights(np.asarray([1.0, 2.0, 3.0]).tolist()).fit(X, y)
    assert names.tolist() == ["cat", "cow", "dog"]

    class Alone(nn.Module):
        def __init__(self) -> None:
            self.lstm = nn.LSTM(4, 3)

        def forward(self, x: Any) -> Any:
            return self.lstm(x)[0]

    Trainer(Alone(), losses.mse, optim.SGD()).fit(X[:, None], X[:, None, :3])


def test_samples_that_do_not_fit_say_what_to_lower():
    """Already when they are tried; a part of a batch may fit."""

    class Large(nn.Module):
        def __init__(self):
            self.only = nn.Linear(4, 3)

        def forward(self, x):
            if x.shape[0] > 5:
                raise MemoryError("Unable to allocate 7.28 TiB")
            return self.only(x)

    job = Trainer(Large(), losses.mse, optim.SGD(), backend="numpy")
    with pytest.raises(MemoryError, match=r"steps of 10 samples do not fit.*7.28 TiB.*accumulate"):
        job.fit(X, SEVERAL, batch_size=10)
    job.fit(X, SEVERAL, batch_size=5, accumulate=2)


class Picture:
    """An array of one's own, with its number of columns."""

    columns = 4

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return X


def test_what_has_columns_may_be_no_data_frame() -> None:
    assert np.array_equal(polynet.to_numpy(Picture()), X)


def test_a_step_of_ones_own_has_an_array_for_its_loss(backend: Backend) -> None:
    x = backend.from_host(np.ones(4, "float32"), backend.device(None))
    rows = backend.from_host(np.zeros((5, 2), "int32"), backend.device(None))
    run = backend.compile(lambda state, data, rows: (state, 1.0))
    if backend.name == "jax":  # whose compiler makes arrays of numbers
        assert to_numpy(run({"x": x}, x, rows)[1]).tolist() == [1.0] * 5
        return
    expected = f"returned a float for its loss; expected an array of '{backend.name}'"
    with pytest.raises(TypeError, match=expected):
        run({"x": x}, x, rows)

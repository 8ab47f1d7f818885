"""Samples that are several arrays, each by its name; the suite shows that they are as one array."""

from __future__ import annotations

import re
from collections import UserDict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polynet import Trainer, array_namespace, data, losses, metrics, nn, optim
from polynet.errors import MixedBackendsError

rng = np.random.default_rng(4)
X = {"left": rng.normal(size=(20, 2)), "right": rng.normal(size=(20, 3))}
Y = {"sum": X["left"].sum(1, keepdims=True), "sign": X["right"][:, 0] > 0}
N = 20


class Two(nn.Module):
    """Two inputs, and two outputs."""

    def __init__(self) -> None:
        self.left = nn.Linear(2, 1)
        self.right = nn.Linear(3, 2)

    def forward(self, left: Any, right: Any) -> Any:
        return {"sum": self.left(left), "sign": self.right(right)}


def loss(outputs: Any, targets: Any, sample_weight: Any = None) -> Any:
    xp = array_namespace(outputs["sign"], targets["sign"])
    labels = xp.astype(targets["sign"], xp.int32)
    classes = losses.cross_entropy(outputs["sign"], labels, sample_weight=sample_weight)
    numbers = losses.mse(outputs["sum"], targets["sum"], sample_weight=sample_weight)
    return classes + numbers


def trainer(net: nn.Module | None = None, loss: Any = loss, **options: Any) -> Trainer:
    return Trainer(net or Two(), loss, optim.Adam(1e-2), backend="numpy", **options)


def right(targets: Any, outputs: Any) -> float:
    return metrics.accuracy(targets["sign"].astype(int), outputs["sign"])


def test_what_is_trained_and_what_is_given() -> None:
    """Losses fall, metrics and predictions are of each output, and nothing of x or y is changed."""
    job = trainer(metrics=[right])
    before = {name: a.copy() for name, a in X.items()}
    history = job.fit(X, Y, epochs=200, batch_size=10, validation_data=(X, Y))
    assert history["val_loss"][-1] < 0.3 * history["val_loss"][0]
    assert history["val_right"][-1] == 1.0
    found = job.predict(X)
    assert {name: a.shape for name, a in found.items()} == {"sum": (N, 1), "sign": (N, 2)}
    bound = job.net(**{name: a.astype("f4") for name, a in X.items()})
    for name, a in bound.items():
        np.testing.assert_allclose(found[name], a, rtol=1e-6)
    assert all(np.array_equal(X[name], a) for name, a in before.items())


def test_one_output_of_two_inputs_and_lists() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            self.parts = [nn.Linear(2, 1), nn.Linear(3, 1)]

        def forward(self, left: Any, right: Any) -> Any:
            return self.parts[0](left) + self.parts[1](right)

    lists = {name: a.tolist() for name, a in X.items()}
    job = trainer(Sum(), losses.mse)
    job.fit(lists, Y["sum"].tolist())
    assert job.predict(lists).shape == (N, 1)


def test_layers_of_several_inputs_as_they_stand() -> None:
    """A dict has the names of forward's arguments."""
    job = trainer(nn.MultiheadAttention(4, 2), losses.mse)
    names = dict.fromkeys(("query", "key", "value"), rng.normal(size=(N, 5, 4)))
    assert job.predict(names).shape == (N, 5, 4)


def test_held_out_samples_are_the_same_of_each_array() -> None:
    rows = np.arange(N)
    x, y = {"a": rows[:, None], "b": {"c": rows}}, rows
    (kept, y_kept), (held, y_held) = data.split(x, y, 0.3, seed=1)
    for part, targets in ((kept, y_kept), (held, y_held)):
        assert part["a"][:, 0].tolist() == part["b"]["c"].tolist() == targets.tolist()
    assert sorted([*y_kept, *y_held]) == rows.tolist()


def test_arrays_in_files_are_read_batch_by_batch(tmp_path: Path) -> None:
    """One of several that is mapped makes them a stream: the numbers are the same."""
    np.save(tmp_path / "left.npy", X["left"])
    mapped = {**X, "left": np.load(tmp_path / "left.npy", mmap_mode="r")}
    found = []
    for x in (X, mapped):
        job = trainer()
        job.fit(x, Y, epochs=2, batch_size=4, validation_split=0.2)
        found.append((job.history.step_losses, job.predict(x)["sum"].tolist()))
    assert found[0] == found[1]


def test_an_augmentation_is_given_all_and_so_is_map() -> None:
    seen = []

    def both(x: Any, draws: Any) -> Any:
        seen.append(sorted(x))
        return {**x, "left": x["left"] + draws.random(len(x["left"]))[:, None]}

    source = data.arrays(X, Y).augmented(both).map(lambda x, y: (x, y))
    trainer().fit(source, batch_size=10)
    assert seen == [["left", "right"]] * 2
    assert len(source) == N


def test_batches_whose_names_come_in_another_order() -> None:
    """They are other arrays of one shape, which are not to be mixed up."""
    a, b = rng.normal(size=(8, 2)), rng.normal(size=(8, 2))

    class Difference(nn.Module):
        def __init__(self) -> None:
            self.scale = nn.Linear(2, 2)

        def forward(self, a: Any, b: Any) -> Any:
            return self.scale(a - 2 * b)

    def run(second: dict[str, Any]) -> list[float]:
        job = trainer(Difference(), losses.mse)
        return job.fit([({"a": a, "b": b}, a), (second, a)], epochs=3).step_losses

    assert run({"a": a, "b": b}) == pytest.approx(run({"b": b, "a": a}), rel=1e-6)


def test_targets_and_outputs_come_in_one_order() -> None:
    """That of their names: so a loss and a metric may take them in turn."""
    seen = []

    def in_turn(outputs: Any, targets: Any) -> Any:
        seen.append((list(outputs), list(targets)))
        each = [losses.mse(o, t) for o, t in zip(outputs.values(), targets.values(), strict=True)]
        return each[0] + each[1]

    def off(targets: Any, outputs: Any) -> float:
        pairs = zip(outputs.values(), targets.values(), strict=True)
        return max(float(np.abs(o - t).max()) for o, t in pairs)

    class Names(nn.Module):
        def __init__(self) -> None:
            self.parts = [nn.Linear(2, 1), nn.Linear(3, 2)]

        def forward(self, left: Any, right: Any) -> Any:
            return {"z": self.parts[0](left), "a": self.parts[1](right)}

    job = trainer(Names(), in_turn, metrics=[off])
    job.fit(X, {"z": np.zeros((N, 1)), "a": np.zeros((N, 2))}, epochs=2)
    assert {tuple(map(tuple, pair)) for pair in seen} == {(("a", "z"), ("a", "z"))}
    assert job.evaluate(X, job.predict(X))["off"] == 0


@pytest.mark.parametrize("shape", [(), (1,), (N - 1,)])
def test_an_output_that_is_no_row_a_sample_can_be_trained_on(shape: tuple[int, ...]) -> None:
    """And evaluated; it is refused, before the first step, where outputs are to be joined."""

    class Aside(nn.Module):
        def __init__(self) -> None:
            self.linear = nn.Linear(2, 1)

        def forward(self, left: Any) -> Any:
            xp = array_namespace(left, self.linear.weight)
            aside = xp.broadcast_to(xp.mean(self.linear.weight), shape)
            return {"out": self.linear(left), "aside": aside}

    def loss(outputs: Any, targets: Any) -> Any:
        xp = array_namespace(outputs["aside"])
        return losses.mse(outputs["out"], targets) + xp.mean(outputs["aside"])

    x, y = {"left": X["left"]}, Y["sum"]
    job = trainer(Aside(), loss)
    assert len(job.fit(x, y, validation_data=(x, y)).step_losses) == 1
    assert job.history["val_loss"] == [job.evaluate(x, y)["loss"]]
    job.metrics = {"off": lambda *_: 0.0}
    words = rf"the network's output\['aside'\] has shape {re.escape(str(shape))} for 20 samples"
    for run in (
        lambda: job.fit(x, y, validation_data=(x, y)),
        lambda: job.evaluate(x, y),
        lambda: job.predict(x),
        lambda: job.fit(x, y, batch_size=8, accumulate=2),
    ):
        with pytest.raises(ValueError, match=words.replace("20 samples", r"\d+ samples")):
            run()
    assert len(job.history.step_losses) == 1


def test_a_step_in_parts_is_tried_on_labels_wherever_they_stand() -> None:
    """Of all classes: the loss of one class's samples alone may pass as a mean."""

    class Two(nn.Module):
        def __init__(self) -> None:
            self.linear = nn.Linear(2, 4)

        def forward(self, left: Any) -> Any:
            return {"label": self.linear(left)}

    def weighted(outputs: Any, targets: Any) -> Any:
        weight = [1.0, 5.0, 1.0, 9.0]
        return losses.cross_entropy(outputs["label"], targets["label"], weight=weight)

    labels = np.arange(4).repeat(16)
    x = {"left": rng.normal(size=(64, 2))}
    y = {"box": np.ones((64, 4)), "label": labels}
    with pytest.warns(RuntimeWarning, match="accumulate=2: the loss of"):
        trainer(Two(), weighted).fit(x, y, batch_size=32, accumulate=2)


def test_what_is_a_mapping_is_a_dict() -> None:
    """As a tokenizer returns it."""
    found = []
    for kind in (dict, UserDict):
        job = trainer()
        job.fit(kind(X), kind(Y), epochs=2)
        found.append(job.predict(kind(X))["sum"].tolist())
    assert found[0] == found[1]


def test_arrays_by_name_are_where_the_network_is() -> None:
    net = Two().init(0, backend="strict")
    with pytest.raises(MixedBackendsError, match="different backends, 'strict' and 'numpy'"):
        net(**{name: a.astype("f4") for name, a in X.items()})


SHORT = {**X, "right": X["right"][:5]}
BAD = {**X, "left": np.full((N, 2), np.nan)}
CASES = {
    "no names": (lambda: trainer().fit({}, Y), TypeError, r"x is a dict of \[\]; expected arrays"),
    "numbers": (lambda: trainer().fit({0: X["left"]}, Y), TypeError, r"x is a dict of \[0\]"),
    "numbers of y": (lambda: trainer().fit(X, {0: Y["sum"]}), TypeError, r"^y is a dict of \[0\]"),
    "no names of y": (lambda: trainer().fit(X, {}), TypeError, r"^y is a dict of \[\]"),
    "numbers held out": (
        lambda: trainer().fit(X, {0: Y["sum"]}, validation_split=0.5),
        TypeError,
        r"^y is a dict of \[0\]",
    ),
    "numbers to validate": (
        lambda: trainer().fit(X, Y, validation_data=(X, {0: Y["sum"]})),
        TypeError,
        r"^validation y is a dict of \[0\]",
    ),
    "numbers in data.arrays": (
        lambda: data.arrays(X, {1: Y["sum"]}),
        TypeError,
        r"^y is a dict of \[1\]",
    ),
    "numbers in a batch": (
        lambda: trainer().fit([({0: X["left"]}, Y)]),
        TypeError,
        r"^batch 0's x is a dict of \[0\]",
    ),
    "text": (
        lambda: trainer().fit({**X, "left": ["a"] * N}, Y),
        TypeError,
        r"^x\['left'\]: cannot make an array of numbers",
    ),
    "ragged": (
        lambda: trainer().fit(X, {**Y, "sum": [[1.0], [1.0, 2.0]] * 10}, validation_split=0.5),
        ValueError,
        r"^y\['sum'\] is not one array: ",
    ),
    "another name": (
        lambda: trainer().fit({"left": X["left"], "rigth": X["right"]}, Y),
        TypeError,
        r"unexpected keyword argument 'rigth'[^\n]*\n.* called as net\(left=…, rigth=…\)",
    ),
    "columns": (
        lambda: Trainer(nn.Linear(2, 1), losses.mse, optim.SGD()).fit(X, X["left"][:, :1]),
        TypeError,
        r"unexpected keyword argument 'left'\nx is a dict, whose arrays are passed as arguments",
    ),
    "one array": (lambda: trainer().fit(X["left"], Y), TypeError, "missing 1 required .* 'right'"),
    "other lengths": (
        lambda: trainer().fit(SHORT, Y),
        ValueError,
        r"x\['left'\] has 20 samples, x\['right'\] 5; expected the same",
    ),
    "other targets": (
        lambda: trainer().fit(X, {**Y, "sign": Y["sign"][:3]}),
        ValueError,
        r"y\['sign'\] has 3 samples, y\['sum'\] 20",
    ),
    "to predict": (lambda: trainer().predict(SHORT), ValueError, r"x\['right'\] 5"),
    "not finite": (lambda: trainer().fit(BAD, Y), ValueError, r"x\['left'\] holds 40 NaN"),
    "a stream": (
        lambda: trainer().fit(data.arrays(BAD, Y)),
        ValueError,
        r"batch 0's x\['left'\] holds",
    ),
    "a short batch": (
        lambda: trainer().fit([(SHORT, Y)]),
        ValueError,
        r"batch 0's x\['left'\] has 20 samples, batch 0's x\['right'\] 5",
    ),
    "no targets": (lambda: trainer().fit(X), TypeError, "y is missing: x is a dict"),
    "classes of several": (
        lambda: trainer().fit(X, Y, validation_split=0.2, stratify=True),
        TypeError,
        "stratify is for one array of targets; y is a dict",
    ),
    "a tuple": (
        lambda: trainer().fit((X["left"], X["right"]), Y),
        ValueError,
        "x is not one array: .* Give several arrays as a dict",
    ),
    "images": (
        lambda: trainer().fit(data.arrays(X, Y).augmented(data.augment.RandomHorizontalFlip())),
        TypeError,
        r"expected a NumPy array \(samples, .*, got dict",
    ),
}


@pytest.mark.parametrize(("run", "kind", "words"), CASES.values(), ids=CASES)
def test_what_does_not_fit_is_named(run: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        run()


GIVEN = "was given what the network and the data have: outputs are a dict of ['sign', 'sum']"


@pytest.mark.parametrize(
    ("job", "who"),
    [
        (partial(trainer, loss=losses.mse), "the loss"),
        (partial(trainer, metrics=[metrics.accuracy]), "metric 'accuracy'"),
    ],
)
def test_who_expects_arrays_is_named(job: Any, who: str) -> None:
    with pytest.raises((AttributeError, TypeError)) as caught:
        job().fit(X, Y, validation_split=0.2)
    assert caught.value.__notes__[0].startswith(f"{who} {GIVEN}")

"""Bad input: what came, what was expected, what to do. A table of cases.

What derivatives, layers and a Trainer's data get that is bad has files of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polynet
from polynet import Trainer, checkpoint, data, functional, losses, metrics, nn, optim
from polynet.backend import asarray, get_backend
from polynet.errors import BackendError, NotFiniteError, UnknownBackendError
from polynet.ops import OPS

X = np.random.default_rng(0).normal(size=(12, 4))
Y = np.arange(12) % 3
F32 = X.astype("float32")


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def drawn() -> nn.Module:
    return network().init(seed=0, backend="numpy")


def trainer(**options: Any) -> Trainer:
    return Trainer(network(), losses.cross_entropy, optim.Adam(1e-3), **options)


def with_nan(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[3, 1] = np.nan
    return x


# name: (what is done, the error, words that its message must hold)
CASES: dict[str, tuple[Callable[[], Any], type[BaseException], list[str]]] = {
    # wrong shape
    "features": (
        lambda: drawn()(F32[:, :3]),
        ValueError,
        ["layer '0', Linear(4, 8)", "(…, 4)", "(12, 3)"],
    ),
    "features in the middle": (
        lambda: nn.Sequential(nn.Linear(4, 5), nn.Linear(6, 1)).init(0, backend="numpy")(F32),
        ValueError,
        ["layer '1', Linear(6, 1)", "(…, 6)", "(12, 5)"],
    ),
    "features in fit": (
        lambda: trainer().fit(X[:, :2], Y),
        ValueError,
        ["layer '0'", "(…, 4)", "(12, 2)"],
    ),
    **{
        f"no such axis: {name}": (
            call,
            IndexError,
            [f"axis {axis} of an array of {ndim} dimensions", expected],
        )
        for name, call, axis, ndim, expected in (
            ("diff", lambda: OPS["diff"](X, axis=2), 2, 2, "from -2 to 1"),
            ("permute_dims", lambda: OPS["permute_dims"](X, (0, -3)), -3, 2, "from -2 to 1"),
            ("tensordot", lambda: OPS["tensordot"](X, X, axes=((4,), (0,))), 4, 2, "from -2 to 1"),
            ("glu", lambda: nn.GLU(dim=3)(X), 3, 2, "from -2 to 1"),
            ("of a sum", lambda: OPS["sum"](np.asarray(1.0), axis=0), 0, 0, "no axes"),
            ("of a concat", lambda: OPS["concat"]([np.asarray(1.0)] * 2), 0, 0, "no axes"),
        )
    },
    "a list beside an array in an index": (
        lambda: OPS["getitem"](X, ([0, 1], np.asarray([0, 1]))),
        TypeError,
        ["index by a list", "integer arrays"],
    ),
    "a mask beside a number in an assignment": (
        lambda: functional.setitem(X, (np.ones(12, dtype=bool), 0), 1.0),
        TypeError,
        ["boolean mask", "integer arrays", "nonzero"],
    ),
    "take without an axis": (
        lambda: OPS["take"](X, np.asarray([0])),
        ValueError,
        ["take", "2", "axis"],
    ),
    "flatten a vector": (
        lambda: nn.Flatten()(F32[0]),
        ValueError,
        ["Flatten", "(batch, …)", "(4,)"],
    ),
    "mse shapes": (
        lambda: losses.mse(F32, F32[:, :1]),
        ValueError,
        ["mse", "(12, 4)", "(12, 1)", "reshape"],
    ),
    "binary shapes": (
        lambda: losses.binary_cross_entropy_with_logits(F32[:, :1], F32[:, 0]),
        ValueError,
        ["binary_cross_entropy_with_logits", "(12, 1)", "(12,)", "targets[:, None]"],
    ),
    "cross entropy of a vector": (
        lambda: losses.cross_entropy(F32[0], Y[:4]),
        ValueError,
        ["(batch, classes)", "(4,)"],
    ),
    "cross entropy labels": (
        lambda: losses.cross_entropy(F32, np.stack([Y, Y], axis=1)),
        ValueError,
        ["integer targets", "(12,)", "(12, 2)"],
    ),
    "cross entropy float labels": (
        lambda: losses.cross_entropy(F32, Y.astype("float32")),
        ValueError,
        ["probabilities", "Labels are integers"],
    ),
    "trainer's loss not a number": (
        lambda: Trainer(network(), lambda a, b: a, optim.SGD()).fit(X, Y),
        TypeError,
        ["0-d", "mean over the batch"],
    ),
    "parameter shape": (
        lambda: drawn().replace({"0.weight": np.zeros((4, 8), dtype="float32")}),
        ValueError,
        ["'0.weight'", "(8, 4)", "(4, 8)"],
    ),
    # wrong dtype
    "input dtype": (lambda: drawn()(X), TypeError, ["layer '0'", "float64", "float32", "convert"]),
    "integer input": (
        lambda: trainer().fit(Y[:, None] * np.ones((1, 4), int), Y),
        TypeError,
        ["layer '0'", "int64"],
    ),
    "integer targets of mse": (
        lambda: losses.mse(F32[:, 0], Y),
        TypeError,
        ["mse", "targets are int64", "float32"],
    ),
    "complex data": (lambda: trainer().fit(X + 1j, Y), TypeError, ["x is complex", "real"]),
    "text data": (
        lambda: trainer().fit([["a", "b"]], [0]),
        TypeError,
        ["array of numbers", "list"],
    ),
    "object data": (lambda: asarray([object()]), TypeError, ["array of numbers", "object"]),
    "masked data": (
        lambda: trainer().fit(np.ma.masked_array(X, X > 1), Y),
        TypeError,
        ["mask", "filled"],
    ),
    "unknown dtype": (
        lambda: network().init(dtype="float12"),
        ValueError,
        ["'float12'", "'float32' or 'float64'"],
    ),
    "unknown dtype of an array": (
        lambda: polynet.asarray([1.0], backend="numpy", dtype="float16"),
        ValueError,
        ["'float16'", "float32, float64"],
    ),
    # mixed backends and devices
    "no array": (
        lambda: functional.relu(3.0),
        TypeError,
        ["at least one array", "polynet.asarray"],
    ),
    "a stranger's array": (
        lambda: functional.relu(Foreign()),
        TypeError,
        ["Foreign", "not an array of any backend"],
    ),
    "unknown backend": (
        lambda: get_backend("nunpy"),
        UnknownBackendError,
        ["'nunpy'", "Did you mean 'numpy'"],
    ),
    "a precision that a backend does not offer": (
        lambda: polynet.get_backend("numpy").with_precision("bfloat16"),
        ValueError,
        ["backend 'numpy'", "'bfloat16'", "set it there"],
    ),
    "unknown backend of a trainer": (
        lambda: trainer(backend="cuda").fit(X, Y),
        BackendError,
        ["'cuda'", "Expected one of"],
    ),
    "unknown device": (
        lambda: network().init(backend="numpy", device="gpu:0"),
        ValueError,
        ["'numpy'", "'gpu:0'", "cpu"],
    ),
    # empty and unequal data
    "no samples": (lambda: trainer().fit(X[:0], Y[:0]), ValueError, ["x is empty", "(0, 4)"]),
    "no features": (lambda: trainer().fit(X[:, :0], Y), ValueError, ["x is empty", "(12, 0)"]),
    "one number": (
        lambda: trainer().fit(3.0, 1),
        ValueError,
        ["x is a single number", "first axis"],
    ),
    "unequal lengths": (lambda: trainer().fit(X, Y[:-1]), ValueError, ["12 samples", "11"]),
    "unequal validation": (
        lambda: trainer().fit(X, Y, validation_data=(X, Y[:5])),
        ValueError,
        ["validation x has 12", "validation y 5"],
    ),
    "ragged data": (
        lambda: trainer().fit([[1.0], [1.0, 2.0]], [0, 1]),
        ValueError,
        ["inhomogeneous"],
    ),
    # not finite
    "NaN in x": (
        lambda: trainer().fit(with_nan(X), Y),
        ValueError,
        ["x holds 1 NaN", "(3, 1)", "remove or replace"],
    ),
    "infinity in y": (
        lambda: Trainer(nn.Linear(4, 1), losses.mse, optim.SGD()).fit(X, np.full((12, 1), np.inf)),
        ValueError,
        ["y holds 12", "(0, 0)"],
    ),
    "NaN in validation": (
        lambda: trainer().fit(X, Y, validation_data=(with_nan(X), Y)),
        ValueError,
        ["validation x holds 1 NaN"],
    ),
    "too large for float32": (
        lambda: trainer().fit(X * 1e300, Y),
        ValueError,
        ["too large for float32", "scale"],
    ),
    "NaN in predict": (lambda: trainer().predict(with_nan(X)), ValueError, ["x holds 1 NaN"]),
    "a diverging run": (
        lambda: Trainer(nn.Linear(4, 1), losses.mse, optim.SGD(lr=1e3)).fit(
            X, X[:, :1], epochs=200
        ),
        NotFiniteError,
        ["loss is", "step", "learning rate"],
    ),
    # targets of another kind
    "labels that are booleans": (
        lambda: trainer().fit(X, Y > 0),
        ValueError,
        ["targets of bool", "y.astype('int64')"],
    ),
    "a target for several outputs": (
        lambda: losses.mse(F32, F32[:, 0]),
        ValueError,
        ["(12, 4)", "(12,)", "a target for each number"],
    ),
    "targets that lie otherwise": (
        lambda: losses.mse(F32, F32.T),
        ValueError,
        ["(12, 4)", "(4, 12)", "reshape the targets to (12, 4)"],
    ),
    # labels out of range
    "label too high": (
        lambda: trainer().fit(X, Y + 1),
        ValueError,
        ["y holds class 3", "3 outputs", "0 to 2"],
    ),
    "label too low": (lambda: trainer().fit(X, Y - 1), ValueError, ["y holds class -1", "0 to 2"]),
    "label in validation": (
        lambda: trainer().fit(X, Y, validation_data=(X, Y + 5)),
        ValueError,
        ["validation y holds class 7"],
    ),
    "accuracy shapes": (lambda: metrics.accuracy(Y[:3], F32), ValueError, ["(3,)", "(12, 4)"]),
    "a parameter of another precision": (
        lambda: drawn().replace({"0.weight": np.zeros((8, 4))}),
        TypeError,
        ["'0.weight' is float32", "float64", "polynet.asarray(array, backend=…, dtype='float32')"],
    ),
    # unknown names and wrong settings
    "unknown parameter": (
        lambda: drawn().replace({"0.wieght": F32}),
        KeyError,
        ["'0.wieght'", "Did you mean '0.weight'"],
    ),
    "unknown name": (
        lambda: polynet.Trainr,
        AttributeError,
        ["'Trainr'", "Did you mean 'Trainer'"],
    ),
    "unknown mode": (
        lambda: nn.init.kaiming_uniform(mode="fan_inn"),
        ValueError,
        ["Did you mean 'fan_in'"],
    ),
    "negative learning rate": (lambda: optim.Adam(lr=-1.0), ValueError, ["Adam", "lr", "-1.0"]),
    "betas": (lambda: optim.Adam(betas=(0.9, 1.0)), ValueError, ["betas", "below 1"]),
    "Nesterov alone": (lambda: optim.SGD(nesterov=True), ValueError, ["nesterov", "momentum"]),
    "dropout": (lambda: nn.Dropout(1.5), ValueError, ["Dropout", "1.5"]),
    "layer size": (lambda: nn.Linear(0, 3), ValueError, ["in_features", "0"]),
    "layers in a list": (lambda: nn.Sequential([nn.ReLU()]), TypeError, ["one by one"]),
    "optimizer class": (
        lambda: Trainer(network(), losses.mse, optim.Adam),
        TypeError,
        ["the class itself", "optim.Adam(lr=1e-3)"],
    ),
    "loss by name": (
        lambda: Trainer(network(), "mse", optim.Adam()),
        TypeError,
        ["'mse'", "polynet.losses.mse"],
    ),
    "network": (
        lambda: Trainer(3, losses.mse, optim.Adam()),
        TypeError,
        ["net is a int", "Module"],
    ),
    "metric alone": (
        lambda: Trainer(network(), losses.mse, optim.Adam(), metrics=metrics.accuracy),
        TypeError,
        ["list of functions"],
    ),
    "seed": (lambda: trainer(seed=1.5), TypeError, ["seed", "1.5"]),
    "epochs": (lambda: trainer().fit(X, Y, epochs=0), ValueError, ["epochs", "positive", "0"]),
    "batch size": (lambda: trainer().fit(X, Y, batch_size=2.5), ValueError, ["batch_size", "2.5"]),
    "split": (
        lambda: trainer().fit(X, Y, validation_split=1.5),
        ValueError,
        ["between 0 and 1", "1.5"],
    ),
    "split of one": (lambda: data.split(X[:1], Y[:1], 0.5), ValueError, ["one side empty"]),
    "split and data": (
        lambda: trainer().fit(X, Y, validation_split=0.5, validation_data=(X, Y)),
        ValueError,
        ["not both"],
    ),
    "stratify alone": (
        lambda: trainer().fit(X, Y, stratify=True),
        ValueError,
        ["validation_split"],
    ),
    # networks and records
    "no parameters yet": (
        lambda: network()(F32),
        RuntimeError,
        ["no parameters yet", "init", "Trainer"],
    ),
    "no forward": (lambda: nn.Module()(F32), NotImplementedError, ["forward"]),
    "changing a network": (
        lambda: setattr(drawn()[0], "weight", F32),
        AttributeError,
        ["layer '0'", "'weight'", "replace"],
    ),
    # files
    "no safetensors file": (
        lambda: _load(b"not a file"),
        ValueError,
        ["not a whole safetensors file"],
    ),
    "another network's file": (
        lambda: _load(nn.Sequential(nn.Linear(4, 3))),
        KeyError,
        ["lacks", "0.bias"],
    ),
}


class Foreign:
    """An array of a library that nobody has heard of."""

    dtype, shape = "float32", (2,)


def _load(content: Any) -> Any:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            checkpoint.save(path, nn.Linear(4, 8).init(0, backend="numpy"))
        return checkpoint.load(path, network())


@pytest.mark.parametrize("case", CASES)
def test_error_says_what_and_where_and_what_to_do(case: str, raises: Callable[..., None]) -> None:
    with np.errstate(all="ignore"):
        raises(*CASES[case])


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 40

"""Networks as estimators of scikit-learn, for its pipelines, searches and cross-validation."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Self

import numpy as np

from polynet import losses, nn, optim
from polynet.arguments import Callback
from polynet.backend import Backend, to_numpy
from polynet.data import inputs
from polynet.data.place import place_for
from polynet.errors import MissingDependency, unknown
from polynet.functional import softmax
from polynet.nn import Module
from polynet.optim import Optimizer
from polynet.scores import AT_ONCE, Loss, outputs_of
from polynet.step import predictor
from polynet.train import Trainer

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.class_weight import compute_sample_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_is_fitted,
        column_or_1d,
        validate_data,
    )
except ImportError as error:
    raise MissingDependency("scikit-learn", "pip install 'polynet-array[sklearn]'") from error

__all__ = ["Classifier", "Regressor"]

Net = Module | Callable[[int, int], Module]
OPTIMIZER_PREFIX = "optimizer__"
"""How the names of the optimizer's settings begin, among those of an estimator."""


class _Estimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Base of both estimators: their settings, as scikit-learn wants them, and training."""

    _loss: Loss
    net_: Module

    def __init__(
        self,
        net: Net,
        *,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        epochs: int = 200,
        batch_size: int = 32,
        validation_split: float | None = None,
        callbacks: Sequence[Callback] = (),
        random_state: Any = 0,
        warm_start: bool = False,
        backend: str | Backend | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        self.net = net
        self.loss = loss
        self.optimizer = optimizer
        self.epochs = epochs
        self.batch_size = batch_size
        self.validation_split = validation_split
        self.callbacks = callbacks
        self.random_state = random_state
        self.warm_start = warm_start
        self.backend = backend
        self.device = device
        self.dtype = dtype

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The settings by name; the optimizer's settings have names such as `optimizer__lr`."""
        params: dict[str, Any] = super().get_params(deep=deep)
        return {**params, **self._optimizer_params()} if deep else params

    def set_params(self, **params: Any) -> Self:
        """Change settings by name; changing one of the optimizer's makes a new optimizer."""
        new = {name: params.pop(name) for name in list(params) if name.startswith(OPTIMIZER_PREFIX)}
        for name in params:
            if name.startswith("net__") and not hasattr(self.net, "set_params"):
                raise ValueError(
                    f"{type(self).__name__}: unknown setting {name!r}. The network is chosen as a "
                    "whole, net=functools.partial(net, width=8), or one of several such in a search"
                )
        super().set_params(**params)
        known = self._optimizer_params()
        for name in new:
            if name not in known:
                raise ValueError(f"{type(self).__name__}: {unknown('setting', name, known)}")
        if new:
            changed = {name.removeprefix(OPTIMIZER_PREFIX): value for name, value in new.items()}
            self.optimizer = replace(self._optimizer(), **changed)
        return self

    def _goes_on(self) -> bool:
        """Whether `fit` goes on with the network that was trained before."""
        return self.warm_start and hasattr(self, "net_")

    def _optimizer(self) -> Any:
        return optim.Adam(1e-3) if self.optimizer is None else self.optimizer

    def _optimizer_params(self) -> dict[str, Any]:
        optimizer = self._optimizer()
        names = [f.name for f in fields(optimizer)] if is_dataclass(optimizer) else []
        return {f"{OPTIMIZER_PREFIX}{name}": getattr(optimizer, name) for name in names}

    def _train(
        self, x: np.ndarray, y: np.ndarray, outputs: int, sample_weight: Any, *, stratify: bool
    ) -> None:
        net = self.net_ if self._goes_on() else self.net
        if not isinstance(net, Module):
            if not callable(net):
                raise TypeError(
                    f"{type(self).__name__}: net is a {type(net).__name__}; expected a "
                    "polynet.nn.Module, or a function (features, outputs) that makes one"
                )
            net = net(x.shape[1], outputs)
        seed = self.random_state
        if not isinstance(seed, numbers.Integral):
            seed = int(check_random_state(seed).randint(1 << 31))
        trainer = Trainer(
            net, self.loss or type(self)._loss, self._optimizer(), seed=seed,
            backend=self.backend, device=self.device, dtype=self.dtype,
        )  # fmt: skip
        x = _as_inputs(net, x)
        given = tuple(trainer.predict(x[:1]).shape)
        if given != (1, outputs):
            raise ValueError(
                f"{type(self).__name__}: for one sample the network gives shape {given}; expected "
                f"(1, {outputs}), as y asks for. Where net is a function (features, outputs), it "
                "is given that number"
            )
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, x)
        self.history_ = trainer.fit(
            x, y, sample_weight=sample_weight, epochs=self.epochs, batch_size=self.batch_size,
            validation_split=self.validation_split, callbacks=self.callbacks, progress=False,
            stratify=stratify and self.validation_split is not None,
        )  # fmt: skip
        self.net_, self._seed = trainer.net, seed

    def _outputs(self, x: Any) -> Any:
        """The outputs, on the network's device; streams draw what a Trainer's `predict` draws."""
        check_is_fitted(self)
        x = _as_inputs(self.net_, validate_data(self, x, reset=False, allow_nd=True))
        place = place_for(self.net_.parameters(), None, self.backend, self.device, self.dtype)
        with place.active():
            forward = predictor(self.net_, self._seed, place.backend, place.device)
            return outputs_of(forward, inputs(place, x, seed=0), AT_ONCE)


def _as_inputs(net: Module, x: np.ndarray) -> np.ndarray:
    """Integers as floating-point numbers, unless the network has an `Embedding` to look them up."""
    looked_up = any(isinstance(layer, nn.Embedding) for _, layer in net.modules())
    if x.dtype in ("float32", "float64") or (looked_up and x.dtype.kind in "iu"):
        return x
    return x.astype("float64")


class Classifier(ClassifierMixin, _Estimator):  # type: ignore[misc]  # scikit-learn has no types
    """A network that tells classes apart, as an estimator of scikit-learn.

    `net` is a network that gives a score for each class, or a function `(features, classes) ->
    Module` of the sizes in the data: `features` is the number of columns of `X`, or of channels of
    images. All else is as in `Trainer` and its `fit`. The loss takes scores and labels from 0; the
    default is `losses.cross_entropy`. The default optimizer is `optim.Adam(1e-3)`, for 200 epochs
    as in scikit-learn's own networks. `random_state` is the seed: an integer, a `RandomState` or
    None. A search may choose a setting of the optimizer by a name such as `optimizer__lr`.

    `class_weight` helps where some classes have few samples: a dict of a weight for each label, 1
    for those left out, or "balanced", which is samples / (classes · samples of the class). It
    multiplies `sample_weight`, also for samples that are held out for validation.

    `fit(X, y, sample_weight=None)` takes samples as rows of numbers, or of any shape such as
    (samples, channels, height, width), and labels of any kind. Integers in X become floating-point
    numbers, unless the network has an `nn.Embedding`, which looks words or categories up by their
    numbers: then an X of integers goes into the network as it is. `predict` gives labels;
    `predict_proba` gives probabilities (samples, classes) in the order of `classes_`. The trained
    network is `net_`, and its History is `history_`. With `warm_start`, `fit` goes on with `net_`,
    on samples with as many features and of the same classes; the optimizer and the History begin
    anew.

    Raises ValueError for fewer than two classes, and, as scikit-learn does, for `X` that is not an
    array of finite numbers. It needs scikit-learn: `pip install 'polynet-array[sklearn]'`.

    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from polynet import nn, optim
    >>> from polynet.sklearn import Classifier
    >>> def net(features, classes):
    ...     return nn.Sequential(nn.Linear(features, 16), nn.Tanh(), nn.Linear(16, classes))
    >>> model = make_pipeline(StandardScaler(), Classifier(net, optimizer=optim.Adam(1e-2)))
    >>> bool(cross_val_score(model, *load_iris(return_X_y=True)).mean() > 0.9)
    True
    """

    _loss = staticmethod(losses.cross_entropy)
    classes_: np.ndarray

    def __init__(
        self,
        net: Net,
        *,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        epochs: int = 200,
        batch_size: int = 32,
        class_weight: dict[Any, float] | str | None = None,
        validation_split: float | None = None,
        callbacks: Sequence[Callback] = (),
        random_state: Any = 0,
        warm_start: bool = False,
        backend: str | Backend | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(
            net, loss=loss, optimizer=optimizer, epochs=epochs, batch_size=batch_size,
            validation_split=validation_split, callbacks=callbacks, random_state=random_state,
            warm_start=warm_start, backend=backend, device=device, dtype=dtype,
        )  # fmt: skip
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a network on the samples, a new one unless `warm_start`; returns this estimator."""
        first = not self._goes_on()
        X, y = validate_data(self, X, y, reset=first, multi_output=True, allow_nd=True)
        check_classification_targets(y)
        if y.ndim > 1 and y.shape[1] > 1:
            raise ValueError(
                f"Classifier: y should be a 1d array, a label a sample; got shape {y.shape}. Turn "
                "one-hot rows into labels by y.argmax(axis=1); for several labels a sample, use "
                "sklearn.multioutput.MultiOutputClassifier, which fits a network for each column, "
                "or a Trainer with losses.binary_cross_entropy_with_logits"
            )
        y = column_or_1d(y, warn=True)
        classes, labels = np.unique(y, return_inverse=True)
        if not first and not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"Classifier: with warm_start, y has the classes of the fit before, "
                f"{self.classes_}; got {classes}"
            )
        self.classes_ = classes
        if len(self.classes_) < 2:
            (label,) = self.classes_.tolist()
            raise ValueError(f"Classifier: y holds one class, {label!r}; expected two or more")
        if self.class_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
            sample_weight = sample_weight * compute_sample_weight(self.class_weight, y)
        self._train(X, labels, len(self.classes_), sample_weight, stratify=True)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class: softmax of the network's scores."""
        return to_numpy(softmax(self._outputs(X), axis=1))

    def predict(self, X: Any) -> np.ndarray:
        """The label of the largest score."""
        places = to_numpy(self._outputs(X)).argmax(axis=1)
        return self.classes_[places]


class Regressor(RegressorMixin, _Estimator):  # type: ignore[misc]  # scikit-learn has no types
    """A network that gives numbers, as an estimator of scikit-learn.

    Targets have the shape (samples,) or (samples, outputs), and predictions have the same. `net`
    gives (samples, outputs), or is a function `(features, outputs) -> Module`. The default loss is
    `losses.mse`. Targets far from 0 to 1, such as prices, take many epochs: let scikit-learn's
    `TransformedTargetRegressor(model, transformer=StandardScaler())` scale them. All else is as in
    `Classifier`.

    >>> import numpy as np
    >>> from polynet import nn, optim
    >>> from polynet.sklearn import Regressor
    >>> X = np.linspace(-1, 1, 64)[:, None]
    >>> model = Regressor(nn.Linear, optimizer=optim.Adam(0.1), epochs=40)
    >>> bool(model.fit(X, 3 * X[:, 0] + 1).score(X, 3 * X[:, 0] + 1) > 0.99)
    True
    """

    _loss = staticmethod(losses.mse)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a network on the samples, a new one unless `warm_start`; returns this estimator."""
        X, y = validate_data(
            self, X, y, reset=not self._goes_on(), multi_output=True, allow_nd=True
        )
        targets = np.asarray(y, float).reshape(len(y), -1)
        self._target_shape = y.shape[1:]
        self._train(X, targets, targets.shape[1], sample_weight, stratify=False)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The network's outputs, (samples,) or (samples, outputs) as the targets were."""
        return to_numpy(self._outputs(X)).reshape(-1, *self._target_shape)

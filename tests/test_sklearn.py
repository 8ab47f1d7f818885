"""Networks as estimators of scikit-learn, by its own checks, in its own tools."""

import pickle
from functools import partial

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import polynet
from polynet import Trainer, losses, nn, optim
from polynet.callbacks import EarlyStopping
from polynet.functional import relu, softmax
from polynet.sklearn import Classifier, Regressor

BACKENDS = ("numpy", "strict")


class Net(nn.Module):
    def __init__(self, features, outputs, width=16):
        self.hidden = nn.Linear(features, width)
        self.last = nn.Linear(width, outputs)

    def forward(self, x):
        return self.last(relu(self.hidden(x)))


HOW = {"optimizer": optim.Adam(1e-2), "epochs": 40, "backend": "numpy"}


@parametrize_with_checks([kind(Net, **HOW, dtype="float64") for kind in (Classifier, Regressor)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_what_a_trainer_makes_of_the_same(backend):
    x, y = load_iris(return_X_y=True)
    weights = np.linspace(0.5, 1.5, len(y))
    how = {"epochs": 3, "batch_size": 16}
    trainer = Trainer(Net(4, 3), losses.cross_entropy, optim.Adam(1e-2), seed=7, backend=backend)
    history = trainer.fit(x, y, sample_weight=weights, **how)
    names = np.asarray(["setosa", "versicolor", "virginica"])
    model = Classifier(Net, optimizer=optim.Adam(1e-2), random_state=7, backend=backend, **how).fit(
        x, names[y], weights
    )
    assert model.history_.step_losses == history.step_losses
    outputs = trainer.predict(x)
    np.testing.assert_array_equal(model.predict(x), names[outputs.argmax(axis=1)])
    np.testing.assert_array_equal(model.predict_proba(x), softmax(outputs, axis=1))
    assert model.predict_proba(x).dtype == "float32"


class Noisy(nn.Module):
    def __init__(self, features, outputs):
        self.last = nn.Linear(features, outputs)
        self.noise = nn.RandomStream()

    def forward(self, x):
        return self.last(x + self.noise.normal(x.shape, x.dtype))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_that_draws_predicts_as_in_a_trainer(backend):
    x, y = load_iris(return_X_y=True)
    trainer = Trainer(Noisy(4, 3), losses.cross_entropy, optim.Adam(1e-3), seed=7, backend=backend)
    trainer.fit(x, y, epochs=2)
    model = Classifier(Noisy, epochs=2, random_state=7, backend=backend).fit(x, y)
    expected = softmax(trainer.predict(x), axis=1)
    for fitted in (model, pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(fitted.predict_proba(x), expected)


def test_the_shape_of_targets_is_that_of_predictions():
    x = np.linspace(-1, 1, 64)[:, None]
    for y in (3 * x[:, 0] + 1, 3 * x + 1, np.hstack([3 * x, 1 - x])):
        model = Regressor(nn.Linear, optimizer=optim.Adam(0.1), epochs=60, backend="numpy")
        assert model.fit(x, y).predict(x).shape == y.shape
        np.testing.assert_allclose(model.predict(x), y, atol=0.05)


def test_a_search_in_a_pipeline():
    x, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), Classifier(Net, epochs=15, backend="numpy"))
    grid = {
        "classifier__net": [Net, partial(Net, width=2)],
        "classifier__optimizer": [optim.Adam(1e-2), optim.SGD(0.0)],
    }
    search = GridSearchCV(model, grid, cv=3).fit(x, y)
    assert search.best_params_["classifier__optimizer"] == optim.Adam(1e-2)
    assert search.best_score_ > 0.9
    untrained = search.cv_results_["mean_test_score"][1::2]
    assert max(untrained) < 0.7


def test_images_and_early_stopping():
    digits = load_digits()
    x, y = digits.images[:400, None] / 16, digits.target[:400] >= 5
    conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    model = Classifier(
        conv, optimizer=optim.Adam(1e-2), epochs=100, validation_split=0.25,
        callbacks=[EarlyStopping(patience=3)], backend="numpy",
    )  # fmt: skip
    found = cross_val_predict(model, x, y, cv=2, method="predict_proba")
    assert found.shape == (400, 2)
    assert (found.argmax(axis=1) == y).mean() > 0.85
    assert len(model.fit(x, y).history_["val_loss"]) < 100


def test_a_trained_one_can_be_pickled_and_a_clone_is_not_trained():
    x, y = load_iris(return_X_y=True)
    model = Classifier(Net, **HOW).fit(x, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    assert not hasattr(clone(model), "net_")


def test_a_trained_network_is_trained_on():
    x, y = load_iris(return_X_y=True)
    model = Classifier(Net, **HOW).fit(x, y)
    more = clone(model).set_params(net=model.net_, epochs=2).fit(x, y)
    trainer = Trainer(model.net_, losses.cross_entropy, optim.Adam(1e-2))
    assert more.history_.step_losses == trainer.fit(x, y, epochs=2).step_losses
    assert more.history_.step_losses[0] < model.history_.step_losses[0] / 3


WARM = [
    (
        Classifier(Net, **HOW, warm_start=True),
        MLPClassifier(warm_start=True, max_iter=40, random_state=0),
    ),
    (
        Regressor(Net, **HOW, warm_start=True),
        MLPRegressor(warm_start=True, max_iter=40, random_state=0),
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), WARM, ids=["Classifier", "Regressor"])
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer:sklearn.exceptions.ConvergenceWarning")
def test_a_warm_start_goes_on_as_in_scikit_learns_networks(ours, theirs):
    """Both begin where they were, and refuse other features and classes; cold ones begin anew."""
    x, y = load_iris(return_X_y=True)
    begin = {}
    for name, model in (("ours", clone(ours)), ("theirs", clone(theirs))):
        first, second = (losses_of(model.fit(x, y)) for _ in range(2))
        begin[name] = second[0] < 0.7 * first[0]
        with pytest.raises(ValueError, match="features"):
            model.fit(x[:, :3], y)
        if hasattr(model, "classes_"):
            with pytest.raises(ValueError, match="classes"):
                model.fit(x, np.minimum(y, 1))
            assert list(model.classes_) == [0, 1, 2]
        cold = losses_of(model.set_params(warm_start=False, random_state=0).fit(x[:, :3], y))
        assert cold[0] > second[0]
    assert begin == {"ours": True, "theirs": True}


def losses_of(model):
    """The losses of the epochs of the fit that was last."""
    if isinstance(model, Classifier | Regressor):
        return model.history_["loss"]
    return model.loss_curve_[-model.max_iter :]


def test_a_warm_start_trains_on_the_network_that_is_there():
    x, y = load_iris(return_X_y=True)
    model = Classifier(Net, **HOW).fit(x, y)
    more = clone(model).set_params(net=model.net_, epochs=2).fit(x, y)
    model.set_params(warm_start=True, epochs=2).fit(x, y)
    assert model.history_.step_losses == more.history_.step_losses


def test_random_state_is_the_seed():
    x, y = load_iris(return_X_y=True)

    def first(state):
        return Classifier(Net, epochs=1, backend="numpy", random_state=state).fit(x, y).history_

    assert first(3)["loss"] == first(3)["loss"] != first(4)["loss"]
    of_state = [first(np.random.RandomState(3))["loss"] for _ in range(2)]
    assert of_state[0] == of_state[1]
    assert first(None)["loss"] != first(None)["loss"]


def test_weights_of_classes_are_weights_of_their_samples():
    x, y = load_iris(return_X_y=True)
    x, y = x[40:], np.asarray(["few", "many", "more"])[y[40:]]
    own = np.linspace(0.5, 1.5, len(y))
    counts = {label: (y == label).sum() for label in np.unique(y)}
    balanced = np.asarray([len(y) / (3 * counts[label]) for label in y])
    how = {"epochs": 2, "backend": "numpy"}

    def losses_of(sample_weight=None, **settings):
        return Classifier(Net, **how, **settings).fit(x, y, sample_weight).history_.step_losses

    assert losses_of(class_weight="balanced") == losses_of(balanced) != losses_of()
    assert losses_of(own, class_weight="balanced") == losses_of(own * balanced)
    assert losses_of(class_weight={"few": 5.0}) == losses_of(np.where(y == "few", 5.0, 1.0))
    assert clone(Classifier(Net, class_weight={"few": 5.0})).class_weight == {"few": 5.0}
    with pytest.raises(ValueError, match=r"The classes, .* are not in class_weight"):
        losses_of(class_weight={0: 5.0})


def of_words(length, outputs):
    return nn.Sequential(nn.Embedding(12, 4), nn.Flatten(), nn.Linear(4 * length, outputs))


WORDS = np.random.default_rng(0).integers(0, 12, size=(120, 5))
FOUND = np.where((WORDS < 3).any(axis=1), "found", "missing")


@pytest.mark.parametrize("backend", BACKENDS)
def test_whole_numbers_reach_an_embedding(backend):
    how = {"epochs": 3, "random_state": 7, "backend": backend, "optimizer": optim.Adam(1e-2)}
    trainer = Trainer(
        of_words(5, 2), losses.cross_entropy, optim.Adam(1e-2), seed=7, backend=backend
    )
    trainer.fit(WORDS, (FOUND == "missing").astype(int), epochs=3)
    expected = softmax(trainer.predict(WORDS), axis=1)
    for kind in ("int64", "uint8", "int32"):
        model = Classifier(of_words, **how).fit(WORDS.astype(kind), FOUND)
        np.testing.assert_array_equal(model.predict_proba(WORDS), expected)
    np.testing.assert_array_equal(model.predict_proba(WORDS.tolist()), expected)
    assert Regressor(of_words, **how).fit(WORDS, WORDS.sum(axis=1)).predict(WORDS).shape == (120,)


def test_categories_go_through_a_pipeline_into_an_embedding():
    names = np.asarray(list("abcdefghijkl"))[WORDS]
    model = Classifier(of_words, **HOW)
    as_integers = make_pipeline(OrdinalEncoder(dtype="int64"), model).fit(names, FOUND)
    assert as_integers.score(names, FOUND) > 0.95
    with pytest.raises(TypeError, match=r"Embedding.*inputs are float32; expected integers"):
        make_pipeline(OrdinalEncoder(), model).fit(names, FOUND)


def test_whole_numbers_are_floating_ones_elsewhere():
    model = Classifier(Net, epochs=2, backend="numpy").fit(WORDS, FOUND)
    assert model.history_.step_losses == model.fit(WORDS * 1.0, FOUND).history_.step_losses
    np.testing.assert_array_equal(model.predict_proba(WORDS), model.predict_proba(WORDS * 1.0))


X, Y = np.zeros((6, 2)), np.arange(6) % 3
WRONG = {
    "one class": (Classifier(Net), Y * 0, "y holds one class, 0; expected two or more"),
    "numbers": (Classifier(Net), Y / 7, "Unknown label type: continuous"),
    "several labels a sample": (
        Classifier(Net),
        np.eye(3, dtype=int)[Y],
        r"Classifier: y should be a 1d array.*\(6, 3\).*y\.argmax\(axis=1\).*MultiOutputClassifier",
    ),
    "too few outputs": (
        Classifier(nn.Linear(2, 2)),
        Y,
        r"Classifier: for one sample the network gives shape \(1, 2\); expected \(1, 3\)",
    ),
    "too many": (Regressor(nn.Linear(2, 4)), Y, r"shape \(1, 4\); expected \(1, 1\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_said(case):
    model, y, said = WRONG[case]
    with pytest.raises(ValueError, match=said):
        model.set_params(backend="numpy").fit(X, y)


def test_a_network_that_is_none_is_said():
    with pytest.raises(TypeError, match=r"Regressor: net is a str; expected a polynet\.nn\.Module"):
        Regressor("linear").fit(X, Y)


def test_it_is_reached_from_polynet():
    assert polynet.__getattr__("sklearn").Classifier is Classifier
    assert "sklearn" not in polynet.__all__  # a program without scikit-learn may import all of it


def test_without_scikit_learn_it_says_how_to_install_it(run_python):
    code = "import sys; sys.modules['sklearn.base'] = None; import polynet.sklearn"
    done = run_python("-c", code)
    assert "MissingDependency: scikit-learn is not installed" in done.stderr
    assert "pip install 'polynet-array[sklearn]'" in done.stderr


def test_a_search_chooses_settings_of_the_optimizer():
    x, y = load_iris(return_X_y=True)
    model = Classifier(Net, epochs=3, backend="numpy")
    assert model.get_params()["optimizer__lr"] == 1e-3
    assert "optimizer__lr" not in model.get_params(deep=False)
    search = GridSearchCV(model, {"optimizer__lr": [1e-9, 0.05]}, cv=3).fit(x, y)
    assert search.best_params_ == {"optimizer__lr": 0.05}
    assert search.best_estimator_.optimizer == optim.Adam(0.05)
    assert model.optimizer is None
    pipeline = make_pipeline(StandardScaler(), Classifier(Net))
    pipeline.set_params(classifier__optimizer=optim.SGD(), classifier__optimizer__momentum=0.9)
    assert pipeline[-1].optimizer == optim.SGD(momentum=0.9)


def test_a_setting_that_the_optimizer_lacks_is_named():
    with pytest.raises(ValueError, match=r"unknown setting 'optimizer__momentum'.*optimizer__lr"):
        Classifier(Net).set_params(optimizer__momentum=0.9)


def test_a_setting_of_the_network_is_chosen_with_it():
    with pytest.raises(ValueError, match=r"unknown setting 'net__width'.*functools\.partial"):
        Classifier(Net).set_params(net__width=3)


def test_as_it_comes_it_learns():
    x, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), Classifier(Net, backend="numpy"))
    assert np.mean(cross_val_predict(model, x, y, cv=3) == y) > 0.93

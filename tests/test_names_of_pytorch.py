"""The error for a name of PyTorch that is missing says what to use in its place."""

from __future__ import annotations

import inspect
import re
from operator import attrgetter
from typing import Any

import numpy as np
import pytest

import polynet
from polynet import (
    Trainer,
    array_namespace,
    callbacks,
    data,
    functional,
    grad,
    losses,
    namespace,
    nn,
    op,
    optim,
    random,
)
from polynet.ops.operators import ELSEWHERE, OF_JAX, OF_PYTORCH
from polynet.pytorch_names import (
    NO_PARAMETERS,
    OF_A_CALL,
    OF_A_MODULE,
    OF_FUNCTIONAL,
    OF_LOSSES,
    OF_NN,
    OF_OPTIM,
    OF_SCHEDULES,
)

HOUSES = {
    "optim.schedules": optim.schedules,
    "nn": nn,
    "optim": optim,
    "losses": losses,
    "functional": functional,
}


@pytest.mark.parametrize("name", OF_A_MODULE)
def test_of_a_module(name: str) -> None:
    net = nn.Sequential(nn.Linear(2, 1))
    with pytest.raises(AttributeError) as caught:
        getattr(net, name)
    assert str(caught.value) == (
        f"Sequential has no attribute {name!r}, which PyTorch has; here, {OF_A_MODULE[name]}"
    )
    assert not hasattr(net, name)


TABLES = {
    "nn": OF_NN,
    "losses": OF_LOSSES,
    "functional": OF_FUNCTIONAL,
    "optim": OF_OPTIM,
    "optim.schedules": OF_SCHEDULES,
}


@pytest.mark.parametrize(("house", "name"), [(h, name) for h, t in TABLES.items() for name in t])
def test_of_a_package(house: str, name: str) -> None:
    found = f"polynet.{house} has no {name!r}, which PyTorch has; here, {TABLES[house][name]}"
    with pytest.raises(AttributeError, match=f"^{re.escape(found)}$"):
        getattr(HOUSES[house], name)


def test_what_they_name_is_there() -> None:
    words = " ".join([text for table in (OF_A_MODULE, *TABLES.values()) for text in table.values()])
    named = re.findall(r"\b(nn|optim|losses|functional)\.(\w+)", words)
    assert len(named) > 10
    assert [name for house, name in named if not hasattr(HOUSES[house], name)] == []
    own = set(re.findall(r"\bnet\.(\w+)", words))
    assert own <= set(dir(nn.Module)), own


def test_others_are_compared_with_what_is_there() -> None:
    with pytest.raises(AttributeError, match=r"nn has no 'Linaer'\. Did you mean 'Linear'\?$"):
        _ = nn.Linaer
    with pytest.raises(AttributeError, match=r"optim has no 'Adma'\. Did you mean 'Adam'\?$"):
        _ = optim.Adma
    with pytest.raises(
        AttributeError, match=r"losses has no 'cross_entropy_loss'\. Did you mean 'cr"
    ):
        _ = losses.cross_entropy_loss
    with pytest.raises(AttributeError, match=r"Linear has no attribute 'foo'$"):
        _ = nn.Linear(1, 1).foo


def test_formulas_that_stand_for_functions_are_theirs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    formula = OF_FUNCTIONAL["normalize"].removeprefix("use ")
    y = eval(formula, {"x": x, "xp": namespace("numpy")})
    theirs = torch.nn.functional.normalize(torch.asarray(x))
    np.testing.assert_allclose(y, theirs.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("gaussian_nll", ("mean", "y", "variance")),
        ("triplet_margin", ("anchor", "positive", "negative")),
    ],
)
def test_losses_of_several_outputs_are_formulas(name: str, outputs: tuple[str, ...]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    given = dict(zip(outputs, np.random.default_rng(0).random((3, 5, 4)) + 0.1, strict=True))
    formula = OF_LOSSES[name].rpartition(": ")[2]
    ours = eval(formula, {**given, "xp": namespace("numpy"), "functional": functional})
    theirs = getattr(torch.nn.functional, f"{name}_loss")(*map(torch.asarray, given.values()))
    np.testing.assert_allclose(float(ours), theirs.item(), rtol=1e-5)
    with pytest.raises(AttributeError, match=rf"losses has no '{name}', which PyTorch has; here, "):
        getattr(losses, name)


BY_NAME = "too many positional arguments; what stands after * is given by its name"
MISFITS = {
    "softmax by position": (
        lambda xp, x: functional.softmax(x, 1),
        f"softmax(x, /, *, axis=-1): {BY_NAME}",
    ),
    "an option of a loss": (
        lambda xp, x: losses.mse(x, x, reduction="sum"),
        (
            "mse(outputs, targets, /, sample_weight=None): got an unexpected keyword argument "
            f"'reduction', which PyTorch has; here, {OF_A_CALL['reduction']}"
        ),
    ),
    "a loss of one array": (
        lambda xp, x: losses.mse(x),
        "mse(outputs, targets, /, sample_weight=None): missing a required argument: 'targets'",
    ),
    "an option of a function": (
        lambda xp, x: functional.relu(x, inplace=True),
        (
            "relu(x, /): got an unexpected keyword argument 'inplace', which PyTorch has; here, "
            f"{OF_A_CALL['inplace']}"
        ),
    ),
    "the axis of the standard's function": (
        lambda xp, x: xp.sum(x, 0),
        f"sum(x, /, *, axis=None, dtype=None, keepdims=False): {BY_NAME}",
    ),
    "an option of the standard's function": (
        lambda xp, x: xp.mean(x, dim=0),
        (
            "mean(x, /, *, axis=None, keepdims=False): got an unexpected keyword argument 'dim', "
            f"which PyTorch has; here, {OF_A_CALL['dim']}"
        ),
    ),
    "sizes by position": (
        lambda xp, x: xp.reshape(x, 1, -1),
        f"reshape(x, /, shape, *, copy=None): {BY_NAME}",
    ),
    "an op of a user": (lambda xp, x: doubled(x, 2), "doubled(x): too many positional arguments"),
}


CLASSES = {
    "a layer without settings": (
        lambda: nn.ReLU(inplace=True),
        (
            "ReLU(): got an unexpected keyword argument 'inplace', which PyTorch has; here, "
            f"{OF_A_CALL['inplace']}"
        ),
    ),
    "a layer whose base takes them": (
        lambda: nn.AvgPool1d(),
        (
            "AvgPool1d(kernel_size, stride=None, padding=0, ceil_mode=False, "
            "count_include_pad=True): missing a required argument: 'kernel_size'"
        ),
    ),
    "a setting that is unlike any": (
        lambda: nn.Dropout(probability=0.1),
        "Dropout(p=0.5): got an unexpected keyword argument 'probability'",
    ),
    "a setting that is missing, and one that is strange": (
        lambda: nn.Linear(in_feature=3, out_features=1),
        (
            "Linear(in_features, out_features, bias=True, *, weight_init=None, bias_init=None): "
            "missing a required argument: 'in_features', and got an "
            "unexpected 'in_feature'. Did you mean 'in_features'?"
        ),
    ),
    "parameters before the rate": (
        lambda: optim.RMSprop([], lr=0.1),
        (
            "RMSprop(lr=0.01, alpha=0.99, eps=1e-08, weight_decay=0.0, momentum=0.0): multiple "
            f"values for argument 'lr'{NO_PARAMETERS}"
        ),
    ),
    "a schedule's position": (
        lambda: optim.schedules.StepLR(0.1, 3, last_epoch=-1),
        (
            "StepLR(lr, step_size, gamma=0.1): got an unexpected keyword argument 'last_epoch', "
            f"which PyTorch has; here, {OF_A_CALL['last_epoch']}"
        ),
    ),
    "a callback": (
        lambda: callbacks.Checkpoint(evry=2),
        (
            "Checkpoint(path, *, every=1, save_best_only=False, monitor='val_loss', mode=None): "
            "missing a required argument: 'path', and got an unexpected 'evry'. Did you mean "
            "'every'?"
        ),
    ),
    "the place of a network by position": (
        lambda: nn.Linear(1, 1).init(0, "numpy"),
        (
            "init(seed=0, *, backend=None, device=None, dtype=None): too many positional "
            "arguments; what stands after * is given by its name"
        ),
    ),
    "predict without data": (
        lambda: Trainer(nn.Linear(1, 1), losses.mse, optim.SGD()).predict(),
        "predict(x, *, batch_size=256): missing a required argument: 'x'",
    ),
    "an augmentation": (
        lambda: data.augment.RandomCrop(),
        "RandomCrop(size, padding=0): missing a required argument: 'size'",
    ),
    "a shape of random numbers": (
        lambda: random.normal(random.key(0), shape=(3, 4)),
        ("normal(key, count): missing a required argument: 'count', and got an unexpected 'shape'"),
    ),
}


class Widened(nn.Linear):
    """A layer of a user."""

    def __init__(self, width: int) -> None:
        super().__init__(width)  # type: ignore[call-arg]  # what is missing is told


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_that_is_called_otherwise_is_told_its_signature(name: str) -> None:
    call, said = CLASSES[name]
    with pytest.raises(TypeError, match=f"^{re.escape(said)}$"):
        call()


def test_the_class_is_named_whose_signature_is_told() -> None:
    with pytest.raises(TypeError, match=r"^Linear\(in_features, .*\): missing"):
        Widened(3)
    with pytest.raises(TypeError, match=r"^Widened.__init__\(\) missing"):  # Python's words
        Widened()  # type: ignore[call-arg]  # likewise
    with pytest.raises(TypeError, match=r"^Sequential: layer 0 is a int"):  # its own error
        nn.Sequential(3)  # type: ignore[arg-type]
    assert str(inspect.signature(nn.Dropout)) == "(p: 'float' = 0.5) -> 'None'"


DRAWN = (random.bits, random.uniform, random.normal, random.permutation)


@pytest.mark.parametrize("draw", DRAWN)
def test_random_numbers_are_drawn_by_key_and_count(draw: Any) -> None:
    key = random.key(0)
    for count in ((3, 4), [3], 2.0, -1, True):
        with pytest.raises(ValueError, match=rf"^random.{draw.__name__}: count is an .* reshape"):
            draw(key, count)
    for seed in (0, np.zeros(2), np.zeros(3, "int32")):
        with pytest.raises(TypeError, match=rf"^random.{draw.__name__}: a key is an int32 array"):
            draw(seed, 3)
    assert draw(key, np.int64(3)).tolist() == draw(key, 3).tolist()


@op
def doubled(xp, x):
    return 2 * x, (lambda g: 2 * g,)


@pytest.mark.parametrize("name", MISFITS)
def test_a_call_that_does_not_fit_is_told_the_signature(name: str) -> None:
    """Python's own error counts the namespace, which no caller gives: 2 arguments were 3."""
    call, said = MISFITS[name]
    xp = namespace("numpy")
    with pytest.raises(TypeError, match=f"^{re.escape(said)}$"):
        call(xp, xp.asarray([1.0, 2.0]))
    with pytest.raises(TypeError, match=f"^{re.escape(said)}$"):
        grad(lambda x: call(xp, x))(np.ones(2))


@pytest.mark.parametrize("name", [*ELSEWHERE, *OF_PYTORCH, *OF_JAX])
def test_a_method_of_other_arrays_says_which_function_to_call(name: str) -> None:
    """NumPy's, PyTorch's, and JAX's. And the function is there."""
    caught = []

    def f(x: Any) -> Any:
        with pytest.raises(AttributeError) as error:
            getattr(x, name)
        caught.append(str(error.value))
        assert not hasattr(x, name)
        return array_namespace(x).sum(x)

    grad(f)(np.ones(2))
    assert name in {**OF_PYTORCH, **OF_JAX} or hasattr(np.ones(2), name)
    assert f"no attribute {name!r}: arrays of the standard have functions" in caught[0]
    instead = caught[0].rpartition("; ")[2]
    owner = polynet if instead.startswith("polynet.") else namespace("numpy")
    call = instead.partition(".")[2].partition("(")[0]
    assert name == "item" or callable(attrgetter(call)(owner))

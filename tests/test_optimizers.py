"""Optimizers on a hard valley, and their settings."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polynet import Trainer, array_namespace, losses, nn, op, optim, value_and_grad
from polynet.callbacks import ReduceLROnPlateau
from polynet.ops import OPS
from polynet.optim import schedules

square, total = OPS["square"], OPS["sum"]


def rosenbrock(p: dict[str, Any]) -> Any:
    """(1 - x)² + 100 (y - x²)², whose minimum is 0 at (1, 1)."""
    return total(square(1 - p["x"]) + 100 * square(p["y"] - square(p["x"])))


@pytest.mark.parametrize(
    "optimizer",
    [
        optim.SGD(lr=1e-3, momentum=0.9),
        optim.RMSprop(lr=1e-3, eps=1e-6),
        optim.Adam(lr=0.02),
        optim.AdamW(lr=0.02, weight_decay=0.0),
        optim.NAdam(lr=0.005),
        optim.Adagrad(lr=0.5),
        optim.Adam(lr=schedules.CosineAnnealingLR(0.05, T_max=4000)),
    ],
    ids=["SGD", "RMSprop", "Adam", "AdamW", "NAdam", "Adagrad", "Adam, cosine"],
)
def test_rosenbrocks_valley_is_descended(optimizer: optim.Optimizer) -> None:
    params = {"x": np.asarray(-0.5), "y": np.asarray(0.5)}
    state = optimizer.init(params)
    for t in range(4000):
        _, grads = value_and_grad(rosenbrock)(params)
        params, state = optimizer.update(params, grads, state, np.full(1, t, dtype=np.int32))
    assert float(rosenbrock(params)) < 1e-3


# Groups and frozen parameters

X = np.random.default_rng(0).normal(size=(40, 3))
Y = X @ np.asarray([[1.0], [-2.0], [0.5]])


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))


def run(optimizer: optim.Optimizer, epochs: int = 2, **options: Any) -> Trainer:
    trainer = Trainer(network(), losses.mse, optimizer, dtype="float64")
    trainer.fit(X, Y, epochs=epochs, **options)
    return trainer


class Watched(nn.Module):
    """A scale, whose gradient cannot be computed without being seen."""

    def __init__(self) -> None:
        self.scale = nn.Parameter((1,), nn.init.constant(1.0))

    def forward(self, x: Any) -> Any:
        return times(x, self.scale)


seen: list[str] = []


@op
def times(xp: Any, x: Any, y: Any) -> Any:
    def to_y(g: Any) -> Any:
        seen.append("scale")
        return g * x

    return x * y, (lambda g: g * y, to_y)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_gradient_of_a_frozen_parameter_is_never_computed(frozen: bool) -> None:
    seen.clear()
    net = nn.Sequential(nn.Linear(3, 4), Watched(), nn.Linear(4, 1))
    first = optim.Frozen() if frozen else optim.SGD(0.1)
    optimizer = optim.Groups({"1.scale": first}, others=optim.SGD(0.1))
    trainer = Trainer(net, losses.mse, optimizer)
    before = trainer.evaluate(X, Y)["loss"]
    start = trainer.net.parameters()
    trainer.fit(X, Y, epochs=5)
    assert bool(seen) is not frozen
    assert trainer.history["loss"][-1] < before
    for name, p in trainer.net.parameters().items():
        assert np.array_equal(p, start[name]) is (frozen and name == "1.scale")


def test_groups_are_the_optimizers_they_are_made_of() -> None:
    """Where a group is alone, as that optimizer; all in one group, as without groups."""
    whole = run(optim.Adam(0.1)).net.parameters()
    for groups in (
        optim.Groups({"*": optim.Adam(0.1)}),
        optim.Groups({"*.weight": optim.Adam(0.1)}, others=optim.Adam(0.1)),
        optim.Groups({"0.*": optim.Groups({"*.bias": optim.Adam(0.1)}, optim.Adam(0.1)),
                      "1.*": optim.Adam(0.1)}),
    ):  # fmt: skip
        for name, p in run(groups).net.parameters().items():
            np.testing.assert_array_equal(p, whole[name])


WRONG = {
    "two patterns": (
        optim.Groups({"*.bias": optim.SGD(), "0.*": optim.SGD()}, others=optim.SGD()),
        r"'0\.bias' fits '\*\.bias' and '0\.\*'",
    ),
    "no pattern": (
        optim.Groups({"0.*": optim.SGD()}),
        r"no pattern fits '1.weight', '1.bias'.*others",
    ),
    "no parameter": (
        optim.Groups({"encodr.*": optim.SGD()}, others=optim.SGD()),
        r"'encodr\.\*' fits no parameter; there are '0\.weight'",
    ),
    "all frozen": (optim.Groups({"*": optim.Frozen()}), "freezes every parameter"),
    "frozen alone": (optim.Frozen(), "freezes every parameter"),
}


@pytest.mark.parametrize("name", WRONG)
def test_groups_that_do_not_fit_are_refused(name: str) -> None:
    optimizer, words = WRONG[name]
    with pytest.raises(ValueError, match=words):
        run(optimizer)


def test_settings_stay_as_they_were_given() -> None:
    """A step is compiled with them: what is set afterwards would change nothing, silently."""
    held = (*vars(optim).values(), *vars(schedules).values())
    kinds = [thing for thing in held if is_dataclass(thing)]
    assert {optim.SGD, optim.Groups, schedules.StepLR} <= set(kinds)
    assert [k.__name__ for k in kinds if not k.__dataclass_params__.frozen] == []
    with pytest.raises(FrozenInstanceError):
        optim.SGD(0.1).lr = 1.0


# Averages


def test_the_average_is_evaluated_as_a_network_of_its_own() -> None:
    trainer = run(optim.EMA(optim.SGD(0.1), decay=0.5), epochs=3)
    plain = run(optim.SGD(0.1), epochs=3)
    assert trainer.history.step_losses == plain.history.step_losses
    kept, now = trainer.averaged_net.parameters(), trainer.net.parameters()
    assert any(not np.array_equal(kept[n], now[n]) for n in now)
    averaged = Trainer(trainer.averaged_net, losses.mse, optim.SGD())
    wanted = np.mean((trainer.averaged_net(X) - Y) ** 2)
    np.testing.assert_allclose(averaged.evaluate(X, Y)["loss"], wanted, rtol=1e-12)
    trainer.fit(X, Y)
    assert np.array_equal(averaged.net.parameters()["0.weight"], kept["0.weight"])


def test_an_average_begins_with_a_copy() -> None:
    """What a step writes over its parameters changes no average."""
    params = {"w": np.ones(3)}
    average = optim.EMA(optim.SGD(0.1)).init(params)["average"]
    params["w"][...] = 0
    assert average["w"].tolist() == [1.0] * 3


def test_no_average_is_an_error() -> None:
    for trainer in (run(optim.SGD()), Trainer(network(), losses.mse, optim.EMA(optim.SGD()))):
        with pytest.raises(RuntimeError, match=r"optim\.EMA"):
            _ = trainer.averaged_net


def test_an_average_within_groups_is_found() -> None:
    groups = optim.Groups({"0.*": optim.EMA(optim.SGD(0.1), 0.5)}, others=optim.SGD(0.1))
    trainer = run(optim.ClipValue(groups, 0.5))
    averaged, now = trainer.averaged_net.parameters(), trainer.net.parameters()
    same = {name: np.array_equal(averaged[name], now[name]) for name in now}
    assert same == {"0.weight": False, "0.bias": False, "1.weight": True, "1.bias": True}


# The factor of learning rates


def test_a_factor_scales_the_rates_of_all_schedules() -> None:
    lr = schedules.ExponentialLR(0.1, 0.9)
    halved = optim.EMA(optim.ClipValue(optim.Groups({"*": optim.SGD(lr)}), 1e9))
    trainer = Trainer(network(), losses.mse, halved, dtype="float64")
    trainer.evaluate(X, Y)
    assert trainer.lr_factor == 1.0
    trainer.lr_factor = 0.5
    trainer.fit(X, Y, epochs=2)
    expected = run(optim.SGD(schedules.ExponentialLR(0.05, 0.9)))
    np.testing.assert_allclose(trainer.history.step_losses, expected.history.step_losses, 1e-12)
    assert trainer.lr_factor == 0.5


def test_a_factor_leaves_plain_rates_as_they_are() -> None:
    def both(lr: float) -> optim.Optimizer:
        scheduled = optim.SGD(schedules.Constant(lr))
        return optim.Groups({"0.*": scheduled}, others=optim.SGD(0.1, momentum=0.5))

    trainer = Trainer(network(), losses.mse, both(0.1), dtype="float64")
    trainer.evaluate(X, Y)
    trainer.lr_factor = 0.5
    trainer.fit(X, Y, epochs=2)
    expected = run(both(0.05)).history.step_losses
    np.testing.assert_allclose(trainer.history.step_losses, expected, 1e-12)


def test_no_factor_is_an_error() -> None:
    trainer = run(optim.SGD(0.1))
    assert trainer.lr_factor == 1.0
    with pytest.raises(TypeError, match=r"schedules\.Constant"):
        trainer.lr_factor = 0.5
    scheduled = Trainer(network(), losses.mse, optim.SGD(schedules.Constant(0.1)))
    with pytest.raises(RuntimeError, match="before fit"):
        scheduled.lr_factor = 0.5
    with pytest.raises(ValueError, match="lr_factor"):
        scheduled.lr_factor = -1.0


def test_a_changed_factor_compiles_nothing_anew(caplog: pytest.LogCaptureFixture) -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    lr = schedules.Constant(0.1)
    trainer = Trainer(network(), losses.mse, optim.SGD(lr), backend="jax")
    with jax.log_compiles():
        trainer.fit(X, Y, batch_size=20)
        trainer.lr_factor = 0.5
        trainer.fit(X, Y, batch_size=20)
    programs = [m for m in caplog.messages if "Finished XLA compilation of jit(steps)" in m]
    assert len(programs) == 1


def test_a_plateau_lowers_the_rate() -> None:
    plateau = ReduceLROnPlateau("loss", factor=0.5, patience=1, threshold=10.0)
    trainer = Trainer(network(), losses.mse, optim.SGD(schedules.Constant(0.01)))
    factors = []
    for _ in range(6):
        trainer.fit(X, Y)
        plateau(trainer)
        factors.append(trainer.lr_factor)
    assert factors == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    with pytest.raises(
        KeyError, match=r"ReduceLROnPlateau: unknown number 'val_loss'.*one of: loss"
    ):
        ReduceLROnPlateau()(trainer)


# Saved and taken up

MANY = optim.EMA(
    optim.ClipNorm(
        optim.Groups(
            {"*.bias": optim.NAdam(schedules.OneCycleLR(0.1, 20)), "1.weight": optim.Frozen()},
            others=optim.Adagrad(schedules.StepLR(0.1, 3)),
        ),
        max_norm=1.0,
    ),
    decay=0.9,
)


def test_a_run_with_all_of_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def halved(epochs: int) -> Trainer:
        trainer = run(MANY, epochs=2)
        trainer.lr_factor = 0.5
        if epochs:
            trainer.fit(X, Y, epochs=epochs)
        return trainer

    whole, first = halved(3), halved(0)
    first.save(tmp_path / "run")
    second = Trainer(network(), losses.mse, MANY, dtype="float64")
    second.load(tmp_path / "run")
    assert second.lr_factor == 0.5
    second.fit(X, Y, epochs=3)
    assert second.history.step_losses == whole.history.step_losses
    for ours, theirs in ((second.net, whole.net), (second.averaged_net, whole.averaged_net)):
        for name, p in ours.parameters().items():
            assert np.array_equal(p, theirs.parameters()[name])


@pytest.mark.parametrize(
    ("saved", "other"),
    [
        (optim.SGD(schedules.StepLR(0.1, 3)), optim.SGD(schedules.StepLR(0.1, 4))),
        (optim.Groups({"*": optim.SGD(0.1)}), optim.Groups({"*": optim.SGD(0.2)})),
        (optim.EMA(optim.SGD(0.1), 0.9), optim.EMA(optim.SGD(0.1), 0.99)),
        (optim.ClipNorm(optim.SGD(0.1), 1.0), optim.ClipNorm(optim.SGD(0.1), 2.0)),
        (optim.ClipNorm(optim.SGD(0.1), 1.0), optim.ClipValue(optim.SGD(0.1), 1.0)),
    ],
    ids=["schedule", "groups", "decay", "norm", "kind"],
)
def test_a_run_with_other_settings_is_refused(
    saved: optim.Optimizer, other: optim.Optimizer, tmp_path: Path
) -> None:
    run(saved).save(tmp_path / "run")
    with pytest.raises(ValueError, match=r"is a run with.*this Trainer has"):
        Trainer(network(), losses.mse, other, dtype="float64").load(tmp_path / "run")


def test_settings_are_plain_numbers_that_say_what_they_are() -> None:
    found = repr(optim.SGD(schedules.StepLR(np.float32(0.5), 3, gamma=np.float64(0.1))))
    assert found == repr(optim.SGD(schedules.StepLR(0.5, 3)))
    assert not re.search("np|float|array|0x", repr(MANY))


# What comes in


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: schedules.StepLR(0.1, 0), r"StepLR: step_size.*got 0"),
        (lambda: schedules.StepLR(0.1, 2.5), r"StepLR: step_size.*got 2\.5"),
        (lambda: schedules.StepLR(-0.1, 3), r"StepLR: lr is a number, at least 0; got -0\.1"),
        (lambda: schedules.ExponentialLR(0.1, 0.0), r"gamma is a number, above 0; got 0"),
        (lambda: schedules.ConstantLR(0.1, -1), r"ConstantLR: factor is a number, at least 0"),
        (lambda: schedules.PolynomialLR(0.1, 0), r"PolynomialLR: total_iters.*got 0"),
        (lambda: schedules.PolynomialLR(0.1, 5, -1), r"power is a number, at least 0; got -1"),
        (lambda: schedules.MultiStepLR(0.1, [5, 2]), r"milestones must rise"),
        (lambda: schedules.CosineAnnealingLR(float("nan"), 3), r"lr is a number"),
        (lambda: schedules.CosineAnnealingWarmRestarts(0.1, 0), r"Restarts: T_0.*got 0"),
        (lambda: schedules.CosineAnnealingWarmRestarts(0.1, 3, 0.5), r"T_mult.*got 0\.5"),
        (lambda: schedules.OneCycleLR(0.1, 3), r"OneCycleLR.*no step to go up"),
        (lambda: schedules.OneCycleLR(0.1, 10, pct_start=0.1), r"OneCycleLR.*no step to go up"),
        (lambda: schedules.OneCycleLR(0.1, 10, pct_start=1.0), r"OneCycleLR.*none to go down"),
        (lambda: schedules.OneCycleLR(0.1, 9, anneal_strategy="sin"), r'"cos" or "linear".*sin'),
        (lambda: schedules.SequentialLR([schedules.Constant(1)], [3]), r"1 schedules.*got 1"),
        (lambda: ReduceLROnPlateau(factor=1.0), r"factor is between 0 and 1"),
        (lambda: ReduceLROnPlateau(factor=0.0), r"factor is between 0 and 1"),
        (lambda: ReduceLROnPlateau(mode="low"), r"mode is 'low'; for 'val_loss' say mode='max'"),
        (lambda: ReduceLROnPlateau("val_accuracy"), r"ReduceLROnPlateau: mode is None"),
        (lambda: ReduceLROnPlateau(patience=-3), r"patience is an integer, at least 0; got -3"),
        (lambda: ReduceLROnPlateau(cooldown=2.5), r"cooldown is an integer, at least 0; got 2\.5"),
        (lambda: ReduceLROnPlateau(threshold=-1), r"threshold is a number, at least 0; got -1"),
        (lambda: ReduceLROnPlateau(threshold_mode="r"), r"threshold_mode is 'rel' or 'abs'; got"),
        (lambda: ReduceLROnPlateau(min_factor=7), r"min_factor is a number.*at most 1; got 7"),
        (
            lambda: optim.Adam(nn.Linear(3, 2).init(backend="numpy").parameters()),
            "got a dict. It is given no parameters: a Trainer hands it those of its network",
        ),
        (lambda: optim.Adam(nn.Linear(3, 2)), "got a Linear. It is given no parameters"),
        (lambda: optim.SGD(lr="fast"), r"SGD: lr must be a number, at least 0, or a schedule"),
        (
            lambda: optim.SGD(lr=lambda step: 0.1),
            r"or a schedule; got <function.*of your own is a class: .*optim\.schedules\.Schedule$",
        ),
        (lambda: optim.SGD(lr=schedules.StepLR), r"got <class.*StepLR'>\. A schedule of your own"),
        (lambda: optim.ClipNorm(optim.SGD(), 0), r"ClipNorm: max_norm is a number, above 0"),
        (lambda: optim.ClipValue(optim.SGD(), "1"), r"ClipValue: clip_value is a number"),
        (lambda: optim.EMA(optim.SGD(), 1.5), r"EMA: decay.*at most 1; got 1\.5"),
        (lambda: optim.NAdam(betas=(0.9, 1.0)), r"NAdam: betas"),
    ],
)
def test_wrong_settings_are_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


SCHEDULES = [
    schedules.Constant(0.1),
    schedules.StepLR(0.1, 3),
    schedules.MultiStepLR(0.1, [2, 5]),
    schedules.ExponentialLR(0.1, 0.5),
    schedules.ConstantLR(0.1),
    schedules.LinearLR(0.1),
    schedules.PolynomialLR(0.1),
    schedules.CosineAnnealingLR(0.1, 3),
    schedules.OneCycleLR(0.1, 20),
]


@pytest.mark.parametrize(
    ("schedule", "name"),
    [(s, name) for s in SCHEDULES for name, value in vars(s).items() if type(value) is float],
)
def test_every_number_of_a_schedule_is_checked(schedule: Any, name: str) -> None:
    says = rf"{type(schedule).__name__}: {name} is a number, (above|at least) 0; got"
    for wrong in (-0.1, np.nan, np.inf, "0.1", None):
        with pytest.raises(ValueError, match=says):
            replace(schedule, **{name: wrong})
    assert replace(schedule, **{name: np.float32(0.5)}) == replace(schedule, **{name: 0.5})


def test_a_schedule_does_not_go_on_behind_its_milestone() -> None:
    """Where it would overflow, though its rate would not be used."""
    steps = np.asarray([0, 5, 6, 100_000])
    growing = schedules.SequentialLR(
        [schedules.ExponentialLR(1e-6, 10.0), schedules.Constant(1.0)], [6]
    )
    np.testing.assert_allclose(growing(steps), [1e-6, 0.1, 1.0, 1.0], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: optim.EMA(optim.SGD), r"EMA: expected an optimizer such as"),
        (lambda: optim.Groups([optim.SGD()]), r"Groups: expected a dict of optimizers by pattern"),
        (lambda: optim.Groups({"*": 0.1}), r"Groups: '\*': expected an optimizer"),
        (lambda: schedules.ChainedScheduler([0.1]), r"ChainedScheduler: schedulers is a list"),
        (lambda: schedules.ChainedScheduler([]), r"ChainedScheduler: schedulers is a list"),
        (lambda: schedules.SequentialLR(0.1, [3]), r"SequentialLR: schedulers is a list.*got 0\.1"),
    ],
)
def test_wrong_kinds_are_refused(make: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        make()


# Optimizers of one's own


class Returning(optim.Optimizer):
    """Whatever a function makes of the parameters and the state."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def init(self, params: Any) -> Any:
        return {"count": {name: np.zeros(()) for name in params}}

    def update(self, params: Any, grads: Any, state: Any, step: Any) -> Any:
        return self.make(params, state)


class Halved(optim.Optimizer):
    """Nothing but a name."""


class Sine(schedules.Schedule):
    """Likewise."""


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: run(Halved()), r"^Halved defines no init\(self, params\); it returns the state"),
        (
            lambda: Halved().update({}, {}, {}, np.zeros(1, "int32")),
            r"^Halved defines no update\(self, params, grads, state, step\)$",
        ),
        (lambda: run(optim.SGD(Sine())), r"^Sine defines no rate\(self, xp, step, dtype\)$"),
    ],
)
def test_what_a_class_of_ones_own_lacks_is_named(call: Any, words: str) -> None:
    with pytest.raises(NotImplementedError, match=words):
        call()


def test_a_rate_may_be_made_of_the_step_as_the_docstring_says() -> None:
    (formula,) = re.findall(r"is `(0\.1 / .*?)`", optim.Optimizer.__doc__ or "")

    class Falling(optim.Optimizer):
        def init(self, params: Any) -> Any:
            return {}

        def update(self, params: Any, grads: Any, state: Any, step: Any) -> Any:
            def rate(p: Any) -> Any:
                return eval(formula, {"xp": array_namespace(p), "step": step, "p": p})

            return {n: p - rate(p) * grads[n] for n, p in params.items()}, state

    p, step = np.ones((), "float32"), np.ones(1, "int32")
    params, _ = Falling().update({"p": p}, {"p": p}, {}, step)
    assert params["p"].shape == ()
    assert params["p"] == np.float32(0.95)
    assert run(Falling()).history["loss"][-1] < run(Falling(), epochs=1).history["loss"][0]


def without(tree: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: branch for name, branch in tree.items() if name not in names}


@pytest.mark.parametrize("inner", [lambda o: o, optim.EMA, lambda o: optim.Groups({"*": o})])
@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda p, s: None, TypeError, r"a NoneType; expected a pair \(params, state\)"),
        (lambda p, s: p, TypeError, r"a dict; expected a pair \(params, state\)"),
        (lambda p, s: (p, s, 1), TypeError, r"a tuple of 3; expected a pair"),
        (lambda p, s: (without(p, "0.bias"), s), ValueError, r"params without '0\.bias'; expected"),
        (lambda p, s: ({**p, "2.bias": 0}, s), ValueError, r"params with '2\.bias', which it was"),
        (lambda p, s: (None, s), ValueError, r"params without '0\.weight', '0\.bias', '1\.weight'"),
        (lambda p, s: (p, {}), ValueError, r"a state without 'count\.0\.weight'"),
        (lambda p, s: (s["count"], p), ValueError, r"a state without 'count.*and with '0\.weight'"),
    ],
)  # fmt: skip
def test_what_an_update_returns_is_checked(inner: Any, make: Any, kind: Any, words: str) -> None:
    with pytest.raises(kind, match=r"Returning\.update returned " + words):
        run(inner(Returning(make)))

"""Optimizers and schedules beside PyTorch's: ten training steps, and rates far from the start."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
from beside_pytorch import DTYPES, TOLERANCE, numbers, same, torch

from polynet import Trainer, losses, nn, optim
from polynet.callbacks import ReduceLROnPlateau
from polynet.optim import schedules

LR = torch.optim.lr_scheduler

RULES: dict[str, tuple[type, list[dict[str, Any]]]] = {
    "SGD": (
        torch.optim.SGD,
        [
            {"lr": 0.1},
            {"lr": 0.1, "weight_decay": 0.1},
            {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
            {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        ],
    ),
    "RMSprop": (
        torch.optim.RMSprop,
        [
            {"eps": 1e-5},
            {"lr": 1e-3, "eps": 1e-5, "momentum": 0.9, "weight_decay": 0.1, "alpha": 0.9},
        ],
    ),
    "Adagrad": (
        torch.optim.Adagrad,
        [
            {"lr": 0.1, "eps": 1e-5},
            {"eps": 1e-5, "lr_decay": 0.1, "weight_decay": 0.1},
            {"lr": 0.1, "initial_accumulator_value": 0.1},
        ],
    ),
    "Adam": (
        torch.optim.Adam,
        [{"eps": 1e-5}, {"lr": 0.01, "betas": (0.8, 0.99), "weight_decay": 0.1, "eps": 1e-5}],
    ),
    "AdamW": (
        torch.optim.AdamW,
        [{"eps": 1e-5}, {"lr": 0.01, "weight_decay": 0.2, "eps": 1e-5}],
    ),
    "NAdam": (
        torch.optim.NAdam,
        [
            {"eps": 1e-5},
            {"lr": 0.01, "betas": (0.8, 0.99), "weight_decay": 0.1, "eps": 1e-5},
            {"eps": 1e-5, "weight_decay": 0.1, "decoupled_weight_decay": True},
            {"eps": 1e-5, "momentum_decay": 0.1},
        ],
    ),
}
CASES = [(name, options) for name, (_, several) in RULES.items() for options in several]

SCHEDULES: dict[str, tuple[Callable[[float], schedules.Schedule], Callable[[Any], Any]]] = {
    "constant": (schedules.Constant, lambda o: LR.LambdaLR(o, lambda t: 1.0)),
    "step": (
        lambda lr: schedules.StepLR(lr, step_size=3, gamma=0.5),
        lambda o: LR.StepLR(o, step_size=3, gamma=0.5),
    ),
    "milestones": (
        lambda lr: schedules.MultiStepLR(lr, [2, 5], gamma=0.3),
        lambda o: LR.MultiStepLR(o, [2, 5], gamma=0.3),
    ),
    "exponential": (
        lambda lr: schedules.ExponentialLR(lr, 0.9),
        lambda o: LR.ExponentialLR(o, 0.9),
    ),
    "warm-up": (
        lambda lr: schedules.LinearLR(lr, total_iters=4),
        lambda o: LR.LinearLR(o, total_iters=4),
    ),
    "line to nothing": (
        lambda lr: schedules.LinearLR(lr, start_factor=1.0, end_factor=0.0, total_iters=9),
        lambda o: LR.LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=9),
    ),
    "held back": (schedules.ConstantLR, LR.ConstantLR),
    "held back longer": (
        lambda lr: schedules.ConstantLR(lr, 0.1, 7),
        lambda o: LR.ConstantLR(o, 0.1, 7),
    ),
    "short polynomial": (schedules.PolynomialLR, LR.PolynomialLR),
    "polynomial": (
        lambda lr: schedules.PolynomialLR(lr, 9, power=0.9),
        lambda o: LR.PolynomialLR(o, 9, power=0.9),
    ),
    "polynomial of degree 0": (
        lambda lr: schedules.PolynomialLR(lr, power=0),
        lambda o: LR.PolynomialLR(o, power=0),
    ),
    "cosine": (
        lambda lr: schedules.CosineAnnealingLR(lr, T_max=7),
        lambda o: LR.CosineAnnealingLR(o, T_max=7),
    ),
    "cosine above 0": (
        lambda lr: schedules.CosineAnnealingLR(lr, T_max=4, eta_min=1e-4),
        lambda o: LR.CosineAnnealingLR(o, T_max=4, eta_min=1e-4),
    ),
    "cosine, again and again": (
        lambda lr: schedules.CosineAnnealingWarmRestarts(lr, 3, eta_min=1e-4),
        lambda o: LR.CosineAnnealingWarmRestarts(o, 3, eta_min=1e-4),
    ),
    "cosine, longer and longer": (
        lambda lr: schedules.CosineAnnealingWarmRestarts(lr, 2, 3),
        lambda o: LR.CosineAnnealingWarmRestarts(o, 2, 3),
    ),
    "one cycle": (
        lambda lr: schedules.OneCycleLR(lr, 12),
        lambda o: LR.OneCycleLR(o, peak(o), 12, cycle_momentum=False),
    ),
    "one cycle of lines": (
        lambda lr: schedules.OneCycleLR(lr, 11, 0.4, "linear", 10.0, 100.0),
        lambda o: LR.OneCycleLR(
            o,
            peak(o),
            11,
            pct_start=0.4,
            anneal_strategy="linear",
            div_factor=10.0,
            final_div_factor=100.0,
            cycle_momentum=False,
        ),
    ),
    "sequence": (
        lambda lr: schedules.SequentialLR(
            [
                schedules.LinearLR(lr, 0.1, total_iters=3),
                schedules.CosineAnnealingLR(lr, 4),
                schedules.ExponentialLR(lr, 0.8),
            ],
            milestones=[3, 6],
        ),
        lambda o: LR.SequentialLR(
            o,
            [
                LR.LinearLR(o, 0.1, total_iters=3),
                LR.CosineAnnealingLR(o, 4),
                LR.ExponentialLR(o, 0.8),
            ],
            milestones=[3, 6],
        ),
    ),
    "chain": (
        lambda lr: schedules.ChainedScheduler(
            [schedules.LinearLR(lr, total_iters=4), schedules.ExponentialLR(1.0, 0.9)]
        ),
        lambda o: LR.ChainedScheduler(
            [LR.LinearLR(o, total_iters=4), LR.ExponentialLR(o, 0.9)], optimizer=o
        ),
    ),
}


def peak(optimizer: Any) -> float:
    return optimizer.param_groups[0]["lr"]


def stepped(make: Callable[[Any], Any], optimizer: Any) -> Any:
    """PyTorch's scheduler, which warns where it was made, or stepped, before the optimizer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(optimizer)


@pytest.mark.parametrize("name", RULES)
def test_settings_have_pytorchs_defaults(name: str) -> None:
    ours, defaults = getattr(optim, name)(), RULES[name][0]([torch.zeros(1)]).defaults
    assert vars(ours) == {name: defaults[name] for name in vars(ours)}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2))


def twin_of(net: nn.Module, dtype: str) -> Any:
    twin = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.GELU(), torch.nn.Linear(6, 2))
    twin.to(getattr(torch, dtype))
    twin.load_state_dict({n: torch.tensor(p) for n, p in net.parameters().items()})
    return twin


@contextmanager
def scalars_in(dtype: str) -> Any:
    """PyTorch keeps some numbers of an optimizer in its default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def beside(
    ours: optim.Optimizer,
    theirs: Callable[[Any], Any],
    dtype: str,
    *,
    scheduler: Callable[[Any], Any] | None = None,
    before_step: Callable[[Any], Any] = lambda twin: None,
    after_step: Callable[[Any], Any] = lambda twin: None,
) -> tuple[Trainer, Any]:
    """Ten steps here and there: the losses and the parameters are equal."""
    net = network().init(seed=2, backend="numpy", dtype=dtype)
    x, y = 2 * numbers(20, 4).astype(dtype), 3 * numbers(20, 2, seed=1).astype(dtype)
    twin, expected = twin_of(net, dtype), []
    with scalars_in(dtype):
        optimizer = theirs(twin)
        schedule = None if scheduler is None else stepped(scheduler, optimizer)
        for _ in range(10):
            optimizer.zero_grad()
            value = torch.nn.functional.mse_loss(twin(torch.tensor(x)), torch.tensor(y))
            value.backward()
            before_step(twin)
            optimizer.step()
            if schedule is not None:
                stepped(lambda _: schedule.step(), optimizer)
            after_step(twin)
            expected.append(value.item())
    trainer = Trainer(net, losses.mse, ours)
    found = trainer.fit(x, y, epochs=10, batch_size=20).step_losses
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE[dtype])
    for path, parameter in twin.named_parameters():
        same(trainer.net.parameters()[path], parameter, dtype)
    return trainer, twin


def words(value: Any) -> str:
    return (
        str(value)
        if not isinstance(value, dict)
        else " ".join(f"{k}={v}" for k, v in value.items())
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "options"), CASES, ids=words)
def test_ten_training_steps(name: str, options: dict[str, Any], dtype: str) -> None:
    beside(
        getattr(optim, name)(**options),
        lambda twin: RULES[name][0](twin.parameters(), **options),
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", RULES)
def test_ten_training_steps_with_a_schedule(name: str, schedule: str, dtype: str) -> None:
    options = RULES[name][1][-1]
    ours, theirs = SCHEDULES[schedule]
    lr = options.get("lr", getattr(optim, name)().lr)
    beside(
        getattr(optim, name)(**{**options, "lr": ours(lr)}),
        lambda twin: RULES[name][0](twin.parameters(), **{**options, "lr": lr}),
        dtype,
        scheduler=theirs,
    )


# Rates, also far from the start

LONG: dict[str, tuple[schedules.Schedule, Callable[[Any], Any]]] = {
    "exponential": (schedules.ExponentialLR(0.1, 0.9999), lambda o: LR.ExponentialLR(o, 0.9999)),
    "steep exponential": (
        schedules.ExponentialLR(0.1, 0.999),
        lambda o: LR.ExponentialLR(o, 0.999),
    ),
    "growing": (schedules.ExponentialLR(0.1, 1.0001), lambda o: LR.ExponentialLR(o, 1.0001)),
    "step": (schedules.StepLR(0.1, 700, 0.9), lambda o: LR.StepLR(o, 700, 0.9)),
    "line": (
        schedules.LinearLR(0.1, 1.0, 0.0, 110_000),
        lambda o: LR.LinearLR(o, 1.0, 0.0, 110_000),
    ),
    "held back": (schedules.ConstantLR(0.1, 0.3, 700), lambda o: LR.ConstantLR(o, 0.3, 700)),
    "root": (
        schedules.PolynomialLR(0.1, 110_000, 0.5),
        lambda o: LR.PolynomialLR(o, 110_000, 0.5),
    ),
    "cube": (
        schedules.PolynomialLR(0.1, 100_000, 3.0),
        lambda o: LR.PolynomialLR(o, 100_000, 3.0),
    ),
    "cosine": (
        schedules.CosineAnnealingLR(0.1, 110_000),
        lambda o: LR.CosineAnnealingLR(o, 110_000),
    ),
    "cosines": (schedules.CosineAnnealingLR(0.1, 777), lambda o: LR.CosineAnnealingLR(o, 777)),
    "restarts": (
        schedules.CosineAnnealingWarmRestarts(0.1, 777),
        lambda o: LR.CosineAnnealingWarmRestarts(o, 777),
    ),
    "rarer restarts": (
        schedules.CosineAnnealingWarmRestarts(0.1, 7, 2),
        lambda o: LR.CosineAnnealingWarmRestarts(o, 7, 2),
    ),
    "one cycle": (
        schedules.OneCycleLR(0.1, 110_001),
        lambda o: LR.OneCycleLR(o, 0.1, 110_001, cycle_momentum=False),
    ),
}


@cache
def pytorch_rates(name: str) -> np.ndarray:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler = stepped(LONG[name][1], optimizer)
    rates = [peak(optimizer)]
    for _ in range(110_000):
        stepped(lambda _: scheduler.step(), optimizer) if len(rates) == 1 else scheduler.step()
        rates.append(peak(optimizer))
    return np.asarray(rates)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LONG)
def test_rates_to_step_110000(name: str, dtype: str) -> None:
    expected = pytorch_rates(name)
    found = LONG[name][0](np.arange(110_001, dtype=np.int32), dtype=np.dtype(dtype))
    assert found.dtype == dtype
    limit = 1e-6 if dtype == "float32" else 1e-9
    rounding = 0.1 * 2.0**-52  # of 1 + cos, in PyTorch
    away = expected > 1e-10  # … whose recursion rounds otherwise where it meets 0
    np.testing.assert_allclose(found[away], expected[away], rtol=limit, atol=rounding)
    np.testing.assert_allclose(found[~away], 0, atol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_that_has_ended_keeps_its_last_rate(name: str) -> None:
    rates = SCHEDULES[name][0](0.1)(np.asarray([11, 12, 10**6]))
    assert np.isfinite(rates).all()
    if "cosine" not in name and name not in ("exponential", "step", "sequence", "chain"):
        np.testing.assert_allclose(rates[1:], rates[0], rtol=1e-12)


# Clipping, groups, averages


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0.1, 1.0, 100.0])
def test_clipping_by_norm(size: float, dtype: str) -> None:
    beside(
        optim.ClipNorm(optim.SGD(0.1, momentum=0.9), max_norm=size),
        lambda twin: torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9),
        dtype,
        before_step=lambda twin: torch.nn.utils.clip_grad_norm_(twin.parameters(), size),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0.05, 0.3, 100.0])
def test_clipping_by_value(size: float, dtype: str) -> None:
    beside(
        optim.ClipValue(optim.Adam(0.01, eps=1e-5), clip_value=size),
        lambda twin: torch.optim.Adam(twin.parameters(), lr=0.01, eps=1e-5),
        dtype,
        before_step=lambda twin: torch.nn.utils.clip_grad_value_(twin.parameters(), size),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_groups_clipped_together(dtype: str) -> None:
    def theirs(twin: Any) -> Any:
        return torch.optim.SGD(
            [
                {"params": [twin[0].weight, twin[2].weight], "weight_decay": 0.1},
                {"params": [twin[0].bias, twin[2].bias], "lr": 0.5},
            ],
            lr=0.1,
        )

    groups = optim.Groups({"*.bias": optim.SGD(0.5)}, others=optim.SGD(0.1, weight_decay=0.1))
    beside(
        optim.ClipNorm(groups, max_norm=0.5),
        theirs,
        dtype,
        before_step=lambda twin: torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_groups_with_frozen_parameters(dtype: str) -> None:
    def theirs(twin: Any) -> Any:
        twin[0].requires_grad_(False)
        return torch.optim.Adam(twin[2].parameters(), lr=0.1, eps=1e-5)

    beside(
        optim.Groups({"0.*": optim.Frozen(), "2.*": optim.Adam(0.1, eps=1e-5)}),
        theirs,
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 1.0])
def test_moving_average(decay: float, dtype: str) -> None:
    kept: list[Any] = []

    def average(twin: Any) -> None:
        if not kept:
            swa = torch.optim.swa_utils
            function = swa.get_ema_multi_avg_fn(decay)
            kept.append(swa.AveragedModel(twin, multi_avg_fn=function))
        kept[0].update_parameters(twin)

    trainer, _ = beside(
        optim.EMA(optim.SGD(0.1), decay=decay),
        lambda twin: torch.optim.SGD(twin.parameters(), lr=0.1),
        dtype,
        after_step=average,
    )
    for path, parameter in kept[0].module.named_parameters():
        same(trainer.averaged_net.parameters()[path], parameter, dtype)


# Plateaus


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize(("patience", "cooldown"), [(0, 0), (2, 0), (1, 3), (10, 1)])
@pytest.mark.parametrize("least", [0.0, 0.02])
def test_reduce_on_plateau(
    mode: str, threshold_mode: str, patience: int, cooldown: int, least: float
) -> None:
    options = {
        "mode": mode, "threshold_mode": threshold_mode, "patience": patience,
        "cooldown": cooldown, "factor": 0.5, "threshold": 0.05,
    }  # fmt: skip
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = LR.ReduceLROnPlateau(optimizer, min_lr=least, eps=0.0, **options)
    ours = ReduceLROnPlateau(min_factor=least, **options)
    sign = 1 if mode == "min" else -1
    rng = np.random.default_rng(3)
    values = list(np.exp(-np.arange(60) / 10) + 0.1 * rng.random(60) + 0.2)
    for i in range(1, 61):
        theirs.step(values[i - 1])
        costs = [sign * value for value in values[:i]]
        assert ours._factor_after(costs) == pytest.approx(optimizer.param_groups[0]["lr"])

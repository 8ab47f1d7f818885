"""PyTorch's kernels: what they leave alone, when they decline, and PyTorch's own record."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from torch_kernels import drawn, kernel

from polynet import (
    array_namespace,
    functional,
    grad,
    losses,
    nn,
    optim,
    use_backend,
    value_and_grad,
    vjp,
)
from polynet.backend import get_backend
from polynet.errors import MixedBackendsError
from polynet.ops import OPS
from polynet.step import initial_state, make_step
from polynet.tree import named_leaves

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

COMPOSITIONS: dict[str, Any] = {
    "linear": (functional.linear, [(5, 4), (3, 4), (3,)]),
    "relu": (functional.relu, [(5, 4)]),
    **{
        name: (getattr(functional, name), [(5, 4)])
        for name in """celu elu erf gelu glu hardshrink hardsigmoid hardswish hardtanh leaky_relu
            logsigmoid mish relu6 selu sigmoid silu softplus softshrink""".split()
    },
    "prelu": (functional.prelu, [(5, 4), (4,)]),
    "softmax": (functional.softmax, [(5, 4)]),
    "log_softmax": (functional.log_softmax, [(5, 4)]),
    **{
        name: (getattr(losses, name), [(5, 4), (5, 4)])
        for name in "binary_cross_entropy_with_logits huber mse smooth_l1".split()
    },
    "cross_entropy": (lambda x: losses.cross_entropy(x, torch.asarray([0, 1, 3])), [(3, 4)]),
}


# Where PyTorch records

COPIES = pytest.mark.filterwarnings("ignore:torch.asarray. unspecified requires_grad")
"""Some versions of PyTorch remark, once a process, that a copy of what they record is recorded."""


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_pytorchs_own_record_stays_right(name: str) -> None:
    f, shapes = COMPOSITIONS[name]
    args = drawn(*shapes)
    (f(*args) ** 2).sum().backward()
    plain = [a.detach() for a in args]
    everywhere = tuple(range(len(args)))
    slopes = value_and_grad(lambda *a: OPS["sum"](f(*a) ** 2), everywhere)(*plain)[1]
    for a, slope in zip(args, slopes, strict=True):
        torch.testing.assert_close(a.grad, slope, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(3, 2, 3, 2, output_padding=1),
        nn.MaxPool2d(2, dilation=2, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.ConvTranspose1d(3, 2, 3),
        nn.Conv3d(3, 2, 2, 2),
        nn.MaxPool3d(2, 1),
        nn.AvgPool3d((2, 1, 3), 2, ceil_mode=True),
        nn.MaxPool1d(2),
        nn.AvgPool1d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool1d(3),
        nn.AdaptiveMaxPool3d((2, 4, 1)),
        nn.GroupNorm(3, 3),
        nn.BatchNorm2d(3),
    ],
    ids=str,
)
def test_pytorchs_own_record_stays_right_through_layers(layer: nn.Module) -> None:
    net = layer.init(0, backend="torch", device="cpu", dtype="float64")
    axes = type(layer).__name__[-2]
    (x,) = drawn((2, 3, 7, 6, 4)[: 2 + int(axes) if axes.isdigit() else 4])
    y = net(x)
    (y**2).sum().backward()
    torch.testing.assert_close(y, net(x.detach()))
    slope = value_and_grad(lambda a: OPS["sum"](net(a) ** 2))(x.detach())[1]
    torch.testing.assert_close(x.grad, slope, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_sign_of_nan_is_nan(dtype: str) -> None:
    numbers = [0.0, -0.0, -0.5, 2.0, -3.0, math.inf, -math.inf, math.nan]
    signs = [0.0, 0.0, -1.0, 1.0, -1.0, 1.0, -1.0, math.nan]
    found, expected = (torch.asarray(a, dtype=getattr(torch, dtype)) for a in (numbers, signs))
    torch.testing.assert_close(get_backend("torch").xp.sign(found), expected, equal_nan=True)


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_kernels_run_where_pytorch_does_not_record(name: str) -> None:
    if name == "cross_entropy":
        args = [*drawn((3, 4)), torch.asarray([0, 1, 3])]
    else:
        args = drawn(*COMPOSITIONS[name][1])
    assert kernel(name)(None, *args) is NotImplemented
    with torch.no_grad():
        value, _ = kernel(name)(None, *args)
    assert not value.requires_grad


def test_what_nothing_shares_is_handed_over_without_a_copy() -> None:
    """In inference mode PyTorch does not say what is a view."""
    owned = get_backend("torch").owned
    x = torch.ones(2, 3)
    assert owned(x) is x
    with torch.inference_mode():
        views = [x.view(3, 2), torch.ones(2, 3).view(3, 2)]
        for view in (*views, x.mT, x[:1], x.expand(4, 2, 3)):
            own = owned(view)
            assert own.is_contiguous()
            assert own.untyped_storage().data_ptr() != view.untyped_storage().data_ptr()


@COPIES
def test_gradients_of_parameters_that_pytorch_records_are_the_same() -> None:
    """Kernels decline, the definitions answer; nothing is lost, and PyTorch's record goes on."""
    (x,) = drawn((5, 4))
    w, b = drawn((3, 4), (3,), seed=1)

    def loss(w: Any, b: Any) -> Any:
        return losses.cross_entropy(functional.linear(x, w, b), torch.asarray([0, 1, 2, 0, 1]))

    recorded = value_and_grad(loss, (0, 1))(w, b)
    plain = value_and_grad(loss, (0, 1))(w.detach(), b.detach())
    torch.testing.assert_close(recorded[0], plain[0])
    for one, other in zip(recorded[1], plain[1], strict=True):
        torch.testing.assert_close(one.detach(), other.detach())


@COPIES
def test_a_compiled_step_leaves_no_record() -> None:
    """Parameters with requires_grad would otherwise drag all steps behind them."""
    backend = get_backend("torch")
    net = nn.Linear(4, 3).init(backend=backend, device="cpu")
    net = net.replace({n: torch.nn.Parameter(p) for n, p in net.parameters().items()})
    adam = optim.Adam()
    state = initial_state(net, adam, 0)
    run = backend.compile(make_step(net, losses.cross_entropy, adam, backend.xp))
    data = (torch.ones(6, 4), torch.zeros(6, dtype=torch.int64))
    state, found = run(state, data, torch.asarray([[0, 1], [0, 1]]))
    for path, leaf in named_leaves({"state": state, "losses": found}):
        assert not leaf.requires_grad, path


def test_an_update_that_pytorch_would_record_for_ever_is_refused() -> None:
    (w,) = drawn((3, 4))
    params, grads, step = {"w": w}, {"w": torch.ones(3, 4)}, torch.zeros(1, dtype=torch.int32)
    for optimizer in (optim.SGD(0.1), optim.Adam(optim.schedules.Constant(0.1))):
        state = optimizer.init({"w": w.detach()})
        with pytest.raises(TypeError, match=r"parameter 'w' requires grad.*p\.detach\(\)"):
            optimizer.update(params, grads, state, step)
        with torch.no_grad():
            assert not optimizer.update(params, grads, state, step)[0]["w"].requires_grad


def test_places_of_labels_on_a_device_stay_within() -> None:
    """There a place that is not would end the process."""
    from polynet_torch.losses import within

    for labels, fine in (([0, 2], True), ([0, 3], False), ([-1, 2], False)):
        places, spoilt = within(torch.asarray(labels), 3)
        assert places.tolist() == [min(max(n, 0), 2) for n in labels]
        assert bool(torch.isfinite(spoilt)) == fine


def test_pytorch_s_functions_say_whose_to_call() -> None:
    x = torch.ones(3)
    for call in (torch.tanh, lambda t: torch.cat([x, t]), x.dot, lambda t: x[t > 0]):
        with pytest.raises(
            TypeError, match=r"PyTorch's \w+ was given a polynet Tensor.*within the"
        ):
            value_and_grad(call)(x)


# What comes in


@pytest.mark.parametrize("shape", [(4, 5), (3, 5, 2), (2, 4, 3, 2)], ids=str)
@pytest.mark.parametrize(
    ("name", "weighted", "options"),
    [
        ("cross_entropy", True, {}),
        ("cross_entropy", False, {"label_smoothing": 0.1}),
        ("cross_entropy", False, {"label_smoothing": 0.1, "ignore_index": -100}),
        ("cross_entropy", True, {"ignore_index": -100}),
        ("nll", False, {}),
        ("nll", True, {"ignore_index": -100}),
    ],
)
def test_losses_of_labels_with_options_are_their_definitions(
    name: str, weighted: bool, options: Any, shape: tuple[int, ...]
) -> None:
    """Also where a score of a label that does not count is infinite, and where none counts."""
    rng, (x, w) = np.random.default_rng(0), drawn(shape, shape[1:2])
    labels = torch.asarray(rng.integers(0, shape[1], (shape[0], *shape[2:])))
    args = [x.detach(), *([w.detach().abs()] if weighted else [])]
    targets = [labels]
    if "ignore_index" in options:
        targets += [torch.where(labels == 0, -100, labels), torch.full_like(labels, -100)]
        args[0][0, 0] = -math.inf
    for target in targets[len(targets) > 1 :]:

        def loss(x: Any, *w: Any, target: Any = target) -> Any:
            return getattr(losses, name)(x, target, None, *w, **options)

        assert kernel(name)(None, args[0], target, None, *args[1:], **options) is not NotImplemented
        found = []
        for backend in (get_backend("torch"), get_backend("torch").without_kernels()):
            with use_backend(backend):
                value, slopes = value_and_grad(loss, tuple(range(len(args))))(*args)
                found.append([value, *slopes])
        for actual, expected in zip(*found, strict=True):
            torch.testing.assert_close(actual, expected, equal_nan=True)
        half = loss(*(a.to(torch.float16) for a in args))
        assert half.dtype == torch.float16


def test_binary_cross_entropy_keeps_small_numbers() -> None:
    """Where the logits are right and large, as where they are wrong."""
    x = torch.asarray([30.0, -30.0]).requires_grad_()
    with torch.no_grad():
        value, (pullback, _) = kernel("binary_cross_entropy_with_logits")(
            None, x, torch.asarray([1.0, 0.0])
        )
        slope = pullback(torch.ones(()))
    torch.testing.assert_close(value, torch.asarray(math.exp(-30)), rtol=1e-5, atol=0)
    expected = torch.asarray([-0.5, 0.5]) * math.exp(-30)
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=0)


def test_labels_out_of_range_are_refused_on_the_cpu() -> None:
    for label in (3, -1, -100):
        with pytest.raises(RuntimeError, match="out of bounds"):
            losses.cross_entropy(torch.zeros(2, 3), torch.asarray([0, label]))
        with pytest.raises(RuntimeError, match="out of bounds"):
            losses.nll(torch.zeros(2, 3), torch.asarray([0, label]))


@pytest.mark.parametrize(
    ("function", "setting"),
    [
        (functional.celu, "alpha"),
        (functional.elu, "alpha"),
        (functional.hardshrink, "lambd"),
        (functional.leaky_relu, "negative_slope"),
        (functional.softplus, "beta"),
    ],
)
def test_a_setting_may_be_an_array(function: Any, setting: str) -> None:
    """A learnt one is an array: in training it is recorded, and in a prediction it is not."""
    x = torch.linspace(-2, 2, 4)
    expected, back = vjp(partial(function, **{setting: 0.3}), x)
    found, pullback = vjp(partial(function, **{setting: torch.asarray(0.3)}), x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(pullback(torch.ones(4)), back(torch.ones(4)))


def test_an_unknown_approximation_is_refused() -> None:
    for unknown in (True, "erf"):
        with pytest.raises(ValueError, match=r"unknown approximate .* none, tanh"):
            functional.gelu(torch.ones(3), approximate=unknown)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("celu", {"alpha": 0.3}),
        ("celu", {"alpha": -1.5}),
        ("celu", {"alpha": 0.0}),
        ("elu", {"alpha": -2.0}),
        ("elu", {"alpha": 0.0}),
        ("hardtanh", {"min_val": -2, "max_val": 0.5}),
        ("hardtanh", {"min_val": 1.0, "max_val": 1.0}),
        ("hardtanh", {"min_val": 1.0, "max_val": -1.0}),
        ("leaky_relu", {"negative_slope": -0.5}),
        ("leaky_relu", {"negative_slope": 0.0}),
        ("relu6", {}),
        ("hardsigmoid", {}),
        ("hardswish", {}),
        ("hardshrink", {}),
        ("hardshrink", {"lambd": 1}),
        ("hardshrink", {"lambd": -1.0}),
        ("softshrink", {}),
        ("softshrink", {"lambd": 1}),
        ("softshrink", {"lambd": -1.0}),
        ("threshold", {"threshold": 0.5, "value": 20}),
        ("threshold", {"threshold": -1, "value": -math.inf}),
        ("selu", {}),
        ("mish", {}),
        ("gelu", {"approximate": "tanh"}),
    ],
)
def test_activations_at_kinks_and_far_away_are_their_definitions(name: str, settings: Any) -> None:
    numbers = [0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 3, -3, 6, -6, 1e5, -1e5, math.inf, -math.inf]
    x = torch.asarray(numbers, dtype=torch.float64)
    found = []
    for backend in (get_backend("torch"), get_backend("torch").without_kernels()):
        with use_backend(backend):
            value, pullback = vjp(lambda a: getattr(functional, name)(a, **settings), x)
            found.append((value, pullback(torch.full_like(x, 2))[0]))
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, equal_nan=True)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "gelu", "glu", "leaky_relu"])
def test_integers_are_left_to_the_definition(name: str) -> None:
    x = torch.asarray([1, 2])
    assert kernel(name)(None, x) is NotImplemented


def test_what_kernels_do_not_cover_is_left_to_the_definition() -> None:
    (x,) = drawn((2, 3))
    x = x.detach()
    both = functional.softmax(x, axis=(0, 1))
    torch.testing.assert_close(both, torch.softmax(x.reshape(-1), 0).reshape(2, 3))
    wide = functional.linear(x.to(torch.float32), x, None)
    assert wide.dtype == torch.float64
    assert losses.cross_entropy(torch.asarray([[0, 1]]), torch.asarray([1])).dtype == torch.float32


def test_losses_of_two_shapes_are_refused_in_polynets_words() -> None:
    with pytest.raises(ValueError, match="they must be equal"):
        losses.mse(torch.zeros(3, 1), torch.zeros(3))
    with pytest.raises(TypeError, match=r"expected torch\.float32"):
        losses.mse(torch.zeros(3), torch.zeros(3, dtype=torch.float64))


NUMBERS = [0.1, -0.0, 1e300, -1e39, 3.4028235e38, float("nan"), float("inf"), 2, True, 1 - 2j]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool", "complex64"])
def test_a_number_is_made_where_the_other_array_is(dtype: str) -> None:
    """In the dtype and of the value that compat's functions give it, which copy it there."""
    import array_api_compat.torch as compat

    from polynet_torch.namespace import EITHER, FIRST

    xp, x = get_backend("torch").xp, torch.asarray([-1, 0, 2]).to(getattr(torch, dtype))
    for name in FIRST + EITHER:
        for number in NUMBERS:
            for args in ((number, x), (x, number)):
                found, expected = (called(getattr(space, name), *args) for space in (xp, compat))
                assert type(found) is type(expected), (name, args)
                if isinstance(expected, torch.Tensor):
                    assert found.dtype == expected.dtype, (name, args)
                    np.testing.assert_array_equal(found, expected, err_msg=f"{name} {args}")


def called(function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    except Exception as error:
        return error


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(
    "pick",
    [
        lambda xp, x, i: xp.take(x, i[:, 0], axis=1),
        lambda xp, x, i: xp.take_along_axis(x, i, axis=1),
        lambda xp, x, i: x[xp.arange(2), i[:, 0]],
    ],
)
def test_indices_are_integers_of_any_size(pick: Any, dtype: Any) -> None:
    """Such as are int32 on JAX, in the same program."""
    x, index = torch.arange(6.0).reshape(2, 3), torch.asarray([[2], [-1]], dtype=dtype)

    def f(x: Any) -> Any:
        xp = array_namespace(x)
        return xp.sum(pick(xp, x, index))

    assert f(x) == torch.sum(pick(get_backend("torch").xp, x, index.long()))
    assert torch.equal(grad(f)(x)[:, :2], torch.zeros(2, 2))


def test_places_along_an_axis_are_integers() -> None:
    xp = get_backend("torch").xp
    x = torch.asarray([1.0, 2.0, 3.0])
    for kind in (torch.uint8, torch.int16, torch.int32, torch.int64):
        at = torch.asarray([2, 0], dtype=kind)
        assert xp.take_along_axis(x, at).tolist() == xp.take(x, at, axis=0).tolist() == [3, 1]
    below = torch.asarray([[-1, 0, -3], [2, -2, 1]])
    assert xp.take_along_axis(x.tile(2, 1), below).tolist() == [[3, 1, 1], [3, 2, 2]]
    assert xp.take_along_axis(x[None], below[:, :1], axis=1).tolist() == [[3], [3]]
    with pytest.raises(RuntimeError, match="indices should be Long but got Float"):
        xp.take_along_axis(x, torch.asarray([0.9, 1.2]))


@pytest.mark.parametrize("power", [np.int64(0), np.int64(3), np.uint8(2)])
def test_an_exponent_may_be_an_integer_of_numpy(power: Any) -> None:
    x = torch.asarray([0.0, -0.5, 2.0], dtype=torch.float64)
    slope = grad(lambda a: OPS["sum"](a**power))(x)
    torch.testing.assert_close(slope, int(power) * x ** abs(int(power) - 1))


def test_a_number_of_numpy_is_refused_with_the_number_to_write() -> None:
    with pytest.raises(MixedBackendsError, match=r"numpy\.float64 met .* 'torch'.*: x\.item\(\)$"):
        grad(lambda a: a * np.float64(2))(torch.ones(()))

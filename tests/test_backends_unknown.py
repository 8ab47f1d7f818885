"""A library that nobody here has heard of: rules 10 to 13, what its backend brings and gets.

`loopback` in tests/plugins is such a whole library, and stands for anybody's.
"""

import copy
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from plugin_tools import loopback, square_sum

import polynet
from polynet import Trainer, losses, nn, optim, random, tree
from polynet.backend import Backend, registry
from polynet.errors import MixedBackendsError

pytestmark = pytest.mark.usefixtures("nothing_chosen")

SOURCE = Path(polynet.__file__).parent

# 10. A small mandatory surface; everything else has a default.

MANDATORY = {"devices", "is_array", "from_host", "to_host"}


def test_rule_10_four_methods_and_four_attributes_are_a_backend(plugins):
    written = {name for name in vars(type(polynet.get_backend("loopback"))) if name[0] != "_"}
    assert Backend.__abstractmethods__ == MANDATORY
    assert written == MANDATORY | {"name", "contract", "version", "xp"}


def test_rule_10_the_default_step_runner_trains(plugins):
    def step(x, scale, rows):
        value, slope = polynet.value_and_grad(lambda x: square_sum(x) * scale)(x)
        return x - slope * rows, value

    run = polynet.get_backend("loopback").compile(step)
    x, losses = run(loopback([3.0, 4.0]), 1.0, loopback([0.25, 0.25]))
    assert polynet.to_numpy(x).tolist() == [0.75, 1.0]
    assert [float(loss) for loss in losses] == [25.0, 6.25]


def test_rule_10_a_runner_is_a_function_and_gives_a_loss_a_step(plugins):
    x, y = np.ones((8, 2), np.float32), np.ones((8, 1), np.float32)
    for compile_, words in (
        (lambda step: None, r"compile of backend 'loopback' returned a NoneType; expected a func"),
        (lambda step: step, r"a run of 1 steps on 'loopback' gave losses of shape \(\)"),
    ):
        backend = copy.copy(polynet.get_backend("loopback"))
        backend.compile = compile_
        job = Trainer(nn.Linear(2, 1), losses.mse, optim.SGD(0.1), backend=backend)
        with pytest.raises(TypeError, match=words):
            job.fit(x, y, batch_size=8)


# 11. Streams are counters: the same numbers everywhere.


def test_rule_11_a_mask_is_the_same_on_a_library_nobody_knows(plugins):
    def mask(backend):
        key = polynet.asarray(random.key(7, "dropout"), backend=backend)
        step = polynet.asarray(np.array([3], dtype=np.int32), backend=backend)
        xp = polynet.get_backend(backend).xp
        return polynet.to_numpy(random.keep_mask.definition(xp, key, step, shape=(5, 7), keep=0.5))

    assert 0 < mask("numpy").sum() < 35
    np.testing.assert_array_equal(mask("loopback"), mask("numpy"), strict=True)


# 12. The suite ships in the package; a CPU runs loopback and strict. See test_pytest_plugin.py.


def test_rule_12_the_pytest_plugin_ships_with_the_distribution():
    (point,) = metadata.entry_points(group="pytest11", name="polynet")
    assert (point.dist.name, point.value) == ("polynet-array", "polynet.testing.plugin")
    assert (SOURCE / "testing" / "plugin.py").is_file()


def test_rule_12_loopback_and_strict_need_no_gpu(plugins):
    pytest.importorskip("array_api_strict")
    assert [registry.status(name).state for name in ("loopback", "strict")] == ["available"] * 2


# 13. dtype, device, gradients; what was saved on A loads on B.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("device", ["loop:0", "loop:1"])
def test_rule_13_a_gradient_keeps_library_dtype_and_device(plugins, dtype, device):
    backend = polynet.get_backend("loopback")
    x = polynet.asarray([3.0, -4.0], backend=backend, device=device, dtype=dtype)
    value, slope = polynet.value_and_grad(square_sum)(x)
    assert (float(value), polynet.to_numpy(slope).tolist()) == (25.0, [6.0, -8.0])
    for array in (value, slope):
        assert backend.is_array(array)
        assert (str(array.dtype), backend.device_name(array)) == (dtype, device)


def test_rule_13_a_little_network_has_the_gradients_it_has_on_numpy(plugins):
    def loss(p, x):
        hidden = x @ p["weight"].mT + p["bias"]
        return square_sum(hidden[0, :] * 0.5 - 1.0)

    rng = np.random.default_rng(0)
    p = {"weight": rng.normal(size=(2, 3)), "bias": rng.normal(size=2)}
    x = rng.normal(size=(1, 3))
    expected, slopes = polynet.value_and_grad(loss)(p, x)
    value, found = polynet.value_and_grad(loss)(tree.map(loopback, p), loopback(x))
    assert float(value) == float(expected)
    for name, slope in slopes.items():
        np.testing.assert_array_equal(polynet.to_numpy(found[name]), slope, strict=True)


def test_rule_13_a_tree_moves_there_and_back_bit_for_bit(plugins):
    p = {"a": np.float32([0.1, -0.0]), "b": [np.int32([7]), np.array(True)]}
    back = tree.map(polynet.to_numpy, tree.map(loopback, p))
    before, after = (
        [(name, array.dtype, array.tobytes()) for name, array in tree.named_leaves(t)]
        for t in (p, back)
    )
    assert before == after


def test_rule_13_nothing_reaches_the_host_by_itself(plugins):
    with pytest.raises(TypeError, match="does not become a NumPy array by itself"):
        np.asarray(loopback([1.0]))


def test_rule_13_dtypes_are_compared_with_dtypes_only(plugins):
    """As those of MLX, the loopback's raise where they are compared with None."""
    x = loopback([1.0, 2.0])
    slopes = polynet.grad(lambda a: polynet.array_namespace(*a).sum(a[0] * a[1]))([x, x * 3])
    assert [slope.value.tolist() for slope in slopes] == [[3.0, 6.0], [1.0, 2.0]]
    places = polynet.asarray([1, 0], backend="loopback")
    slope = polynet.grad(lambda x: square_sum(x[0, places]))(loopback([[1.0, 2.0]]))
    assert slope.value.tolist() == [[2.0, 4.0]]


def test_rule_13_a_library_without_float64_is_not_asked_for_it(plugins, monkeypatch):
    backend = polynet.get_backend("loopback")

    class Short(type(backend.xp)):
        def __getattr__(self, name):
            if name == "float64":
                raise AttributeError(name)
            return super().__getattr__(name)

    monkeypatch.setattr(backend, "xp", Short())
    net = nn.Linear(2, 1).init(seed=0, backend=backend)
    with pytest.raises(TypeError, match="the inputs are int32"):
        net(loopback(np.int32([[1, 2]])))
    key, step = (polynet.asarray(a, backend=backend) for a in (random.key(0, "s"), np.int32([0])))
    with pytest.raises(TypeError, match="random numbers are float32 or float64; got int32"):
        random.draw_normal(backend.xp, key, step, shape=(2, 2), dtype=backend.xp.int32)


def test_rule_13_devices_are_compared_with_devices_only(plugins, monkeypatch):
    backend = polynet.get_backend("loopback")
    places = {name: Place(name) for name in backend.devices()}
    monkeypatch.setattr(backend, "device_of", lambda array: places[array.device])
    x, y = loopback([1.0, 2.0]), loopback([1.0, 2.0], device="loop:1")
    with pytest.raises(MixedBackendsError, match="on different devices of 'loopback', loop:0 and"):
        polynet.grad(lambda a: square_sum(a[0] * a[1]))([x, y])


# Helpers


class Place:
    """A device that raises where it is compared with what is none."""

    def __init__(self, name):
        self.name = name

    def __eq__(self, other):
        if not isinstance(other, Place):
            raise TypeError(f"expected a Place, got {other!r}")
        return self.name == other.name

    __hash__ = None

    def __repr__(self):
        return self.name

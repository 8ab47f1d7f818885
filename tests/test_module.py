"""Modules as values: names, parts, what was described and then changed."""

import copy
import pickle

import numpy as np
import pytest

from polynet import Trainer, functional, losses, nn, optim
from polynet.errors import MixedBackendsError


def test_a_part_of_a_network_is_a_network():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).init(seed=0)
    part = net[2]
    assert list(part.parameters()) == ["weight", "bias"]
    doubled = part.replace({"weight": part.weight * 2})
    x = np.ones((1, 3), dtype="float32")
    np.testing.assert_allclose(doubled(x) - part.bias, 2 * (part(x) - part.bias), rtol=1e-6)
    assert np.array_equal(net[2].weight, part.weight)


def test_some_of_a_sequential_s_layers_are_one():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).init(seed=0)
    x = np.ones((1, 4), dtype="float32")
    first, rest = net[:-1], net[1:]
    assert repr(rest) == repr(nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))
    assert list(rest.parameters()) == ["1.weight", "1.bias"]
    assert rest.parameters()["1.weight"] is net[2].weight
    np.testing.assert_array_equal(rest(first(x)), net(x))
    doubled = rest.replace({"1.weight": 2 * net[-1].weight})
    np.testing.assert_array_equal(doubled[1].weight, 2 * net[2].weight)
    assert len(net[3:]) == 0
    assert np.array_equal(net[::2][1].bias, net[2].bias)


def test_a_trained_part_stays_in_a_new_network():
    body = nn.Linear(4, 3).init(seed=5)
    net = nn.Sequential(body, nn.ReLU(), nn.Linear(3, 2)).init(seed=0)
    assert list(net.parameters()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert net[0].weight is body.weight


def test_a_trained_part_elsewhere_is_refused():
    pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    body = nn.Linear(4, 3).init(seed=5, backend="strict")
    with pytest.raises(MixedBackendsError, match=r"parameters.*'strict'.*'numpy'"):
        nn.Sequential(body, nn.Linear(3, 2)).init(seed=0, backend="numpy")


def test_a_parameter_that_was_taken_back_is_gone():
    layer = nn.Linear(4, 3)
    layer.bias = None
    assert list(layer.init(seed=0).parameters()) == ["weight"]
    assert layer.init(seed=0)(np.ones((1, 4), dtype="float32")).shape == (1, 3)


def test_tied_weights_are_one_parameter():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    net = nn.Sequential(first, second).init(seed=0)
    assert list(net.parameters()) == ["0.weight", "0.bias", "1.bias"]
    other = net.replace({"0.weight": np.zeros((3, 3), dtype="float32")})
    assert not other[1].weight.any()
    assert "total                        15" in net.summary()
    assert nn.Linear(3, 2).summary().splitlines()[1].split() == ["(itself)", "Linear(3,", "2)", "8"]


class Branches(nn.Module):
    """Layers in a list, in a dict, and in a tuple of a dict."""

    def __init__(self):
        self.layers = [nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)]
        self.heads = {"mean": nn.Linear(3, 1), "spread": (nn.Linear(3, 2), nn.Linear(2, 1))}

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        first, second = self.heads["spread"]
        return self.heads["mean"](x) + second(first(x))


def test_layers_in_lists_and_dicts_are_parts_like_any_other():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    class Twin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            linear, several = torch.nn.Linear, torch.nn.ModuleList
            self.layers = several([linear(3, 3), torch.nn.ReLU(), linear(3, 3)])
            pair = several([linear(3, 2), linear(2, 1)])
            self.heads = torch.nn.ModuleDict({"mean": linear(3, 1), "spread": pair})

        forward = Branches.forward

    twin, net = Twin(), Branches().init(seed=0, backend="numpy")
    twin.load_state_dict({name: torch.tensor(p) for name, p in net.parameters().items()})
    x = np.linspace(-1, 1, 6, dtype="float32").reshape(2, 3)
    np.testing.assert_allclose(net(x), twin(torch.tensor(x)).detach().numpy(), rtol=1e-5)


def test_a_layer_of_an_encoder_may_be_another():
    """Which need not know how a ReLU is joined to it."""

    class Around(nn.Module):
        def __init__(self, inner):
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    whole = nn.TransformerEncoderLayer(8, 2, 16).init(0, backend="numpy")
    encoder = nn.TransformerEncoderLayer(8, 2, 16)
    encoder.linear1 = Around(encoder.linear1)
    arrays = {n.replace("linear1.", "linear1.inner."): p for n, p in whole.parameters().items()}
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype("float32")
    np.testing.assert_array_equal(encoder.bind(arrays)(x), whole(x))


def test_a_shape_may_be_an_array():
    assert nn.Parameter(np.array([4, 1]), nn.init.zeros).shape == (4, 1)


def test_layers_in_lists_and_dicts_are_trained():
    x, y = np.ones((8, 3), dtype="float32"), np.full((8, 1), 2.0, dtype="float32")
    trainer = Trainer(Branches(), losses.mse, optim.Adam(1e-2), backend="numpy")
    history = trainer.fit(x, y, epochs=30)
    assert history["loss"][-1] < history["loss"][0] / 10
    assert list(trainer.net.parameters()) == list(Branches().parameters())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_compute_the_same(duplicate):
    shared = nn.Linear(3, 3)
    net = nn.Sequential(shared, nn.Dropout(0.5), shared).init(seed=0)
    twin = duplicate(net)
    x = np.ones((2, 3), dtype="float32")
    assert np.array_equal(twin(x), net(x))
    assert list(twin.parameters()) == list(net.parameters()) == ["0.weight", "0.bias"]


def test_an_input_elsewhere_is_refused():
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    net = nn.Linear(2, 1).init(seed=0, backend="numpy")
    with pytest.raises(MixedBackendsError, match=r"'numpy'.*'strict'"):
        net(strict.ones((1, 2), dtype=strict.float32))
    there = nn.Linear(2, 1).init(seed=0, backend="strict")
    with pytest.raises(MixedBackendsError, match=r"different devices of 'strict'"):
        there(strict.ones((1, 2), dtype=strict.float32))


def test_a_linear_layer_and_its_relu_are_one_function(monkeypatch):
    """What they compute is what each computes by itself; a layer of one's own stays itself."""

    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    asked = []
    whole = functional.linear_relu
    monkeypatch.setattr(functional, "linear_relu", lambda *a: asked.append(len(a)) or whole(*a))
    x = np.random.default_rng(0).normal(size=(5, 4))
    layers = nn.Linear(4, 3), nn.ReLU(), nn.ReLU(), Doubled(3, 3), nn.ReLU(), nn.Linear(3, 2)
    net = nn.Sequential(*layers).init(seed=0, dtype="float64")
    first, _, _, doubled, _, last = net
    hidden = np.maximum(first(x), 0)
    expected = last(np.maximum(doubled(hidden), 0))
    assert np.array_equal(net(x), expected)
    assert asked == [3]

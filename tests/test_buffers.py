"""Buffers: what a network keeps and no gradient trains; a pass gets them and gives new ones."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from polynet import Trainer, checkpoint, losses, nn, optim, random, value_and_grad
from polynet.backend import Backend, to_numpy
from polynet.ops import OPS
from polynet.step import initial_state, make_step
from polynet.tree import named_leaves

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")


class Doubled(nn.Module):
    """Keeps twice what it kept, plus the sum of its weights."""

    def __init__(self) -> None:
        self.weight = nn.Parameter((3,), nn.init.ones)
        self.kept = nn.Buffer((3,), nn.init.ones)
        self.calls = nn.Buffer((), nn.init.zeros, "int32")

    def forward(self, x: Any) -> Any:
        y = self.weight * x
        if self.training:
            self.renew(kept=self.weight + self.kept * 2, calls=self.calls + 1)
            y = y + self.kept
        return y


def context(backend: Backend) -> nn.Context:
    step = backend.from_host(np.zeros(1, np.int32), backend.device(None))
    return nn.Context(backend.xp, step, {})


def on(backend: Backend, host: np.ndarray = X) -> Any:
    return backend.from_host(host, backend.device(None))


def test_names_and_kinds(backend: Backend) -> None:
    net = nn.Sequential(Doubled(), nn.ReLU(), Doubled()).init(backend=backend)
    assert list(net.parameters()) == ["0.weight", "2.weight"]
    assert list(net.buffers()) == ["0.kept", "0.calls", "2.kept", "2.calls"]
    expected = ["0.weight", "0.kept", "0.calls", "2.weight", "2.kept", "2.calls"]
    assert list(net.state_dict()) == expected
    assert all(backend.is_array(a) for a in net.state_dict().values())
    assert net[0].calls.dtype == backend.xp.int32
    assert net[0].kept.dtype == backend.xp.float32
    assert net.summary().split()[-2:] == ["total", "6"]  # buffers are not counted


def test_a_layer_used_twice_in_a_pass_sees_what_it_left(backend: Backend) -> None:
    """1 → 3 → 7, and 1 is added to x twice over, by either kept value."""
    layer = Doubled()
    net = nn.Sequential(layer, nn.Identity(), layer).init(backend=backend)
    assert list(net.state_dict()) == ["0.weight", "0.kept", "0.calls"]
    assert net.aliases() == {"2.weight": "0.weight", "2.kept": "0.kept", "2.calls": "0.calls"}
    pass_ = context(backend)
    y = net.bind(net.parameters(), pass_)(on(backend))
    np.testing.assert_allclose(to_numpy(y), X + 3 + 7, rtol=1e-6)
    assert to_numpy(pass_.buffers["0.kept"]).tolist() == [7, 7, 7]
    assert int(to_numpy(pass_.buffers["0.calls"])) == 2
    assert to_numpy(net[0].kept).tolist() == [1, 1, 1]  # the network itself stays as it was


def test_no_gradient_goes_through_what_is_renewed(backend: Backend) -> None:
    net = Doubled().init(backend=backend)

    def objective(params: Any) -> Any:
        pass_ = context(backend)
        y = OPS["sum"](net.bind(params, pass_)(on(backend)))
        return y, pass_.buffers

    (_, buffers), slopes = value_and_grad(objective, has_aux=True)(net.parameters())
    assert all(backend.is_array(b) for b in buffers.values())
    np.testing.assert_allclose(to_numpy(slopes["weight"]), X.sum(0), rtol=1e-5)


def test_replace_takes_both_kinds(backend: Backend) -> None:
    net = nn.Sequential(Doubled()).init(backend=backend)
    other = net.replace({"0.kept": net[0].kept + 4})
    assert to_numpy(other[0].kept).tolist() == [5, 5, 5]
    assert to_numpy(net[0].kept).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"'0.kept' has shape \(3,\); got .* \(2,\)"):
        net.replace({"0.kept": net[0].kept[:2]})
    with pytest.raises(TypeError, match=r"'0.calls' is .*int32; got an array of .*float32"):
        net.replace({"0.calls": net[0].kept[0]})
    with pytest.raises(KeyError, match=r"'0.keep'. Did you mean '0.kept'"):
        net.replace({"0.keep": net[0].kept})


def test_bound_without_its_buffers_a_network_has_its_own() -> None:
    net = nn.Sequential(Doubled()).init(backend="numpy").replace({"0.kept": np.full(3, 9, "f4")})
    assert net.bind(net.parameters())[0].kept.tolist() == [9, 9, 9]
    part = net[0]
    assert part.bind(part.parameters()).kept.tolist() == [9, 9, 9]


class Twice(nn.Module):
    """Calls a part, and then a copy of it that `make` makes."""

    def __init__(self, make: Any) -> None:
        self.parts = [nn.Linear(3, 3), nn.Sequential(Doubled(), nn.Dropout(0.5))]
        self.make = make

    def forward(self, x: Any) -> tuple[Any, Any]:
        part = self.parts[1]
        return part(x), self.make(part)(x)


COPIES: dict[str, tuple[Any, int]] = {
    "all replaced": (lambda part: part.replace(part.state_dict()), 2),
    "some replaced": (lambda part: part.replace({"0.weight": 2 * part[0].weight}), 2),
    "of a copy": (lambda part: part.replace({}).replace(part.parameters()), 2),
    "bound": (lambda part: part.bind(part.state_dict()), 1),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_made_in_a_pass_trains_and_one_that_is_bound_predicts(name: str) -> None:
    """As in PyTorch's `functional_call`, and as after its `eval()`."""
    make, calls = COPIES[name]
    net = Twice(make).init(backend="numpy")
    keys = {n: random.key(0, "stream", n) for n in net.streams()}
    context = nn.Context(np, np.zeros(1, np.int32), keys)
    first, second = net.bind({**net.parameters(), **net.buffers()}, context)(X)
    assert context.buffers["parts.1.0.calls"] == calls
    assert sorted(context.buffers) == sorted(net.buffers())
    dropped = [(y == 0).mean() for y in (first, second)]
    assert all(0.2 < share < 0.8 for share in dropped[:calls])
    assert calls == 2 or np.array_equal(second, X)
    assert not np.array_equal(first == 0, second == 0)  # a mask of its own
    assert net(X)[1].shape == X.shape


def test_buffers_of_a_pass_are_not_replaced() -> None:
    net = Twice(lambda part: part.replace({"0.kept": np.zeros(3, "f4")})).init(backend="numpy")
    keys = {n: random.key(0, "stream", n) for n in net.streams()}
    with pytest.raises(ValueError, match=r"buffer '0.kept' belongs to a training pass: .*`renew`"):
        net.bind(net.parameters(), nn.Context(np, np.zeros(1, np.int32), keys))(X)


class Shifted(nn.Module):
    def __init__(self) -> None:
        self.norm, self.last = nn.BatchNorm1d(3, affine=False), nn.Linear(3, 1)

    def forward(self, x: Any) -> Any:
        norm = self.norm
        if not self.training:
            norm = norm.replace({"running_mean": norm.running_mean + 1})
        return self.last(norm(x))


def test_a_network_that_predicts_may_replace_them(backend: Backend) -> None:
    job = Trainer(Shifted(), losses.mse, optim.SGD(0.1), backend=backend)
    job.fit(X, X[:, :1], batch_size=2)
    x = backend.from_host(X, backend.device(None))
    np.testing.assert_allclose(job.predict(X), to_numpy(job.net(x)), rtol=1e-5)


def test_a_network_moved_takes_them_along(backend: Backend) -> None:
    here = Doubled().init(backend="numpy").replace({"calls": np.asarray(7, np.int32)})
    there = here.to(backend=backend)
    assert all(backend.is_array(a) for a in there.state_dict().values())
    for name, a in there.to(backend="numpy").state_dict().items():
        assert (a.dtype, a.tolist()) == (
            here.state_dict()[name].dtype,
            getattr(here, name).tolist(),
        )


def test_a_network_in_another_precision_counts_as_it_did(backend: Backend) -> None:
    here = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).init(seed=4, backend="numpy")
    there = here.to(backend=backend, dtype="float32").to(dtype="float32")
    assert all(backend.is_array(a) for a in there.state_dict().values())
    wide = there.to(backend="numpy", dtype="float64")
    kinds = {name: str(a.dtype) for name, a in wide.state_dict().items()}
    assert kinds.pop("1.num_batches_tracked") == "int32"
    assert set(kinds.values()) == {"float64"}
    for name, a in wide.to(dtype="float32").state_dict().items():
        assert (a.dtype, a.tolist()) == (
            here.state_dict()[name].dtype,
            here.state_dict()[name].tolist(),
        )
    with pytest.raises(ValueError, match="to: dtype is 'float32' or 'float64'; got 'float16'"):
        here.to(dtype="float16")


def test_a_network_stays_on_its_device() -> None:
    """Where only the dtype is another: it is not taken to the backend's first device."""
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    there = nn.Linear(3, 2).init(backend="strict", device="cpu")
    assert there.to(dtype="float64").weight.device == strict.Device("CPU_DEVICE")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_keep_them(duplicate: Any) -> None:
    net = nn.Sequential(nn.BatchNorm1d(3)).init(backend="numpy")
    assert np.array_equal(duplicate(net)(X), net(X))


class Wrong(Doubled):
    def __init__(self, **renewed: Any) -> None:
        super().__init__()
        self.renewed = renewed

    def forward(self, x: Any) -> Any:
        self.renew(**self.renewed)
        return x


@pytest.mark.parametrize(
    ("renewed", "kind", "words"),
    [
        ({"keptt": X[0]}, KeyError, "'keptt'. Did you mean 'kept'"),
        ({"weight": X[0]}, KeyError, "unknown buffer 'weight'"),
        ({"kept": X}, ValueError, r"layer '0', Wrong\(\): buffer 'kept' has shape \(3,\); got"),
        ({"kept": X[0].astype("f8")}, TypeError, "buffer 'kept' is float32; got .* float64"),
    ],
)
def test_what_a_layer_may_not_hand_over(renewed: Any, kind: Any, words: str) -> None:
    net = nn.Sequential(Wrong(**renewed)).init(backend="numpy")
    step = np.zeros(1, np.int32)
    with pytest.raises(kind, match=words):
        net.bind(net.parameters(), nn.Context(np, step, {}))(X)
    with pytest.raises(RuntimeError, match="only a training pass renews buffers"):
        net(X)


def test_a_drawn_network_cannot_set_them() -> None:
    with pytest.raises(AttributeError, match=r"cannot set 'kept'.*net\.replace"):
        Doubled().init(backend="numpy").kept = X[0]
    with pytest.raises(AttributeError, match="Doubled has no attribute 'kep'"):
        _ = Doubled().init(backend="numpy").kep


# In training


class Careless(nn.Module):
    """Its two buffers are made of one array, which is a view of its weight."""

    def __init__(self) -> None:
        self.weight = nn.Parameter((2, 3), nn.init.ones)
        self.first = nn.Buffer((3,), nn.init.zeros)
        self.second = nn.Buffer((3,), nn.init.zeros)

    def forward(self, x: Any) -> Any:
        if self.training:
            row = self.weight[0, ...]
            self.renew(first=row, second=row)
        return self.weight[0, ...] * x


def test_no_leaf_of_the_state_aliases_another(backend: Backend) -> None:
    """JAX donates the state, which fails for a buffer that is given twice."""
    net = Careless().init(backend=backend)
    optimizer = optim.SGD(0.1)
    step = make_step(net, losses.mse, optimizer, backend.xp)
    state = initial_state(net, optimizer, 0)
    data, rows = (on(backend), on(backend) * 2), on(backend, np.arange(4, dtype=np.int32))
    new, _ = step(state, data, rows)
    names = [name for name, _ in named_leaves(new)]
    assert names == [name for name, _ in named_leaves(state)]
    assert "buffers.second" in names
    hosts = [leaf for _, leaf in named_leaves(new) if isinstance(leaf, np.ndarray)]
    for i, a in enumerate(hosts):
        assert not any(np.shares_memory(a, b) for b in hosts[:i])
    trainer = Trainer(net, losses.mse, optimizer)
    history = trainer.fit(data[0], data[1], epochs=20)
    assert history["loss"][-1] < history["loss"][0]
    assert np.array_equal(to_numpy(trainer.net.first), to_numpy(trainer.net.second))


def test_a_trainer_uses_and_keeps_them(backend: Backend, tmp_path: Any) -> None:
    """The running mean is that of the data, in net, predict, evaluate and the file."""
    x = (X * 2 + 5).astype("float32")
    net = nn.Sequential(nn.BatchNorm1d(3, momentum=None), nn.Linear(3, 1))
    trainer = Trainer(net, losses.mse, optim.SGD(1e-3), backend=backend)
    trainer.fit(x, x[:, :1], epochs=3, batch_size=4)
    taken = trainer.net
    mean = to_numpy(taken[0].running_mean)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-5)
    assert int(to_numpy(taken[0].num_batches_tracked)) == 9
    predicted = trainer.predict(x)
    one_by_one = to_numpy(taken(on(backend, x)))  # JAX's program rounds otherwise
    np.testing.assert_allclose(predicted, one_by_one, rtol=1e-5, atol=1e-6)
    expected = np.mean((predicted - x[:, :1]) ** 2)
    np.testing.assert_allclose(trainer.evaluate(x, x[:, :1])["loss"], expected, rtol=1e-5)
    checkpoint.save(tmp_path / "net", taken)
    again = checkpoint.load(tmp_path / "net", net, backend=backend)
    for name, a in taken.state_dict().items():
        assert again.state_dict()[name].dtype == a.dtype
        assert np.array_equal(to_numpy(again.state_dict()[name]), to_numpy(a))
    trainer.fit(x + 100, x[:, :1], batch_size=4)
    assert np.array_equal(to_numpy(taken[0].running_mean), mean), "a network handed out changed"
    resumed = Trainer(taken, losses.mse, optim.SGD(1e-3), backend=backend)
    assert np.array_equal(to_numpy(resumed.predict(x)), predicted)


def test_without_running_statistics_a_network_trains() -> None:
    net = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 1))
    trainer = Trainer(net, losses.mse, optim.SGD(), backend="numpy")
    trainer.fit(X, X[:, :1], batch_size=4)
    assert trainer.net.buffers() == {}
    assert trainer.predict(X).shape == (12, 1)
    with pytest.raises(ValueError, match=r"layer '0'.*more than 1 value.*batch_size"):
        trainer.fit(X, X[:, :1], batch_size=11)

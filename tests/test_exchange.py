"""Weights to and from PyTorch, through a file: the same network there and here, name by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beside_pytorch import numbers, same, torch
from safetensors.torch import load_file, load_model, save_file, save_model

from polynet import Trainer, checkpoint, losses, nn, optim
from polynet.backend import Backend, to_numpy
from polynet.checkpoint.format import CHECKSUM


def mlp(kind: Any) -> Any:
    return kind.Sequential(kind.Linear(4, 8), kind.GELU(), kind.Linear(8, 2))


def lenet(kind: Any) -> Any:
    return kind.Sequential(
        *(kind.Conv2d(1, 6, 5, padding=2), kind.BatchNorm2d(6), kind.ReLU(), kind.MaxPool2d(2)),
        *(kind.Conv2d(6, 16, 5), kind.BatchNorm2d(16), kind.ReLU(), kind.AvgPool2d(2)),
        kind.Flatten(),
        *(kind.Linear(16, 12), kind.BatchNorm1d(12, momentum=None), kind.Tanh()),
        kind.Linear(12, 10),
    )


def encoder(kind: Any) -> Any:
    return kind.Sequential(
        kind.Linear(8, 8),
        kind.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True),
    )


def reader(kind: Any) -> Any:
    """An embedding, attention over it, and a head."""

    class Reader(kind.Module):
        def __init__(self) -> None:
            super().__init__()
            self.letters = kind.Embedding(9, 8)
            self.attention = kind.MultiheadAttention(8, 2, batch_first=True)
            self.head = kind.Linear(8, 3)

        def forward(self, x: Any) -> Any:
            x = self.letters(x)
            x = self.attention(x, x, x)
            return self.head(x[0] if isinstance(x, tuple) else x)

    return Reader()


def tied(kind: Any) -> Any:
    """Letters in and letters out by the same table; the one declared later sorts first."""

    class Tied(kind.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = kind.Embedding(9, 8)
            self.norm = kind.LayerNorm(8)
            self.again = self.norm
            self.back = kind.Linear(8, 9, bias=False)
            self.back.weight = self.table.weight

        def forward(self, x: Any) -> Any:
            return self.back(self.again(self.norm(self.table(x))))

    return Tied()


LETTERS = np.arange(12, dtype=np.int32).reshape(2, 6) * 5 % 9
NETWORKS: dict[str, tuple[Callable[[Any], Any], np.ndarray]] = {
    "mlp": (mlp, numbers(5, 4).astype("float32")),
    "lenet": (lenet, numbers(5, 1, 12, 12).astype("float32")),
    "encoder": (encoder, numbers(3, 5, 8).astype("float32")),
    "reader": (reader, LETTERS),
    "tied": (tied, LETTERS[0]),
}
UNTIED = [name for name in NETWORKS if name != "tied"]


def trained_here(name: str, backend: Any) -> nn.Module:
    """A network whose every parameter and buffer has moved away from where it was drawn."""
    make, x = NETWORKS[name]
    net = make(nn).init(seed=1, backend=backend)
    y = np.zeros(tuple(net(backend.from_host(x, backend.device(None))).shape), "float32")
    trainer = Trainer(net, losses.mse, optim.Adam(1e-2), backend=backend)
    trainer.fit(x, y, epochs=3, batch_size=len(x))
    return trainer.net


def trained_there(name: str) -> Any:
    make, x = NETWORKS[name]
    torch.manual_seed(0)
    net = make(torch.nn)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        (net(torch.tensor(x)) ** 2).mean().backward()
        optimizer.step()
    return net.eval()


def answers_alike(net: nn.Module, backend: Backend, there: Any, name: str) -> None:
    x = NETWORKS[name][1]
    found = net(backend.from_host(x, backend.device(None)))
    with torch.no_grad():
        same(found, there.eval()(torch.tensor(x)), "float32")


@pytest.mark.parametrize("name", UNTIED)
def test_saved_here_loaded_there(backend: Backend, name: str, tmp_path: Path) -> None:
    net = trained_here(name, backend)
    checkpoint.save(tmp_path / "net", net)
    there = NETWORKS[name][0](torch.nn)
    state = load_file(tmp_path / "net")
    assert {n: t.dtype for n, t in state.items()} == {
        n: t.dtype for n, t in there.state_dict().items()
    }
    there.load_state_dict(state, strict=True)
    answers_alike(net, backend, there, name)


@pytest.mark.parametrize("name", UNTIED)
def test_saved_there_loaded_here(backend: Backend, name: str, tmp_path: Path) -> None:
    there = trained_there(name)
    save_file(there.state_dict(), tmp_path / "net")
    net = checkpoint.load(tmp_path / "net", NETWORKS[name][0](nn), backend=backend)
    assert set(net.state_dict()) == set(there.state_dict())
    answers_alike(net, backend, there, name)
    checkpoint.save(tmp_path / "back", net)
    for n, t in load_file(tmp_path / "back").items():
        assert t.dtype == there.state_dict()[n].dtype
        assert torch.equal(t, there.state_dict()[n]), n


# What is shared has several names


def test_tied_weights_go_there(backend: Backend, tmp_path: Path) -> None:
    net = trained_here("tied", backend)
    checkpoint.save(tmp_path / "net", net)
    assert "back.weight" not in load_file(tmp_path / "net")
    there = tied(torch.nn)
    load_model(there, tmp_path / "net", strict=True)
    answers_alike(net, backend, there, "tied")


def test_tied_weights_come_by_any_name(backend: Backend, tmp_path: Path) -> None:
    there = trained_there("tied")
    save_model(there, tmp_path / "net")
    names = set(load_file(tmp_path / "net"))
    assert "back.weight" in names  # not the one that names it here
    assert "table.weight" not in names
    net = checkpoint.load(tmp_path / "net", tied(nn), backend=backend)
    assert set(net.aliases()) == {"back.weight", *(f"again.{n}" for n in net.norm.state_dict())}
    assert net.back.weight is net.table.weight
    answers_alike(net, backend, there, "tied")


def test_a_shared_batch_norm_comes_by_any_name(tmp_path: Path) -> None:
    norm = torch.nn.BatchNorm1d(3)
    there = torch.nn.Sequential(norm, torch.nn.Tanh(), norm)
    for i in range(3):
        there(torch.tensor(numbers(5, 3, seed=i).astype("float32")))
    for place in "02":
        state = {n: t for n, t in there.state_dict().items() if n.startswith(place)}
        save_file(state, tmp_path / "net")
        layer = nn.BatchNorm1d(3)
        net = checkpoint.load(tmp_path / "net", nn.Sequential(layer, nn.Tanh(), layer))
        assert int(net.buffers()["0.num_batches_tracked"]) == 6
        x = numbers(4, 3, seed=9).astype("float32")
        same(net(x), there.eval()(torch.tensor(x)), "float32")


def test_both_names_of_what_is_shared(tmp_path: Path) -> None:
    there = trained_there("tied")
    state = {n: t.clone() for n, t in there.state_dict().items()}
    save_file(state, tmp_path / "net")
    net = checkpoint.load(tmp_path / "net", tied(nn), backend="numpy")
    assert np.array_equal(net.table.weight, state["back.weight"].numpy())
    state["back.weight"][0, 0] = state["table.weight"][0, 0] = torch.nan  # of a run gone wrong
    save_file(state, tmp_path / "net")
    net = checkpoint.load(tmp_path / "net", tied(nn), backend="numpy")
    np.testing.assert_array_equal(net.table.weight, state["back.weight"].numpy())
    save_file({**state, "back.weight": state["back.weight"] + 1}, tmp_path / "net")
    with pytest.raises(ValueError, match=r"'(back|table).weight' and .* differ.* one parameter"):
        checkpoint.load(tmp_path / "net", tied(nn))


# Other dtypes


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_another_dtype_is_converted_only_when_asked(dtype: str, tmp_path: Path) -> None:
    state = {n: t.to(getattr(torch, dtype)) for n, t in trained_there("mlp").state_dict().items()}
    save_file(state, tmp_path / "net")
    drawn = mlp(nn).init(backend="numpy")
    refused = f"'0.weight' is {dtype}, the network's float32; .*dtype='float32'.* converts"
    with pytest.raises(TypeError, match=refused):
        checkpoint.load(tmp_path / "net", drawn)
    for net in (drawn, mlp(nn)):
        loaded = checkpoint.load(tmp_path / "net", net, backend="numpy", dtype="float32")
        for name, a in loaded.state_dict().items():
            assert a.dtype == np.float32
            assert np.array_equal(a, state[name].numpy().astype(np.float32))
    if dtype == "float64":  # nothing has to be converted
        loaded = checkpoint.load(tmp_path / "net", mlp(nn), backend="numpy")
        assert {a.dtype.name for a in loaded.state_dict().values()} == {"float64"}
    else:
        with pytest.raises(TypeError, match=refused):
            checkpoint.load(tmp_path / "net", mlp(nn))


def test_dtypes_that_nothing_here_has(tmp_path: Path) -> None:
    save_file({n: t.bfloat16() for n, t in mlp(torch.nn).state_dict().items()}, tmp_path / "net")
    with pytest.raises(ValueError, match=r"BF16.*NumPy lacks; convert .*PyTorch by .*float\(\)"):
        checkpoint.load(tmp_path / "net", mlp(nn))
    with pytest.raises(ValueError, match="'float32' or 'float64'; got 'float16'"):
        checkpoint.load(tmp_path / "net", mlp(nn), dtype="float16")
    mixed = mlp(torch.nn).state_dict()
    mixed["0.weight"] = mixed["0.weight"].double()
    save_file(mixed, tmp_path / "net")
    with pytest.raises(TypeError, match=r"'0.weight' is float64, the network's float32"):
        checkpoint.load(tmp_path / "net", mlp(nn))
    mixed["0.weight"] = mixed["0.weight"].long()
    save_file(mixed, tmp_path / "net")
    with pytest.raises(TypeError, match=r"'0.weight' is int64, the network's float32$"):
        checkpoint.load(tmp_path / "net", mlp(nn), dtype="float32")


def test_numbers_too_large_for_the_dtype_asked_for(tmp_path: Path) -> None:
    state = {n: t.double() for n, t in mlp(torch.nn).state_dict().items()}
    state["2.bias"][0] = 1e60
    save_file(state, tmp_path / "net")
    with pytest.raises(ValueError, match=r"'2.bias' holds numbers too large for float32"):
        checkpoint.load(tmp_path / "net", mlp(nn), dtype="float32")


def test_a_count_of_batches_stays_whole(backend: Backend, tmp_path: Path) -> None:
    """int64 in a file, as PyTorch's; int32 here, as JAX without 64 bits can hold it."""
    there = torch.nn.BatchNorm1d(2)
    there.num_batches_tracked += 2**31 - 1
    save_file(there.state_dict(), tmp_path / "net")
    net = checkpoint.load(tmp_path / "net", nn.BatchNorm1d(2), backend=backend, dtype="float32")
    assert to_numpy(net.num_batches_tracked).dtype == np.int32
    assert int(to_numpy(net.num_batches_tracked)) == 2**31 - 1
    checkpoint.save(tmp_path / "back", net)
    assert torch.equal(load_file(tmp_path / "back")["num_batches_tracked"], torch.tensor(2**31 - 1))
    there.num_batches_tracked += 1
    save_file(there.state_dict(), tmp_path / "net")
    with pytest.raises(ValueError, match="'num_batches_tracked' holds integers that do not fit"):
        checkpoint.load(tmp_path / "net", nn.BatchNorm1d(2))
    there.num_batches_tracked = torch.tensor(3.0)
    save_file(there.state_dict(), tmp_path / "net")
    with pytest.raises(TypeError, match=r"_tracked' is float32, the network's int32$"):
        checkpoint.load(tmp_path / "net", nn.BatchNorm1d(2))


# Names and shapes that do not fit


def renamed(change: Callable[[dict[str, Any]], dict[str, Any]], path: Path) -> Path:
    save_file(change(dict(lenet(torch.nn).state_dict())), path)
    return path


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (
            lambda s: {f"module.{n}": t for n, t in s.items()},
            KeyError,
            [r"unknown parameter 'module.0.bias'. Did you mean '0.bias'", "And .* lacks", "more"],
        ),
        (
            lambda s: {n: t for n, t in s.items() if "running_var" not in n},
            KeyError,
            ["lacks the parameter '1.running_var', '5.running_var', '10.running_var'$"],
        ),
        (
            lambda s: {**s, "13.weight": torch.zeros(2)},
            KeyError,
            [r"unknown parameter '13.weight'. Did you mean"],
        ),
        (
            lambda s: {**s, "1.running_mean": torch.zeros(7)},
            ValueError,
            [r"'1.running_mean' has shape \(7,\), the network's \(6,\)"],
        ),
    ],
)
def test_what_does_not_fit(change: Any, kind: Any, words: list[str], tmp_path: Path) -> None:
    path = renamed(change, tmp_path / "net")
    for net in (lenet(nn), lenet(nn).init(backend="numpy")):
        with pytest.raises(kind) as caught:
            checkpoint.load(path, net)
        for part in words:
            assert re.search(part, str(caught.value.args[0])), part


def test_a_file_of_pytorch_s_has_no_checksum_and_a_polynet_one_has(tmp_path: Path) -> None:
    save_file(mlp(torch.nn).state_dict(), tmp_path / "theirs")
    checkpoint.save(tmp_path / "ours", mlp(nn).init(backend="numpy"))
    for name, expected in (("theirs", False), ("ours", True)):
        content = (tmp_path / name).read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        assert (CHECKSUM in (header.get("__metadata__") or {})) is expected

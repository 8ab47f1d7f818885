"""Parameters saved and loaded: on any backend, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from polynet import checkpoint, nn
from polynet.backend import Backend, to_numpy


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def test_saved_here_loaded_there(backend: Backend, tmp_path: Path) -> None:
    here = network().init(seed=1, backend="numpy")
    checkpoint.save(tmp_path / "net.safetensors", here)
    there = checkpoint.load(tmp_path / "net.safetensors", network(), backend=backend)
    checkpoint.save(tmp_path / "back.safetensors", there)
    back = checkpoint.load(tmp_path / "back.safetensors", network(), backend="numpy")
    for name, p in here.parameters().items():
        assert backend.is_array(there.parameters()[name])
        assert np.array_equal(to_numpy(there.parameters()[name]), p)
        assert np.array_equal(back.parameters()[name], p)


def test_arrays_that_are_not_contiguous_are_saved_right(tmp_path: Path) -> None:
    net = nn.Linear(3, 2).init(seed=0, backend="numpy")
    strided = np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]
    checkpoint.save(tmp_path / "net", net.replace({"weight": strided}))
    loaded = checkpoint.load(tmp_path / "net", nn.Linear(3, 2))
    assert np.array_equal(loaded.weight, strided)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net"
    checkpoint.save(path, network().init(backend="numpy"))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        checkpoint.load(path, network())


def test_a_failed_save_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net"
    checkpoint.save(path, network().init(seed=0, backend="numpy"))
    before = path.read_bytes()

    def fail(handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, network().init(seed=1, backend="numpy"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_networks_shapes_are_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "net", nn.Linear(4, 8).init(backend="numpy"))
    with pytest.raises(ValueError, match=r"'weight' has shape \(8, 4\), the network's \(4, 8\)"):
        checkpoint.load(tmp_path / "net", nn.Linear(8, 4))

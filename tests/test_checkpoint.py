"""Parameters saved and loaded: on any backend, whole or not at all."""

from __future__ import annotations

import os
import stat
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import FIT, X, Y, saved, trainer

from polynet import Trainer, checkpoint, losses, nn, optim
from polynet.backend import Backend, backend_of, to_numpy


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


def test_what_is_loaded_goes_where_the_network_is(tmp_path: Path) -> None:
    """Where nobody says where; a backend that is named comes before."""
    pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    path, there = tmp_path / "net", network().init(seed=0, backend="strict")
    checkpoint.save(path, network().init(seed=1, backend="numpy"))
    for named, expected in ((None, "strict"), ("numpy", "numpy")):
        loaded = checkpoint.load(path, there, backend=named)
        assert {backend_of(p).name for p in loaded.parameters().values()} == {expected}


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
    with pytest.raises(OSError, match="disk full") as caught:
        checkpoint.save(path, network().init(seed=1, backend="numpy"))
    assert caught.value.__notes__ == [
        f"{str(path)!r} is not written; a file that was there is still there"
    ]
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="folders are synchronised on POSIX")
def test_all_of_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the folder, so that the name is there too."""
    path, whole, sizes = tmp_path / "net", os.fsync, []

    def watch(handle: int) -> None:
        of = os.fstat(handle)
        sizes.append(("folder", path.exists()) if stat.S_ISDIR(of.st_mode) else of.st_size)
        whole(handle)

    monkeypatch.setattr(os, "fsync", watch)
    checkpoint.save(path, network().init(seed=0, backend="numpy"))
    assert sizes == [path.stat().st_size, ("folder", True)]


def test_drafts_that_were_left_are_deleted_once_nobody_can_be_writing_them(
    tmp_path: Path,
) -> None:
    """Of runs that are killed while they save, each leaves a whole file's size."""
    ages = {f".polynet-{'0' * 31}1": 4000, f".polynet-{'0' * 31}2": 60, ".polynet-mine": 4000}
    for name, age in ages.items():
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    checkpoint.save(tmp_path / "net", network().init(backend="numpy"))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"net", f".polynet-{'0' * 31}2", ".polynet-mine"}


def test_another_networks_shapes_are_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "net", nn.Linear(4, 8).init(backend="numpy"))
    with pytest.raises(ValueError, match=r"'weight' has shape \(8, 4\), the network's \(4, 8\)"):
        checkpoint.load(tmp_path / "net", nn.Linear(8, 4))


# The file and its place


SAVES: dict[str, Callable[[Path], Any]] = {
    "a network": lambda path: checkpoint.save(path, network().init(seed=0, backend="numpy")),
    "a run": saved,
}
saves = pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)


@saves
def test_the_same_things_are_the_same_bytes(tmp_path: Path, save: Callable[[Path], Any]) -> None:
    for number in range(8):
        save(tmp_path / str(number))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@saves
@pytest.mark.skipif(os.name != "posix", reason="permissions and links are POSIX's")
def test_a_file_keeps_its_place_and_its_permissions(
    tmp_path: Path, save: Callable[[Path], Any]
) -> None:
    (tmp_path / "disk").mkdir()
    file, link = tmp_path / "disk" / "file", tmp_path / "link"
    link.symlink_to("disk/file")
    for mode in (None, 0o600, 0o640):
        if mode is not None:
            file.chmod(mode)
        save(link)
        assert link.is_symlink()
        assert mode is None or file.stat().st_mode & 0o777 == mode
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["disk", "file", "link"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_the_run_before_is_as_private_as_its_file_was(tmp_path: Path) -> None:
    job = trainer()
    job.fit(X, Y, **FIT)
    job.save(tmp_path / "run")
    (tmp_path / "run").chmod(0o600)
    job.save(tmp_path / "run", keep_previous=True)
    assert (tmp_path / "run.previous").stat().st_mode & 0o777 == 0o600


@saves
@pytest.mark.skipif(os.name != "posix", reason="there are no such things")
def test_what_is_no_regular_file_is_refused(tmp_path: Path, save: Callable[[Path], Any]) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to(os.devnull)
    for name in ("folder", "pipe", "null"):
        with pytest.raises(
            FileExistsError, match=f"{name}' cannot be written: .* not a regular file"
        ):
            save(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.skipif(os.name != "posix", reason="Windows counts the folders too")
def test_a_name_may_be_as_long_as_any(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 255)
    checkpoint.save(path, network().init(backend="numpy"))
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_synchronised_has_the_file_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.fsync

    def fail(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise PermissionError("a folder")
        whole(handle)

    monkeypatch.setattr(os, "fsync", fail)
    checkpoint.save(tmp_path / "net", network().init(seed=3, backend="numpy"))
    assert checkpoint.load(tmp_path / "net", network()).parameters()


@pytest.mark.parametrize("of", ["a network", "a run"])
def test_loading_holds_a_file_twice_at_most(tmp_path: Path, of: str) -> None:
    def job() -> Trainer:
        return Trainer(nn.Linear(700, 700), losses.mse, optim.SGD(momentum=0.9), backend="numpy")

    first, second = job(), job()
    for each in (first, second):
        each.predict(np.zeros((1, 700)))
    first.save(tmp_path / "file")
    net = nn.Linear(700, 700)
    tracemalloc.start()
    try:
        if of == "a run":
            second.load(tmp_path / "file")
        else:
            net = checkpoint.load(tmp_path / "file", net)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.1 * (tmp_path / "file").stat().st_size

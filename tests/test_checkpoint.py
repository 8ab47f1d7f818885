"""Parameters saved and loaded: on any backend, whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import FIT, X, Y, saved, trainer

from polynet import Trainer, checkpoint, losses, nn, optim
from polynet.backend import Backend, backend_of, to_numpy
from polynet.files import ATTEMPTS, PAUSE


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


@pytest.mark.parametrize("attempts", [3, ATTEMPTS, ATTEMPTS + 1])
def test_a_file_that_is_read_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    """Windows refuses to replace a file that is open; whoever loads it closes it soon."""
    path, refused, waited = tmp_path / "net", [], []
    checkpoint.save(path, network().init(seed=0, backend="numpy"))
    before, replace = path.read_bytes(), Path.replace

    def while_open(draft: Path, target: Path) -> Path:
        if len(refused) + 1 < attempts:
            refused.append(draft)
            raise PermissionError(errno.EACCES, "Access is denied")
        return replace(draft, target)

    monkeypatch.setattr(Path, "replace", while_open)
    monkeypatch.setattr(time, "sleep", waited.append)
    too_long = attempts > ATTEMPTS
    result = pytest.raises(PermissionError) if too_long else nullcontext()
    with result as caught:
        checkpoint.save(path, network().init(seed=1, backend="numpy"))
    assert (path.read_bytes() == before) == too_long
    assert caught is None or caught.value.__notes__ == [
        (
            "Another program may have it open, or it belongs to somebody else: close it, or give "
            "another path"
        ),
        f"{str(path)!r} is not written; a file that was there is still there",
    ]
    assert waited == [PAUSE] * (min(attempts, ATTEMPTS) - 1)
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


# A part of a network


class Classifier(nn.Module):
    """A body, and a head that another task has otherwise; the body's weight is at two paths."""

    def __init__(self, classes: int, *, pooler: bool = False) -> None:
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
        self.body[2].weight = self.body[0].weight
        self.head = nn.Linear(4, classes)
        if pooler:
            self.pooler = nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        return self.head(self.body(x))


def pretrained(path: Path, **options: Any) -> dict[str, Any]:
    net = Classifier(5, **options).init(seed=1, backend="numpy")
    checkpoint.save(path, net)
    return net.state_dict()


def test_all_but_the_head_comes_from_a_file(backend: Backend, tmp_path: Path) -> None:
    theirs = pretrained(tmp_path / "net")
    net = checkpoint.load(tmp_path / "net", Classifier(3), backend=backend, without="head.*")
    x = np.random.default_rng(0).random((12, 4), np.float32)
    with pytest.raises(RuntimeError, match="Linear has no parameters yet: draw them"):
        net(backend.from_host(x, backend.device(None)))
    frozen = optim.Groups({"head.*": optim.Adam()}, others=optim.Frozen())
    job = Trainer(net, losses.cross_entropy, frozen, seed=7)
    job.predict(x)
    drawn = Classifier(3).init(seed=7, backend=backend).state_dict()
    for found in (job.net, net.init(seed=7, backend=backend)):
        for name, a in found.state_dict().items():
            expected = drawn if name.startswith("head.") else theirs
            assert np.array_equal(to_numpy(a), to_numpy(expected[name])), name
    assert list(net.aliases()) == ["body.2.weight"]
    job.fit(x, np.arange(12) % 3, progress=False)
    assert np.array_equal(to_numpy(job.net.body[0].weight), theirs["body.0.weight"])
    thawed = Trainer(job.net, losses.cross_entropy, optim.Adam(1e-4), backend=backend)
    thawed.fit(x, np.arange(12) % 3, progress=False)
    assert not np.array_equal(to_numpy(thawed.net.body[0].weight), theirs["body.0.weight"])


def test_what_without_leaves_stays_as_it_is_where_it_is_drawn(tmp_path: Path) -> None:
    """And is on the same backend and in the same dtype as the rest."""
    theirs = pretrained(tmp_path / "net", pooler=True)
    mine = Classifier(3).init(seed=2, backend="numpy")
    both = ["head.*", "pooler.*"]  # of which only the file has the second
    for dtype in (None, "float64"):
        net = checkpoint.load(tmp_path / "net", mine, without=both, dtype=dtype)
        assert np.array_equal(net.head.weight, mine.head.weight)
        assert np.array_equal(net.body[0].weight, theirs["body.0.weight"])
        assert {a.dtype.name for a in net.parameters().values()} == {dtype or "float32"}


class Tied(nn.Module):
    """The table of an embedding is the weight of the head too; the first of `order` names it."""

    def __init__(self, order: str) -> None:
        for name in order.split():
            setattr(self, name, {"embed": nn.Embedding(6, 4), "head": nn.Linear(4, 6)}[name])
        self.head.weight = self.embed.weight


@pytest.mark.parametrize("net", ["embed head", "head embed"])
@pytest.mark.parametrize(
    ("pattern", "file", "read"),
    [
        ("head.*", "embed head", {"embed.weight", "head.weight"}),
        ("head.*", "head embed", set()),
        ("embed.*", "embed head", {"head.bias"}),
        ("embed.*", "head embed", {"embed.weight", "head.weight", "head.bias"}),
    ],
)
def test_a_shared_parameter_is_left_out_under_the_name_that_the_file_has(
    pattern: str, file: str, read: set[str], net: str, tmp_path: Path
) -> None:
    theirs = Tied(file).init(seed=1, backend="numpy")
    checkpoint.save(tmp_path / "net", theirs)
    found = checkpoint.load(tmp_path / "net", Tied(net), without=pattern)
    arrays = {n: a for n, a in found.parameters().items() if isinstance(a, np.ndarray)}
    assert arrays.keys() == read & found.parameters().keys()
    own = {**theirs.parameters(), **dict.fromkeys(theirs.aliases(), theirs.embed.weight)}
    assert all(np.array_equal(a, own[n]) for n, a in arrays.items())
    assert found.init(seed=2).aliases() == Tied(net).aliases()


def test_a_part_comes_from_the_file_of_a_whole(tmp_path: Path) -> None:
    theirs = pretrained(tmp_path / "net")
    body = checkpoint.load(tmp_path / "net", Classifier(3).body, prefix="body.")
    for name, a in body.state_dict().items():
        assert np.array_equal(a, theirs[f"body.{name}"])
    net = Classifier(3)
    net.body = body
    assert net.init(seed=0).body[0].weight is body[0].weight


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prefix": "boddy."}, "no name that begins with 'boddy.'. Did you mean 'body.'.*'head.'"),
        ({}, r"lacks the parameter.*The file has all of them .*prefix='body.'\)"),
        ({"prefix": "body"}, r"lacks the parameter.*The file has all of them .*prefix='body.'\)"),
        ({"prefix": "body.", "without": "haed.*"}, "'haed.*' of `without` fits no name .*'0.bias'"),
        ({"prefix": "body.", "without": "0.bias"}, None),
    ],
)
def test_nothing_is_left_out_by_mistake(
    options: dict[str, str], words: str | None, tmp_path: Path
) -> None:
    pretrained(tmp_path / "net")
    if words is None:
        net = checkpoint.load(tmp_path / "net", Classifier(3).body, **options)
        with pytest.raises(RuntimeError, match="no parameters yet"):
            net.state_dict()
        return
    with pytest.raises(KeyError) as caught:
        checkpoint.load(tmp_path / "net", Classifier(3).body, **options)
    said = " ".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert re.search(words, said)


@pytest.mark.parametrize(("layer", "begin"), [((4, 4), "body.0."), ((4, 5), "head.")])
def test_of_several_parts_with_the_names_of_a_layer_one_of_its_shapes_is_advised(
    layer: tuple[int, int], begin: str, tmp_path: Path
) -> None:
    pretrained(tmp_path / "net")
    with pytest.raises(KeyError) as caught:
        checkpoint.load(tmp_path / "net", nn.Linear(*layer))
    assert caught.value.__notes__[0].endswith(f"load(…, prefix={begin!r})")


def test_another_head_is_refused_with_the_way_to_keep_ones_own(tmp_path: Path) -> None:
    pretrained(tmp_path / "net")
    with pytest.raises(ValueError, match=r"'head.weight' has shape \(5, 4\)") as caught:
        checkpoint.load(tmp_path / "net", Classifier(3))
    assert 'without="head.*"' in caught.value.__notes__[0]
    trained = checkpoint.load(tmp_path / "net", Classifier(5))
    with pytest.raises(AttributeError, match=r"anew, .* new.body = trained.body"):
        trained.head = nn.Linear(4, 3)


def test_a_call_of_a_network_that_is_partly_drawn(tmp_path: Path) -> None:
    """Also where the layer that is not drawn is the first, or declared first."""
    pretrained(tmp_path / "net")
    x = np.ones((2, 4), np.float32)
    for pattern in ("body.*", "head.*"):
        net = checkpoint.load(tmp_path / "net", Classifier(5), without=pattern)
        with pytest.raises(RuntimeError, match="Linear has no parameters yet: draw them"):
            net(x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_rest_of_a_network_is_drawn_in_the_dtype_that_is_there(
    tmp_path: Path, dtype: str
) -> None:
    """By init as by a Trainer; it drew float32, and only a call said that they do not fit."""
    checkpoint.save(tmp_path / "net", Classifier(3).init(0, backend="numpy", dtype=dtype))
    net = checkpoint.load(tmp_path / "net", Classifier(5), without="head.*")
    drawn = net.init(seed=1)
    assert {str(a.dtype) for a in drawn.parameters().values()} == {dtype}
    other = net.init(seed=1, dtype="float64").parameters()["head.weight"]
    assert other.dtype == "float64"


def test_a_network_that_is_partly_drawn_changes_as_one_that_is_not(tmp_path: Path) -> None:
    """Only its layers that are drawn stay as they are."""
    pretrained(tmp_path / "net")
    net, other = (
        checkpoint.load(tmp_path / "net", Classifier(5), without="head.*") for _ in range(2)
    )
    net.head = nn.Linear(4, 3)
    assert net.init(seed=7).head(np.ones((2, 4), np.float32)).shape == (2, 3)
    other.head.scale = nn.Parameter((5,), nn.init.ones)
    assert "head.scale" in other.init(seed=7).parameters()
    with pytest.raises(AttributeError, match=r"new\.body = trained\.body"):
        net.body[0].scale = nn.Parameter((4,), nn.init.ones)


def test_replace_leaves_the_rest_described() -> None:
    body = {n: a for n, a in Classifier(5).init(seed=1).state_dict().items() if "head" not in n}
    net = Classifier(3).replace(body)
    with pytest.raises(RuntimeError, match="Linear has no parameters yet"):
        net(np.ones((2, 4), np.float32))
    assert net.init(seed=0)(np.ones((2, 4), np.float32)).shape == (2, 3)
    with pytest.raises(TypeError, match=r"'body.1.num_batches_tracked' is int32; got .* int64"):
        Classifier(3).replace({"body.1.num_batches_tracked": np.asarray(1)})


def test_a_prefix_for_a_file_of_one_layer(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "net", nn.Linear(4, 2).init(backend="numpy"))
    with pytest.raises(KeyError, match=r"begins with 'body\.'\. Its names are 'bias', 'weight'"):
        checkpoint.load(tmp_path / "net", nn.Linear(4, 2), prefix="body.")


@pytest.mark.parametrize(
    "given", ["net", nn.Linear, Trainer(nn.Linear(1, 1), losses.mse, optim.SGD())]
)
def test_what_is_no_network_is_told_so(tmp_path: Path, given: Any) -> None:
    for verb in (checkpoint.save, checkpoint.load):
        with pytest.raises(
            TypeError, match=rf"^checkpoint.{verb.__name__}\(path, net\): net is .*"
        ):
            verb(tmp_path / "net", given)

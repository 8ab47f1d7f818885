"""A run that stopped and went on has the numbers of the run that never stopped."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polynet import Trainer, checkpoint, losses, metrics, nn, optim
from polynet.backend import Backend, get_backend, to_numpy
from polynet.errors import NotFiniteError
from polynet.testing.assertions import supports_float64

rng = np.random.default_rng(7)
X = rng.normal(size=(31, 4))
Y = (X[:, 0] * X[:, 1] > 0).astype(int)
# Of the 31 samples 23 are trained on: the last batch of an epoch is short.
FIT: dict[str, Any] = {"batch_size": 4, "validation_split": 0.25}
EPOCHS = 5


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 2))


def trainer(
    backend: str | Backend = "numpy",
    *,
    net: nn.Module | None = None,
    optimizer: optim.Optimizer | None = None,
    **options: Any,
) -> Trainer:
    return Trainer(
        net or network(),
        losses.cross_entropy,
        optimizer or optim.Adam(1e-2, eps=1e-5),
        metrics=[metrics.accuracy],
        backend=backend,
        **{"seed": 3, **options},
    )


def stayed(backend: str | Backend = "numpy", **options: Any) -> Trainer:
    job = trainer(backend, **options)
    job.fit(X, Y, epochs=EPOCHS, **FIT)
    return job


def saved(path: Path, epochs: int = 2, **options: Any) -> Path:
    job = trainer(**options)
    job.fit(X, Y, epochs=epochs, **FIT)
    job.save(path)
    return path


def stopped(backend: Backend, call: int, stop: Callable[[], None]) -> Trainer:
    """A Trainer in whose run `stop()` happens during that call of the compiled step."""
    stopping = copy.copy(backend)
    calls = 0

    def compile_and_count(step: Any) -> Any:
        run = backend.compile(step)

        def counted(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                stop()
            return run(*args)

        return counted

    stopping.compile = compile_and_count  # type: ignore[method-assign]
    return trainer(stopping)


def assert_same_run(one: Trainer, other: Trainer) -> None:
    assert one.history.step_losses == other.history.step_losses
    assert dict(one.history) == dict(other.history)
    assert one.epoch == other.epoch
    for name, p in one.net.state_dict().items():
        q = other.net.state_dict()[name]
        assert to_numpy(p).dtype == to_numpy(q).dtype
        assert np.array_equal(to_numpy(p), to_numpy(q)), name


# The same bits


def test_saved_between_epochs(backend: Backend, tmp_path: Path) -> None:
    first = trainer(backend)
    first.fit(X, Y, epochs=2, **FIT)
    first.save(tmp_path / "run")
    second = trainer(backend)
    second.load(tmp_path / "run")
    assert second.epoch == 2
    assert_same_run(first, second)
    second.fit(X, Y, epochs=EPOCHS - 2, **FIT)
    assert_same_run(second, stayed(backend))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_buffers_are_kept(backend: Backend, tmp_path: Path, momentum: float | None) -> None:
    def normalised() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, momentum=momentum), nn.Linear(8, 2))

    first = trainer(backend, net=normalised())
    first.fit(X, Y, epochs=2, **FIT)
    first.save(tmp_path / "run")
    second = trainer(backend, net=normalised())
    second.load(tmp_path / "run")
    assert_same_run(first, second)
    net = checkpoint.load(tmp_path / "run", normalised(), backend=backend)
    second.fit(X, Y, epochs=EPOCHS - 2, **FIT)
    assert_same_run(second, stayed(backend, net=normalised()))
    counts = [int(to_numpy(n[1].num_batches_tracked)) for n in (net, first.net, second.net)]
    assert counts == [12, 12, 30]
    x = backend.from_host(X.astype("float32"), backend.device(None))
    assert np.array_equal(to_numpy(net(x)), to_numpy(first.predict(x)))


@pytest.mark.parametrize("call", [1, 6, 8])  # within the first epoch, at its end, in the second
def test_cut_by_ctrl_c(backend: Backend, tmp_path: Path, call: int) -> None:
    cut = stopped(backend, call, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        cut.fit(X, Y, epochs=EPOCHS, **FIT)
    cut.save(tmp_path / "run")
    second = trainer(backend)
    second.load(tmp_path / "run")
    assert_same_run(cut, second)
    whole = stayed(backend)
    for job in (cut, second):
        job.fit(X, Y, epochs=EPOCHS - job.epoch, **FIT)
        assert_same_run(job, whole)


def test_cut_with_a_batch_size_of_numpys(tmp_path: Path) -> None:
    """The place in the data is saved too, in numbers of Python."""
    cut = stopped(get_backend("numpy"), 3, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        cut.fit(X, Y, epochs=EPOCHS, **{**FIT, "batch_size": np.int64(4)})
    cut.save(tmp_path / "run")
    second = trainer()
    second.load(tmp_path / "run")
    second.fit(X, Y, epochs=EPOCHS, **FIT)
    assert_same_run(second, stayed())


def test_cut_by_an_error(backend: Backend) -> None:
    def fail() -> None:
        raise MemoryError

    cut = stopped(backend, 3, fail)
    with pytest.raises(MemoryError):
        cut.fit(X, Y, epochs=EPOCHS, **FIT)
    cut.fit(X, Y, epochs=EPOCHS - cut.epoch, **FIT)
    assert_same_run(cut, stayed(backend))


def test_cut_in_the_validation(tmp_path: Path) -> None:
    failures = iter([False, True])

    def accuracy(targets: np.ndarray, outputs: np.ndarray) -> float:
        if next(failures, False):
            raise OSError("no plot today")
        return metrics.accuracy(targets, outputs)

    cut = trainer()
    cut.metrics = {"accuracy": accuracy}
    with pytest.raises(OSError, match="no plot"):
        cut.fit(X, Y, epochs=EPOCHS, **FIT)
    cut.save(tmp_path / "run")
    second = trainer()
    second.load(tmp_path / "run")
    assert second.epoch == 1
    second.fit(X, Y, epochs=EPOCHS - 1, **FIT)
    assert_same_run(second, stayed())


@pytest.mark.parametrize(
    "optimizer",
    [optim.SGD(0.1), optim.SGD(0.1, momentum=0.9), optim.RMSprop(momentum=0.5), optim.AdamW()],
    ids=repr,
)
def test_every_optimizers_state_is_kept(tmp_path: Path, optimizer: optim.Optimizer) -> None:
    second = trainer(optimizer=optimizer)
    second.load(saved(tmp_path / "run", optimizer=optimizer))
    second.fit(X, Y, epochs=EPOCHS - 2, **FIT)
    assert_same_run(second, stayed(optimizer=optimizer))


class Descent(optim.Optimizer):
    """One of a user's own, with a setting that has no words but its place in memory."""

    def __init__(self, lr: float) -> None:
        self.lr, self.turn = lr, lambda g: -g

    def init(self, params: Any) -> Any:
        return {}

    def update(self, params: Any, grads: Any, state: Any, step: Any) -> Any:
        return {n: p + self.lr * self.turn(grads[n]) for n, p in params.items()}, state


@pytest.mark.parametrize(
    "around",
    [
        lambda own: own,
        lambda own: optim.EMA(optim.ClipNorm(own, 1.0)),
        lambda own: optim.Groups({"*.bias": own}, others=optim.SGD(0.1)),
    ],
    ids=["alone", "in others", "in a group"],
)
def test_an_optimizer_of_ones_own_goes_on_wherever_it_stands(tmp_path: Path, around: Any) -> None:
    """Another object, as in another process; with another setting it is refused."""
    path = saved(tmp_path / "run", optimizer=around(Descent(0.1)))
    second = trainer(optimizer=around(Descent(0.1)))
    second.load(path)
    second.fit(X, Y, epochs=EPOCHS - 2, **FIT)
    assert_same_run(second, stayed(optimizer=around(Descent(0.1))))
    with pytest.raises(ValueError, match=r"a run with .*0\.1.*this Trainer has .*0\.2"):
        trainer(optimizer=around(Descent(0.2))).load(path)


def test_a_run_before_its_first_step_and_a_trainer_that_did_something_else(tmp_path: Path) -> None:
    first = trainer()
    first.predict(X)
    first.save(tmp_path / "run")
    second = trainer()
    second.fit(X, Y, epochs=3, batch_size=5)
    handed_out, before = second.history, list(second.history.step_losses)
    net = second.net
    second.load(tmp_path / "run")
    assert handed_out.step_losses == before
    assert second.net is not net
    assert_same_run(first, second)
    second.fit(X, Y, epochs=EPOCHS, **FIT)
    assert_same_run(second, stayed())


# On other backends


LIBRARIES = {"jax": "jax", "torch": "torch", "strict": "array_api_strict"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "relay",
    ["numpy strict", "numpy torch strict", "numpy jax strict", "numpy jax torch strict"],
)
def test_a_relay_is_at_each_epoch_where_the_run_that_stayed_is(
    tmp_path: Path, relay: str, dtype: str
) -> None:
    names = relay.split()
    for name in names[1:]:
        pytest.importorskip(LIBRARIES[name], reason=f"{LIBRARIES[name]} is not installed")
    for name in names:
        if dtype == "float64" and not supports_float64(get_backend(name)):
            pytest.skip(f"{name} has no float64 here; JAX has with JAX_ENABLE_X64=1")
    tolerance = {"float32": 1e-5, "float64": 1e-11}[dtype]
    staying = trainer(dtype=dtype)
    for epoch, name in enumerate(names * 2):
        staying.fit(X, Y, **FIT)
        runner = trainer(name, dtype=dtype)
        if epoch:
            runner.load(tmp_path / "run")
        runner.fit(X, Y, **FIT)
        runner.save(tmp_path / "run")
        assert set(runner.history) == {"loss", "val_loss", "val_accuracy"}
        for numbers in ("loss", "val_loss", "val_accuracy"):
            np.testing.assert_allclose(
                runner.history[numbers], staying.history[numbers], rtol=tolerance
            )
        for parameter, p in runner.net.parameters().items():
            assert get_backend(name).is_array(p)
            np.testing.assert_allclose(
                to_numpy(p), staying.net.parameters()[parameter], rtol=tolerance, atol=tolerance
            )


# What is in the file


def test_the_parameters_alone_can_be_loaded(backend: Backend, tmp_path: Path) -> None:
    path = saved(tmp_path / "run")
    job = trainer()
    job.load(path)
    net = checkpoint.load(path, network(), backend=backend)
    for name, p in job.net.parameters().items():
        assert backend.is_array(net.parameters()[name])
        assert np.array_equal(to_numpy(net.parameters()[name]), p)


def test_pytorch_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from safetensors.torch import load_file

    arrays = load_file(saved(tmp_path / "run"))
    groups = {name.partition(".")[0] for name in arrays}
    assert groups == {"params", "optimizer", "keys", "step", "history"}
    assert arrays["params.0.weight"].shape == arrays["optimizer.exp_avg.0.weight"].shape == (8, 4)
    assert arrays["step"].tolist() == [len(arrays["history.step_losses"])] == [12]


# Refused, with the reason


def refused(path: Path, words: str, kind: type[Exception] = ValueError, **options: Any) -> None:
    job = trainer(**options)
    with pytest.raises(kind, match=words):
        job.load(path)
    untouched = trainer(**options)
    for one in (job, untouched):
        one.fit(X, Y, **FIT)
    assert_same_run(job, untouched)


def test_a_file_torn_anywhere(tmp_path: Path) -> None:
    path = saved(tmp_path / "run")
    content, job = path.read_bytes(), trainer()
    job.predict(X)
    for length in {*range(0, len(content), 13), *range(16), len(content) - 1}:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            job.load(path)
    path.write_bytes(content + b"\0")
    refused(path, "not a whole safetensors file")


def test_a_flipped_bit_anywhere(tmp_path: Path) -> None:
    path = saved(tmp_path / "run")
    content, job = bytearray(path.read_bytes()), trainer()
    job.predict(X)
    reasons = "not a whole safetensors file|changed since|a dtype that|not a run that"
    for place in range(len(content)):
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        with pytest.raises(ValueError, match=reasons):
            job.load(path)
        content[place] ^= 1 << place % 8
    path.write_bytes(content)
    job.load(path)


def test_a_flipped_bit_of_a_network(tmp_path: Path) -> None:
    path = tmp_path / "net"
    checkpoint.save(path, network().init(backend="numpy"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="changed since it was written"):
        checkpoint.load(path, network())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 4}, "a run with seed 3, this Trainer has 4"),
        ({"dtype": "float64"}, "a run with dtype float32, this Trainer has float64"),
        ({"optimizer": optim.AdamW(1e-2, eps=1e-5)}, "optimizer Adam, this Trainer has AdamW"),
        ({"optimizer": optim.Adam(1e-3, eps=1e-5)}, "Adam's lr 0.01, this Trainer has 0.001"),
        (
            {"optimizer": optim.Adam(1e-2, (0.9, 0.99), 1e-5)},
            r"Adam's betas \(0.9, 0.999\), this Trainer has \(0.9, 0.99\)",
        ),
    ],
)
def test_another_trainer(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    refused(saved(tmp_path / "run"), words, **options)


def test_another_network(tmp_path: Path) -> None:
    path = saved(tmp_path / "run")
    wider = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Dropout(0.4), nn.Linear(9, 2))
    refused(path, r"'params.0.weight' has shape \(8, 4\), the network's \(9, 4\)", net=wider)
    deeper = nn.Sequential(*(getattr(network(), str(i)) for i in range(4)), nn.Linear(2, 2))
    refused(
        path,
        "lacks the array 'params.4.weight', 'params.4.bias', .* and 3 more",
        KeyError,
        net=deeper,
    )
    dry = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Tanh(), nn.Linear(8, 2))
    refused(path, "unknown array 'keys.2", KeyError, net=dry)


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """The file as somebody might write it who knows how."""
    arrays, facts = checkpoint._read(path)
    run = json.loads(facts[checkpoint.RUN])
    change(arrays, run)
    checkpoint._write(path, arrays, {checkpoint.RUN: json.dumps(run)})
    return path


def test_an_array_of_another_dtype(tmp_path: Path) -> None:
    def widen(arrays: dict[str, Any], run: dict[str, Any]) -> None:
        arrays["params.0.bias"] = arrays["params.0.bias"].astype(np.float64)

    path = rewritten(saved(tmp_path / "run"), widen)
    refused(path, "'params.0.bias' is float64, the Trainer's float32", TypeError)


def test_another_version_of_the_format(tmp_path: Path) -> None:
    own = checkpoint.VERSION
    path = rewritten(saved(tmp_path / "run"), lambda arrays, run: run.update(version=own + 1))
    refused(path, f"a run of format {own + 1}, this polynet reads format {own}")


def test_a_file_that_is_no_run(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "net", network().init(backend="numpy"))
    refused(tmp_path / "net", r"not a run .*checkpoint\.load\(path, net\)")
    refused(tmp_path / "nothing", "nothing", FileNotFoundError)


def test_a_file_of_torch_save_is_known(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for zipped in (True, False):
        torch.save(
            {"0.weight": torch.zeros(3)}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped
        )
        with pytest.raises(
            ValueError, match=r"a file of torch\.save.*safetensors\.torch\.save_file"
        ):
            checkpoint.load(tmp_path / "x.pt", network())


def test_nothing_to_save_yet(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="nothing to save yet"):
        trainer().save(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_cut_epoch_goes_on_with_the_batches_it_began_with(tmp_path: Path) -> None:
    numpy = get_backend("numpy")
    cut = stopped(numpy, 8, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        cut.fit(X, Y, epochs=EPOCHS, **FIT)
    cut.save(tmp_path / "run")
    job = trainer()
    job.load(tmp_path / "run")
    where = "epoch 1 was cut after 2 batches of 4, of 23 samples"
    with pytest.raises(ValueError, match=f"{where}; got batches of 8, of 23 samples"):
        job.fit(X, Y, **{**FIT, "batch_size": 8})
    with pytest.raises(ValueError, match=f"{where}; got batches of 4, of 31 samples"):
        job.fit(X, Y, batch_size=4)
    job.fit(X, Y, epochs=EPOCHS - 1, **FIT)
    assert_same_run(job, stayed())
    job.fit(X, Y, batch_size=8)  # a new epoch may have other batches


def test_spoilt_parameters_do_not_replace_good_ones(tmp_path: Path) -> None:
    job = Trainer(nn.Linear(4, 1), losses.mse, optim.SGD(lr=100.0), backend="numpy")
    job.fit(X, X[:, :1])
    job.save(tmp_path / "run")
    good = (tmp_path / "run").read_bytes()
    steps = []
    with np.errstate(all="ignore"):
        for action in (
            lambda: job.fit(X, X[:, :1], epochs=100),
            lambda: job.save(tmp_path / "run"),
            lambda: job.fit(X, X[:, :1]),
        ):
            with pytest.raises(NotFiniteError) as caught:
                action()
            steps.append(caught.value.step)
    assert steps == [len(job.history.step_losses)] * 3
    assert (tmp_path / "run").read_bytes() == good
    job.load(tmp_path / "run")
    assert job.fit(X, X[:, :1])["loss"][-1] < np.inf


# Killed

KILLED = """\
import sys
import numpy as np
from polynet import Trainer, losses, nn, optim

trainer = Trainer(nn.Linear(600, 600), losses.mse, optim.Adam(), backend="numpy")
x = np.random.default_rng(0).normal(size=(8, 600))
for _ in range(int(sys.argv[2])):
    trainer.fit(x, x, batch_size=2)
    trainer.save(sys.argv[1])
"""


def test_killed_while_it_saves(tmp_path: Path) -> None:
    """Kill -9 with the draft half written: what was saved before is whole, and goes on."""
    path = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for _ in range(5):
        with subprocess.Popen([*command, "40"], env=environment) as process:
            while process.poll() is None and not (path.exists() and drafts(tmp_path)):
                pass
            process.kill()
        if drafts(tmp_path):
            break
        path.unlink(missing_ok=True)
    assert drafts(tmp_path), "no kill met a save"

    x = np.random.default_rng(0).normal(size=(8, 600))
    job, whole = (
        Trainer(nn.Linear(600, 600), losses.mse, optim.Adam(), backend="numpy") for _ in range(2)
    )
    job.load(path)
    assert job.epoch >= 1
    job.fit(x, x, batch_size=2)
    whole.fit(x, x, epochs=job.epoch, batch_size=2)
    assert_same_run(job, whole)


def drafts(folder: Path) -> list[Path]:
    return list(folder.glob(".run.*"))

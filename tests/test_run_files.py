"""The file of a saved run: what is in it, and what is refused, with the reason."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import EPOCHS, FIT, X, Y, assert_same_run, network, saved, stayed, stopped, trainer

from polynet import Trainer, checkpoint, losses, nn, optim
from polynet.backend import Backend, get_backend, to_numpy
from polynet.checkpoint.format import RUN, parsed, write
from polynet.checkpoint.run import VERSION
from polynet.errors import NotFiniteError

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
    advice = r"begin another run with its network: Trainer\(checkpoint.load\(path, net\), …\)"
    refused(saved(tmp_path / "run"), f"{words}.*{advice}", **options)


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
    arrays, facts = parsed(path, path.read_bytes())
    run = json.loads(facts[RUN])
    change(arrays, run)
    write(path, arrays, {RUN: json.dumps(run)})
    return path


def test_an_array_of_another_dtype(tmp_path: Path) -> None:
    def widen(arrays: dict[str, Any], run: dict[str, Any]) -> None:
        arrays["params.0.bias"] = arrays["params.0.bias"].astype(np.float64)

    path = rewritten(saved(tmp_path / "run"), widen)
    refused(path, "'params.0.bias' is float64, the Trainer's float32", TypeError)


def test_another_version_of_the_format(tmp_path: Path) -> None:
    own = VERSION
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
    with pytest.raises(ValueError, match=f"{where}; got batches that the data made itself"):
        job.fit([(X, Y)])
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

"""The transfer example: PyTorch's file is read, and what the network learned is a head start."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from polynet import checkpoint, nn
from polynet.backend import get_backend, registry, to_numpy

FILE = Path(__file__).parents[1] / "examples" / "transfer.py"


@pytest.fixture(scope="module")
def learnt(example, tmp_path_factory):
    """The file that PyTorch wrote, the test digits, and PyTorch's scores for them."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    pytest.importorskip("torch", reason="PyTorch trains the first network")
    from safetensors.torch import save_file

    train, test = example.halves(example.read_digits(0), 0.25, seed=0)
    net = example.train_in_pytorch(train, epochs=2, seed=0)
    path = tmp_path_factory.mktemp("transfer") / "net.safetensors"
    save_file(net.state_dict(), path)
    return path, test.x, example.scores_in_pytorch(net, test.x)


def test_the_digits(example):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    old, new = example.read_digits(0), example.read_digits(5)
    assert len(old.y) + len(new.y) == 1797
    assert set(old.y) == set(new.y) == set(range(5))
    assert (new.x.shape[1:], new.x.min(), new.x.max()) == ((1, 8, 8), 0, 1)
    few, rest = example.halves(new, 1 - 10 / len(new.y), seed=3)
    assert np.bincount(few.y).tolist() == [2] * 5
    assert len(few.y) + len(rest.y) == len(new.y)


@pytest.mark.parametrize("name", ["numpy", "strict", "torch", "jax"])
def test_the_scores_are_those_of_pytorch(example, learnt, name):
    status = registry.status(name)
    if not status.available:
        pytest.skip(f"{name}: {status.reason}")
    path, x, expected = learnt
    backend = get_backend(name)
    net = checkpoint.load(path, example.network(nn), backend=backend)
    found = net(backend.from_host(x, backend.device(None)))
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-4, atol=1e-4)


def test_the_body_comes_along_and_the_head_is_new(example, learnt):
    old = checkpoint.load(learnt[0], example.network(nn), backend="numpy")
    trainer = example.make_trainer(example.with_new_head(old), seed=1)
    trainer.predict(learnt[1])
    for name, a in trainer.net.state_dict().items():
        assert np.array_equal(a, old.state_dict()[name]) == name.startswith("body."), name


def test_the_whole_program(example, learnt, capsys, tmp_path):
    example.main(["--backend", "numpy", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    there, here = map(float, re.findall(r"Test accuracy: ([\d.]+)", printed))
    assert there == here > 0.97
    assert float(re.search(r"PyTorch's scores: (\S+)", printed)[1]) < 1e-4
    learned, untrained = map(float, re.search(r"mean +(\S+) +(\S+)", printed).groups())
    assert learned > untrained + 0.05
    checkpoint.load(tmp_path / "digits_0_to_4.safetensors", example.network(nn))


@pytest.mark.parametrize(("module", "name"), [("sklearn", "scikit-learn"), ("torch", "PyTorch")])
def test_what_is_missing_is_said(example, monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as raised:
        example.main([])
    assert name in str(raised.value)
    assert "pip install 'polynet-array[examples]' torch" in str(raised.value)

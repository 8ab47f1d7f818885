"""The digits example: training by hand equals `Trainer`, and PyTorch loads the weights."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from polynet import checkpoint
from polynet.backend import registry

FILE = Path(__file__).parents[1] / "examples" / "digits.py"


@pytest.fixture(scope="module")
def data(example):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    return example.read_digits(seed=0)


def test_the_digits(example, data):
    train, test = data
    assert train.x.shape == (1438, 1, 8, 8)
    assert test.x.shape == (359, 1, 8, 8)
    assert (train.x.min(), train.x.max()) == (0, 1)
    share = np.bincount(test.y) / np.bincount(np.concatenate([train.y, test.y]))
    np.testing.assert_allclose(share, 0.2, atol=0.01)
    same, other = (example.read_digits(seed) for seed in (0, 1))
    assert np.array_equal(test.x, same[1].x)
    assert not np.array_equal(test.x[:300], other[1].x[:300])


@pytest.mark.parametrize("name", ["numpy", "strict", "torch", "jax"])
def test_by_hand_as_by_trainer(example, data, name):
    status = registry.status(name)
    if not status.available:
        pytest.skip(f"{name}: {status.reason}")
    (x, y), test = data
    train = example.Digits(x[:336], y[:336])  # ten batches and a half
    where = {"backend": name, "device": None}
    # XLA rounds differently when it compiles the whole step than when it runs single operations.
    # In the second epoch a number near 0 gets the other sign, and from there on the losses differ.
    epochs = 1 if name == "jax" else 2
    net = example.network().init(3, **where)
    trained, by_hand = example.train_by_hand(net, train, epochs=epochs, seed=3, **where)
    trainer = example.make_trainer(seed=3, **where)
    history = trainer.fit(
        example.changing(train), epochs=epochs, batch_size=example.BATCH_SIZE, progress=False
    )
    assert len(by_hand) == len(history.step_losses) == 11 * epochs
    np.testing.assert_allclose(by_hand, history.step_losses, rtol=1e-6)
    if name in ("numpy", "strict"):
        assert by_hand == history.step_losses
    ours = example.scores_of(trained, test.x, **where)
    np.testing.assert_allclose(ours, trainer.predict(test.x), rtol=1e-4, atol=1e-5)


def test_a_fifth_of_the_training_goes_most_of_the_way(example, data):
    train, test = data
    trainer = example.make_trainer(seed=0, backend="numpy")
    before = trainer.evaluate(*test)["accuracy"]
    trainer.fit(example.changing(train), epochs=8, batch_size=32, progress=False)
    assert before < 0.3
    assert trainer.evaluate(*test)["accuracy"] > 0.9  # benchmarks/accuracy.py trains to the end


def test_the_weights_in_pytorch(example, data, tmp_path):
    pytest.importorskip("torch", reason="carries weights to PyTorch")
    _, test = data
    net = example.network().init(0, backend="numpy")
    checkpoint.save(tmp_path / "net.safetensors", net)
    theirs = example.torch_scores(tmp_path / "net.safetensors", test.x)
    np.testing.assert_allclose(theirs, net(test.x), rtol=1e-5, atol=1e-5)


def test_confusion(example):
    counts = example.confusion(np.array([1, 1, 2, 9]), np.array([1, 1, 7, 9]))
    assert counts.sum() == 4
    assert (counts[1, 1], counts[2, 7], counts[9, 9]) == (2, 1, 1)


def check_picture(path):
    imread = pytest.importorskip("matplotlib.image", reason="matplotlib draws").imread
    picture = imread(path)
    assert min(picture.shape[:2]) > 500
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 100


def test_the_program_where_there_is_no_pytorch(example, run_python, tmp_path):
    for library in ("sklearn", "matplotlib"):
        pytest.importorskip(library, reason="the example needs it")
    out = tmp_path / "a" / "b"
    options = ["--epochs", "3", "--out", out]
    result = run_python("-W", "error", FILE, *options)
    assert (result.returncode, result.stderr) == (0, "")
    untrained = float(re.search(r"359 test digits before training: ([\d.]+)", result.stdout)[1])
    by_hand, by_trainer = re.findall(r"Test accuracy: ([\d.]+)", result.stdout)
    assert untrained < 0.3
    assert float(by_hand) > 0.8
    assert by_hand == by_trainer
    assert "between the two losses in 135 steps: 0\n" in result.stdout
    assert "PyTorch is not installed here" in result.stdout
    assert str(out / "digits.safetensors") in result.stdout
    check_picture(out / "digits.png")
    checkpoint.load(out / "digits.safetensors", example.network())


def test_the_program_where_there_is_pytorch(example, data, capsys, tmp_path):
    for library in ("torch", "matplotlib"):
        pytest.importorskip(library, reason="the example needs it")
    example.main(["--backend", "numpy", "--epochs", "1", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    apart = re.search(r"largest score is [\d.]+, the largest difference (\S+)\.\n", printed)
    assert float(apart[1]) < 1e-4


@pytest.mark.parametrize(
    ("module", "name"), [("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")]
)
def test_what_is_missing_is_said(example, monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as raised:
        example.main([])
    assert name in str(raised.value)
    assert "pip install 'polynet-array[examples]'" in str(raised.value)
    assert "pip install '.[examples]'" in str(raised.value)

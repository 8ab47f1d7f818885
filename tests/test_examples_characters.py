"""The characters example: the text it learns from, the bits it is measured in, what it writes."""

import re
from pathlib import Path

import numpy as np
import pytest

from polynet import checkpoint
from polynet.backend import registry

FILE = Path(__file__).parents[1] / "examples" / "characters.py"


def few_letters(count):
    """A text of five letters in which each letter follows from the two before it."""
    codes = [0, 1]
    for _ in range(count - 2):
        codes.append((2 * codes[-1] + codes[-2] + 1) % 5)
    return np.asarray(codes, dtype=np.int32)


def test_the_text_is_large_and_repeats_no_paragraph(example):
    text = example.read_text()
    paragraphs = text.split("\n\n")
    assert len(text) > 200_000
    assert len(set(paragraphs)) == len(paragraphs)
    assert "lambda" in text


def test_windows_are_one_character_apart(example):
    codes = np.arange(example.LENGTH * 3 + 1)
    x, y = example.windows(codes)
    assert x.shape == y.shape == (3, example.LENGTH)
    assert np.array_equal(y, x + 1)
    assert example.windows(codes[:-1])[0].shape[0] == 2


def test_bigram_bits(example):
    """By hand: in 0 0 1 0, with counts that start at 1, 0 and 1 follow a 0 with chance 1/2 each."""
    train = np.asarray([0, 0, 1, 0])
    assert example.bigram_bits(train, np.asarray([0, 1]), 2) == 1
    after_one = -np.log2(2 / 3)
    assert example.bigram_bits(train, np.asarray([1, 0, 0]), 2) == pytest.approx(
        (after_one + 1) / 2
    )


def test_no_score_depends_on_what_is_to_come(example):
    net = example.Writer(7).init(seed=0, backend="numpy")
    x = np.random.default_rng(0).integers(0, 7, size=(2, example.LENGTH))
    other = x.copy()
    other[:, 40:] = (other[:, 40:] + 1) % 7
    before, after = net(x), net(other)
    assert before.shape == (2, example.LENGTH, 7)
    assert np.array_equal(before[:, :40], after[:, :40])
    assert not np.allclose(before[:, 40:], after[:, 40:])


@pytest.mark.parametrize("name", ["numpy", "strict", "torch", "jax"])
def test_it_learns_what_a_bigram_cannot(example, name):
    status = registry.status(name)
    if not status.available:
        pytest.skip(f"{name}: {status.reason}")
    codes = few_letters(example.LENGTH * 64 + 1)
    trainer = example.make_trainer(5, seed=0, backend=name)
    trainer.fit(*example.windows(codes), epochs=8, batch_size=16, progress=False)
    bits = trainer.evaluate(*example.windows(codes))["loss"]
    assert bits < 0.5 * example.bigram_bits(codes, codes, 5)


def test_near_temperature_0_the_likeliest_is_written(example):
    trainer = example.make_trainer(5, seed=0, backend="numpy")
    given = few_letters(example.LENGTH - 3).tolist()
    written = [*given]
    example.write(trainer, written, 6, temperature=1e-6, seed=0)
    assert written[: len(given)] == given
    assert len(written) == len(given) + 6
    for i in range(len(given), len(written)):  # the last of these no longer see the first letter
        window = np.zeros((1, example.LENGTH), dtype=np.int32)
        seen = written[max(0, i - example.LENGTH) : i]
        window[0, : len(seen)] = seen
        assert written[i] == trainer.net(window)[0, len(seen) - 1].argmax()


def test_writing_is_a_function_of_the_seed(example):
    trainer = example.make_trainer(5, seed=0, backend="numpy")
    texts = []
    for seed in (1, 1, 2):
        codes = [0]
        example.write(trainer, codes, 30, temperature=1.0, seed=seed)
        texts.append(codes)
    assert texts[0] == texts[1] != texts[2]


def test_the_program(example, run_python, tmp_path):
    out = tmp_path / "a" / "b"
    options = ["--epochs", "1", "--count", "70", "--out", out]
    result = run_python("-W", "error", FILE, *options)
    assert (result.returncode, result.stderr) == (0, "")
    bigram, untrained, trained = (
        float(re.search(rf"{words} +([\d.]+)", result.stdout)[1])
        for words in (r"\(bigram\)", "untrained", r"after epoch +1")
    )
    assert untrained > 6
    assert trained < bigram
    written = re.search(r"temperature 0.7:\n\n(.*)\n\nThe weights", result.stdout, re.DOTALL)[1]
    assert written.startswith("The ")
    assert len(written) == 74
    net = example.Writer(len(set(example.read_text())))
    checkpoint.load(out / "characters.safetensors", net)


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--temperature", "0"], "above 0; got 0.0"), (["--prompt", "你"], "help; got '你'")],
)
def test_what_cannot_be_is_said(example, capsys, options, words):
    with pytest.raises(SystemExit):
        example.main(options)
    assert words in capsys.readouterr().err

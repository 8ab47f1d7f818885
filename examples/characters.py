"""A network that writes: a small transformer learns English letter by letter, from Python's help.

Every Python has the text that `help()` shows. The network reads 64 characters, and at each of them
it gives a score to every character that may come next. It learns nothing else. Its loss is the
number of bits per character, on text that it has not seen: a character to which the network gave
the probability p costs -log2(p) bits. If all characters were equally likely, each would cost nearly
7 bits. A table that counts which character follows which (a bigram) needs about half of that. At
the end the network writes a text of its own.

    python examples/characters.py
    python examples/characters.py --backend torch --epochs 20 --temperature 0.5
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

import polynet
from polynet import Trainer, checkpoint, losses, nn, optim

Array = Any

LENGTH = 64
"""How many characters the network sees at once."""
WIDTH = 64
"""How many numbers represent a character inside the network."""
BATCH_SIZE = 32
EPOCHS = 10


# The text


def read_text() -> str:
    """The text of `help()` on Python's topics, in which each paragraph occurs once."""
    from pydoc_data.topics import topics

    paragraphs = "\n\n".join(topics[name] for name in sorted(topics)).split("\n\n")
    return "\n\n".join(dict.fromkeys(paragraphs))


def windows(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, both (count, LENGTH): the target of a character is the next character."""
    count = (len(codes) - 1) // LENGTH
    x, y = (codes[start : start + count * LENGTH] for start in (0, 1))
    return x.reshape(count, LENGTH), y.reshape(count, LENGTH)


def bigram_bits(train: np.ndarray, test: np.ndarray, classes: int) -> float:
    """Bits per character on `test`, guessed from the character before by the counts in `train`."""
    counts = np.ones((classes, classes))  # from 1: a pair that `train` lacks may still come
    np.add.at(counts, (train[:-1], train[1:]), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.mean(np.log2(shares[test[:-1], test[1:]])))


# The network


class Writer(nn.Module):
    """From characters (batch, LENGTH) to scores of the next character (batch, LENGTH, classes).

    A table turns each character into WIDTH numbers, and another table does so with its place in
    the text. The two are added. Then, in each layer, every place looks at itself and at the places
    before it, never at later ones (`is_causal`), and computes new numbers from what it saw.
    """

    def __init__(self, classes: int, layers: int = 2, heads: int = 4) -> None:
        small = nn.init.normal(0.0, 0.02)
        self.characters = nn.Embedding(classes, WIDTH, weight_init=small)
        self.places = nn.Parameter((LENGTH, WIDTH), small)
        self.layers = [
            nn.TransformerEncoderLayer(
                WIDTH, heads, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(layers)
        ]
        self.norm = nn.LayerNorm(WIDTH)
        self.scores = nn.Linear(WIDTH, classes)

    def forward(self, x: Array) -> Array:
        x = self.characters(x) + self.places
        for layer in self.layers:
            x = layer(x, is_causal=True)
        return self.scores(self.norm(x))


def loss(scores: Array, y: Array) -> Array:
    """Cross entropy in bits. Every place of every window counts as a sample."""
    xp = polynet.array_namespace(scores)
    rows = xp.reshape(scores, (-1, scores.shape[-1]))
    return losses.cross_entropy(rows, xp.reshape(y, (-1,))) / math.log(2)


def make_trainer(classes: int, seed: int, **where: Any) -> Trainer:
    return Trainer(Writer(classes), loss, optim.AdamW(lr=2e-3), seed=seed, **where)


# Writing


def write(trainer: Trainer, codes: list[int], count: int, temperature: float, seed: int) -> None:
    """Append `count` characters to `codes`, each drawn with the probability the network gives it.

    The scores are divided by the temperature first. Near temperature 0, the most likely character
    is always drawn. Temperature 1 leaves the probabilities as they are. A higher temperature makes
    unlikely characters more likely.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        seen = codes[-LENGTH:]
        window = np.zeros((1, LENGTH), dtype=np.int32)  # no place looks at the zeros after it
        window[0, : len(seen)] = seen
        scores = trainer.predict(window)[0, len(seen) - 1].astype(np.float64) / temperature
        weights = np.exp(scores - scores.max())
        codes.append(int(rng.choice(len(weights), p=weights / weights.sum())))


# The whole program


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    backend = polynet.get_backend(options.backend)
    where = {"backend": backend, "device": options.device or next(iter(backend.devices()))}
    print(f"backend {backend.name}, device {where['device']}, seed {options.seed}")

    text = read_text()
    alphabet = sorted(set(text))
    number = {character: i for i, character in enumerate(alphabet)}
    codes = np.asarray([number[character] for character in text], dtype=np.int32)
    cut = len(codes) * 9 // 10
    train, test = codes[:cut], codes[cut:]
    classes = len(alphabet)
    print(f"Python's help has {classes} different characters. The network learns from the first")
    print(f"{len(train)} characters of the text, and is tested on the other {len(test)}.")

    print("\nBits per character of the test text (the fewer, the better it was predicted)")
    print(f"  all characters equally likely         {math.log2(classes):.3f}")
    print(f"  a table of character pairs (bigram)   {bigram_bits(train, test, classes):.3f}")
    trainer = make_trainer(classes, options.seed, **where)
    untrained = trainer.evaluate(*windows(test))["loss"]
    print(f"  the network, untrained                {untrained:.3f}")
    for epoch in range(options.epochs):
        data = {"validation_data": windows(test), "batch_size": BATCH_SIZE}
        history = trainer.fit(*windows(train), **data)
        print(f"  the network after epoch {epoch + 1:2}            {history['val_loss'][-1]:.3f}")

    print(f"\nThe network continues {options.prompt!r}, at temperature {options.temperature}:\n")
    codes_written = [number[character] for character in options.prompt]
    write(trainer, codes_written, options.count, options.temperature, options.seed)
    print("".join(alphabet[i] for i in codes_written))

    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "characters.safetensors"
    checkpoint.save(path, trainer.net)
    print(f"\nThe weights are saved under the names that PyTorch gives them: {path}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small transformer to write.")
    parser.add_argument(
        "--backend", help="such as numpy, torch or jax; python -m polynet lists all"
    )
    parser.add_argument("--device", help="such as cpu or cuda:0 (default: the backend's first)")
    parser.add_argument(
        "--epochs", type=int, default=EPOCHS, help=f"passes over the text (default {EPOCHS})"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.7,
        help="above 0; the higher, the more unlikely characters it writes (default 0.7)",
    )
    parser.add_argument(
        "--count", type=int, default=400, help="how many characters it writes (default 400)"
    )
    parser.add_argument(
        "--prompt", default="The ", help="the text that it continues (default 'The ')"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the first weights, the shuffles and the text it writes (default 0)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for the weights (default out)"
    )
    options = parser.parse_args(argv)
    if options.temperature <= 0:
        parser.error(f"--temperature must be above 0; got {options.temperature}")
    if not options.prompt or set(options.prompt) - set(read_text()):
        parser.error(
            "--prompt must have at least one character, and only characters that occur in Python's "
            f"help; got {options.prompt!r}"
        )
    return options


if __name__ == "__main__":
    main()

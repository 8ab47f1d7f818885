"""A network that writes: a small transformer learns English letter by letter, from Python's help.

Every Python carries the text that `help()` shows. The network reads 64 characters and says, at
each of them, which comes next. Nothing else is taught. It is measured in bits a character on
text that it has not seen, beside a table of which character follows which (a bigram): to write
down the next character at all would take nearly 7 bits. At the end it writes a text of its own.

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
"""How many numbers stand for a character."""
BATCH_SIZE = 32
EPOCHS = 10


# The text


def read_text() -> str:
    """What `help()` says of Python's topics; a paragraph that stands in several is taken once."""
    from pydoc_data.topics import topics

    paragraphs = "\n\n".join(topics[name] for name in sorted(topics)).split("\n\n")
    return "\n\n".join(dict.fromkeys(paragraphs))


def windows(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of LENGTH characters (count, LENGTH), and to each the same, one character later."""
    count = (len(codes) - 1) // LENGTH
    x, y = (codes[start : start + count * LENGTH] for start in (0, 1))
    return x.reshape(count, LENGTH), y.reshape(count, LENGTH)


def bigram_bits(train: np.ndarray, test: np.ndarray, classes: int) -> float:
    """Bits a character of a table that knows how often each followed each, in `train`."""
    counts = np.ones((classes, classes))  # one for what was never seen, which is not impossible
    np.add.at(counts, (train[:-1], train[1:]), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.mean(np.log2(shares[test[:-1], test[1:]])))


# The network


class Writer(nn.Module):
    """Characters (batch, length) in; scores of what comes next (batch, length, classes) out.

    A character becomes numbers, by a table; so does its place. Then, layer by layer, each place
    looks at those before it (`is_causal`: never at those to come) and works on what it saw.
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
    """Cross entropy in bits, where every place of every window counts as a sample."""
    xp = polynet.array_namespace(scores)
    rows = xp.reshape(scores, (-1, scores.shape[-1]))
    return losses.cross_entropy(rows, xp.reshape(y, (-1,))) / math.log(2)


def make_trainer(classes: int, seed: int, **where: Any) -> Trainer:
    return Trainer(Writer(classes), loss, optim.AdamW(lr=2e-3), seed=seed, **where)


# Writing


def write(trainer: Trainer, codes: list[int], count: int, temperature: float, seed: int) -> None:
    """Add `count` characters to `codes`, each drawn by the chances that the network gives it.

    The scores are divided by the temperature: near 0 the likeliest character always wins, 1
    takes the chances as they are, and above it the unlikely ones gain.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        seen = codes[-LENGTH:]
        window = np.zeros((1, LENGTH), dtype=np.int32)  # what is to come is not looked at
        window[0, : len(seen)] = seen
        scores = trainer.predict(window)[0, len(seen) - 1].astype(np.float64) / temperature
        chances = np.exp(scores - scores.max())
        codes.append(int(rng.choice(len(chances), p=chances / chances.sum())))


# All of it


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
    print(f"{len(train)} characters to learn from, {len(test)} held out, {classes} different ones")

    print("\nBits a character on the text held out")
    print(f"  any character as likely as any other  {math.log2(classes):.3f}")
    print(f"  by the character before it (bigram)   {bigram_bits(train, test, classes):.3f}")
    trainer = make_trainer(classes, options.seed, **where)
    untrained = trainer.evaluate(*windows(test))["loss"]
    print(f"  the network, untrained                {untrained:.3f}")
    for epoch in range(options.epochs):
        data = {"validation_data": windows(test), "batch_size": BATCH_SIZE}
        history = trainer.fit(*windows(train), **data)
        print(f"  … after epoch {epoch + 1:2}                      {history['val_loss'][-1]:.3f}")

    print(f"\nIt writes, at temperature {options.temperature}:\n")
    codes_written = [number[character] for character in options.prompt]
    write(trainer, codes_written, options.count, options.temperature, options.seed)
    print("".join(alphabet[i] for i in codes_written))

    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "characters.safetensors"
    checkpoint.save(path, trainer.net)
    print(f"\nIts weights, by their names in PyTorch: {path}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small transformer to write.")
    parser.add_argument("--backend", help="such as numpy, torch, jax; python -m polynet lists them")
    parser.add_argument("--device", help="such as cpu or cuda:0; the backend's first if not given")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"(default {EPOCHS})")
    parser.add_argument("--temperature", type=float, default=0.7, help="above 0 (default 0.7)")
    parser.add_argument("--count", type=int, default=400, help="characters written (default 400)")
    parser.add_argument("--prompt", default="The ", help="what it goes on from (default 'The ')")
    parser.add_argument(
        "--seed", type=int, default=0, help="of first weights, shuffles and writing (default 0)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for what is written (default out)"
    )
    options = parser.parse_args(argv)
    if options.temperature <= 0:
        parser.error(f"--temperature is above 0; got {options.temperature}")
    if not options.prompt or set(options.prompt) - set(read_text()):
        parser.error("--prompt has characters, all of which stand in Python's help")
    return options


if __name__ == "__main__":
    main()

"""Digits that nobody wrote: a forger learns from a judge, and the judge from the forger.

This is a generative adversarial network (GAN), which consists of two networks. The forger is given
random numbers and the digit that it should write, and makes a picture. The judge is shown real
pictures and forged ones, and says how sure it is that each is real. Each learns from the other, in
the same step, from one loss. In this loss, `stop_gradient` separates what the judge learns from
what the forger learns. So `Trainer` trains both networks on every backend, and each step can be one
compiled program. At the end, a third network that learned to read real digits reads the forged
ones.

Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014; Mirza and Osindero, "Conditional
Generative Adversarial Nets", 2014.

    python examples/forger.py
    python examples/forger.py --backend jax --epochs 600 --seed 1
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import polynet
from polynet import Trainer, array_namespace, losses, metrics, nn, optim, stop_gradient

Array = Any

NOT_INSTALLED = """\
this example needs packages that are not installed: {missing}. To install them:
  pip install 'polynet-array[examples]'
or, in a checkout of polynet:
  pip install '.[examples]'"""

NOISE = 16
"""How many random numbers go into a picture: they make two pictures of one digit differ."""
EPOCHS = 300
BATCH_SIZE = 64
STEP_SIZE = 1e-3
EACH = 100
"""How many pictures of each digit the forger makes at the end."""


class Digits(NamedTuple):
    picture: np.ndarray
    """(count, 64), the pixels, from 0 (paper) to 1 (ink)."""
    digit: np.ndarray
    """(count,), the digits, 0 to 9."""


def read_digits() -> Digits:
    from sklearn.datasets import load_digits

    ink, digit = load_digits(return_X_y=True)
    return Digits((ink / 16).astype(np.float32), digit.astype(np.int32))


# The two networks, and a network that contains both


class Conditional(nn.Module):
    """Layers whose input is `x` together with 16 trained numbers that stand for the digit."""

    def __init__(self, *layers: nn.Module) -> None:
        self.digits = nn.Embedding(10, 16)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Array, digit: Array) -> Array:
        digit = self.digits(digit)
        return self.layers(array_namespace(x, digit).concat([x, digit], axis=1))


def forger() -> nn.Module:
    """A network from noise (batch, NOISE) and digits (batch,) to pictures (batch, 64)."""
    return Conditional(
        nn.Linear(NOISE + 16, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.Sigmoid(),  # ink from 0 to 1
    )


def judge() -> nn.Module:
    """A network from pictures and digits to one number each: above 0 means "this one is real"."""
    return Conditional(
        nn.Linear(64 + 16, 128),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.3),
        nn.Linear(128, 128),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.3),
        nn.Linear(128, 1),
    )


class Adversaries(nn.Module):
    """Forger and judge together: from real pictures and their digits to three verdicts on each.

    "real" is the judge's verdict on the real picture. "forged" is its verdict on a forged picture
    of the same digit, and only the judge learns from it. "passed" is a verdict on the same forged
    picture, and only the forger learns from it.
    """

    def __init__(self) -> None:
        self.noise = nn.RandomStream()
        self.forger = forger()
        self.judge = judge()

    def forward(self, picture: Array, digit: Array) -> dict[str, Array]:
        noise = self.noise.normal((picture.shape[0], NOISE), picture.dtype)
        forged = self.forger(noise, digit)
        fixed_judge = self.judge.bind(  # a copy that does not learn, and whose dropout is off
            {name: stop_gradient(p) for name, p in self.judge.parameters().items()}
        )
        return {
            "real": self.judge(picture, digit),
            "forged": self.judge(stop_gradient(forged), digit),  # no gradient for the forger
            "passed": fixed_judge(forged, digit),  # no gradient for the judge
        }


def loss(verdicts: dict[str, Array], _: Array) -> Array:
    """The judge's loss plus the forger's loss.

    The judge should answer 1 to a real picture and 0 to a forged one. The forger wants the answer
    1 to its picture. The target for real pictures is 0.9 instead of 1, so that the judge does not
    become certain: the forger learns little from a judge that is never in doubt.
    """
    xp = array_namespace(verdicts["real"])
    one, zero = xp.ones_like(verdicts["real"]), xp.zeros_like(verdicts["real"])
    cross_entropy = losses.binary_cross_entropy_with_logits
    of_judge = cross_entropy(verdicts["real"], 0.9 * one) + cross_entropy(verdicts["forged"], zero)
    of_forger = cross_entropy(verdicts["passed"], one)
    return of_judge + of_forger


def make_trainer(seed: int, **where: Any) -> Trainer:
    """A trainer of both. `optim.Groups({"forger.*": …}, others=…)` would be two optimizers."""
    return Trainer(Adversaries(), loss, optim.Adam(STEP_SIZE, betas=(0.5, 0.9)), seed=seed, **where)


def forge(net: nn.Module, digit: np.ndarray, seed: int, **where: Any) -> np.ndarray:
    """A forged picture (count, 64) for each entry of `digit`, with noise drawn from the seed."""
    noise = np.random.default_rng(seed).normal(size=(len(digit), NOISE)).astype(np.float32)
    asked = (polynet.asarray(a, **where) for a in (noise, digit))
    return polynet.to_numpy(net.forger(*asked))


# How good the forged pictures are


def make_reader(real: Digits, seed: int, **where: Any) -> Trainer:
    """A network that reads digits, trained on real ones only."""
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    reader = Trainer(
        net, losses.cross_entropy, optim.Adam(), metrics=[metrics.accuracy], seed=seed, **where
    )
    reader.fit(*real, epochs=30, validation_split=0.2, progress=False)
    return reader


def distance_to_nearest(pictures: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each picture, the distance to the nearest of `others` that is not the picture itself."""
    squares = (pictures**2).sum(1)[:, None] + (others**2).sum(1) - 2 * pictures @ others.T
    if pictures is others:
        np.fill_diagonal(squares, np.inf)
    return np.sqrt(np.maximum(squares.min(axis=1), 0))


def spread(digits: Digits) -> float:
    """How much pictures of the same digit differ: a pixel's standard deviation, mean of all."""
    kinds = [digits.picture[digits.digit == k] for k in range(10)]
    return float(np.mean([kind.std(axis=0) for kind in kinds]))


# The whole program


def heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def draw(real: Digits, forged: Digits) -> Any:
    """Draw ten real pictures of each digit, and beside them ten forged ones."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.4), layout="constrained")
    for axes, digits, title in zip(
        figure.subplots(1, 2), (real, forged), ("real", "forged"), strict=True
    ):
        some = [digits.picture[digits.digit == k][:10].reshape(-1, 8, 8) for k in range(10)]
        apart = np.pad(some, ((0, 0), (0, 0), (1, 1), (1, 1)))
        axes.imshow(np.block([list(kind) for kind in apart]), cmap="gray_r", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[], title=title)
    return figure


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    check_installed()
    backend = polynet.get_backend(options.backend)
    where = {"backend": backend, "device": options.device or next(iter(backend.devices()))}
    print(f"backend {backend.name}, device {where['device']}, seed {options.seed}")

    real = read_digits()
    heading(f"Training a forger and a judge, {options.epochs} epochs of {len(real.digit)} digits")
    print("The judge learns to tell real digits from forged ones.")
    print("The forger learns to make digits that the judge takes for real.")
    trainer = make_trainer(options.seed, **where)
    x, no_targets = real._asdict(), np.zeros(len(real.digit))  # the loss does not use targets
    trainer.fit(x, no_targets, epochs=options.epochs, batch_size=BATCH_SIZE)
    asked = np.repeat(np.arange(10, dtype=np.int32), EACH)
    forged = Digits(forge(trainer.net, asked, options.seed, **where), asked)

    heading(f"The forger makes {EACH} pictures of each digit")
    reader = make_reader(real, options.seed, **where)
    kept = reader.history.last()["val_accuracy"]
    found = reader.evaluate(*forged)["accuracy"]
    print("A third network learned to read, from real digits only.")
    print(f"It reads {kept:.3f} of other real digits correctly.")
    print(f"It reads {found:.3f} of the forged ones as the digit that the forger was asked for.\n")
    print("                                          forged    real")
    near = (distance_to_nearest(p, real.picture).mean() for p in (forged.picture, real.picture))
    print("distance to the nearest real picture     {:7.2f} {:7.2f}".format(*near))
    print(f"spread of the pictures of one digit      {spread(forged):7.3f} {spread(real):7.3f}")
    print("Distance 0 would mean that the forger copies; spread 0, that it makes one picture only.")

    options.out.mkdir(parents=True, exist_ok=True)
    draw(real, forged).savefig(options.out / "forger.png", dpi=100)
    print(f"\nThe picture is in {options.out / 'forger.png'}")


def check_installed() -> None:
    """Name all missing packages at once, before the work begins."""
    packages = {"matplotlib": "matplotlib", "sklearn": "scikit-learn"}
    missing = [name for module, name in packages.items() if find_spec(module) is None]
    if missing:
        raise SystemExit(NOT_INSTALLED.format(missing=" and ".join(missing)))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a network to forge handwritten digits.")
    parser.add_argument(
        "--backend", help="such as numpy, torch or jax; python -m polynet lists all"
    )
    parser.add_argument("--device", help="such as cpu or cuda:0 (default: the backend's first)")
    parser.add_argument(
        "--epochs", type=int, default=EPOCHS, help=f"passes over the digits (default {EPOCHS})"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the first weights, the shuffles and the noise (default 0)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for the picture (default out)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()

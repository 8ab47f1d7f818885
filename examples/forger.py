"""Digits that nobody wrote: a forger learns from a judge, and the judge from the forger.

A generative adversarial network of two. The forger makes a picture of noise and of the digit that
it is asked for; the judge is shown pictures, scikit-learn's and the forger's, and says how sure it
is that one is real. Each learns from the other, and both in the same step: one loss, in which
`stop_gradient` keeps from each what the other is to learn. So `Trainer` trains them, whatever the
backend, as one program. At last a third network, which reads real digits, reads the forged ones.

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
this example needs {missing}, not installed here. To install what it needs:
  pip install 'polynet-array[examples]'
or, in a checkout of polynet:
  pip install '.[examples]'"""

NOISE = 16
"""How many random numbers make the difference between two pictures of the same digit."""
EPOCHS = 300
BATCH_SIZE = 64
STEP_SIZE = 1e-3
EACH = 100
"""How many of each digit are forged at the end."""


class Digits(NamedTuple):
    picture: np.ndarray
    """(count, 64), from 0 (paper) to 1 (ink)."""
    digit: np.ndarray
    """(count,), 0 to 9."""


def read_digits() -> Digits:
    from sklearn.datasets import load_digits

    ink, digit = load_digits(return_X_y=True)
    return Digits((ink / 16).astype(np.float32), digit.astype(np.int32))


# The two networks, and the one of both


class Told(nn.Module):
    """Layers that are told which digit it is about."""

    def __init__(self, *layers: nn.Module) -> None:
        self.digits = nn.Embedding(10, 16)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Array, digit: Array) -> Array:
        digit = self.digits(digit)
        return self.layers(array_namespace(x, digit).concat([x, digit], axis=1))


def forger() -> nn.Module:
    """From noise (batch, NOISE) and digits to pictures (batch, 64), of ink from 0 to 1."""
    return Told(
        nn.Linear(NOISE + 16, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.Sigmoid(),
    )


def judge() -> nn.Module:
    """From pictures and digits to one number each: above 0 where it takes a picture for real."""
    return Told(
        nn.Linear(64 + 16, 128),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.3),
        nn.Linear(128, 128),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.3),
        nn.Linear(128, 1),
    )


class Adversaries(nn.Module):
    """Real pictures and their digits in, three verdicts on each out.

    What the judge says of the real one; of a forged one of the same digit, for the judge to learn
    from; and of that again, for the forger to learn from.
    """

    def __init__(self) -> None:
        self.noise = nn.RandomStream()
        self.forger = forger()
        self.judge = judge()

    def forward(self, picture: Array, digit: Array) -> dict[str, Array]:
        noise = self.noise.normal((picture.shape[0], NOISE), picture.dtype)
        forged = self.forger(noise, digit)
        settled = self.judge.bind(  # a copy that does not train: nor does it drop anything
            {name: stop_gradient(p) for name, p in self.judge.parameters().items()}
        )
        return {
            "real": self.judge(picture, digit),
            "forged": self.judge(stop_gradient(forged), digit),  # nothing for the forger here,
            "passed": settled(forged, digit),  # and nothing for the judge here
        }


def loss(verdicts: dict[str, Array], _: Array) -> Array:
    """The judge's: real is 1, forged is 0. The forger's: forged is to be taken for 1.

    The judge need not be surer of the real ones than 0.9: one that is certain teaches nothing.
    """
    xp = array_namespace(verdicts["real"])
    one, zero = xp.ones_like(verdicts["real"]), xp.zeros_like(verdicts["real"])
    far = losses.binary_cross_entropy_with_logits
    return (
        far(verdicts["real"], 0.9 * one)
        + far(verdicts["forged"], zero)
        + far(verdicts["passed"], one)
    )


def make_trainer(seed: int, **where: Any) -> Trainer:
    """Two optimizers would do as well: `optim.Groups({"forger.*": …}, others=…)`."""
    return Trainer(Adversaries(), loss, optim.Adam(STEP_SIZE, betas=(0.5, 0.9)), seed=seed, **where)


def forge(net: nn.Module, digit: np.ndarray, seed: int, **where: Any) -> np.ndarray:
    """A picture of each digit asked for, (count, 64), of noise from the seed."""
    noise = np.random.default_rng(seed).normal(size=(len(digit), NOISE)).astype(np.float32)
    asked = (polynet.asarray(a, **where) for a in (noise, digit))
    return polynet.to_numpy(net.forger(*asked))


# How good the forged ones are


def make_reader(real: Digits, seed: int, **where: Any) -> Trainer:
    """A network that reads digits; it has seen real ones only."""
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    reader = Trainer(
        net, losses.cross_entropy, optim.Adam(), metrics=[metrics.accuracy], seed=seed, **where
    )
    reader.fit(*real, epochs=30, validation_split=0.2, progress=False)
    return reader


def distance_to_nearest(pictures: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each picture, how far the nearest other one is that is not itself."""
    squares = (pictures**2).sum(1)[:, None] + (others**2).sum(1) - 2 * pictures @ others.T
    if pictures is others:
        np.fill_diagonal(squares, np.inf)
    return np.sqrt(np.maximum(squares.min(axis=1), 0))


def spread(digits: Digits) -> float:
    """The standard deviation of a pixel among pictures of the same digit; the mean of all."""
    kinds = [digits.picture[digits.digit == k] for k in range(10)]
    return float(np.mean([kind.std(axis=0) for kind in kinds]))


# All of it


def heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def draw(real: Digits, forged: Digits) -> Any:
    """Ten real pictures of each digit, and beside them ten forged ones."""
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
    heading(f"A forger and a judge, {options.epochs} epochs of {len(real.digit)} digits")
    trainer = make_trainer(options.seed, **where)
    x, nothing = real._asdict(), np.zeros(len(real.digit))  # the loss looks at no target
    trainer.fit(x, nothing, epochs=options.epochs, batch_size=BATCH_SIZE)
    asked = np.repeat(np.arange(10, dtype=np.int32), EACH)
    forged = Digits(forge(trainer.net, asked, options.seed, **where), asked)

    heading(f"{EACH} of each digit, forged")
    reader = make_reader(real, options.seed, **where)
    kept = reader.history.last()["val_accuracy"]
    found = reader.evaluate(*forged)["accuracy"]
    print(f"A network that reads {kept:.3f} of real digits as what they are")
    print(f"reads {found:.3f} of the forged ones as what was asked for.")
    print("                             forged    real")
    near = (distance_to_nearest(p, real.picture).mean() for p in (forged.picture, real.picture))
    print("to the nearest real one     {:7.2f} {:7.2f}".format(*near))
    print(f"spread within a digit       {spread(forged):7.3f} {spread(real):7.3f}")

    options.out.mkdir(parents=True, exist_ok=True)
    draw(real, forged).savefig(options.out / "forger.png", dpi=100)
    print(f"\nDrawn: {options.out / 'forger.png'}")


def check_installed() -> None:
    """Say early, and all at once, what is missing."""
    packages = {"matplotlib": "matplotlib", "sklearn": "scikit-learn"}
    missing = [name for module, name in packages.items() if find_spec(module) is None]
    if missing:
        raise SystemExit(NOT_INSTALLED.format(missing=" and ".join(missing)))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Forge handwritten digits.")
    parser.add_argument("--backend", help="such as numpy, torch, jax; python -m polynet lists them")
    parser.add_argument("--device", help="such as cpu or cuda:0; the backend's first if not given")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"(default {EPOCHS})")
    parser.add_argument(
        "--seed", type=int, default=0, help="of first weights, shuffles, noise (default 0)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for what is written (default out)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()

"""Transfer: a network that learned the digits 0 to 4 in PyTorch learns 5 to 9 here, from few.

PyTorch trains a small convolutional network on half of the classes of scikit-learn's digits, and
writes its weights as safetensors. polynet reads the file, in which each array has the name that
PyTorch gave it, and gives the same scores as PyTorch. Then the network gets a new last layer
(head) and learns the other five classes, from two digits of each. For comparison, an untrained
network learns from the same digits. (From ten of each, the untrained network learns as well.)

    python examples/transfer.py
    python examples/transfer.py --backend jax --shots 10 --seed 3
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import polynet
from polynet import Trainer, checkpoint, losses, metrics, nn, optim
from polynet.data import batches, split

NOT_INSTALLED = """\
this example needs packages that are not installed: {missing}. To install them:
  pip install 'polynet-array[examples]' torch
or, in a checkout of polynet:
  pip install '.[examples]' torch"""

CLASSES = 5
EPOCHS = 15
EPOCHS_AFTER = 10
BATCH_SIZE = 32
STEP_SIZE = 3e-3
FEW = 2
"""How many digits of each new class there are to learn from."""
DRAWS = 5
"""How often those few digits are drawn anew: the accuracy depends on which ones come up."""


class Digits(NamedTuple):
    x: np.ndarray
    """(count, 1, 8, 8), the pixels, from 0 (paper) to 1 (ink)."""
    y: np.ndarray
    """(count,), the class, 0 to 4."""


def read_digits(first: int) -> Digits:
    """The digits from `first` to `first` + 4. The class of `first` is 0, and so on."""
    from sklearn.datasets import load_digits

    ink, digit = load_digits(return_X_y=True)
    mine = (first <= digit) & (digit < first + CLASSES)
    x = (ink[mine] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    return Digits(x, (digit[mine] - first).astype(np.int32))


def halves(digits: Digits, share: float, seed: int) -> tuple[Digits, Digits]:
    """The digits to learn from, and the test digits, which are `share` of each class."""
    train, test = split(*digits, share, seed=seed, stratify=True)
    return Digits(*train), Digits(*test)


def network(kind: Any) -> Any:
    """The network in polynet or in PyTorch: `kind` is polynet.nn or torch.nn."""

    class Network(kind.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = kind.Sequential(
                kind.Conv2d(1, 16, 3, padding=1, bias=False),
                kind.BatchNorm2d(16),
                kind.ReLU(),
                kind.MaxPool2d(2),
                kind.Conv2d(16, 32, 3, padding=1, bias=False),
                kind.BatchNorm2d(32),
                kind.ReLU(),
                kind.MaxPool2d(2),
                kind.Flatten(),
            )
            self.head = kind.Linear(128, CLASSES)

        def forward(self, x: Any) -> Any:
            return self.head(self.body(x))

    return Network()


# In PyTorch


def train_in_pytorch(train: Digits, epochs: int, seed: int) -> Any:
    """The network, trained by PyTorch, in evaluation mode."""
    import torch

    torch.manual_seed(seed)
    net = network(torch.nn)
    optimizer = torch.optim.Adam(net.parameters(), lr=STEP_SIZE)
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y).long()
    for epoch in range(epochs):
        for rows in batches(len(y), BATCH_SIZE, seed=seed, epoch=epoch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return net.eval()


def scores_in_pytorch(net: Any, x: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return net(torch.from_numpy(x)).numpy()


# In polynet


def with_new_head(learnt: nn.Module) -> nn.Module:
    """A network with the trained body and a new head, whose weights `Trainer` will draw."""
    net = network(nn)
    net.body = learnt.body
    return net


def make_trainer(net: nn.Module, seed: int, **where: Any) -> Trainer:
    """A trainer of both head and body. `optim.Groups` with `optim.Frozen` would fix the body."""
    return Trainer(
        net,
        losses.cross_entropy,
        optim.Adam(lr=STEP_SIZE),
        metrics=[metrics.accuracy],
        seed=seed,
        **where,
    )


def learn(net: nn.Module, few: Digits, rest: Digits, epochs: int, seed: int, **where: Any) -> float:
    """Train the network on the few digits; return its accuracy on the rest."""
    trainer = make_trainer(net, seed, **where)
    trainer.fit(*few, epochs=epochs, batch_size=2 * CLASSES, progress=False)
    return trainer.evaluate(*rest)["accuracy"]


# The whole program


def heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    check_installed()
    from safetensors.torch import save_file

    backend = polynet.get_backend(options.backend)
    where = {"backend": backend, "device": options.device or next(iter(backend.devices()))}
    print(f"backend {backend.name}, device {where['device']}, seed {options.seed}")

    train, test = halves(read_digits(0), 0.25, options.seed)
    heading(f"PyTorch trains a network on {len(train.y)} digits from 0 to 4")
    theirs = train_in_pytorch(train, options.epochs, options.seed)
    expected = scores_in_pytorch(theirs, test.x)
    print(f"Test accuracy: {metrics.accuracy(test.y, expected):.4f}")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "digits_0_to_4.safetensors"
    save_file(theirs.state_dict(), path)
    print(f"The weights are written to {path}")

    heading("polynet reads the weights into the same network")
    learnt = checkpoint.load(path, network(nn), **where)
    print(learnt.summary())
    print('\nThe "body" finds patterns in a picture. The "head" turns them into five scores.')
    scores = polynet.to_numpy(learnt(polynet.asarray(test.x, **where)))
    print(f"Test accuracy: {metrics.accuracy(test.y, scores):.4f}")
    print(f"Largest difference from PyTorch's scores: {np.max(np.abs(scores - expected)):.1g}")

    new = read_digits(CLASSES)
    heading(f"The network learns 5 to 9, from {options.shots} digits of each")
    print("Two networks learn from the same few digits: one whose body has learned 0 to 4, and one")
    print("that is untrained. Their test accuracy, for several random draws of the few digits:")
    print("  draw   learned 0 to 4   untrained")
    found = []
    for seed in range(options.seed, options.seed + DRAWS):
        few, rest = halves(new, 1 - options.shots * CLASSES / len(new.y), seed)
        nets = with_new_head(learnt), network(nn)
        found.append([learn(n, few, rest, options.epochs_after, seed, **where) for n in nets])
        print("  {:4}   {:14.3f}   {:9.3f}".format(seed, *found[-1]))
    print("  mean   {:14.3f}   {:9.3f}".format(*np.mean(found, axis=0)))


def check_installed() -> None:
    """Name all missing packages at once, before the work begins."""
    packages = {"sklearn": "scikit-learn", "torch": "PyTorch"}
    missing = [name for module, name in packages.items() if find_spec(module) is None]
    if missing:
        raise SystemExit(NOT_INSTALLED.format(missing=" and ".join(missing)))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Carry a trained network from PyTorch to polynet, and teach it new digits."
    )
    parser.add_argument(
        "--backend", help="such as numpy, torch or jax; python -m polynet lists all"
    )
    parser.add_argument("--device", help="such as cpu or cuda:0 (default: the backend's first)")
    parser.add_argument(
        "--epochs",
        type=int,
        default=EPOCHS,
        help=f"epochs in PyTorch, on 0 to 4 (default {EPOCHS})",
    )
    parser.add_argument(
        "--epochs-after",
        type=int,
        default=EPOCHS_AFTER,
        help=f"epochs in polynet, on 5 to 9 (default {EPOCHS_AFTER})",
    )
    parser.add_argument(
        "--shots",
        type=int,
        default=FEW,
        help=f"how many digits of each new class to learn from (default {FEW})",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the splits, the first weights and the shuffles (default 0)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for the weights (default out)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()

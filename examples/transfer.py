"""Learnt in PyTorch, continued here: a network that knows 0 to 4 learns 5 to 9 from few examples.

PyTorch trains a small convolutional network on half of the classes of scikit-learn's digits and
writes it as safetensors. polynet reads the file, by the names that PyTorch gave, and answers as
PyTorch does. Then the network gets a new head and learns the other half, from two digits of each;
beside it learns the same network that knows nothing. (From ten of each, it would learn as well.)

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
this example needs {missing}, not installed here. To install what it needs:
  pip install 'polynet-array[examples]' torch
or, in a checkout of polynet:
  pip install '.[examples]' torch"""

CLASSES = 5
EPOCHS = 15
EPOCHS_AFTER = 10
BATCH_SIZE = 32
STEP_SIZE = 3e-3
FEW = 2
"""How many digits of each class the second task has to learn from."""
DRAWS = 5
"""Which digits those are is luck: so the second task is learnt from several draws."""


class Digits(NamedTuple):
    x: np.ndarray
    """(count, 1, 8, 8), from 0 (paper) to 1 (ink)."""
    y: np.ndarray
    """(count,), the class, 0 to 4."""


def read_digits(first: int) -> Digits:
    """The digits from `first` to `first` + 4; their classes count from 0."""
    from sklearn.datasets import load_digits

    ink, digit = load_digits(return_X_y=True)
    mine = (first <= digit) & (digit < first + CLASSES)
    x = (ink[mine] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    return Digits(x, (digit[mine] - first).astype(np.int32))


def halves(digits: Digits, share: float, seed: int) -> tuple[Digits, Digits]:
    """Digits to learn from, and `share` of each class for the test."""
    train, test = split(*digits, share, seed=seed, stratify=True)
    return Digits(*train), Digits(*test)


def network(kind: Any) -> Any:
    """The network, in the words of both: `kind` is polynet.nn or torch.nn."""

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
    """The network trained by PyTorch, ready to predict."""
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


# Here


def with_new_head(learnt: nn.Module) -> nn.Module:
    """The body that was learnt, and a head that is described only: `Trainer` will draw it."""
    net = network(nn)
    net.body = learnt.body
    return net


def make_trainer(net: nn.Module, seed: int, **where: Any) -> Trainer:
    """Trains head and body alike: which parameters stay as they are is the optimizer's to say."""
    return Trainer(
        net,
        losses.cross_entropy,
        optim.Adam(lr=STEP_SIZE),
        metrics=[metrics.accuracy],
        seed=seed,
        **where,
    )


def learn(net: nn.Module, few: Digits, rest: Digits, epochs: int, seed: int, **where: Any) -> float:
    """The accuracy on the rest, once the few are learnt."""
    trainer = make_trainer(net, seed, **where)
    trainer.fit(*few, epochs=epochs, batch_size=2 * CLASSES, progress=False)
    return trainer.evaluate(*rest)["accuracy"]


# All of it


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
    heading(f"0 to 4, in PyTorch, from {len(train.y)} digits")
    theirs = train_in_pytorch(train, options.epochs, options.seed)
    expected = scores_in_pytorch(theirs, test.x)
    print(f"Test accuracy: {metrics.accuracy(test.y, expected):.4f}")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "digits_0_to_4.safetensors"
    save_file(theirs.state_dict(), path)
    print(f"Written: {path}")

    heading("The same network here")
    learnt = checkpoint.load(path, network(nn), **where)
    print(learnt.summary())
    scores = polynet.to_numpy(learnt(polynet.asarray(test.x, **where)))
    print(f"\nTest accuracy: {metrics.accuracy(test.y, scores):.4f}")
    print(f"Largest difference from PyTorch's scores: {np.max(np.abs(scores - expected)):.1g}")

    new = read_digits(CLASSES)
    heading(f"5 to 9, from {options.shots} digits of each: test accuracy")
    print("  draw   knows 0 to 4   knows nothing")
    found = []
    for seed in range(options.seed, options.seed + DRAWS):
        few, rest = halves(new, 1 - options.shots * CLASSES / len(new.y), seed)
        nets = with_new_head(learnt), network(nn)
        found.append([learn(n, few, rest, options.epochs_after, seed, **where) for n in nets])
        print("  {:4}   {:12.3f}   {:13.3f}".format(seed, *found[-1]))
    print("  mean   {:12.3f}   {:13.3f}".format(*np.mean(found, axis=0)))


def check_installed() -> None:
    """Say early, and all at once, what is missing."""
    packages = {"sklearn": "scikit-learn", "torch": "PyTorch"}
    missing = [name for module, name in packages.items() if find_spec(module) is None]
    if missing:
        raise SystemExit(NOT_INSTALLED.format(missing=" and ".join(missing)))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Carry a network from PyTorch to polynet, and teach it something else."
    )
    parser.add_argument("--backend", help="such as numpy, torch, jax; python -m polynet lists them")
    parser.add_argument("--device", help="such as cpu or cuda:0; the backend's first if not given")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"in PyTorch (default {EPOCHS})")
    parser.add_argument(
        "--epochs-after", type=int, default=EPOCHS_AFTER, help=f"here (default {EPOCHS_AFTER})"
    )
    parser.add_argument(
        "--shots", type=int, default=FEW, help=f"digits of each new class (default {FEW})"
    )
    parser.add_argument("--seed", type=int, default=0, help="of splits, weights and shuffles")
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for what is written (default out)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()

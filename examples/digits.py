"""Which digit was written? Ten classes, trained by hand, step by step, and then by a framework.

1797 digits of 8 × 8 pixels come with scikit-learn. First, all that training does stands here,
written out: draw parameters, take a minibatch, find the loss and its gradient, step downhill.
Then `Trainer` does it; the losses are the same, step by step. At last the weights go to PyTorch.
The network is convolutional, and sees every digit as if another hand had written it each time.

    python examples/digits.py
    python examples/digits.py --backend jax --epochs 10 --seed 7
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import polynet
from polynet import Trainer, checkpoint, losses, metrics, nn, optim, random
from polynet.data import Source, arrays, batches, split

Array = Any

NOT_INSTALLED = """\
this example needs {missing}, not installed here. To install what it needs:
  pip install 'polynet-array[examples]'
or, in a checkout of polynet:
  pip install '.[examples]'"""

STEP_SIZE = 0.1
BATCH_SIZE = 32
EPOCHS = 50

CHANGES = (0.15, 0.1, 0.5, 0.5)
"""How far a digit is turned (radians), stretched, moved down and to the right (pixels), at most."""


class Digits(NamedTuple):
    x: np.ndarray
    """(count, 1, 8, 8), the pixels, from 0 (paper) to 1 (ink)."""
    y: np.ndarray
    """(count,), the digit, 0 to 9."""


def read_digits(seed: int) -> tuple[Digits, Digits]:
    """Digits to learn from, and a fifth of each class for the test."""
    from sklearn.datasets import load_digits

    ink, digit = load_digits(return_X_y=True)
    x, y = (ink / 16).astype(np.float32).reshape(-1, 1, 8, 8), digit.astype(np.int32)
    train, test = split(x, y, 0.2, seed=seed, stratify=True)
    return Digits(*train), Digits(*test)


def rewritten(x: np.ndarray, rng: Any) -> np.ndarray:
    """The digits a little turned, stretched and moved, each in its own way.

    Each pixel is taken from a place between four of the old ones, each weighed by how near it is;
    beyond the edge there is paper.
    """
    turn, stretch, down, right = (CHANGES * (2 * rng.random((len(x), 4)) - 1)).T[..., None, None]
    pixels = np.arange(8)
    row, column = np.mgrid[:8, :8] - 3.5  # from the middle
    cos, sin = (1 + stretch) * np.cos(turn), (1 + stretch) * np.sin(turn)
    places = cos * row - sin * column + down + 3.5, sin * row + cos * column + right + 3.5
    rows, columns = (np.maximum(0, 1 - np.abs(p[..., None] - pixels)) for p in places)
    return ((rows @ x) * columns).sum(axis=-1)[:, None].astype(x.dtype)


def network(parts: Any = nn) -> Any:
    """A picture in, ten scores out, one a class; the largest is the answer.

    Windows of 3 × 3 pixels slide over the picture and look for 32 patterns, others over what these
    found. `parts` may be `torch.nn`, whose names are the same: then it is PyTorch's network.
    """
    return parts.Sequential(
        parts.Conv2d(1, 32, 3, padding=1),
        parts.ReLU(),
        parts.Conv2d(32, 32, 3, padding=1),
        parts.ReLU(),
        parts.MaxPool2d(2),
        parts.Conv2d(32, 64, 3, padding=1),
        parts.ReLU(),
        parts.MaxPool2d(2),
        parts.Flatten(),
        parts.Linear(64 * 2 * 2, 10),
    )


# By hand


def train_by_hand(
    net: nn.Module, train: Digits, epochs: int, seed: int, **where: Any
) -> tuple[nn.Module, list[float]]:
    """The network trained, and the loss of every step. `net` has its parameters, and keeps them."""

    def loss(params: dict[str, Array], x: Array, y: Array) -> Array:
        scores = net.replace(params)(x)  # forward: from the pixels to the scores,
        return losses.cross_entropy(scores, y)  # and on to how far they are from the truth

    loss_and_slopes = polynet.value_and_grad(loss)  # … and backward, through all of it
    params, seen = net.parameters(), []
    for epoch in range(epochs):
        # An epoch takes all digits once, in a new order, a minibatch at a time: the slope of 32
        # digits points about where that of all does, at a fraction of the cost.
        for rows in batches(len(train.y), BATCH_SIZE, seed=seed, epoch=epoch):
            rng = random.SampleStream(random.key(seed, "augment", epoch), rows)
            some = rewritten(train.x[rows], rng), train.y[rows]
            x, y = (polynet.asarray(part, **where) for part in some)
            value, slopes = loss_and_slopes(params, x, y)
            # The gradient points uphill: hence the minus.
            params = {name: p - STEP_SIZE * slopes[name] for name, p in params.items()}
            seen.append(float(value))
    return net.replace(params), seen


def scores_of(net: nn.Module, x: np.ndarray, **where: Any) -> np.ndarray:
    """The network called, like the function it is."""
    return polynet.to_numpy(net(polynet.asarray(x, **where)))


# By a framework


def changing(train: Digits) -> Source:
    """The digits to learn from, written anew in every epoch."""
    return arrays(*train).augmented(rewritten)


def make_trainer(seed: int, **where: Any) -> Trainer:
    """The same network, loss, step and minibatches; the seed is all they need to agree."""
    return Trainer(
        network(),
        losses.cross_entropy,
        optim.SGD(lr=STEP_SIZE),
        metrics=[metrics.accuracy],
        seed=seed,
        **where,
    )


def torch_scores(path: Path, x: np.ndarray) -> np.ndarray:
    """What the same network, written in PyTorch, answers with the weights in the file."""
    import torch
    from safetensors.torch import load_file

    net = network(torch.nn)
    net.load_state_dict(load_file(path))
    with torch.no_grad():
        return net(torch.from_numpy(x)).numpy()


# What is printed


def heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def show_digit(x: np.ndarray, digit: int) -> None:
    heading("A digit is 64 numbers")
    print(f"This one is a {digit}, of ink from 0 to 16:")
    for row in np.rint(16 * x[0]).astype(int):
        print("  " + "".join(f"{ink:4}" for ink in row))


def show_epochs(seen: list[float], epochs: int) -> None:
    """The mean loss of some epochs."""
    means = [float(np.mean(part)) for part in np.split(np.array(seen), epochs)]
    shown = sorted({0, 1, 2, *range(4, epochs, 5), epochs - 1} & set(range(epochs)))
    print("  epoch   mean loss of its steps")
    for i in shown:
        print(f"  {i + 1:5} {means[i]:11.5f}")


def show_both(by_hand: list[float], by_trainer: list[float]) -> None:
    print("  step   loss by hand   loss by Trainer")
    for i in sorted({0, 1, 2, len(by_hand) // 2, len(by_hand) - 1}):
        print(f"  {i:4} {by_hand[i]:14.8f} {by_trainer[i]:17.8f}")
    apart = np.max(np.abs(np.subtract(by_hand, by_trainer)))
    print(f"The largest difference in {len(by_hand)} steps: {apart:.1g}")


def show_torch(net: nn.Module, path: Path, x: np.ndarray, ours: np.ndarray) -> None:
    """Save the weights; load them in PyTorch, where there is one."""
    checkpoint.save(path, net)
    print(f"The weights, by their names in PyTorch: {path}")
    try:
        theirs = torch_scores(path, x)
    except ImportError:
        print("PyTorch is not installed here. Where it is, the same network there loads them by")
        print("  net.load_state_dict(safetensors.torch.load_file(path))")
        return
    apart = np.max(np.abs(theirs - ours))
    print("Loaded into the same network in PyTorch, they give the same scores for the test digits:")
    print(f"  largest score {np.max(np.abs(ours)):.3f}, largest difference {apart:.1g}")


# What is drawn


def new_figure(**options: Any) -> Any:
    """A figure that needs no display."""
    from matplotlib.figure import Figure

    return Figure(layout="constrained", **options)


def confusion(truth: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """How often each digit (row) was taken for each (column)."""
    counts = np.zeros((10, 10), dtype=int)
    np.add.at(counts, (truth, answer), 1)
    return counts


def draw_confusion(axes: Any, counts: np.ndarray) -> None:
    mistakes = counts * (1 - np.eye(10, dtype=int))
    axes.imshow(counts, cmap="Greens", vmax=1.6 * counts.max())
    for (row, column), count in np.ndenumerate(counts):
        wrong = mistakes[row, column]
        look = {"color": "tab:red", "weight": "bold"} if wrong else {"color": "black"}
        text = str(count) if count else "·"
        axes.text(column, row, text, ha="center", va="center", fontsize=12, **look)
    axes.set(xticks=range(10), yticks=range(10), xlabel="answer", ylabel="truth")
    axes.set_title(f"{counts.sum()} test digits, {mistakes.sum()} wrong")


def draw(test: Digits, scores: np.ndarray) -> Any:
    """Which digits were taken for which, and the wrong ones themselves."""
    answer = scores.argmax(axis=1)
    wrong = np.flatnonzero(answer != test.y)
    figure = new_figure(figsize=(12.5, 6))
    left, right = figure.subfigures(1, 2, width_ratios=[6, 6.5])
    draw_confusion(left.subplots(), confusion(test.y, answer))
    grid = right.subplots(3, 4)
    for axes, i in zip(grid.flat, wrong, strict=False):
        axes.imshow(test.x[i, 0], cmap="gray_r", vmin=0, vmax=1)
        axes.set_title(f"answer {answer[i]}, truth {test.y[i]}", color="tab:red", fontsize=11)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    for axes in grid.flat[len(wrong) :]:
        axes.axis("off")
    right.suptitle("The wrong ones" + (f", {grid.size} of them" if len(wrong) > grid.size else ""))
    return figure


# All of it


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    check_installed()
    backend = polynet.get_backend(options.backend)
    where = {"backend": backend, "device": options.device or next(iter(backend.devices()))}
    print(f"backend {backend.name}, device {where['device']}, seed {options.seed}")

    train, test = read_digits(options.seed)
    net = network().init(options.seed, **where)
    show_digit(train.x[0], int(train.y[0]))
    heading("The network")
    print(net.summary())
    accuracy = metrics.accuracy(test.y, scores_of(net, test.x, **where))
    print(f"\nUntrained, it is right for {accuracy:.3f} of {len(test.y)} test digits.")

    heading(f"Trained by hand on {len(train.y)} digits")
    trained, by_hand = train_by_hand(net, train, options.epochs, options.seed, **where)
    show_epochs(by_hand, options.epochs)
    scores = scores_of(trained, test.x, **where)
    print(f"Test accuracy: {metrics.accuracy(test.y, scores):.4f}")

    heading("A framework does all of this: the same network through Trainer")
    trainer = make_trainer(options.seed, **where)
    history = trainer.fit(changing(train), epochs=options.epochs, batch_size=BATCH_SIZE)
    show_both(by_hand, history.step_losses)
    print(f"Test accuracy: {trainer.evaluate(*test)['accuracy']:.4f}")

    heading("… and its weights carried to PyTorch")
    options.out.mkdir(parents=True, exist_ok=True)
    scores = trainer.predict(test.x)
    show_torch(trainer.net, options.out / "digits.safetensors", test.x, scores)

    draw(test, scores).savefig(options.out / "digits.png", dpi=100)
    print(f"\nDrawn: {options.out / 'digits.png'}")


def check_installed() -> None:
    """Say early, and all at once, what is missing."""
    packages = {"matplotlib": "matplotlib", "sklearn": "scikit-learn"}
    missing = [name for module, name in packages.items() if find_spec(module) is None]
    if missing:
        raise SystemExit(NOT_INSTALLED.format(missing=" and ".join(missing)))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a network to read digits, by hand and with Trainer."
    )
    parser.add_argument("--backend", help="such as numpy, torch, jax; python -m polynet lists them")
    parser.add_argument("--device", help="such as cpu or cuda:0; the backend's first if not given")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"(default {EPOCHS})")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the split, first weights, shuffles (default 0)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for what is written (default out)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()

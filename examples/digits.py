"""Which digit is this? A network learns ten classes: trained by hand first, then by a framework.

scikit-learn brings 1797 handwritten digits of 8 × 8 pixels. First, this program writes out all
that training does: draw the first parameters, take a minibatch, compute the loss and its gradient,
step downhill. Then `Trainer` does the same work, and the losses are the same, step by step. At the
end PyTorch loads the trained weights. The network is convolutional. In every epoch it sees each
digit a little turned, stretched and moved, as if another hand had written it.

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
this example needs packages that are not installed: {missing}. To install them:
  pip install 'polynet-array[examples]'
or, in a checkout of polynet:
  pip install '.[examples]'"""

STEP_SIZE = 0.1
BATCH_SIZE = 32
EPOCHS = 50

CHANGES = (0.15, 0.1, 0.5, 0.5)
"""The largest changes of a digit: turn (radians), stretch, shift down and shift right (pixels)."""


class Digits(NamedTuple):
    x: np.ndarray
    """(count, 1, 8, 8), the pixels, from 0 (paper) to 1 (ink)."""
    y: np.ndarray
    """(count,), the digit, 0 to 9."""


def read_digits(seed: int) -> tuple[Digits, Digits]:
    """The digits to learn from, and the test digits, which are a fifth of each class."""
    from sklearn.datasets import load_digits

    ink, digit = load_digits(return_X_y=True)
    x, y = (ink / 16).astype(np.float32).reshape(-1, 1, 8, 8), digit.astype(np.int32)
    train, test = split(x, y, 0.2, seed=seed, stratify=True)
    return Digits(*train), Digits(*test)


def rewritten(x: np.ndarray, rng: Any) -> np.ndarray:
    """The digits `x`, each a little turned, stretched and moved by random numbers of its own.

    A new pixel lies between four pixels of the old picture. Its value is their mean, in which a
    nearer pixel has a larger weight (bilinear interpolation). Outside of the picture is paper, 0.
    """
    turn, stretch, down, right = (CHANGES * (2 * rng.random((len(x), 4)) - 1)).T[..., None, None]
    pixels = np.arange(8)
    row, column = np.mgrid[:8, :8] - 3.5  # counted from the middle of the picture
    cos, sin = (1 + stretch) * np.cos(turn), (1 + stretch) * np.sin(turn)
    places = cos * row - sin * column + down + 3.5, sin * row + cos * column + right + 3.5
    rows, columns = (np.maximum(0, 1 - np.abs(p[..., None] - pixels)) for p in places)
    return ((rows @ x) * columns).sum(axis=-1)[:, None].astype(x.dtype)


def network(parts: Any = nn) -> Any:
    """A network from a picture to ten scores, one for each digit. The largest score is the answer.

    The first layer slides windows of 3 × 3 pixels over the picture and looks for 32 patterns. The
    later convolutions look for patterns in what the layer before found. `parts` may also be
    `torch.nn`, which has the same names; then this is a network of PyTorch's.
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
    """A trained copy of `net`, and the loss of every step. `net` itself does not change."""

    def loss(params: dict[str, Array], x: Array, y: Array) -> Array:
        scores = net.replace(params)(x)  # forward: from the pixels to the scores,
        return losses.cross_entropy(scores, y)  # and on to how wrong the scores are

    loss_and_gradient = polynet.value_and_grad(loss)  # forward, and then backward through it all
    params, seen = net.parameters(), []
    for epoch in range(epochs):
        # An epoch takes every digit once, in a new order, one minibatch at a time. The gradient of
        # 32 digits points nearly the same way as that of all digits, at a fraction of the cost.
        for rows in batches(len(train.y), BATCH_SIZE, seed=seed, epoch=epoch):
            rng = random.SampleStream(random.key(seed, "augment", epoch), rows)
            some = rewritten(train.x[rows], rng), train.y[rows]
            x, y = (polynet.asarray(part, **where) for part in some)
            value, gradient = loss_and_gradient(params, x, y)
            # The gradient points uphill, so the step subtracts it.
            params = {name: p - STEP_SIZE * gradient[name] for name, p in params.items()}
            seen.append(float(value))
    return net.replace(params), seen


def scores_of(net: nn.Module, x: np.ndarray, **where: Any) -> np.ndarray:
    """The network's scores for `x`: a network is called like any function."""
    return polynet.to_numpy(net(polynet.asarray(x, **where)))


# By a framework


def changing(train: Digits) -> Source:
    """The digits to learn from, which `rewritten` changes anew in every epoch."""
    return arrays(*train).augmented(rewritten)


def make_trainer(seed: int, **where: Any) -> Trainer:
    """A `Trainer` that takes the same steps as `train_by_hand`, if the seed is the same."""
    return Trainer(
        network(),
        losses.cross_entropy,
        optim.SGD(lr=STEP_SIZE),
        metrics=[metrics.accuracy],
        seed=seed,
        **where,
    )


def torch_scores(path: Path, x: np.ndarray) -> np.ndarray:
    """The scores for `x` of the same network in PyTorch, with the weights in the file."""
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
    print(
        f"This one is a {digit}. Each number is the ink of a pixel, from 0 (paper) to 16 (black):"
    )
    for row in np.rint(16 * x[0]).astype(int):
        print("  " + "".join(f"{ink:4}" for ink in row))


def show_epochs(seen: list[float], epochs: int) -> None:
    """Print the mean loss of some epochs, and the loss of a network that knows nothing."""
    means = [float(np.mean(part)) for part in np.split(np.array(seen), epochs)]
    shown = sorted({0, 1, 2, *range(4, epochs, 5), epochs - 1} & set(range(epochs)))
    print(f"Ten equal scores, which say nothing, have a loss of ln 10 = {np.log(10):.3f}.")
    print("  epoch   mean loss of the epoch's steps")
    for i in shown:
        print(f"  {i + 1:5} {means[i]:11.5f}")


def show_both(by_hand: list[float], by_trainer: list[float]) -> None:
    print("  step   loss by hand   loss by Trainer")
    for i in sorted({0, 1, 2, len(by_hand) // 2, len(by_hand) - 1}):
        print(f"  {i:4} {by_hand[i]:14.8f} {by_trainer[i]:17.8f}")
    apart = np.max(np.abs(np.subtract(by_hand, by_trainer)))
    print(f"The largest difference between the two losses in {len(by_hand)} steps: {apart:.1g}")


def show_torch(net: nn.Module, path: Path, x: np.ndarray, ours: np.ndarray) -> None:
    """Save the weights; if PyTorch is installed, load them there and compare the scores."""
    checkpoint.save(path, net)
    print(f"The weights are saved under the names that PyTorch gives them: {path}")
    try:
        theirs = torch_scores(path, x)
    except ImportError:
        print(
            "PyTorch is not installed here. Where it is, the same network in PyTorch loads them by"
        )
        print("  net.load_state_dict(safetensors.torch.load_file(path))")
        return
    apart = np.max(np.abs(theirs - ours))
    print("Loaded into the same network in PyTorch, they give the same scores for the test digits.")
    print(f"The largest score is {np.max(np.abs(ours)):.3f}, the largest difference {apart:.1g}.")


# What is drawn


def new_figure(**options: Any) -> Any:
    """A figure that needs no display."""
    from matplotlib.figure import Figure

    return Figure(layout="constrained", **options)


def confusion(truth: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """(10, 10): how often each digit (the row) got each answer (the column)."""
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
    axes.set(xticks=range(10), yticks=range(10), xlabel="the network's answer", ylabel="the digit")
    axes.set_title(f"{counts.sum()} test digits; {mistakes.sum()} answers are wrong (red)")


def draw(test: Digits, scores: np.ndarray) -> Any:
    """Draw how often each digit got each answer, and the digits that got a wrong one."""
    answer = scores.argmax(axis=1)
    wrong = np.flatnonzero(answer != test.y)
    figure = new_figure(figsize=(12.5, 6))
    left, right = figure.subfigures(1, 2, width_ratios=[6, 6.5])
    draw_confusion(left.subplots(), confusion(test.y, answer))
    grid = right.subplots(3, 4)
    for axes, i in zip(grid.flat, wrong, strict=False):
        axes.imshow(test.x[i, 0], cmap="gray_r", vmin=0, vmax=1)
        axes.set_title(f"answer {answer[i]}, digit {test.y[i]}", color="tab:red", fontsize=11)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    for axes in grid.flat[len(wrong) :]:
        axes.axis("off")
    number = f"{grid.size} of the {len(wrong)}" if len(wrong) > grid.size else "The"
    right.suptitle(f"{number} digits with a wrong answer")
    return figure


# The whole program


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
    print(f"\nAccuracy on {len(test.y)} test digits before training: {accuracy:.4f}")
    print("The first parameters are random, so about one answer in ten is right.")

    heading(f"Training written out by hand, on {len(train.y)} digits")
    trained, by_hand = train_by_hand(net, train, options.epochs, options.seed, **where)
    show_epochs(by_hand, options.epochs)
    scores = scores_of(trained, test.x, **where)
    print(f"Test accuracy: {metrics.accuracy(test.y, scores):.4f}")

    heading("A framework does all of this: the same training by Trainer")
    trainer = make_trainer(options.seed, **where)
    history = trainer.fit(changing(train), epochs=options.epochs, batch_size=BATCH_SIZE)
    show_both(by_hand, history.step_losses)
    print(f"Test accuracy: {trainer.evaluate(*test)['accuracy']:.4f}")

    heading("The trained weights in PyTorch")
    options.out.mkdir(parents=True, exist_ok=True)
    scores = trainer.predict(test.x)
    show_torch(trainer.net, options.out / "digits.safetensors", test.x, scores)

    draw(test, scores).savefig(options.out / "digits.png", dpi=100)
    print(f"\nThe picture is in {options.out / 'digits.png'}")


def check_installed() -> None:
    """Name all missing packages at once, before the work begins."""
    packages = {"matplotlib": "matplotlib", "sklearn": "scikit-learn"}
    missing = [name for module, name in packages.items() if find_spec(module) is None]
    if missing:
        raise SystemExit(NOT_INSTALLED.format(missing=" and ".join(missing)))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a network to read digits, by hand and with Trainer."
    )
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
        help="seed of the split, the first weights and the shuffles (default 0)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for all output files (default out)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()

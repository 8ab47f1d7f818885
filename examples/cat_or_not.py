"""Is there a cat in the picture? A network answers with a number, from 0 (no cat) to 1 (cat).

A picture is a matrix of numbers. The network is a function of those numbers: at first a random
one, then, step by step downhill, one whose answers come closer to the truth. It is convolutional:
small windows slide over the picture, each looking for a pattern of its own.

    python examples/cat_or_not.py                      # pieces of scikit-image's photographs
    python examples/cat_or_not.py --data faces         # 100 faces and 100 pictures without
    python examples/cat_or_not.py --data my_pictures   # a folder: one sub-folder a class
    python examples/cat_or_not.py --data my_pictures --picture mine.jpg   # and of this one?
    python examples/cat_or_not.py --backend torch --epochs 40 --seed 7
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import polynet
from polynet import Trainer, functional, losses, metrics, nn, optim, random
from polynet.data import Source, arrays, split
from polynet.data.augment import ColorJitter, Compose, RandomCrop, RandomHorizontalFlip

NOT_INSTALLED = """\
this example needs {missing}, not installed here. To install what it needs:
  pip install 'polynet-array[examples]'
or, in a checkout of polynet:
  pip install '.[examples]'"""

PATTERNS = (16, 32)  # how many the first windows look for, and the second, in what those found
DROPOUT = 0.3  # the share of it that is left out, other at every step: no few are relied on
JITTER = 0.1  # by how much brightness, contrast and saturation change, at most
SHIFT = 2  # by how many pixels a picture is moved, at most
LEARNING_RATE = 2e-3
BATCH_SIZE = 32
EPOCHS = 40
HELD_OUT = 0.25  # the share of the data that is kept for the test


class Pictures(NamedTuple):
    """Pictures of one size, and for each whether it shows what we look for."""

    x: np.ndarray  # (count, channels, height, width), numbers from 0 (dark) to 1 (bright)
    y: np.ndarray  # (count,), 1.0 for yes, 0.0 for no


class Task(NamedTuple):
    """Pictures to learn from, others to be tested with, and what 1 and 0 mean."""

    train: Pictures
    test: Pictures
    yes: str
    no: str


# Pieces of photographs: the cat's, and others

CAT = "chelsea"
OTHERS = ("astronaut", "coffee", "rocket", "motorcycle")

TILE = 60  # a photograph is cut into square tiles of so many pixels a side
PIECE = 32  # a piece is a smaller square, somewhere inside its tile …
SIDE = 16  # … and is made smaller, to so many pixels a side
PIECES = {"train": 300, "test": 100}  # how many there are of the cat; there are as many without


class Place(NamedTuple):
    """Where a piece was cut: its upper left pixel in a photograph."""

    photograph: str
    top: int
    left: int


def photographs() -> dict[str, np.ndarray]:
    """Colour photographs that come with scikit-image, so that nothing is downloaded."""
    from skimage import data

    found = {name: getattr(data, name)() for name in (CAT, *OTHERS[:-1])}
    found["motorcycle"] = data.stereo_motorcycle()[0]
    found[CAT] = found[CAT][:, :375]  # what is right of it shows no cat
    return found


def all_places(found: dict[str, np.ndarray], seed: int) -> dict[str, list[Place]]:
    """The places of all pieces: half of them on the cat, half shared by the other photographs.

    Pieces next to each other look alike. If single pieces were dealt out at random, the test
    could be passed by remembering. So all pieces of a tile are for training, or for the test.
    """
    together: dict[str, list[Place]] = {part: [] for part in PIECES}
    for name, photograph in found.items():
        keys = [random.key(seed, "photographs", name, use) for use in range(3)]  # of streams
        height, width = (size // TILE for size in photograph.shape[:2])
        tiles = random.permutation(keys[0], height * width)
        test, train = np.split(tiles, [round(HELD_OUT * len(tiles))])
        for part, some, key in zip(PIECES, (train, test), keys[1:], strict=True):
            count = PIECES[part] // (1 if name == CAT else len(found) - 1)
            shifts = random.uniform(key, 2 * count).reshape(count, 2) * (TILE - PIECE + 1)
            inside = np.stack(np.divmod(np.resize(some, count), width), axis=1)
            corners = TILE * inside + shifts.astype(int)
            together[part] += [Place(name, top, left) for top, left in corners.tolist()]
    return together


def cut(photograph: np.ndarray, place: Place) -> np.ndarray:
    """The piece at `place`, made smaller: each pixel is the mean of a small square."""
    from skimage.transform import downscale_local_mean

    piece = photograph[place.top : place.top + PIECE, place.left : place.left + PIECE]
    small = downscale_local_mean(piece, (PIECE // SIDE, PIECE // SIDE, 1))
    return (small / 255).astype(np.float32).transpose(2, 0, 1)


def pieces_task(seed: int) -> Task:
    """Pieces of the cat's photograph against pieces of the others."""
    found, parts = photographs(), []
    for some in all_places(found, seed).values():
        x = np.stack([cut(found[place.photograph], place) for place in some])
        y = np.array([place.photograph == CAT for place in some], dtype=np.float32)
        parts.append(Pictures(x, y))
    return Task(*parts, "cat", "no cat")


# Faces


def faces() -> Pictures:
    """The 200 grey pictures that come with scikit-image: 100 faces, then 100 without one."""
    from skimage import data

    x = data.lfw_subset().astype(np.float32)[:, None]
    return Pictures(x, np.repeat(np.array([1, 0], dtype=np.float32), 100))


def faces_task(seed: int) -> Task:
    return divided(faces(), seed, "face", "no face")


def divided(pictures: Pictures, seed: int, yes: str, no: str) -> Task:
    """Some for training, some for the test, in each the same share of both classes."""
    train, test = split(*pictures, HELD_OUT, seed=seed, stratify=True)
    return Task(Pictures(*train), Pictures(*test), yes, no)


# Your own pictures

FOLDER_SIDE = 32  # they are cropped to a square, and made smaller, to so many pixels a side
FEWEST = 8  # a class with fewer pictures than this teaches nothing and tests nothing


def folder_task(folder: Path, seed: int) -> Task:
    """The pictures in the two sub-folders of `folder`; the first by name is the class 1."""
    if not folder.is_dir():
        raise SystemExit(
            f"--data {folder}: there is no such folder. Give a folder of pictures, or 'pieces' "
            "or 'faces' for pictures that come with scikit-image"
        )
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(classes) != 2:
        found = ", ".join(p.name for p in classes) or "none"
        raise SystemExit(
            f"--data {folder}: expected two sub-folders, one a class, such as cat/ and other/; "
            f"found {len(classes)} ({found})"
        )
    yes, no = (read_folder(p) for p in classes)
    x = np.stack(yes + no)
    y = np.repeat(np.array([1, 0], dtype=np.float32), [len(yes), len(no)])
    return divided(Pictures(x, y), seed, *(p.name for p in classes))


def read_folder(folder: Path) -> list[np.ndarray]:
    """Every picture in `folder` that Pillow can read; the other files are named, and skipped."""
    from PIL import Image

    # What Pillow raises for a file that is no picture, torn, too large, or impossible to convert.
    unreadable = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
    found = []
    for path in sorted(p for p in folder.iterdir() if not p.name.startswith(".")):
        try:
            found.append(read_picture(path))
        except unreadable as error:
            print(f"skipped {path}: {error}", file=sys.stderr)
    if len(found) < FEWEST:
        raise SystemExit(
            f"--data: {folder} holds {len(found)} pictures that can be read; each class needs "
            f"at least {FEWEST}"
        )
    return found


def read_picture(path: Path, channels: int = 3, side: int = FOLDER_SIDE) -> np.ndarray:
    """The middle square of the picture, upright, in red, green and blue, or grey, from 0 to 1."""
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        upright = ImageOps.exif_transpose(file).convert("RGB" if channels == 3 else "L")
        small = ImageOps.fit(upright, (side, side))
    pixels = np.asarray(small, dtype=np.float32).reshape(side, side, channels)
    return pixels.transpose(2, 0, 1) / 255


def read_asked(paths: list[Path], like: np.ndarray) -> list[np.ndarray]:
    """The pictures in these files, each as large as the others are; said early if one is none."""
    try:
        return [read_picture(path, *like.shape[1:3]) for path in paths]
    except OSError as error:
        raise SystemExit(f"--picture: {error}") from None


# From pictures to what the network sees


def scale_of(x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """What moves numbers around 0, with a spread of 1: steps are then as good in all colours.

    Measured on the training pictures alone: of the test nothing is known before the test.
    """
    mean = x.mean(axis=(0, 2, 3), keepdims=True)
    spread = np.maximum(x.std(axis=(0, 2, 3), keepdims=True), 1e-3)
    return lambda x: (x - mean) / spread


def changing(pictures: Pictures, scale: Any) -> Source:
    """The training pictures, changed anew every time: mirrored, a little brighter, a little moved.

    A cat in a mirror is a cat. To remember single pictures is then of no use.
    """
    moved = RandomCrop(pictures.x.shape[2:], padding=SHIFT)
    changes = Compose([RandomHorizontalFlip(), ColorJitter(JITTER, JITTER, JITTER), moved])
    source = arrays(pictures.x, pictures.y[:, None]).augmented(changes)
    return source.map(lambda x, y: (scale(x), y))


def ready(pictures: Pictures, scale: Any) -> Pictures:
    """Scaled, and the truth in the shape of the network's outputs: one number a row."""
    return Pictures(scale(pictures.x), pictures.y[:, None])


# The network


def network(shape: tuple[int, ...], parts: Any = nn) -> Any:
    """A function of a picture of this shape that returns one number, a score.

    A convolution tells, for every window of 3 × 3 pixels, how much of each pattern is there; ReLU
    drops what speaks against it; pooling keeps the largest of 2 × 2 places. At last, all that was
    found is weighed. The score may have any size; `answers`, below, squeezes it in between 0 and 1.
    `parts` may be `torch.nn`, whose names are the same: then it is PyTorch's network.
    """
    channels, height, width = shape
    layers = []
    for seen, patterns in pairwise((channels, *PATTERNS)):
        layers += [parts.Conv2d(seen, patterns, 3, padding=1), parts.ReLU(), parts.MaxPool2d(2)]
    found = PATTERNS[-1] * (height // 4) * (width // 4)
    layers += [parts.Flatten(), parts.Dropout(DROPOUT), parts.Linear(found, 1)]
    return parts.Sequential(*layers)


def make_trainer(shape: tuple[int, ...], seed: int, **where: Any) -> Trainer:
    return Trainer(
        network(shape),
        losses.binary_cross_entropy_with_logits,
        optim.Adam(lr=LEARNING_RATE),
        metrics=[metrics.accuracy],
        seed=seed,
        **where,
    )


def answers(trainer: Trainer, x: np.ndarray) -> np.ndarray:
    """For each picture a number from 0 to 1: sigmoid of its score, 1 / (1 + exp(-score))."""
    return functional.sigmoid(trainer.predict(x))[:, 0]


def loss_of_each(trainer: Trainer, some: Pictures) -> list[float]:
    """How far each answer is from the truth."""
    loss, scores = losses.binary_cross_entropy_with_logits, trainer.predict(some.x)
    return [float(loss(score[None], y[None])) for score, y in zip(scores, some.y, strict=True)]


# What is printed

SHOWN = 8  # of one picture, the numbers of so many rows and columns are shown


def heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def middle(picture: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns in the middle of a picture whose numbers are shown."""
    top, left = ((size - SHOWN) // 2 for size in picture.shape[1:])
    return slice(top, top + SHOWN), slice(left, left + SHOWN)


def channel_names(picture: np.ndarray) -> tuple[str, ...]:
    return ("red", "green", "blue") if len(picture) == 3 else ("brightness",)


def show_data(task: Task) -> None:
    heading("The pictures")
    for name, part in zip(("training", "test"), task[:2], strict=True):
        yes = int(part.y.sum())
        print(f"  {name:<9} {yes:4} {task.yes} (1), {len(part.y) - yes:4} {task.no} (0)")
    channels, height, width = task.train.x.shape[1:]
    print(f"Each is {height} × {width} pixels of {channels} = {task.train.x[0].size} numbers.")


def show_numbers(picture: np.ndarray, truth: str, answer: float) -> None:
    heading("A picture is a matrix of numbers, and becomes one number")
    print(f"The {channel_names(picture)[0]} of the middle of a picture ({truth}), from 0 to 255:")
    for row in np.rint(255 * picture[0][middle(picture)]).astype(int):
        print("   " + "".join(f"{number:5}" for number in row))
    print(f"The untrained network makes of all its {picture.size} numbers the answer {answer:.2f}.")


def show_losses(trainer: Trainer, some: Pictures, task: Task) -> None:
    """The loss of some pictures, and what it is the mean of."""
    print("  truth            answer     loss")
    each = loss_of_each(trainer, some)
    for truth, answer, loss in zip(some.y[:, 0], answers(trainer, some.x), each, strict=True):
        word = task.yes if truth else task.no
        print(f"  {truth:.0f} {word[:12]:<12} {answer:8.2f} {loss:8.3f}")
    print(f"  mean of these {len(each)} {sum(each) / len(each):16.3f}")


def show_scores(scores: dict[str, float], count: int) -> None:
    loss, accuracy = scores["loss"], scores["accuracy"]
    right = round(accuracy * count)
    print(f"All {count} test pictures: loss {loss:.3f}, {right} right, accuracy {accuracy:.3f}")


def show_epochs(history: polynet.History) -> None:
    print("  epoch    loss   test loss   test accuracy")
    rows = zip(history["loss"], history["val_loss"], history["val_accuracy"], strict=True)
    for epoch, (loss, test_loss, accuracy) in enumerate(rows, start=1):
        print(f"  {epoch:5} {loss:7.3f} {test_loss:11.3f} {accuracy:15.3f}")


def show_asked(paths: list[Path], found: np.ndarray, task: Task) -> None:
    for path, answer in zip(paths, found, strict=True):
        print(f"  {answer:.3f}  {task.yes if answer > 0.5 else task.no}: {path}")


# What is drawn


def new_figure(width: float, height: float) -> Any:
    """A figure that needs no display."""
    from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained")


def show_picture(axes: Any, picture: np.ndarray) -> None:
    pixels = picture.transpose(1, 2, 0).squeeze()
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])


def draw_numbers(picture: np.ndarray, truth: str, answer: float) -> Any:
    """A picture beside the numbers of its middle, one matrix for each colour."""
    from matplotlib.patches import Rectangle

    names = channel_names(picture)
    figure = new_figure(4 * (1 + len(names)), 4.6)
    whole, *matrices = figure.subplots(1, 1 + len(names))
    show_picture(whole, picture)
    rows, columns = middle(picture)
    corner = columns.start - 0.5, rows.start - 0.5  # a pixel's middle, not its edge, is its place
    for colour, width in (("white", 3), ("black", 1)):
        whole.add_patch(Rectangle(corner, SHOWN, SHOWN, fill=False, ec=colour, lw=width))
    whole.set_title(f"The picture ({truth})")
    for axes, name, matrix in zip(matrices, names, picture[:, rows, columns], strict=True):
        shades = "Greys_r" if name == "brightness" else f"{name.title()}s_r"
        axes.imshow(matrix, cmap=shades, vmin=-0.1, vmax=1.1)
        for (row, column), number in np.ndenumerate(matrix):
            look = {"color": "black" if number > 0.5 else "white", "ha": "center", "va": "center"}
            axes.text(column, row, f"{255 * number:.0f}", fontsize=10, **look)
        axes.set(xticks=[], yticks=[], title=f"{name} of the square, 0 to 255")
    title = f"All {picture.size} numbers go into the network. Untrained, it answers {answer:.2f}"
    figure.suptitle(title, fontsize=14)
    return figure


def is_right(y: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """An answer above a half means 1."""
    return (answer > 0.5) == (y > 0.5)


def spread_over(rows: np.ndarray, count: int) -> np.ndarray:
    """`count` of the rows, evenly spread; all of them where there are no more."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


def to_draw(y: np.ndarray, answer: np.ndarray, count: int) -> np.ndarray:
    """Which pictures are drawn: three quarters from all, right or wrong, then only mistakes."""
    some = spread_over(np.arange(len(y)), count * 3 // 4)
    mistakes = np.setdiff1d(np.flatnonzero(~is_right(y, answer)), some)
    return np.concatenate([some, spread_over(mistakes, count // 4)])


def draw_answers(task: Task, answer: np.ndarray, accuracy: float) -> Any:
    """Test pictures with the network's numbers; right answers framed green, wrong ones red."""
    x, y = task.test
    figure = new_figure(12, 7)
    chosen = to_draw(y, answer, count=32)
    for axes, i in zip(figure.subplots(4, 8).flat, chosen, strict=False):
        show_picture(axes, x[i])
        colour, mark = ("tab:green", "") if is_right(y[i], answer[i]) else ("tab:red", " ✗")
        axes.set_title(f"{answer[i]:.2f}{mark}", color=colour, fontsize=13, weight="bold", pad=4)
        axes.set_xlabel(task.yes if y[i] else task.no, fontsize=9)
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=3)
    for axes in figure.axes[len(chosen) :]:
        axes.axis("off")
    title = f"Test pictures: 1 means {task.yes}, 0 means {task.no}. Accuracy {accuracy:.3f}"
    figure.suptitle(f"{title}; the last row: mistakes only", fontsize=14)
    return figure


def draw_learning(history: polynet.History, before: dict[str, float]) -> Any:
    """The loss and the accuracy, epoch by epoch."""
    figure = new_figure(11, 4.5)
    left, right = figure.subplots(1, 2)
    epochs, dots = np.arange(len(history["loss"]) + 1), {"marker": "o", "ms": 4}
    left.plot(epochs[1:], history["loss"], color="tab:blue", label="training", **dots)
    for axes, name in ((left, "loss"), (right, "accuracy")):
        measured = [before[name], *history[f"val_{name}"]]
        axes.plot(epochs, measured, color="tab:orange", label="test", **dots)
        axes.set_xlabel("epoch (0: before training)")
        axes.xaxis.get_major_locator().set_params(integer=True)
    right.axhline(0.5, color="0.6", ls="--", lw=1, label="guessing")
    left.set(title="Loss: how far the answers are from the truth", ylim=(0, None))
    right.set(title="Accuracy: the share of right answers", ylim=(0, 1.02))
    left.legend()
    right.legend(loc="lower right")
    return figure


# All of it


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    check_installed()
    backend = polynet.get_backend(options.backend)
    device = options.device or next(iter(backend.devices()))
    print(f"backend {backend.name}, device {device}, seed {options.seed}")

    task = find_task(options.data, options.seed)
    asked = read_asked(options.picture, task.test.x)
    show_data(task)
    scale = scale_of(task.train.x)
    train, test = changing(task.train, scale), ready(task.test, scale)
    trainer = make_trainer(test.x.shape[1:], options.seed, backend=backend, device=device)

    heading("The network")
    print(trainer.net.summary())

    # The parameters are drawn at the first question, and training will start from the same.
    before = trainer.evaluate(*test)
    few = Pictures(*(spread_over(a, 6) for a in test))
    shown = int(np.argmax(task.test.x.std(axis=(1, 2, 3)) * task.test.y))  # of 1, most contrast
    picture, untrained = task.test.x[shown], float(answers(trainer, test.x)[shown])
    show_numbers(picture, task.yes, untrained)
    heading("Before training, the answers are random")
    show_losses(trainer, few, task)
    show_scores(before, len(test.y))

    heading(f"Training: {len(train)} pictures, {options.epochs} times, each time a little changed")
    # The test pictures are watched, not learned from: no choice below depends on them.
    history = trainer.fit(train, epochs=options.epochs, batch_size=BATCH_SIZE, validation_data=test)
    show_epochs(history)

    heading("After training")
    after = trainer.evaluate(*test)
    show_losses(trainer, few, task)
    show_scores(after, len(test.y))
    if asked:
        heading("The pictures asked about")
        show_asked(options.picture, answers(trainer, scale(np.stack(asked))), task)

    pictures = {
        "cat_numbers.png": draw_numbers(picture, task.yes, untrained),
        "cat_answers.png": draw_answers(task, answers(trainer, test.x), after["accuracy"]),
        "cat_learning.png": draw_learning(history, before),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    print()
    for name, figure in pictures.items():
        figure.savefig(options.out / name, dpi=100)
        print(f"Drawn: {options.out / name}")


def find_task(data: str, seed: int) -> Task:
    known = {"pieces": pieces_task, "faces": faces_task}
    return known[data](seed) if data in known else folder_task(Path(data), seed)


def check_installed() -> None:
    """Say early, and all at once, what is missing."""
    packages = {"matplotlib": "matplotlib", "PIL": "Pillow", "skimage": "scikit-image"}
    missing = [name for module, name in packages.items() if find_spec(module) is None]
    if missing:
        raise SystemExit(NOT_INSTALLED.format(missing=" and ".join(missing)))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a network to tell whether there is a cat in a picture."
    )
    add = parser.add_argument
    add(
        "--data",
        default="pieces",
        help="pieces (of scikit-image's photographs; the default), faces, or a folder with two "
        "sub-folders of pictures, one a class: the first by name counts as 1",
    )
    add("--picture", type=Path, nargs="+", default=[], help="files to be asked about at last")
    add("--backend", help="such as numpy, torch, jax; python -m polynet lists them")
    add("--device", help="such as cpu or cuda:0; the backend's first if not given")
    add("--epochs", type=int, default=EPOCHS, help=f"(default {EPOCHS})")
    add("--seed", type=int, default=0, help="of the split, first weights, shuffles (default 0)")
    add("--out", type=Path, default=Path("out"), help="folder for the pictures (default out)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()

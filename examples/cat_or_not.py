"""Is there a cat in the picture? A network answers with a number, from 0 (no cat) to 1 (cat).

A picture is a matrix of numbers, and the network is a function of these numbers. At first its
answers are random. Training goes downhill step by step, and the answers come closer to the truth.
The network is convolutional: small windows slide over the picture, and each looks for one pattern.

    python examples/cat_or_not.py                      # pieces of five photographs
    python examples/cat_or_not.py --data faces         # 100 faces and 100 pictures without a face
    python examples/cat_or_not.py --data my_pictures   # a folder with two sub-folders: the classes
    python examples/cat_or_not.py --data my_pictures --picture mine.jpg   # asks about mine.jpg
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
this example needs packages that are not installed: {missing}. To install them:
  pip install 'polynet-array[examples]'
or, in a checkout of polynet:
  pip install '.[examples]'"""

PATTERNS = (16, 32)  # the number of patterns that the first and second convolution look for
DROPOUT = 0.3  # each step ignores this share of what was found, at random: all of it must help
JITTER = 0.1  # brightness, contrast and saturation change at most by this share
SHIFT = 2  # a picture is moved by at most this many pixels
LEARNING_RATE = 2e-3
BATCH_SIZE = 32
EPOCHS = 40
HELD_OUT = 0.25  # the share of the data that is kept for the test


class Pictures(NamedTuple):
    """Pictures of one size, and for each the truth: whether it shows what we look for."""

    x: np.ndarray  # (count, channels, height, width), numbers from 0 (dark) to 1 (bright)
    y: np.ndarray  # (count,), 1.0 for yes, 0.0 for no


class Task(NamedTuple):
    """Pictures for training, other pictures for the test, and what 1 and 0 mean."""

    train: Pictures
    test: Pictures
    yes: str
    no: str


# Pieces of photographs, with a cat and without

CAT = "chelsea"
OTHERS = ("astronaut", "coffee", "rocket", "motorcycle")

TILE = 60  # a photograph is cut into square tiles; each side of a tile has this many pixels
PIECE = 32  # a piece is a smaller square, somewhere inside its tile
SIDE = 16  # then the piece is reduced to this many pixels a side
PIECES = {"train": 300, "test": 100}  # the number with a cat; the number without is the same


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
    found[CAT] = found[CAT][:, :375]  # the columns on the right show no cat
    return found


def all_places(found: dict[str, np.ndarray], seed: int) -> dict[str, list[Place]]:
    """The places of all pieces: half on the cat, half on the others, equally many on each.

    Pieces next to each other look alike. If some were for training and their neighbours for the
    test, a network could pass the test by remembering. So each tile belongs either to training or
    to the test, with all its pieces.
    """
    together: dict[str, list[Place]] = {part: [] for part in PIECES}
    for name, photograph in found.items():
        keys = [random.key(seed, "photographs", name, use) for use in range(3)]  # tiles, parts
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
    """The piece at `place`, reduced: each of its pixels is the mean of a small square."""
    from skimage.transform import downscale_local_mean

    piece = photograph[place.top : place.top + PIECE, place.left : place.left + PIECE]
    small = downscale_local_mean(piece, (PIECE // SIDE, PIECE // SIDE, 1))
    return (small / 255).astype(np.float32).transpose(2, 0, 1)


def pieces_task(seed: int) -> Task:
    """Pieces of the cat's photograph, which are class 1, and pieces of the others."""
    found, parts = photographs(), []
    for some in all_places(found, seed).values():
        x = np.stack([cut(found[place.photograph], place) for place in some])
        y = np.array([place.photograph == CAT for place in some], dtype=np.float32)
        parts.append(Pictures(x, y))
    return Task(*parts, "cat", "no cat")


# Faces


def faces() -> Pictures:
    """The 200 grey pictures that come with scikit-image: 100 faces, then 100 without a face."""
    from skimage import data

    x = data.lfw_subset().astype(np.float32)[:, None]
    return Pictures(x, np.repeat(np.array([1, 0], dtype=np.float32), 100))


def faces_task(seed: int) -> Task:
    return divided(faces(), seed, "face", "no face")


def divided(pictures: Pictures, seed: int, yes: str, no: str) -> Task:
    """Some pictures for training, the others for the test, both with the same share of classes."""
    train, test = split(*pictures, HELD_OUT, seed=seed, stratify=True)
    return Task(Pictures(*train), Pictures(*test), yes, no)


# Your own pictures

FOLDER_SIDE = 32  # pictures are cropped to a square, and resized to this many pixels a side
FEWEST = 8  # with fewer pictures of a class there is too little to learn and to test


def folder_task(folder: Path, seed: int) -> Task:
    """The pictures in the two sub-folders of `folder`; the first sub-folder by name is class 1."""
    if not folder.is_dir():
        raise SystemExit(
            f"--data {folder}: there is no such folder. Give a folder of pictures, or 'pieces' "
            "or 'faces' for pictures that come with scikit-image"
        )
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(classes) != 2:
        found = ", ".join(p.name for p in classes) or "none"
        raise SystemExit(
            f"--data {folder}: expected two sub-folders, one for each class, such as cat/ and "
            f"other/; found {len(classes)} ({found})"
        )
    yes, no = (read_folder(p) for p in classes)
    x = np.stack(yes + no)
    y = np.repeat(np.array([1, 0], dtype=np.float32), [len(yes), len(no)])
    return divided(Pictures(x, y), seed, *(p.name for p in classes))


def read_folder(folder: Path) -> list[np.ndarray]:
    """Every picture in `folder` that Pillow can read. Other files are skipped, with a message."""
    from PIL import Image

    # Pillow raises these for a file that is no picture, incomplete, too large or not convertible.
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
    """The middle square of a picture, upright, in colour or grey, as numbers from 0 to 1."""
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        upright = ImageOps.exif_transpose(file).convert("RGB" if channels == 3 else "L")
        small = ImageOps.fit(upright, (side, side))
    pixels = np.asarray(small, dtype=np.float32).reshape(side, side, channels)
    return pixels.transpose(2, 0, 1) / 255


def read_asked(paths: list[Path], like: np.ndarray) -> list[np.ndarray]:
    """The pictures in these files, in the shape of those in `like`; exit if one cannot be read."""
    try:
        return [read_picture(path, *like.shape[1:3]) for path in paths]
    except OSError as error:
        raise SystemExit(f"--picture: {error}") from None


# From pictures to the inputs of the network


def scale_of(x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function that scales pictures, so that each colour has mean 0 and standard deviation 1.

    Then one step size suits all colours. The mean and the deviation are those of the training
    pictures alone, because nothing may be known of the test pictures before the test.
    """
    mean = x.mean(axis=(0, 2, 3), keepdims=True)
    spread = np.maximum(x.std(axis=(0, 2, 3), keepdims=True), 1e-3)
    return lambda x: (x - mean) / spread


def changing(pictures: Pictures, scale: Any) -> Source:
    """The training pictures, changed at random each time: mirrored, recoloured, moved.

    A cat in a mirror is still a cat. Since the pictures change each time, the network gains nothing
    by remembering them.
    """
    moved = RandomCrop(pictures.x.shape[2:], padding=SHIFT)
    changes = Compose([RandomHorizontalFlip(), ColorJitter(JITTER, JITTER, JITTER), moved])
    source = arrays(pictures.x, pictures.y[:, None]).augmented(changes)
    return source.map(lambda x, y: (scale(x), y))


def ready(pictures: Pictures, scale: Any) -> Pictures:
    """The pictures scaled, and the truth in the shape of the network's outputs: (count, 1)."""
    return Pictures(scale(pictures.x), pictures.y[:, None])


# The network


def network(shape: tuple[int, ...], parts: Any = nn) -> Any:
    """A function of a picture of this shape that returns one number, a score.

    A convolution computes how strongly each pattern shows in each window of 3 × 3 pixels. ReLU sets
    negative numbers to 0. Pooling keeps the largest of 2 × 2 neighbours. At the end, Linear weighs
    all that was found and adds it up to a score, which may be any number. `answers`, below, turns
    it into a number between 0 and 1.

    `parts` may be `torch.nn`, which uses the same names: then this is the network in PyTorch.
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
    """A number from 0 to 1 for each picture: the sigmoid of its score, 1 / (1 + exp(-score))."""
    return functional.sigmoid(trainer.predict(x))[:, 0]


def loss_of_each(trainer: Trainer, some: Pictures) -> list[float]:
    """For each picture -log(answer) if the truth is 1, and -log(1 - answer) if it is 0."""
    loss, scores = losses.binary_cross_entropy_with_logits, trainer.predict(some.x)
    return [float(loss(score[None], y[None])) for score, y in zip(scores, some.y, strict=True)]


# What is printed

SHOWN = 8  # this many rows and columns of one picture are shown as numbers


def heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def middle(picture: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns in the middle of a picture that are shown as numbers."""
    top, left = ((size - SHOWN) // 2 for size in picture.shape[1:])
    return slice(top, top + SHOWN), slice(left, left + SHOWN)


def channel_names(picture: np.ndarray) -> tuple[str, ...]:
    return ("red", "green", "blue") if len(picture) == 3 else ("brightness",)


def show_data(task: Task) -> None:
    heading("The pictures, with the right answers (1 or 0)")
    for name, part in zip(("training", "test"), task[:2], strict=True):
        yes = int(part.y.sum())
        print(f"  {name:<9} {yes:4} {task.yes} (1), {len(part.y) - yes:4} {task.no} (0)")
    channels, height, width = task.train.x.shape[1:]
    names, count = ", ".join(channel_names(task.train.x[0])), task.train.x[0].size
    print(f"A picture is {height} x {width} pixels x {channels} ({names}) = {count} numbers.")


def show_numbers(picture: np.ndarray, truth: str, answer: float) -> None:
    heading("A picture is a matrix of numbers, and the network turns it into one number")
    print(f"The {channel_names(picture)[0]}, from 0 to 255, in the middle of a picture ({truth}):")
    for row in np.rint(255 * picture[0][middle(picture)]).astype(int):
        print("   " + "".join(f"{number:5}" for number in row))
    print(f"From all {picture.size} numbers the untrained network computes an answer: {answer:.2f}")


def show_losses(trainer: Trainer, some: Pictures, task: Task) -> None:
    """The answers and losses of some pictures, and the mean of these losses."""
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
    print("  epoch   training loss   test loss   test accuracy")
    rows = zip(history["loss"], history["val_loss"], history["val_accuracy"], strict=True)
    for epoch, (loss, test_loss, accuracy) in enumerate(rows, start=1):
        print(f"  {epoch:5} {loss:15.3f} {test_loss:11.3f} {accuracy:15.3f}")


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
    """A picture, and beside it the numbers in its middle: one matrix for each colour."""
    from matplotlib.patches import Rectangle

    names = channel_names(picture)
    figure = new_figure(4 * (1 + len(names)), 4.6)
    whole, *matrices = figure.subplots(1, 1 + len(names))
    show_picture(whole, picture)
    rows, columns = middle(picture)
    corner = columns.start - 0.5, rows.start - 0.5  # whole numbers are the centres of pixels
    for colour, width in (("white", 3), ("black", 1)):
        whole.add_patch(Rectangle(corner, SHOWN, SHOWN, fill=False, ec=colour, lw=width))
    whole.set_title(f"The picture ({truth})")
    for axes, name, matrix in zip(matrices, names, picture[:, rows, columns], strict=True):
        shades = "Greys_r" if name == "brightness" else f"{name.title()}s_r"
        axes.imshow(matrix, cmap=shades, vmin=-0.1, vmax=1.1)
        for (row, column), number in np.ndenumerate(matrix):
            look = {"color": "black" if number > 0.5 else "white", "ha": "center", "va": "center"}
            axes.text(column, row, f"{255 * number:.0f}", fontsize=10, **look)
        axes.set(xticks=[], yticks=[], title=f"{name} in the square, from 0 to 255")
    title = f"From all {picture.size} numbers the untrained network computes {answer:.2f}"
    figure.suptitle(title, fontsize=14)
    return figure


def is_right(y: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Whether each answer is right: above 0.5 it means 1, otherwise 0."""
    return (answer > 0.5) == (y > 0.5)


def spread_over(rows: np.ndarray, count: int) -> np.ndarray:
    """`count` of the rows, evenly spread; all of them if there are no more."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


def to_draw(y: np.ndarray, answer: np.ndarray, count: int) -> np.ndarray:
    """Which pictures are drawn: first three quarters spread over all, then only mistakes."""
    some = spread_over(np.arange(len(y)), count * 3 // 4)
    mistakes = np.setdiff1d(np.flatnonzero(~is_right(y, answer)), some)
    return np.concatenate([some, spread_over(mistakes, count // 4)])


def draw_answers(task: Task, answer: np.ndarray, accuracy: float) -> Any:
    """Test pictures with the network's answers: a green frame if right, a red one if wrong."""
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
    title = f"Above each test picture: the answer (1: {task.yes}, 0: {task.no}). Below: the truth"
    second = f"Accuracy on all test pictures: {accuracy:.3f}. The last row shows only mistakes"
    figure.suptitle(f"{title}\n{second}", fontsize=14)
    return figure


def draw_learning(history: polynet.History, before: dict[str, float]) -> Any:
    """The loss and the accuracy after each epoch."""
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


# The program


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    check_installed()
    backend = polynet.get_backend(options.backend)
    device = options.device or next(iter(backend.devices()))
    print(f"backend {backend.name}, device {device}, seed {options.seed}")

    task = find_task(options.data, options.seed)
    asked = read_asked(options.picture, task.test.x)
    show_data(task)
    if options.data == "pieces":
        print("Each is cut from one of five photographs. Only one of the five shows a cat.")
    scale = scale_of(task.train.x)
    train, test = changing(task.train, scale), ready(task.test, scale)
    trainer = make_trainer(test.x.shape[1:], options.seed, backend=backend, device=device)

    heading("The network")
    print(trainer.net.summary())

    # `evaluate` draws the first parameters at random. Training will start from the same ones.
    before = trainer.evaluate(*test)
    few = Pictures(*(spread_over(a, 6) for a in test))
    # Of the test pictures of class 1, the one with the most contrast is shown as numbers.
    shown = int(np.argmax(task.test.x.std(axis=(1, 2, 3)) * task.test.y))
    picture, untrained = task.test.x[shown], float(answers(trainer, test.x)[shown])
    show_numbers(picture, task.yes, untrained)
    heading("Before training, the answers are random")
    print("The loss is -log(answer) where the truth is 1, and -log(1 - answer) where it is 0.")
    print("It is almost 0 for an answer close to the truth, and 0.693 for the answer 0.5.\n")
    show_losses(trainer, few, task)
    show_scores(before, len(test.y))

    heading(f"Training: each epoch shows the network all {len(train)} pictures, a little changed")
    print("The network does not learn from the test pictures. They only measure its progress.\n")
    # No choice below depends on the test pictures either.
    history = trainer.fit(train, epochs=options.epochs, batch_size=BATCH_SIZE, validation_data=test)
    show_epochs(history)

    heading("After training")
    after = trainer.evaluate(*test)
    show_losses(trainer, few, task)
    show_scores(after, len(test.y))
    if asked:
        heading("Answers about your pictures")
        show_asked(options.picture, answers(trainer, scale(np.stack(asked))), task)

    pictures = {
        "cat_numbers.png": draw_numbers(picture, task.yes, untrained),
        "cat_answers.png": draw_answers(task, answers(trainer, test.x), after["accuracy"]),
        "cat_learning.png": draw_learning(history, before),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    print("\nThe network and its training, as pictures:")
    for name, figure in pictures.items():
        figure.savefig(options.out / name, dpi=100)
        print(f"  {options.out / name}")


def find_task(data: str, seed: int) -> Task:
    known = {"pieces": pieces_task, "faces": faces_task}
    return known[data](seed) if data in known else folder_task(Path(data), seed)


def check_installed() -> None:
    """Exit before any work if packages are missing, and name all of them."""
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
        help="pieces (of photographs; the default), faces, or a folder with two sub-folders of "
        "pictures, one for each class; the first sub-folder by name is class 1",
    )
    add("--picture", type=Path, nargs="+", default=[], help="pictures to ask about at the end")
    add("--backend", help="such as numpy, torch or jax; python -m polynet lists all")
    add("--device", help="such as cpu or cuda:0 (default: the backend's first)")
    add("--epochs", type=int, default=EPOCHS, help=f"passes over the data (default {EPOCHS})")
    add("--seed", type=int, default=0, help="seed of everything that is random (default 0)")
    add("--out", type=Path, default=Path("out"), help="folder for the pictures (default out)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()

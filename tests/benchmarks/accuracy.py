"""Test accuracy of the examples' networks, beside scikit-learn's MLPClassifier.

    python tests/benchmarks/accuracy.py [--out results.md]

Both see the same numbers: the same splits, mirror images and scaling. Both have the same hidden
widths, ReLU, optimizer, learning rate, batch size and epochs, no weight decay and no early end.
The network for pieces and faces also has dropout, which MLPClassifier does not know.
Ends with exit code 1 where polynet's mean is below MLPClassifier's by more than MARGIN, or below
DIGITS for the digits.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# Matrices this small gain nothing from more threads, which have to wait for each other.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
from measure import environment, publish, table
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier

from polynet import Trainer

MARGIN = 0.01
DIGITS = 0.975

Split = tuple[Any, Any]
"""Training samples and test samples, each with its x and y, as the network sees them."""


def example(name: str) -> ModuleType:
    """A program in examples/, as a module."""
    file = Path(__file__).parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cat, digits = example("cat_or_not"), example("digits")


# The splits of one seed


def prepared(train: Any, test: Any) -> Split:
    """As the example prepares them."""
    more = cat.mirrored(train)
    scale = cat.scale_of(more.x)
    return cat.ready(more, scale), cat.ready(test, scale)


def pieces(seed: int) -> Iterator[Split]:
    task = cat.pieces_task(seed)
    yield prepared(task.train, task.test)


def faces(seed: int) -> Iterator[Split]:
    x, y = cat.faces()
    for train, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(x, y):
        yield prepared(cat.Pictures(x[train], y[train]), cat.Pictures(x[test], y[test]))


def ten_classes(seed: int) -> Iterator[Split]:
    yield digits.read_digits(seed)


# Training on one split


def by_polynet(trainer: Trainer, data: Split, program: ModuleType) -> float:
    train, test = data
    trainer.fit(*train, epochs=program.EPOCHS, batch_size=program.BATCH_SIZE, progress=False)
    return trainer.evaluate(*test)["accuracy"]


def by_sklearn(classifier: MLPClassifier, data: Split, program: ModuleType) -> float:
    settings = {"max_iter": program.EPOCHS, "n_iter_no_change": program.EPOCHS}
    classifier.set_params(**settings, batch_size=program.BATCH_SIZE, alpha=0.0)
    (x, y), (test_x, test_y) = ((part.x.reshape(len(part.x), -1), part.y.ravel()) for part in data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs were set: all are run
        classifier.fit(x, y)
    assert classifier.n_iter_ == program.EPOCHS
    return float(classifier.score(test_x, test_y))


def cat_networks(data: Split, seed: int) -> tuple[Trainer, MLPClassifier]:
    rate = cat.LEARNING_RATE
    return (
        cat.make_trainer(data[0].x.shape[1:], seed, backend="numpy"),
        MLPClassifier(cat.WIDTHS, learning_rate_init=rate, random_state=seed),  # Adam, as default
    )


def digit_networks(data: Split, seed: int) -> tuple[Trainer, MLPClassifier]:
    plain = {"solver": "sgd", "momentum": 0.0, "nesterovs_momentum": False}
    step = digits.STEP_SIZE
    return (
        digits.make_trainer(seed, backend="numpy"),
        MLPClassifier((digits.WIDTH,), learning_rate_init=step, random_state=seed, **plain),
    )


TASKS = {
    "pieces of photographs": (pieces, cat, cat_networks, "unseen tiles"),
    "faces": (faces, cat, cat_networks, "5 folds"),
    "digits": (ten_classes, digits, digit_networks, "80/20, stratified"),
}


def accuracies(name: str, seeds: int) -> np.ndarray:
    """polynet's and MLPClassifier's test accuracy for each seed: (seeds, 2)."""
    splits, program, networks, _ = TASKS[name]
    rows = []
    for seed in range(seeds):
        of_splits = []
        for data in splits(seed):
            trainer, classifier = networks(data, seed)
            ours, theirs = by_polynet(trainer, data, program), by_sklearn(classifier, data, program)
            of_splits.append((ours, theirs))
        rows.append(np.mean(of_splits, axis=0))
        print(f"{name}, seed {seed}: {rows[-1][0]:.4f} {rows[-1][1]:.4f}", file=sys.stderr)
    return np.array(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the report to this file")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    start = time.perf_counter()
    rows, kept = [], True
    for name, (_, program, _, splits) in TASKS.items():
        found = accuracies(name, options.seeds)
        ours, theirs = found.mean(axis=0)
        apart = found[:, 0] - found[:, 1]
        kept &= ours >= theirs - MARGIN and (program is cat or ours >= DIGITS)
        both = [f"{column.mean():.4f} ± {statistics.stdev(column):.4f}" for column in found.T]
        error = statistics.stdev(apart) / len(apart) ** 0.5
        rows.append([name, splits, *both, f"{apart.mean():+.4f} ± {error:.4f}"])
    verdict = "kept" if kept else "NOT KEPT"
    header = ["task", "splits", "polynet", "MLPClassifier", "difference"]
    publish(
        "# Test accuracy of the examples' networks\n\n"
        + environment(["polynet-array", "numpy", "scikit-learn", "scikit-image"])
        + f"- mean ± standard deviation over {options.seeds} seeds; difference: mean ± its "
        "standard error, over the same splits\n"
        "- the same inputs, hidden widths, optimizer, learning rate, batches and epochs; polynet's "
        f"network for pieces and faces has dropout {cat.DROPOUT} besides, which MLPClassifier "
        "lacks\n"
        f"- measured in {time.perf_counter() - start:.0f} s, one thread\n\n"
        + table(header, rows)
        + f"\npolynet at least MLPClassifier less {MARGIN}, and at least {DIGITS} for the "
        f"digits: {verdict}.\n",
        options.out,
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())

"""Test accuracy of the examples' networks, beside the same networks in PyTorch.

    python tests/benchmarks/accuracy.py [--out results.md]

Both see the same numbers: the same splits, the same scaling, and the same augmented batches in the
same order. Both have the same layers, dropout, optimizer, learning rate and number of epochs. Each
library draws its first weights and its dropout with its own generator, from the same distributions.
Ends with exit code 1 if polynet's mean is below the aim, or below PyTorch's by more than MARGIN.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# Matrices this small gain nothing from more threads, since the threads wait for each other.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import torch
from measure import environment, publish, table
from sklearn.model_selection import StratifiedKFold
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from polynet import Trainer, metrics
from polynet.data import Source
from polynet.data.source import training_batches

MARGIN = 0.01

Split = tuple[Source, Any]
"""Training samples, augmented anew in every epoch, and test samples with their x and y."""


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
    """The training and test samples, prepared as the example prepares them."""
    scale = cat.scale_of(train.x)
    return cat.changing(train, scale), cat.ready(test, scale)


def pieces(seed: int) -> Iterator[Split]:
    task = cat.pieces_task(seed)
    yield prepared(task.train, task.test)


def faces(seed: int) -> Iterator[Split]:
    x, y = cat.faces()
    for train, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(x, y):
        yield prepared(cat.Pictures(x[train], y[train]), cat.Pictures(x[test], y[test]))


def ten_classes(seed: int) -> Iterator[Split]:
    train, test = digits.read_digits(seed)
    yield digits.changing(train), test


# Training on one split


def by_polynet(trainer: Trainer, data: Split, program: ModuleType) -> float:
    source, test = data
    trainer.fit(source, epochs=program.EPOCHS, batch_size=program.BATCH_SIZE, progress=False)
    return trainer.evaluate(*test)["accuracy"]


def by_pytorch(
    net: Any, optimizer: Any, loss: Any, data: Split, program: ModuleType, seed: int
) -> float:
    source, test = data
    for epoch in range(program.EPOCHS):
        for batch in training_batches(source, program.BATCH_SIZE, seed=seed, epoch=epoch, start=0):
            x, y = map(torch.from_numpy, batch)
            optimizer.zero_grad()
            loss(net(x), y).backward()
            optimizer.step()
    net.eval()
    with torch.no_grad():
        return metrics.accuracy(test.y, net(torch.from_numpy(test.x)).numpy())


def cat_networks(data: Split, seed: int) -> tuple[float, float]:
    shape = data[1].x.shape[1:]
    trainer = cat.make_trainer(shape, seed, backend="numpy")
    net = cat.network(shape, torch.nn)
    adam = torch.optim.Adam(net.parameters(), cat.LEARNING_RATE)
    loss = binary_cross_entropy_with_logits
    return by_polynet(trainer, data, cat), by_pytorch(net, adam, loss, data, cat, seed)


def digit_networks(data: Split, seed: int) -> tuple[float, float]:
    trainer = digits.make_trainer(seed, backend="numpy")
    net = digits.network(torch.nn)
    sgd = torch.optim.SGD(net.parameters(), digits.STEP_SIZE)
    loss = lambda scores, y: cross_entropy(scores, y.long())
    return by_polynet(trainer, data, digits), by_pytorch(net, sgd, loss, data, digits, seed)


TASKS = {
    "pieces of photographs": (pieces, cat_networks, "unseen tiles", 0.94),
    "faces": (faces, cat_networks, "5 folds", 0.97),
    "digits": (ten_classes, digit_networks, "80/20, stratified", 0.99),
}


def accuracies(name: str, seeds: int) -> np.ndarray:
    """polynet's and PyTorch's test accuracy for each seed: (seeds, 2)."""
    splits, networks, _, _ = TASKS[name]
    rows = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        rows.append(np.mean([networks(data, seed) for data in splits(seed)], axis=0))
        print(f"{name}, seed {seed}: {rows[-1][0]:.4f} {rows[-1][1]:.4f}", file=sys.stderr)
    return np.array(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the report to this file")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    rows, kept = [], True
    for name, (_, _, splits, least) in TASKS.items():
        found = accuracies(name, options.seeds)
        ours, theirs = found.mean(axis=0)
        apart = found[:, 0] - found[:, 1]
        kept &= bool(ours >= least and ours >= theirs - MARGIN)
        both = [f"{column.mean():.4f} ± {statistics.stdev(column):.4f}" for column in found.T]
        error = statistics.stdev(apart) / len(apart) ** 0.5
        rows.append([name, splits, *both, f"{apart.mean():+.4f} ± {error:.4f}", f"{least}"])
    verdict = "kept" if kept else "NOT KEPT"
    header = ["task", "splits", "polynet", "PyTorch", "difference", "aim"]
    publish(
        "# Test accuracy of the examples' networks\n\n"
        + environment(["polynet-array", "numpy", "torch", "scikit-learn", "scikit-image"])
        + f"- mean ± standard deviation over {options.seeds} seeds; difference: mean ± its "
        "standard error, over the same splits\n"
        "- the same batches, augmentations, layers, dropout, optimizer, learning rate and epochs; "
        "first weights and dropout drawn by each in its own way\n"
        f"- measured in {time.perf_counter() - start:.0f} s, one thread\n\n"
        + table(header, rows)
        + f"\npolynet at least the aim, and at least PyTorch less {MARGIN}: {verdict}.\n",
        options.out,
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())

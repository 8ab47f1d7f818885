"""Train a small network for a hundred steps, and print the calls of the array library."""

import argparse

import numpy as np

from polynet import Trainer, losses, nn, optim
from polynet_counting import profile

parser = argparse.ArgumentParser("python -m polynet_counting", description=__doc__)
parser.add_argument("--steps", type=int, default=100, help="(default 100)")
parser.add_argument("--batch-size", type=int, default=64, help="(default 64)")
options = parser.parse_args()

rng = np.random.default_rng(0)
labels = rng.integers(10, size=options.batch_size)
points = rng.normal(size=(10, 64))[labels] + rng.normal(size=(len(labels), 64))  # 10 clusters

net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
trainer = Trainer(net, losses.cross_entropy, optim.Adam(lr=1e-3), backend="counting")

print(f"{options.steps} steps of Adam, {len(labels)} samples each, on a network of 64-128-10:\n")
with profile():  # an epoch is one step
    fit = {"epochs": options.steps, "batch_size": len(labels), "progress": False}
    loss = trainer.fit(points, labels, **fit)["loss"]
print(f"\nThe loss went from {loss[0]:.3f} to {loss[-1]:.3f}.")

"""Kill -9 at a random moment of a run, again and again: it ends with the bits of the run unharmed.

    python tests/killed.py [--kills 50] [--backend numpy,strict]

A process trains with dropout, Adam and augmentation on streamed data, and saves the run after
every epoch, and within it by `Checkpoint`'s means. It is killed at a random moment of its life,
import and saving included, and started anew, which takes up what was saved last. So it goes, one
run after the other, until the runs were killed as often as asked; each must end with the file of
the run that nobody killed: the same weights, optimizer state, best weights and history, bit by bit.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy

EPOCHS = 12


def train(path: Path, backend: str) -> None:
    """The whole run, or what is left of it."""
    from polynet import Trainer, data, losses, nn, optim
    from polynet.callbacks import Checkpoint, EarlyStopping

    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 8))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    source = data.arrays(x, y).augmented(lambda x, rng: x + 0.1 * rng.standard_normal(x.shape))
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 2))
    trainer = Trainer(net, losses.cross_entropy, optim.Adam(1e-2), seed=1, backend=backend)
    if path.exists():
        trainer.load(path)
    if trainer.epoch < EPOCHS:
        trainer.fit(
            source,
            epochs=EPOCHS - trainer.epoch,
            batch_size=4,
            accumulate=2,
            validation_split=0.2,
            callbacks=[EarlyStopping(patience=EPOCHS), Checkpoint(path)],
            progress=False,
        )


def process(path: Path, backend: str) -> subprocess.Popen:
    command = [sys.executable, __file__, "--train", str(path), "--backend", backend]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def whole(path: Path, backend: str) -> float:
    """Let a run end; how many seconds it took."""
    start = time.perf_counter()
    assert process(path, backend).wait() == 0
    return time.perf_counter() - start


def same_bits(path: Path, other: Path) -> None:
    one, two = (safetensors.numpy.load_file(p) for p in (path, other))
    assert sorted(one) == sorted(two)
    for name, a in one.items():
        assert a.dtype == two[name].dtype
        assert a.tobytes() == two[name].tobytes(), f"{name} differs"


def kill(backend: str, kills: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """How many runs were killed how often, at what; raises where one ends with other bits."""
    unharmed = folder / "unharmed"
    seconds = whole(unharmed, backend)
    rng = random.Random(seed)
    found = {"kills": 0, "before anything was saved": 0, "while it saved": 0, "runs": 0}
    while found["kills"] < kills:
        path = folder / f"run{found['runs']}"
        while True:
            running = process(path, backend)
            try:
                running.wait(timeout=rng.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
                found["kills"] += 1
                found["before anything was saved"] += not path.exists()
                drafts = list(folder.glob(f".{path.name}.*"))
                found["while it saved"] += bool(drafts)
                for draft in drafts:
                    draft.unlink()
                if found["kills"] >= kills:
                    whole(path, backend)
                    break
            else:
                assert running.returncode == 0
                break
        found["runs"] += 1
        same_bits(path, unharmed)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--backend", default="numpy,strict")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=Path, help="be the process that is killed")
    options = parser.parse_args(arguments)
    if options.train:
        train(options.train, options.backend)
        return
    for backend in options.backend.split(","):
        with tempfile.TemporaryDirectory() as folder:
            found = kill(backend, options.kills, Path(folder), options.seed)
        print(f"{backend}: {found}; every run ended with the same bits", flush=True)


if __name__ == "__main__":
    main()

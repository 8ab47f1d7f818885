"""Kill -9 at a random moment of a run, again and again: it ends with the bits of the run unharmed.

    python tests/killed.py [--kills 50] [--backend numpy,strict]

A process trains with dropout, Adam and augmentation on streamed data, and saves the run after
every epoch. It is killed at a random moment, import and saving included, or sometimes stopped by
Ctrl-C, upon which it saves where it is within the epoch. Then it is started anew, and takes up
what was saved last. So it goes, one run after the other, until they were killed as often as
asked; each must end with the weights, optimizer state, best weights and history of the run that
nobody disturbed, bit by bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

EPOCHS = {"numpy": 40, "strict": 10}
"""Of a run on each backend; array-api-strict takes four times as long for one."""
STOPPED = 3
"""How a process ends that Ctrl-C stopped."""


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
    trainer.predict(x)  # so that there are parameters to save
    epochs = EPOCHS[backend]
    if trainer.epoch < epochs:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                trainer.fit(
                    source,
                    epochs=epochs - trainer.epoch,
                    batch_size=4,
                    accumulate=2,
                    validation_split=0.2,
                    callbacks=[EarlyStopping(patience=epochs), Checkpoint(path)],
                    progress=False,
                )
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:
            trainer.save(path)
            sys.exit(STOPPED)


def process(path: Path, backend: str) -> subprocess.Popen:
    """A process that trains. Ctrl-C means something to it within `fit` alone."""
    command = [sys.executable, __file__, "--train", str(path), "--backend", backend]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a new process inherits
    try:
        return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    finally:
        signal.signal(signal.SIGINT, before)


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


def within_an_epoch(path: Path) -> bool:
    """Whether the run in this file was saved in the midst of an epoch."""
    with safetensors.safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["polynet.run"])["position"]["batches"] > 0


def kill(backend: str, kills: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """How many runs were killed how often, at what; raises where one ends with other bits."""
    unharmed = folder / "unharmed"
    seconds = whole(unharmed, backend)
    rng = random.Random(seed)
    found = {"runs": 0, "kills": 0, "of them before the first save": 0, "of them in a save": 0}
    found["stopped within an epoch"] = 0
    path = folder / "run"
    while True:
        last = found["kills"] >= kills
        running = process(path, backend)
        try:
            running.wait(timeout=None if last else rng.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            if rng.random() < 0.25:
                running.send_signal(signal.SIGINT)
            else:
                running.kill()
        code = running.wait()
        if code == -signal.SIGKILL:
            found["kills"] += 1
            found["of them before the first save"] += not path.exists()
            for draft in folder.glob(".polynet-*"):
                found["of them in a save"] += 1
                draft.unlink()
        elif code == STOPPED:
            found["stopped within an epoch"] += within_an_epoch(path)
        else:
            assert code == 0
            same_bits(path, unharmed)
            found["runs"] += 1
            path.unlink()
            if last:
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

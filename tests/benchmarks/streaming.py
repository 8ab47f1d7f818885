"""What streaming costs: for data larger than memory, and for data that must be decoded.

    python tests/benchmarks/streaming.py [--gigabytes 4] [--out results.md]

(a) A network trains for an epoch on a memory-mapped data set of 4 GB (a sparse file), in a new
process. The anonymous memory of that process (the highest RssAnon of /proc/self/status, read every
10 ms) must stay under 500 MB.

(b) A source decodes its batches, which takes less time than the steps do. A thread decodes ahead,
so an epoch should take hardly longer than its steps alone. The part of the decoding that is hidden
is 1 - (both - step) / decoding: `step` is the time of an epoch with batches that are ready,
`decoding` the time to decode all batches, and `both` the time of an epoch that decodes. zlib
decompresses the pictures, as for a PNG; it releases Python's lock, as do Pillow, NumPy and reading
from files. All times are medians of interleaved repeats.

Ends with exit code 1 if a limit is not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
from measure import environment, publish, table

from polynet import Trainer, data, losses, nn, optim

LIMIT_MB = 500
LEAST_HIDDEN = 0.8
FEATURES = 1024
BATCH = 256


# (a) memory


def sparse(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """A .npy file of zeros that takes no space on the disk."""
    np.lib.format.open_memmap(path, "w+", dtype, shape).flush()


def anonymous() -> float:
    """The anonymous memory of this process, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("RssAnon"))
    return int(kilobytes) / 1e3


def highest(work: Callable[[], object]) -> float:
    """The highest anonymous memory, in MB, while `work` runs."""
    peak, ended = [anonymous()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            peak.append(anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        ended.set()
        watcher.join()
    return max(peak)


def train_mapped(folder: Path) -> None:
    """The work of the new process: train, and print what was measured."""
    net = nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, 10))
    trainer = Trainer(net, losses.cross_entropy, optim.Adam(), backend="numpy")
    source = data.memory_mapped(folder / "x.npy", folder / "y.npy")
    start = time.perf_counter()
    peak = highest(lambda: trainer.fit(source, batch_size=BATCH, progress=False))
    found = {
        "peak": peak,
        "seconds": time.perf_counter() - start,
        "steps": len(trainer.history.step_losses),
    }
    print(json.dumps(found))


def memory(gigabytes: float) -> dict[str, float]:
    count = int(gigabytes * 1e9 / (4 * FEATURES))
    with tempfile.TemporaryDirectory() as folder:
        sparse(Path(folder, "x.npy"), (count, FEATURES), "float32")
        sparse(Path(folder, "y.npy"), (count,), "int64")
        size = Path(folder, "x.npy").stat().st_size
        command = [sys.executable, __file__, "--mapped", folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert size >= gigabytes * 0.999e9
    assert found["steps"] == -(-count // BATCH)
    return {**found, "gigabytes": size / 1e9, "samples": count}


# (b) time


class Compressed(data.Source):
    """Pictures that are decompressed anew for every batch."""

    def __init__(self, count: int, side: int) -> None:
        rng = np.random.default_rng(0)
        smooth = np.cumsum(rng.integers(-3, 4, size=(count, 3, side, side)), axis=-1)
        self.shape = (3, side, side)
        self.files = [zlib.compress((128 + p).astype(np.uint8).tobytes(), 6) for p in smooth]
        self.labels = np.arange(count) % 10

    def __len__(self) -> int:
        return len(self.files)

    def picture(self, i: int) -> np.ndarray:
        return np.frombuffer(zlib.decompress(self.files[i]), np.uint8).reshape(self.shape)

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pictures = np.stack([self.picture(int(i)) for i in rows])
        return pictures.astype(np.float32) / 255, self.labels[rows]


def times(count: int, side: int, hidden: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of an epoch: of its steps alone, of decoding alone, and of both; taken in turn."""
    source = Compressed(count, side)
    x, y = source.batch(np.arange(count))
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(3 * side * side, hidden), nn.ReLU(), nn.Linear(hidden, 10)
    )

    def epochs() -> Trainer:
        trainer = Trainer(net, losses.cross_entropy, optim.SGD(0.01), backend="numpy")
        trainer.fit(x[:64], y[:64], batch_size=64, progress=False)
        return trainer

    ready, decoded = epochs(), epochs()
    order = list(data.batches(count, 64, seed=0, epoch=1))
    work: dict[str, Callable[[], object]] = {
        "step": lambda: ready.fit(data.arrays(x, y), batch_size=64, progress=False),
        "decoding": lambda: [source.batch(rows) for rows in order],
        "both": lambda: decoded.fit(source, batch_size=64, progress=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(repeats + 1):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the report to this file")
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--count", type=int, default=2048, help="pictures of an epoch")
    parser.add_argument("--mapped", type=Path, help="be the process of (a)")
    options = parser.parse_args()
    if options.mapped:
        train_mapped(options.mapped)
        return 0
    held = memory(options.gigabytes)
    seconds = times(options.count, side=48, hidden=256, repeats=options.repeats)
    step, decoding, both = (statistics.median(seconds[n]) for n in ("step", "decoding", "both"))
    hidden = 1 - (both - step) / decoding
    kept = held["peak"] < LIMIT_MB, hidden >= LEAST_HIDDEN
    verdict = ["kept" if k else "NOT KEPT" for k in kept]
    cheaper = "is cheaper than" if decoding < step else "costs MORE than"
    publish(
        "# Streaming: memory and time\n\n"
        + environment(["polynet-array", "numpy"])
        + f"- medians of {options.repeats} interleaved repeats\n\n"
        + table(
            ["memory-mapped", "samples", "steps", "seconds", "anonymous memory at most"],
            [[
                f"{held['gigabytes']:.2f} GB",
                f"{held['samples']:,}",
                f"{held['steps']:,}",
                f"{held['seconds']:.0f}",
                f"{held['peak']:.0f} MB",
            ]],
        )
        + f"\nUnder {LIMIT_MB} MB: {verdict[0]}.\n\n"
        + table(
            ["an epoch", "ms"],
            [[name, f"{1e3 * s:.0f}"] for name, s in
             (("step", step), ("decoding", decoding), ("both", both))],
        )
        + f"\nDecoding {cheaper} the step. Hidden: {hidden:.0%}; at least {LEAST_HIDDEN:.0%}: "
        f"{verdict[1]}.\n",
        options.out,
    )  # fmt: skip
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
